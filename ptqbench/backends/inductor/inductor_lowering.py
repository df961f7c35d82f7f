"""Lower a program to Inductor's int8 and float32 kernels, without its compiler.

These are the passes that Inductor applies to a program whose weights are constant, in the order of
``torchao.quantization.pt2e.lowering.lower_pt2e_quantized_to_x86``. They are no public part of
torch: `unavailable_passes` says if another release has moved them.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses import FakeTensorMode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.fx.passes.shape_prop import _extract_tensor_metadata

from ptqbench.backends.inductor.float_batch_norms import fold_batch_norms
from ptqbench.backends.inductor.integer_moves import move_integers, pool_integers
from ptqbench.backends.inductor.lowered_layers import remember_weights
from ptqbench.backends.inductor.plain_operators import write_plainly
from ptqbench.backends.inductor.pt2_program import Program

_PASSES = (
    ("torch._inductor.fx_passes.freezing_patterns", "freezing_passes"),
    ("torch._inductor.constant_folding", "constant_fold"),
)
_OPERATORS = ("qconv_prepack", "qconv_pointwise", "qlinear_prepack", "qlinear_pointwise")


@dataclass(frozen=True)
class Lowered:
    """A program as it is executed.

    Attributes:
        module: From images to logits.
        program: As it is in its file.
    """

    module: fx.GraphModule
    program: Program


def missing_operators() -> str:
    """Why this build of torch cannot execute int8 with Inductor's operators; empty if it can."""
    if not torch.backends.mkldnn.is_available():
        return "it was built without oneDNN"
    absent = [name for name in _OPERATORS if not hasattr(torch.ops.onednn, name)]
    return f"it has no operator onednn.{absent[0]}" if absent else ""


@functools.cache
def _passes() -> tuple[Callable[..., Any], ...]:
    """Inductor's passes.

    Raises:
        RuntimeError: This release of torch has none of that name.
    """
    try:
        return tuple(getattr(importlib.import_module(m), name) for m, name in _PASSES)
    except (ImportError, AttributeError) as error:
        raise RuntimeError(
            f"torch {torch.__version__} does not have the passes of Inductor that ptqbench knows "
            f"({error}); it was made for torch 2.13"
        ) from error


def lower(program: Program) -> Lowered:
    """Lower a program for this CPU.

    Raises:
        RuntimeError: Inductor cannot lower it, or this release of torch does it in another way.
    """
    freezing_passes, constant_fold = _passes()
    module = program.module()
    write_plainly(module)
    fold_batch_norms(module)
    move_integers(module.graph)
    module.recompile()
    example = torch.zeros(program.shape)
    with torch.no_grad():
        _describe_values(module, example)
        remember_weights(module.graph, program.tensors)
        freezing_passes(module, (example,))
        remember_weights(module.graph, program.tensors)
        pool_integers(module.graph)
        constant_fold(module)
    for node in module.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverloadPacket):
            node.target = node.target.default
    module.graph.eliminate_dead_code()
    module.recompile()
    return Lowered(module, program)


def _describe_values(module: fx.GraphModule, example: Tensor) -> None:
    """Note at each node what it computes, which weights are packed for."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        FakeTensorProp(module, mode).propagate(example)
    for node in module.graph.nodes:
        if isinstance(value := node.meta.get("val"), Tensor):
            node.meta["tensor_meta"] = _extract_tensor_metadata(value)
