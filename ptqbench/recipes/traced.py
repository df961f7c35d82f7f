"""Recipes of the architectures whose fusion groups are found by tracing: one table.

A row says what every member shares; counts of groups and layers, the recommended backend and
thresholds are measurements and come from ``measured.json``. To add an architecture, add its name
to a row or write a new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ptqbench.recipes.measured import measurements_of
from ptqbench.recipes.recipe import Recipe
from ptqbench.settings.thresholds import Thresholds

DEFAULT_BACKEND = "x86"
"""Backend of a model that has not been measured: torch's own default on x86 CPUs."""

_REGNET_SIZES = ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")


@dataclass(frozen=True)
class Row:
    """Architectures that are quantized alike.

    Attributes:
        models: Names of the architectures, in the order of reports.
        size_ratio: Size threshold of members that have not been measured.
        keep_float: Modules and functions that stay float32; wildcards allowed.
    """

    models: tuple[str, ...]
    size_ratio: float = 3.0
    keep_float: tuple[str, ...] = ()


ROWS = (
    # No BatchNorm, and large linear layers that hold most of the weights.
    Row(("alexnet",), 3.8),
    Row(tuple(f"vgg{d}{norm}" for d in (11, 13, 16, 19) for norm in ("", "_bn")), 3.8),
    Row(
        (
            *("resnet34", "resnet50", "resnet101", "resnet152"),
            *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
            *("wide_resnet50_2", "wide_resnet101_2"),
        ),
        3.7,
    ),
    Row(("squeezenet1_0",), 3.4),
    # BatchNorm and ReLU come before the convolution. The first BatchNorm of a layer follows a
    # concatenation: it cannot be folded into a convolution and becomes an int8 operator with its
    # ReLU.
    Row(tuple(f"densenet{depth}" for depth in (121, 161, 169, 201))),
    # Branches of convolution, BatchNorm and a functional ReLU, concatenated.
    Row(("googlenet", "inception_v3"), 3.6),
    Row(tuple(f"shufflenet_v2_{width}" for width in ("x0_5", "x1_5", "x2_0"))),
    Row(("mobilenet_v3_small",), 3.2),
    Row(tuple(f"mnasnet{width}" for width in ("0_5", "0_75", "1_0", "1_3"))),
    Row(tuple(f"efficientnet_b{size}" for size in range(1, 8))),
    Row(tuple(f"efficientnet_v2_{size}" for size in "sml")),
    # Grouped convolutions; the Y models have squeeze-excitation.
    Row(tuple(f"regnet_x_{size}" for size in _REGNET_SIZES), 3.4),
    Row(tuple(f"regnet_y_{size}" for size in (*_REGNET_SIZES, "128gf")), 3.4),
    # LayerNorm, GELU and LayerScale stay float32, and so does the residual stream: LayerScale
    # begins at 1e-6, qnnpack refuses sums of values that far apart (``scale ratio must be in
    # [2**-14, 2**8) range``), and in int8 the smaller one is lost anywhere.
    Row(tuple(f"convnext_{size}" for size in ("tiny", "small", "base", "large")), 3.6, ("<add>",)),
    # Attention is one operator of torch without an int8 kernel; its projections, a third of the
    # weights, stay float32 with it.
    Row(
        tuple(f"vit_{size}" for size in ("b_16", "b_32", "l_16", "l_32", "h_14")),
        1.9,
        ("*.self_attention", "<add>", "<cat>"),
    ),
    # Windowed attention and its two projections are one function to torch.fx.
    Row(
        tuple(f"swin_{version}{size}" for version in ("", "v2_") for size in "tsb"),
        1.8,
        ("*.attn", "<add>"),
    ),
    # MBConv in int8, attention over windows and grids in float32.
    Row(("maxvit_t",), 2.0, ("<add>",)),
)


def traced_recipes() -> Iterator[Recipe]:
    """Build the recipes of the table, in its order."""
    for row in ROWS:
        for model in row.models:
            yield traced_recipe(model, row)


def traced_recipe(model: str, row: Row) -> Recipe:
    """Build the recipe of a member of a row from what was measured of it."""
    record = measurements_of(model)
    return Recipe(
        model=model,
        backend=record.backend or DEFAULT_BACKEND,
        fusion=None,
        int8_modules=record.int8_modules,
        thresholds=Thresholds(
            size_ratio=record.size_ratio or row.size_ratio, speedup=record.speedup
        ),
        keep_float=row.keep_float,
        fused_groups=record.fused_groups,
        probe=record.probe,
        unsupported=record.unsupported,
    )
