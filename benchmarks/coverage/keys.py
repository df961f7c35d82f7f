"""What a stored result belongs to: if this is what it was, it need not be measured again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from benchmarks.blocks import ROOT
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.core.package_data import SHIPPED
from ptqbench.recipes import Recipe
from ptqbench.settings.thresholds import Thresholds

EAGER = "eager"
"""Name of the case that is carried out in eager mode; the others are named by backend."""

VERSION = 1
"""Of what a child writes and how much it measures; counts in every key."""

_MEASURING = ("backends", "data", "measurement", "models", "probe", "quantization")
"""Parts of the package that the numbers come from."""


def weights_of(model: str) -> str:
    """Trained weights where they ship, else computed ones."""
    return "fixture" if model in SHIPPED else "probe"


def open_recipe(recipe: Recipe) -> Recipe:
    """A recipe without what is known from measuring: groups, counts, reasons, thresholds.

    A group or count that was written by hand stays.
    """
    derived = recipe.fusion is None
    return replace(
        recipe,
        backend="",
        thresholds=Thresholds(),
        int8_modules=None if derived else recipe.int8_modules,
        fused_groups=None,
        probe={},
        unsupported={},
    )


def method(recipe: Recipe, backend: str | None = None, instructions: str | None = None) -> str:
    """Hash of how a recipe quantizes, whatever its gates ask for.

    Args:
        recipe: With all that it asks for.
        backend: What it is carried out on; None: on all. Which side gives up a bit counts only
            where one has to.
        instructions: Instruction set there; None: that of this CPU.
    """
    opened = open_recipe(recipe)
    if backend is not None and not BACKENDS.get(backend).saturates(instructions):
        opened = replace(opened, spare_bit="none")
    return opened.hash


def eager(recipe: Recipe) -> Recipe:
    """The same recipe carried out in eager mode; groups are found in the quantizable variant."""
    if recipe.flow == "eager":
        return recipe
    derived = recipe.fusion is None
    return replace(
        recipe,
        flow="eager",
        int8_modules=None if derived else recipe.int8_modules,
        fused_groups=None,
    )


def code_hash(root: Path = ROOT / "ptqbench") -> str:
    """Hash of the code that the numbers come from."""
    digest = hashlib.sha256()
    for part in _MEASURING:
        for path in sorted((root / part).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def key(recipe: Recipe, weights: str, code: str, cpu: str) -> str:
    """Twelve digits that change when a result would.

    Args:
        recipe: How the model is quantized; its thresholds do not count.
        weights: Name of their source; what they are follows from the code, or from the file.
        code: :func:`code_hash`.
        cpu: How the CPU is restricted.
    """
    content = [VERSION, method(recipe), weights, code, cpu]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
