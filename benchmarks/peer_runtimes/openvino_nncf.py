"""A network in OpenVINO: converted from torch, quantized by NNCF, executed on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ptqbench.backends.backend import Model

Setting = Literal["default", "mixed", "histogram"]
"""NNCF's defaults; weights in half the range and asymmetric activations; that and histograms."""
SETTINGS: tuple[Setting, ...] = get_args(Setting)


def _openvino() -> ModuleType:
    # Both packages report their use unless this one is missing; then they say nothing.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino


def export(model: nn.Module, example: Tensor, path: Path, *, any_size: bool) -> None:
    """Write the float32 network.

    Args:
        model: Float32, in evaluation mode.
        example: Input ``1×C×H×W`` float32.
        path: The file, ``.xml``; the weights are beside it.
        any_size: Whether images of other sizes have to run as well.
    """
    openvino = _openvino()
    shape = [*example.shape[:2], -1, -1] if any_size else list(example.shape)
    with torch.inference_mode():
        converted = openvino.convert_model(model, example_input=example, input=shape)
    _save(converted, path)


def quantize(source: Path, images: Iterable[Tensor], count: int, path: Path, how: Setting) -> None:
    """Quantize with NNCF.

    Args:
        source: The float32 file.
        images: Calibration images, each ``1×C×H×W`` float32; read more than once.
        count: Their number.
        path: The int8 file, ``.xml``.
        how: The setting.
    """
    openvino = _openvino()
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    advanced = nncf.AdvancedQuantizationParameters()
    if how != "default":
        advanced.overflow_fix = nncf.OverflowFix.ENABLE
    if how == "histogram":
        advanced.activations_range_estimator_params = RangeEstimatorParametersSet.HISTOGRAM
    quantized = nncf.quantize(
        openvino.Core().read_model(source),
        nncf.Dataset(images, lambda image: image.numpy()),
        subset_size=count,
        preset=None if how == "default" else nncf.QuantizationPreset.MIXED,
        advanced_parameters=advanced,
    )
    _save(quantized, path)


def _save(model: Any, path: Path) -> None:
    """Write a model's two files; the one that is looked for appears last, and whole."""
    partial = path.with_name(f"partial-{path.name}")
    _openvino().save_model(model, partial, compress_to_fp16=False)
    for suffix in (".bin", ".xml"):
        partial.with_suffix(suffix).replace(path.with_suffix(suffix))


def load(path: Path, threads: int, shape: tuple[int, ...]) -> Model:
    """Load a file that `export` or `quantize` wrote.

    Args:
        path: The file.
        threads: Threads of a call.
        shape: Of the images that will be passed, ``1×C×H×W``.

    Returns:
        A function from an image to its logits.
    """
    core = _openvino().Core()
    model = core.read_model(path)
    model.reshape(list(shape))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        # Else float32 runs in bfloat16 where the CPU can.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()

    def run(images: Tensor) -> Tensor:
        request.infer([images.numpy()], share_inputs=True)
        return torch.from_numpy(request.get_output_tensor().data.copy())

    return run
