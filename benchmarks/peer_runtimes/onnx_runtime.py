"""A network in ONNX Runtime: exported by torch, quantized statically to QDQ, run on the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ptqbench.backends.backend import Model
from ptqbench.core.atomic import atomic_path

INPUT = "images"


def export(model: nn.Module, example: Tensor, path: Path, *, any_size: bool) -> None:
    """Write the float32 network.

    Args:
        model: Float32, in evaluation mode.
        example: Input ``1×C×H×W`` float32.
        path: The file, ``.onnx``.
        any_size: Whether images of other sizes have to run as well.
    """
    sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with atomic_path(path) as temporary:
        torch.onnx.export(
            model,
            (example,),
            temporary,
            input_names=[INPUT],
            dynamic_shapes=(sizes,) if any_size else None,
            dynamo=True,
            external_data=False,  # else the weights lie in a second file
            verbose=False,
        )


def quantize(source: Path, images: Iterable[Tensor], path: Path, *, reduce_range: bool) -> None:
    """Quantize as ONNX Runtime documents it for x86: u8 activations, s8 weights per channel.

    Args:
        source: The float32 file.
        images: Calibration images, each ``1×C×H×W`` float32; their extremes are the ranges.
        path: The int8 file, ``.onnx``.
        reduce_range: Whether weights have 7 bits, so that AVX2's kernels cannot saturate.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        """Feeds the calibration images one by one."""

        def __init__(self) -> None:
            self._images: Iterator[Tensor] = iter(images)

        def get_next(self) -> dict[str, object] | None:
            image = next(self._images, None)
            return None if image is None else {INPUT: image.numpy()}

    prepared = path.with_suffix(".prepared.onnx")
    try:
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        with atomic_path(path) as temporary:
            quantize_static(
                prepared,
                temporary,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    finally:
        prepared.unlink(missing_ok=True)


def load(path: Path, threads: int, shape: tuple[int, ...], *, exact: bool = False) -> Model:
    """Load a file that `export` or `quantize` wrote.

    Args:
        path: The file.
        threads: Threads of a call; they sleep between calls.
        shape: Of the images that will be passed, ``1×C×H×W``.
        exact: Whether CPUs without VNNI execute 8-bit weights by kernels that cannot saturate.

    Returns:
        A function from an image to its logits.
    """
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin after a call take time from whatever is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    for name, size in zip(_dimensions(path), shape, strict=True):
        if isinstance(name, str):
            options.add_free_dimension_override_by_name(name, size)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {INPUT: images.numpy()})[0])

    return run


def _dimensions(path: Path) -> list[Any]:
    """Return the dimensions of a file's input: a number, or the name of one that is open."""
    import onnx

    (images,) = onnx.load(path).graph.input
    return [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
