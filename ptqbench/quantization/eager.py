"""Eager mode: prepare the quantizable variant with ``fuse_modules`` and observers; convert."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import QuantStub, fuse_modules
from torch.ao.quantization import convert as convert_eager
from torch.ao.quantization import prepare as prepare_eager

from ptqbench.core.user_code import innermost_line
from ptqbench.errors import UserError
from ptqbench.models.catalog import MODELS
from ptqbench.models.meta_init import skeleton
from ptqbench.quantization.fusion_groups import fusable_groups, relu6_outputs, replace_relu6
from ptqbench.quantization.qconfig import make_qconfig
from ptqbench.quantization.torch_warnings import known_deprecations_ignored
from ptqbench.recipes import CompletedRecipe


def quantizable_copy(model: nn.Module, name: str, example: Tensor) -> nn.Module:
    """Build the variant with stubs and ``FloatFunctional``, such as torchvision's.

    A model that has stubs itself is copied.

    Raises:
        UserError: The architecture has no quantizable variant and no stubs, or the
            model is of another architecture.
    """
    if any(isinstance(module, QuantStub) for module in model.modules()):
        return copy.deepcopy(model).eval()
    spec = MODELS.get(name)
    if spec.quantizable is None:
        raise UserError(
            f"{name} has no quantizable variant (QuantStub, FloatFunctional), which "
            "the eager flow needs. Use the FX flow."
        )
    with torch.inference_mode():
        classes = model(example).shape[1]
    variant = skeleton(spec.quantizable, classes)
    state = copy.deepcopy(model.state_dict())
    _check_tensors(name, variant.state_dict(), state)
    variant.load_state_dict(state, assign=True)
    variant.eval()
    for path, module in model.named_modules():
        if isinstance(module, nn.ReLU6):  # torchvision's variants have a ReLU there
            variant.set_submodule(path, nn.ReLU6().eval())
    return variant


def _check_tensors(name: str, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Check that a model has the tensors of the quantizable variant, and no others."""
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    reshaped = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    for keys, text in (
        (missing, f"The quantizable {name} has {len(missing)} tensors that the model lacks"),
        (extra, f"The quantizable {name} lacks {len(extra)} tensors that the model has"),
        (reshaped, f"{len(reshaped)} tensors of the quantizable {name} have other shapes"),
    ):
        if keys:
            raise UserError(
                f"{text}, first {keys[0]!r}: the recipe belongs to another architecture."
            )


def prepare(
    model: nn.Module, recipe: CompletedRecipe, example: Tensor, *, saturates: bool
) -> nn.Module:
    """Prepare a fused quantizable copy of ``model`` with observers.

    Args:
        model: Float32; plain torchvision, or with stubs.
        recipe: Its completed recipe; nothing but its fusion groups is fused.
        example: One input, ``N×C×H×W`` float32.
        saturates: See :func:`ptqbench.quantization.qconfig.make_qconfig`.

    Returns:
        The prepared module, ready for calibration.

    Raises:
        UserError: There is no quantizable variant, the model lacks a group, or a layer is to
            stay float32 or has a wrong int8 kernel.
    """
    if recipe.keep_float:
        raise UserError(
            f"The recipe keeps {', '.join(recipe.keep_float)} in float, but in the eager flow "
            "nothing converts the int8 values around such a layer. Use the FX flow, with a model "
            "without stubs."
        )
    variant = quantizable_copy(model, recipe.model, example)
    _check_prelu(variant)
    groups = fusable_groups(variant, recipe, saturates=saturates)
    relu6 = relu6_outputs(variant, groups)
    replace_relu6(variant, groups)
    fused: nn.Module = fuse_modules(variant, [list(group) for group in groups])
    fused.qconfig = make_qconfig(recipe.recipe, saturates=saturates)  # type: ignore[assignment]
    for name in relu6:
        qconfig = make_qconfig(recipe.recipe, saturates=saturates, relu6=True)
        fused.get_submodule(name).qconfig = qconfig  # type: ignore[assignment]
    with known_deprecations_ignored():
        prepared: nn.Module = prepare_eager(fused)
    return prepared


def _check_prelu(model: nn.Module) -> None:
    """Refuse PReLU in int8: its kernel multiplies positive values too (torch 2.13)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.PReLU) and getattr(module, "qconfig", True) is not None:
            raise UserError(
                f"{name} is a PReLU, and torch's int8 kernel for it is wrong: it multiplies "
                f"positive values too. Put a DeQuantStub and a QuantStub around it and set "
                f"{name}.qconfig = None, or use the FX flow, which does that by itself."
            )


def check_runs(converted: nn.Module, example: Tensor) -> None:
    """Run an int8 module once, because only that shows whether stubs are missing.

    Args:
        converted: Int8.
        example: One input, ``N×C×H×W`` float32.

    Raises:
        UserError: Int8 values reach an operator that has no kernel for them, or float32 values
            an int8 layer.
    """
    try:
        with torch.inference_mode():
            converted(example)
    except RuntimeError as error:  # NotImplementedError is one
        line = innermost_line(error, (Path(torch.__file__).parent,))
        place = f" at {line}" if line else ""
        reason = str(error).strip().split(" This could be")[0].rstrip(".")
        raise UserError(
            f"The int8 model cannot run in the eager flow{place} ({reason}). Sums, products and "
            "concatenations of int8 values need a FloatFunctional (self.sum.add(a, b)), the first "
            "int8 layer a QuantStub in front of it, and what has no int8 kernel a DeQuantStub."
        ) from None


def leave_out_unreached(prepared: nn.Module) -> None:
    """Exclude additions that were never executed from the conversion.

    All of torchvision's quantizable blocks have a ``FloatFunctional``, used or not. An unused one
    has an observer without a range.
    """
    for module in prepared.modules():
        if isinstance(module, FloatFunctional):
            observer = module.activation_post_process
            lowest = getattr(observer, "min_val", None)
            if isinstance(lowest, Tensor) and bool(lowest.isinf().all()):
                module.qconfig = None  # type: ignore[assignment]


def convert(prepared: nn.Module) -> nn.Module:
    """Convert to the int8 module, its weights packed for the current engine."""
    leave_out_unreached(prepared)
    with known_deprecations_ignored():
        converted: nn.Module = convert_eager(prepared)
    return converted
