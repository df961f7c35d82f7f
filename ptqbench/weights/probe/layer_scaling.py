"""Set the scale of every layer and the statistics of BatchNorm in one pass over images.

Layers are scaled in the order in which they run, each on the outputs of the scaled layers before
it (layer-sequential unit variance, Mishkin and Matas 2015, arXiv:1511.06422): one pass is enough,
and its result is exact for these images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ptqbench.weights.probe.head_search import Layer
from ptqbench.weights.probe.random_init import SHIFT

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU)

_FLAT = 1e-6
"""Deviation below which an output is constant and not scaled."""

_GATE = 0.1
"""Deviation of the inputs of squeeze-excitation's gates: gates that vary from image to image
multiply random features by random factors, and after a few blocks no information is left."""


@dataclass
class ScalingPass:
    """Results of a pass over the images.

    Attributes:
        head: Path of the head.
        features: Input of the head for the images, ``N×D``, ``N×D×L`` or ``N×D×H×W``.
        macs: Multiply-adds of all layers for one image, without those between activations.
        scales: Divisors of the layers' weights, by the name of the parameter.
    """

    head: str
    features: Tensor | None = None
    macs: int = 0
    scales: dict[str, float] = field(default_factory=dict)


def gates_of(model: nn.Module) -> Iterator[Layer]:
    """Yield the layers whose outputs a sigmoid turns into factors: those of squeeze-excitation.

    They are the last ones in front of a sigmoid of any kind in the module that owns both.
    """
    for module in model.modules():
        last: Layer | None = None
        gated = False
        for child in module.children():
            if isinstance(child, Layer):
                last = child
            gated |= type(child).__name__.lower().endswith("sigmoid")
        if gated and last is not None:
            yield last


def scale_layers(model: nn.Module, images: Tensor, path: str) -> ScalingPass:
    """Scale every layer below the head, in place.

    A layer's weights are divided so that its output has deviation 1. Its bias, if it has one,
    removes the mean of each output channel, and adds the same one (`SHIFT`) to all of them in
    front of an activation. BatchNorm's statistics become the mean and variance of its input.

    Args:
        model: Evaluation mode.
        images: ``N×C×H×W`` float32; more of them give better statistics.
        path: Of the head.
    """
    head: Any = model.get_submodule(path)
    result = ScalingPass(path)
    with _hooks(_LayerScaler(model, head, result)), torch.no_grad(), suppress(_HeadReached):
        model(images)
    return result


def features(model: nn.Module, images: Tensor, path: str) -> Tensor:
    """Return the head's input, ``N×D…`` float32, without running the head.

    Args:
        model: Evaluation mode.
        images: ``N×C×H×W`` float32.
        path: Of the head.
    """
    result = ScalingPass(path)
    handle = model.get_submodule(path).register_forward_pre_hook(_stopping(result))
    try:
        with torch.no_grad(), suppress(_HeadReached):
            model(images)
    finally:
        handle.remove()
    assert result.features is not None
    return result.features


class _HeadReached(Exception):
    """Ends a pass: the head's output is not needed."""


def _stopping(result: ScalingPass) -> Any:
    def stop(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        result.features = args[0]
        raise _HeadReached

    return stop


class _LayerScaler:
    """The hooks of one pass."""

    def __init__(self, model: nn.Module, head: Layer, result: ScalingPass) -> None:
        self.names = {module: path for path, module in model.named_modules()}
        self.head = head
        self.result = result
        self.seen: set[nn.Module] = set()
        self.gates = set(gates_of(model))
        self.last: tuple[Layer, Tensor] | None = None

    def layer(self, module: Layer, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Scale a layer that was called, and return its output after that."""
        if module in self.seen:
            return output
        self.seen.add(module)
        positions = output.numel() // module.weight.shape[0] // len(args[0])
        self.result.macs += positions * module.weight.numel()
        output = self._scaled(module, output, channels=-1 if isinstance(module, nn.Linear) else 1)
        self.last = (module, output)
        return output

    def activation(self, module: nn.Module, args: tuple[Tensor, ...]) -> Tensor | None:
        """Shift the output of a layer; BatchNorm shifts its output itself."""
        if self.last is None or self.last[1] is not args[0] or self.last[0].bias is None:
            return None
        self.last[0].bias.add_(SHIFT)
        return args[0] + SHIFT

    def container(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Scale the last layer of a module that passes its layers' weights to a function."""
        uncalled = [
            child
            for child in module.children()
            if isinstance(child, nn.Linear) and child not in self.seen and child is not self.head
        ]
        if not uncalled:
            return output
        self.seen.update(uncalled)
        result: Tensor = output[0] if isinstance(output, tuple) else output
        tokens = result.numel() // result.shape[-1] // len(args[0])
        weights = [child.weight for child in uncalled]
        weights += [p for p in module._parameters.values() if p is not None and p.ndim == 2]
        self.result.macs += tokens * sum(weight.numel() for weight in weights)
        result = self._scaled(uncalled[-1], result, channels=-1)
        return (result, *output[1:]) if isinstance(output, tuple) else result

    def normalisation(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Set the statistics of BatchNorm to the mean and variance of its input."""
        if module in self.seen or not isinstance(module.running_mean, Tensor):
            return
        self.seen.add(module)
        assert isinstance(module.running_var, Tensor)
        others = [d for d in range(args[0].ndim) if d != 1]
        variance, mean = torch.var_mean(args[0].double(), dim=others, correction=0)
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)

    def _scaled(self, module: Layer, output: Tensor, channels: int) -> Tensor:
        if module.bias is not None:
            others = [d for d in range(output.ndim) if d != channels % output.ndim]
            mean = output.mean(dim=others)
            shape = [-1 if d == channels % output.ndim else 1 for d in range(output.ndim)]
            output = output - mean.view(shape)
            module.bias.sub_(mean)
        deviation = float(output.double().std(correction=0))
        if not deviation > _FLAT:
            return output
        if module in self.gates:
            deviation /= _GATE
        module.weight.div_(deviation)
        self.result.scales[f"{self.names[module]}.weight"] = deviation
        if module.bias is not None:
            module.bias.div_(deviation)
        return output / deviation


@contextmanager
def _hooks(scaler: _LayerScaler) -> Iterator[None]:
    handles = []
    for module in scaler.names:
        if module is scaler.head:
            handles.append(module.register_forward_pre_hook(_stopping(scaler.result)))
        elif isinstance(module, Layer):
            handles.append(module.register_forward_hook(scaler.layer))
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            handles.append(module.register_forward_pre_hook(scaler.normalisation))
        elif isinstance(module, _ACTIVATIONS):
            handles.append(module.register_forward_pre_hook(scaler.activation))
        elif any(isinstance(child, nn.Linear) for child in module.children()):
            handles.append(module.register_forward_hook(scaler.container))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
