"""Make the canonical model of a classifier, and prove that it is equal to it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, fx, nn

from ptqbench.core.user_code import first_line
from ptqbench.errors import UserError
from ptqbench.quantization.canonical.capture import capture
from ptqbench.quantization.canonical.hard_swish import name_hard_functions
from ptqbench.quantization.canonical.lifting import lift
from ptqbench.quantization.canonical.shared_layers import separate_calls
from ptqbench.quantization.canonical.simplification import simplify
from ptqbench.quantization.canonical.value_slots import WritesIntoViewError
from ptqbench.quantization.fx_tracing import has_stubs
from ptqbench.recipes import Recipe

_CANONICAL = "canonical"
TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit: some hundred roundings of float32
(2⁻²⁴ each), as other orders of summation make them."""


def quantizable_model(
    model: nn.Module, recipe: Recipe, images: Tensor, sizes: Iterable[Tensor] = ()
) -> nn.Module:
    """Return what is quantized: the canonical model, or the model itself where there is none.

    Models that are written for eager mode are converted module by module; those that
    ``torch.export`` cannot capture (Python that depends on values in a module that stays
    float32, scripted modules) are traced as they are. So are torchvision's own classifiers,
    which consist of plain layers, and models with torch's `MultiheadAttention`, which stays
    whole and in float32.

    Args:
        model: Float32, evaluation mode; it is not changed.
        recipe: Of the model.
        images: See `canonical_model`.
        sizes: See `canonical_model`.

    Raises:
        UserError: The model is not the same twice, depends on the batch, or computes what its
            graph does not show.
    """
    if recipe.flow == "eager" or has_stubs(model) or is_canonical(model) or _is_plain(model):
        return model
    try:
        return canonical_model(model, images, sizes=sizes)
    except UserError:
        raise
    except Exception:  # torch.export raises whatever the traced code does with a stand-in
        return model


def is_canonical(model: nn.Module) -> bool:
    """Whether a model is the result of `canonical_model`."""
    return isinstance(model, fx.GraphModule) and bool(model.meta.get(_CANONICAL))


def _is_plain(model: nn.Module) -> bool:
    """Whether torch.fx sees every layer of a model as it is, or may not look into one."""
    modules = list(model.modules())
    if any(isinstance(module, nn.MultiheadAttention) for module in modules):
        return True
    return type(model).__module__.startswith("torchvision.models.") and all(
        type(module).__module__.startswith(("torch.nn.modules.", "torchvision."))
        and not module._forward_pre_hooks
        and getattr(module, "track_running_stats", True)
        for module in modules
    )


def canonical_model(
    model: nn.Module, images: Tensor, *, sizes: Iterable[Tensor] = ()
) -> fx.GraphModule:
    """Rebuild a classifier from torch's own layers.

    Args:
        model: Float32, evaluation mode; it is not changed.
        images: Some calibration images, ``N×C×H×W`` float32, normalised.
        sizes: Inputs of other sizes that the graph has to hold for as well.

    Returns:
        A graph of layers and functions with the model's module paths, evaluation mode.

    Raises:
        UserError: The model is not the same twice, depends on the batch, or the graph computes
            something else.
        Exception: Whatever ``torch.export`` raises where it cannot capture the model.
    """
    inputs = [images, *(each for each in sizes if each.shape[1:] != images.shape[1:])]
    lifted = _lifted(model, images, any_size=False)
    if len(inputs) > 1 and not all(difference(model, lifted, each) == "" for each in inputs[1:]):
        lifted = _lifted(model, images, any_size=True)
    for each in inputs:
        if text := difference(model, lifted, each):
            raise UserError(
                f"{type(model).__name__} computes something that its graph does not show: {text}. "
                "Its forward probably reads what changes from call to call (a counter, a cache, a "
                "global), or depends on the values of the images."
            )
    return lifted


def _lifted(model: nn.Module, images: Tensor, *, any_size: bool) -> fx.GraphModule:
    try:
        lifted = lift(capture(model, images, any_size=any_size), model)
    except WritesIntoViewError:
        lifted = lift(capture(model, images, any_size=any_size, functional=True), model)
    name_hard_functions(lifted)
    simplify(lifted)
    separate_calls(lifted)
    lifted.meta[_CANONICAL] = True
    return lifted


def difference(model: nn.Module, lifted: nn.Module, images: Tensor) -> str:
    """Say how the logits of two models differ; empty if they are equal within `TOLERANCE`."""
    size = "×".join(map(str, images.shape))
    with torch.inference_mode():
        expected = model(images).nan_to_num()  # a broken model is a verdict of the gates
        if not torch.equal(expected, model(images).nan_to_num()):
            return f"on the same images of {size} the model gives other logits the second time"
        try:
            # Calling the graph itself would print the error.
            logits = lifted.forward(images).nan_to_num()
        except RuntimeError as error:
            return f"on images of {size} it stops ({first_line(error)})"
    if expected.shape != logits.shape:
        shapes = (" by ".join(map(str, each.shape)) for each in (logits, expected))
        return "on images of {} it gives logits of {} instead of {}".format(size, *shapes)
    distance = float((expected - logits).abs().max()) / max(float(expected.abs().max()), 1e-12)
    if distance <= TOLERANCE:
        return ""
    return f"on images of {size} its logits differ by {distance:.2g} of the largest one"
