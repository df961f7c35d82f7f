"""What the recipes of a family share: groups found in the graph, counts and thresholds measured."""

from __future__ import annotations

from collections.abc import Mapping

from ptqbench.recipes.measured import measured
from ptqbench.recipes.recipe import Flow, Recipe, Thresholds

UNMEASURED = "x86"
"""Backend of a model that was not measured yet: torch's own default on x86 CPUs."""


def traced(
    model: str,
    *,
    size_ratio: float = 3.0,
    keep_float: tuple[str, ...] = (),
    flow: Flow = "fx",
    unsupported: Mapping[str, str] | None = None,
) -> Recipe:
    """A recipe whose fusion groups are found in the model's graph.

    How many groups and int8 layers there must be, and what was measured, come from
    ``measured.json``.

    Args:
        model: Name of the architecture.
        size_ratio: What the int8 file must keep to where nothing was measured.
        keep_float: What stays float32, wildcards allowed.
        flow: ``fx`` or ``eager``.
        unsupported: Reasons known beside the measured ones, by backend.
    """
    found = measured(model)
    return Recipe(
        model=model,
        backend=found.backend or UNMEASURED,
        fusion=None,
        int8_modules=found.int8_modules,
        thresholds=Thresholds(size_ratio=found.size_ratio or size_ratio, speedup=found.speedup),
        flow=flow,
        keep_float=keep_float,
        fused_groups=found.fused_groups,
        probe=found.probe,
        unsupported={**(unsupported or {}), **found.unsupported},
    )
