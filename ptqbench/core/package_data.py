"""Locate the files that ship with ptqbench."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]

SHIPPED = (
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
    "efficientnet_b0",
)
"""The models with shipped trained weights, in the order of reports."""


def fixtures_dir() -> Path:
    """Return the folder of trained weights, manifest and committed references.

    In an installed wheel it is inside the package, in a checkout next to it.
    """
    packaged = _PACKAGE / "fixtures"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "fixtures"
