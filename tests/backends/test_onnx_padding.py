"""Zero padding in front of convolutions becomes theirs, where that computes the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.small_artifacts import judge, settle
from helpers.tiny_networks import decibels
from torch import Tensor, nn
from torch.nn import functional as F

onnx = pytest.importorskip("onnx", reason="onnx is not installed (ptqbench[onnx])")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (ptqbench[onnx])")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (ptqbench[onnx])")

from ptqbench.backends.onnxruntime.ort_backend import ONNX_RUNTIME  # noqa: E402
from ptqbench.backends.traced_model import read_float_graph  # noqa: E402
from ptqbench.gates.verdict import Verdict  # noqa: E402
from ptqbench.measurement.saturation import measure_saturation  # noqa: E402
from ptqbench.quantization.canonical import canonical_model  # noqa: E402
from ptqbench.quantization.completion import complete_recipe  # noqa: E402
from ptqbench.recipes import Recipe  # noqa: E402
from ptqbench.settings.thresholds import Thresholds  # noqa: E402

RECIPE = Recipe("padded", "onnxruntime", None, None, Thresholds(), observer="minmax")


class Padded(nn.Module):
    """Convolutions behind padding of every kind.

    Args:
        kind: ``uneven``, ``shared`` by a sum, of ``ones``, or ``reflect``.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU())
        self.conv = nn.Conv2d(8, 8, 3, 2, padding=(1, 0), groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        value = 1.0 if self.kind == "ones" else 0.0
        mode = "reflect" if self.kind == "reflect" else "constant"
        y = (
            F.pad(x, (0, 1, 0, 2), mode)
            if mode == "reflect"
            else F.pad(x, (0, 1, 0, 2), mode, value)
        )
        z = self.norm(self.conv(y))
        if self.kind == "shared":
            z = z + y[:, :, : z.shape[2], : z.shape[3]]
        return self.head(z.mean((2, 3)))


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return settle(Padded(kind), images())


def images() -> Tensor:
    return torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("kind", "left"), [("uneven", 0), ("shared", 1), ("ones", 1), ("reflect", 1)]
)
def test_only_zeros_that_nothing_else_reads_are_merged(
    kind: str, left: int, tmp_path: Path
) -> None:
    model = network(kind)
    artifact = ONNX_RUNTIME.build_float(model, "padded", images()[:1], tmp_path / "f.onnx")
    kinds = [node.op_type for node in onnx.load(artifact.path).graph.node]
    assert kinds.count("Pad") == left
    for inputs in (images(), torch.randn(2, 3, 24, 20)):
        with torch.inference_mode():
            torch.testing.assert_close(artifact.load()(inputs), model(inputs))


@pytest.mark.usefixtures("torch_settings")
def test_int8_convolutions_with_uneven_padding_are_exact(tmp_path: Path) -> None:
    model = network("uneven")
    canonical = canonical_model(model, images()[:4])
    recipe = complete_recipe(replace(RECIPE), canonical, images()[:1], original=model)
    artifact = ONNX_RUNTIME.build(canonical, recipe, [images()], tmp_path / "i.onnx")
    kernels = [operator.kernel for operator in ONNX_RUNTIME.layers(artifact.path).operators]
    assert "Pad" not in kernels
    assert kernels.count("QuantizeLinear") == 1
    reference = read_float_graph(canonical, images()[:1])
    saturation = measure_saturation(artifact.path, ONNX_RUNTIME, reference, images()[:2])
    assert saturation.outputs > 0
    assert judge("saturation", saturation=saturation).verdict is Verdict.PASS
    with torch.inference_mode():
        assert decibels(model(images()), artifact.load()(images())) > 20
