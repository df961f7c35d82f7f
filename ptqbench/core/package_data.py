"""Where the files that ship with ptqbench lie."""

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
"""The models that trained weights ship for, in the order of reports."""


def fixtures_dir() -> Path:
    """The folder of trained weights, manifest and committed references.

    In an installed wheel it lies inside the package, in a checkout beside it.
    """
    packaged = _PACKAGE / "fixtures"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "fixtures"
