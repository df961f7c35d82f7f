"""Find the head of a network: the layer that makes the logits, wherever it is registered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Layer = nn.Conv1d | nn.Conv2d | nn.Linear


def layers_of(model: nn.Module) -> list[tuple[str, Layer]]:
    """Return paths and modules of all convolutions and linear layers, in the model's order."""
    return [(path, module) for path, module in model.named_modules() if isinstance(module, Layer)]


def heads_of(model: nn.Module, images: Tensor) -> list[tuple[str, Layer]]:
    """Return the layers whose outputs reach the logits through no other layer.

    A head may be registered first, and one for training alone last. The graph of the gradients
    shows which one makes the logits: it is cut behind every layer.

    Args:
        model: Evaluation mode.
        images: ``N×C×H×W`` float32; one is enough.

    Returns:
        Paths and modules, in the model's order; usually one. Where the model computes without
        gradients, the layer that is called last; none if no layer is called.
    """
    outputs: dict[Tensor, nn.Module] = {}
    called: list[nn.Module] = []

    def cut(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        called.append(module)
        if torch.is_inference_mode_enabled():
            return None
        leaf = output.detach().requires_grad_()
        outputs[leaf] = module
        return leaf.clone()  # an operator in place may follow

    handles = [layer.register_forward_hook(cut) for _, layer in layers_of(model)]
    try:
        with torch.enable_grad():
            logits = next(_tensors(model(images)), None)
    finally:
        for handle in handles:
            handle.remove()
    reached = {outputs[leaf] for leaf in _leaves(logits) if leaf in outputs}
    last = set(called[-1:])
    return [(path, layer) for path, layer in layers_of(model) if layer in (reached or last)]


def _tensors(output: Any) -> Iterator[Tensor]:
    """Yield the tensors in an output; the first one is taken for the logits."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping | tuple | list):
        for value in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(value)


def _leaves(value: Tensor | None) -> Iterator[Tensor]:
    """Yield the leaves of a value's graph of gradients."""
    pending: list[Any] = [None if value is None else value.grad_fn]
    visited = set()
    while pending:
        function = pending.pop()
        if function is None or function in visited:
            continue
        visited.add(function)
        if isinstance(variable := getattr(function, "variable", None), Tensor):
            yield variable
        pending += [following for following, _ in function.next_functions]
