"""Match state dicts with architectures."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from ptqbench.errors import UserError
from ptqbench.models.catalog import MODELS, ModelSpec
from ptqbench.models.import_torchvision import import_torchvision
from ptqbench.models.meta_init import outputs_of, shapes_of

_CLASSES = 1000
_CUSTOM_CLASSES = 10
_CANDIDATES = 12
_HEADS = ("fc", "classifier", "head", "heads")
_NOT_COUNTED = (
    *("running_mean", "running_var", "num_batches_tracked"),
    *("relative_position_index", "relative_coords_table"),
)


def expected_shapes(
    spec: ModelSpec, state: Mapping[str, Tensor]
) -> tuple[dict[str, tuple[int, ...]], int]:
    """Return the shapes of an architecture for the classes and the input size of a file.

    Args:
        spec: The architecture.
        state: The tensors of a file.

    Returns:
        Shapes by name, and the number of classes: from the last classifier weight, or, for a
        custom model, from any tensor whose shape depends on it.
    """
    if spec.origin:
        return _custom_shapes(spec, state)
    shapes = shapes_of(spec.fitted(state).factory, _CLASSES)
    head = [key for key, shape in shapes.items() if key.endswith("weight") and len(shape) > 1][-1]
    weight = state.get(head)
    num_classes = weight.shape[0] if weight is not None and weight.ndim else _CLASSES
    bias = head.removesuffix("weight") + "bias"
    if bias in shapes:
        shapes[bias] = (num_classes,)
    shapes[head] = (num_classes, *shapes[head][1:])
    return shapes, num_classes


def _custom_shapes(
    spec: ModelSpec, state: Mapping[str, Tensor]
) -> tuple[dict[str, tuple[int, ...]], int]:
    """Find the number of classes of a custom model by building it with two numbers of them."""
    count = spec.num_classes or _CUSTOM_CLASSES
    shapes, doubled = shapes_of(spec.factory, count), shapes_of(spec.factory, 2 * count)
    if shapes == doubled:
        # The number is built in: that of the outputs, or of those of the last layer.
        outputs = outputs_of(spec.factory, count, spec.input_size)
        if outputs is not None:
            return shapes, outputs
        last = [shape for key, shape in shapes.items() if key.endswith("weight") and len(shape) > 1]
        return shapes, last[-1][0] if last else count
    for key, shape in shapes.items():
        tensor, other = state.get(key), doubled.get(key, ())
        if tensor is None or tensor.ndim != len(shape) or len(other) != len(shape):
            continue
        for size, once, twice in zip(tensor.shape, shape, other, strict=True):
            per_class = (twice - once) // count
            if per_class > 0:
                classes = max((size - once) // per_class + count, 1)
                return (shapes if classes == count else shapes_of(spec.factory, classes)), classes
    return shapes, count


def advice(spec: ModelSpec, state: Mapping[str, Tensor]) -> str:
    """Suggest what to do with a file that does not fit an architecture.

    Args:
        spec: The architecture that was named.
        state: The tensors of the file.
    """
    fits = {name: _fit(MODELS.get(name), state) for name in _candidates(state)}
    best = max(fits, key=lambda name: fits[name])
    if best != spec.name and fits[best] > 0.9:
        return f"They fit {best}: name that model."
    nearest = f"; the nearest registered model is {best}" if fits[best] > 0.1 else ""
    return f"Pass weights of {spec.name}{nearest}."


def _candidates(state: Mapping[str, Tensor]) -> list[str]:
    """Models with about as many parameters, because building all of them would take seconds.

    Counts of torchvision's models are on record; all others are candidates.
    """
    target = max(_parameters(state), 1)
    recorded: dict[str, float] = {}
    others = []
    for name in MODELS.names():
        count = _recorded_parameters(name)
        if count is None:
            others.append(name)
        else:
            recorded[name] = abs(math.log(count / target))
    return [*sorted(recorded, key=lambda name: recorded[name])[:_CANDIDATES], *others]


def _recorded_parameters(name: str) -> int | None:
    models = import_torchvision().models
    try:
        return int(next(iter(models.get_model_weights(name))).meta["num_params"])
    except (ValueError, KeyError, StopIteration):
        return None


def _parameters(state: Mapping[str, Tensor]) -> int:
    """Number of parameters that the model would have with the thousand classes on record."""
    total = sum(v.numel() for key, v in state.items() if not key.endswith(_NOT_COUNTED))
    heads = [
        key for key in state if key.partition(".")[0] in _HEADS and key.endswith("weight")
        and state[key].ndim > 1
    ]  # fmt: skip
    if not heads:
        return total
    head = state[max(heads)]
    per_class = head.numel() // max(head.shape[0], 1) + 1
    return total + (_CLASSES - head.shape[0]) * per_class


def _fit(spec: ModelSpec, state: Mapping[str, Tensor]) -> float:
    """Share of names and shapes that a file and an architecture have in common."""
    try:
        shapes, _ = expected_shapes(spec, state)
    except UserError:  # a custom model that cannot be built
        return 0.0
    same = sum(key in state and tuple(state[key].shape) == shape for key, shape in shapes.items())
    return same / len(shapes.keys() | state.keys())
