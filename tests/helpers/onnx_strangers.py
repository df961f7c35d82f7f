"""ONNX files as their tools' documentation makes them, by people who never heard of ptqbench."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

INPUT = "input"


def exported(
    model: nn.Module,
    path: Path,
    example: Tensor,
    *,
    dynamo: bool = True,
    open_batch: bool = True,
    fold: bool = True,
) -> Path:
    """Export a float32 model with torch alone, in one file.

    Args:
        model: Evaluation mode.
        path: The file.
        example: Two images.
        dynamo: Whether the exporter is the new one.
        open_batch: Whether the file takes any number of images; else one.
        fold: Whether BatchNorms are folded into convolutions; only the old exporter can leave them.
    """
    images = example if open_batch else example[:1]
    options: dict[str, Any] = {"dynamo": True, "external_data": False, "verbose": False}
    if dynamo and open_batch:
        options["dynamic_shapes"] = ({0: torch.export.Dim.DYNAMIC},)
    if not dynamo:
        options = {"dynamo": False, "opset_version": 17, "do_constant_folding": fold}
        options["training"] = (
            torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
        )
        if open_batch:
            options["dynamic_axes"] = {INPUT: {0: "batch"}}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), (images,), path, input_names=[INPUT], **options)
    return path


def quantized(
    source: Path, images: Tensor, path: Path, *, form: str = "QDQ", **options: Any
) -> Path:
    """Quantize a float32 file with ONNX Runtime's own quantizer.

    Args:
        source: The float32 file.
        images: Calibration images ``N×C×H×W``.
        path: The int8 file.
        form: ``QDQ`` or ``QOperator``.
        options: Of ``quantize_static``.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        """Feeds the images one by one."""

        def __init__(self) -> None:
            self._images: Iterator[Tensor] = iter(images.split(1))

        def get_next(self) -> dict[str, object] | None:
            image = next(self._images, None)
            return None if image is None else {INPUT: image.numpy()}

    prepared = path.with_suffix(".prepared.onnx")
    logging.disable(logging.WARNING)
    try:
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(prepared, path, Reader(), quant_format=QuantFormat[form], **options)
    finally:
        logging.disable(logging.NOTSET)
        prepared.unlink(missing_ok=True)
    return path
