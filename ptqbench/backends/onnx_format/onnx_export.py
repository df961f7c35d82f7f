"""Export a module to ONNX, for images of any number and, where the model allows it, any size.

`torch.onnx.export` with symbolic sizes takes several times as long as with fixed ones. So a model
is exported at a fixed size, the sizes in its file are opened, and the file is executed at other
sizes; only if it then computes something else, it is exported with symbolic sizes.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from ptqbench.backends.onnx_format import onnx_graph
from ptqbench.backends.onnx_format.linear_layers import products_to_gemm
from ptqbench.backends.onnx_format.moves import round_before_moves
from ptqbench.backends.onnx_format.onnx_graph import INPUT, OUTPUT
from ptqbench.backends.onnx_format.padding import merge_padding, write_out_wrapping

if TYPE_CHECKING:
    import onnx

Execute: TypeAlias = "Callable[[onnx.ModelProto, list[Tensor]], list[Tensor]]"
"""Runs a model literally, operator by operator, on several inputs: images ``N×C×H×W`` float32 to
logits ``N×K``."""

_OPSET = 20
_BATCH = 2
"""Images in the example of an export: torch takes a batch of one for a constant."""
_LARGER = 32
"""Pixels by which the images are larger that show whether a model takes other sizes."""
_TOLERANCE = 0.1
"""Norm of the difference of logits relative to that of the logits: what rounding the other way may
change in a simulated model. A wrong shape gives an error or other logits altogether."""


def export(module: nn.Module, example: Tensor, execute: Execute) -> onnx.ModelProto:
    """Export a module.

    Args:
        module: Float32, in evaluation mode, or a simulation of int8.
        example: One input, ``1×C×H×W`` float32.
        execute: Runs a model, to compare it with the module.

    Returns:
        The model with one input and one output, all weights inside. Its sizes are open as far as
        those of the module are.

    Raises:
        Exception: Whatever torch raises for a module that it cannot export.
    """
    images = example.repeat(_BATCH, 1, 1, 1)
    larger = _larger(module, example)
    model = _exported(module, images, ())
    opened = onnx_graph.opened(model, sizes=larger is not None)
    others = [example, *([] if larger is None else [larger])]
    if _agree(module, opened, others, execute):
        return opened
    for dimensions in ((0, 2, 3), (0,)) if larger is not None else ((0,),):
        try:
            symbolic = _exported(module, images, dimensions)
        except Exception:  # what depends on a size in Python cannot be exported for all
            continue
        if _agree(module, symbolic, others if 2 in dimensions else [example], execute):
            return symbolic
    return _exported(module, example, ())


def _larger(module: nn.Module, example: Tensor) -> Tensor | None:
    """Images of another size, if the module takes them and gives as many logits."""
    images = torch.nn.functional.pad(example, (0, _LARGER, 0, _LARGER), mode="replicate")
    try:
        with torch.inference_mode():
            return images if module(images).shape == module(example).shape else None
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError):
        return None


def _agree(
    module: nn.Module, model: onnx.ModelProto, inputs: list[Tensor], execute: Execute
) -> bool:
    """Whether a model computes what the module does."""
    try:
        outputs = execute(model, inputs)
    except Exception:  # a runtime has its own errors for shapes that do not fit, and may crash
        return False
    for images, logits in zip(inputs, outputs, strict=True):
        with torch.inference_mode():
            expected = module(images)
        if logits.shape != expected.shape:
            return False
        if float((logits - expected).norm()) > _TOLERANCE * float(expected.norm()):
            return False
    return True


def _exported(module: nn.Module, images: Tensor, dimensions: tuple[int, ...]) -> onnx.ModelProto:
    """Export with symbolic sizes in some dimensions of the images."""
    open_sizes = {dimension: torch.export.Dim.DYNAMIC for dimension in dimensions}
    with _quiet():
        program = torch.onnx.export(
            module,
            (images,),
            None,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=_OPSET,
            dynamic_shapes=(open_sizes,) if dimensions else None,
            dynamo=True,
            external_data=False,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    products_to_gemm(model.graph)
    model = onnx_graph.cleaned(model)
    merge_padding(model)
    write_out_wrapping(model)
    round_before_moves(model.graph)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Let torch's exporter print nothing: it tells of its progress and of what it lacks."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
