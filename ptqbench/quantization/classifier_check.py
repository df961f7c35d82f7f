"""Check that a model is a classifier: one tensor, a row of logits per image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from ptqbench.core.user_code import first_line, innermost_line
from ptqbench.errors import UserError

_TORCH = Path(torch.__file__).parent


def check_classifier(model: nn.Module, example: Tensor) -> None:
    """Check that a model runs and returns a row of logits per image.

    Args:
        model: Evaluation mode.
        example: One input ``N×C×H×W`` float32.

    Raises:
        UserError: It does not run, or returns something else.
    """
    output = _run(model, example)
    check_output(output, type(model).__name__)
    if isinstance(output, Tensor) and len(output) != len(example):
        raise UserError(
            f"{type(model).__name__} returns {len(output)} rows for a batch of {len(example)}. "
            "ptqbench judges classifiers, which return a row of logits per image, N×K: a view or "
            "reshape in its forward probably takes positions of the map for images. Flatten with "
            "x.flatten(1)."
        )


def check_statistics(model: nn.Module) -> None:
    """Check that no BatchNorm has a variance whose square root is not a number.

    Args:
        model: Evaluation mode.

    Raises:
        UserError: One has a running variance below zero, or NaN.
    """
    for path, module in model.named_modules():
        variance = getattr(module, "running_var", None)
        if isinstance(variance, Tensor) and not (variance >= 0).all():
            raise UserError(
                f"The BatchNorm {path!r} of {type(model).__name__} has a running variance below "
                f"zero, or not a number, in {int((~(variance >= 0)).sum())} of "
                f"{variance.numel()} channels, so that its outputs are not numbers. Estimate the "
                "statistics again, or load the weights of the trained model."
            )


def check_output(output: object, kind: str) -> None:
    """Check that a model returns one tensor, a row of logits per image.

    Args:
        output: Its output, or the node of the output in a graph.
        kind: Name of the model, for messages.

    Raises:
        UserError: It returns something else.
    """
    if isinstance(output, Tensor | fx.Node):
        if isinstance(output, Tensor) and output.dim() != 2:
            shape = "×".join(map(str, output.shape))
            raise UserError(
                f"{kind} returns outputs of shape {shape} for a batch of {output.shape[0]}. "
                "ptqbench judges classifiers, which return a row of logits per image, N×K: wrap "
                "the model in a module that returns these."
            )
        return
    if isinstance(output, Mapping):
        names = ", ".join(map(repr, output))
        wrong, pick = f"a dictionary of {names}", f"self.model(x)[{next(iter(output), 'out')!r}]"
    elif isinstance(output, tuple | list):
        count = f"{len(output)} output{'s' if len(output) != 1 else ''}"
        wrong, pick = (
            f"a {'list' if isinstance(output, list) else 'tuple'} of {count}",
            "self.model(x)[0]",
        )
    else:
        wrong, pick = f"a {type(output).__name__}", "the tensor of logits"
    raise UserError(
        f"{kind} returns {wrong} instead of one tensor. ptqbench judges classifiers, which return "
        "a row of logits per image, N×K: wrap the model in a module whose forward returns the "
        f"logits alone, for example `return {pick}`."
    )


def _run(model: nn.Module, example: Tensor) -> object:
    try:
        with torch.inference_mode():
            return model(example)
    except Exception as error:  # whatever the user's code raises
        shape = "×".join(map(str, example.shape))
        line = innermost_line(error, (_TORCH,))
        place = f" at {line}" if line else ""
        reason = first_line(error)
        raise UserError(
            f"{type(model).__name__} cannot run on an input of {shape}{place} "
            f"({reason}). Register it with the input_size that it accepts."
        ) from None
