"""Exports to ONNX: one suffices where no size of an image is written into the graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.small_artifacts import noise, settle
from torch import nn

from ptqbench.core.phases import Phases
from ptqbench.quantization.build import simulate_model
from ptqbench.recipes import Recipe
from ptqbench.settings.thresholds import Thresholds

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
from ptqbench.backends.onnx_format import onnx_export
from ptqbench.backends.onnxruntime.ort_backend import ONNX_RUNTIME
from ptqbench.backends.onnxruntime.ort_build import reader

RECIPE = Recipe("small", "onnxruntime", None, None, Thresholds(), observer="minmax")


def test_a_rounding_in_front_of_the_classifier_leaves_sizes_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Roundings are moved in front of what flattens a map; its number of images was fixed then.
    dimensions: list[object] = []
    export = onnx_export._exported

    def counted(module: Any, images: Any, open_dimensions: Any) -> Any:
        dimensions.append(open_dimensions)
        return export(module, images, open_dimensions)

    monkeypatch.setattr(onnx_export, "_exported", counted)
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    model = settle(nn.Sequential(*layers), noise())
    quantized = simulate_model(model, RECIPE, [noise()], pairing=None, phases=Phases())
    module = quantized.simulation.module
    execute = reader(ONNX_RUNTIME).execute
    exported = onnx_export.export(module, quantized.example, execute)
    assert dimensions == [()]
    images = torch.randn(5, 3, 24, 40, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        torch.testing.assert_close(execute(exported, [images])[0], module(images))
