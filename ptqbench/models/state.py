"""State dicts from files: read without running anything, checked against an architecture."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ptqbench.errors import UserError
from ptqbench.models.skeleton import without_memory
from ptqbench.models.zoo import MODELS, ModelSpec
from ptqbench.resources import SHIPPED

_COUNTER = "num_batches_tracked"
_PROBE = 1000
_SHOWN = 3


def read_state(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read a safetensors file or a plain state dict saved by ``torch.save``.

    Args:
        path: The file; its content decides how it is read, not its name.

    Returns:
        The tensors, floating point values as float32, and the SHA-256 of the file.

    Raises:
        UserError: The file cannot be read, or holds something else than plain tensors.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"The weights {path} cannot be read: {error.strerror}.") from None
    tensors = _unpickled(path, content) if _is_pickle(content) else _safetensors(path, content)
    return _plain(path, tensors), hashlib.sha256(content).hexdigest()


def check_architecture(
    spec: ModelSpec, state: dict[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], int]:
    """Check names and shapes against an architecture.

    Args:
        spec: The architecture.
        state: The tensors of a file.
        path: The file, for messages.

    Returns:
        The tensors, completed by the batch counters of BatchNorm, which old files lack and
        inference does not use; and the number of classes, from the last classifier weight.

    Raises:
        UserError: Something is missing, too much or of another shape.
    """
    expected = _shapes(spec, _PROBE)
    head = _head(expected)
    found = state.get(head)
    num_classes = found.shape[0] if found is not None and found.ndim else _PROBE
    if head.removesuffix("weight") + "bias" in expected:
        expected[head.removesuffix("weight") + "bias"] = (num_classes,)
    expected[head] = (num_classes, *expected[head][1:])
    completed = _with_counters(state, expected)
    problems = _differences(expected, completed)
    if problems:
        raise UserError(
            f"The weights {path} are not those of {spec.name}: {'; '.join(problems)}. "
            f"{_advice(spec, state)}"
        )
    return completed, num_classes


def _is_pickle(content: bytes) -> bool:
    # torch.save writes a zip archive, or in old versions a bare pickle of protocol 2, whose
    # first byte a safetensors file may share: that begins with the length of a JSON header.
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= len(content):
        return False
    return content.startswith((b"PK\x03\x04", b"\x80"))


def _safetensors(path: Path, content: bytes) -> Mapping[str, object]:
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise UserError(
            f"The weights {path} are neither a safetensors file nor one written by torch.save "
            f"({error}). Save model.state_dict() with safetensors.torch.save_file."
        ) from None


def _unpickled(path: Path, content: bytes) -> Mapping[str, object]:
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"The weights {path} are a pickle that holds more than plain tensors; it was not "
            "opened, because that could run its code. Save model.state_dict() instead."
        ) from None
    except Exception as error:  # torch reports damaged archives with whatever fails first
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"The weights {path} cannot be read: {reason}.") from None
    if not isinstance(loaded, Mapping):
        raise UserError(
            f"The weights {path} hold one {type(loaded).__name__}, not a state dict. "
            "Save model.state_dict()."
        )
    return loaded


def _plain(path: Path, tensors: Mapping[str, object]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"The weights {path} hold more than plain tensors: {key!r} is of type "
                f"{type(value).__name__}. Save model.state_dict() alone, not a whole checkpoint."
            )
        if value.is_quantized or value.layout is not torch.strided or value.is_complex():
            raise UserError(
                f"The tensor {key!r} of the weights {path} is quantized, sparse or complex. "
                "ptqbench starts from the float32 model: save its state_dict()."
            )
        value = value.detach()
        if value.is_floating_point():
            value = value.float()
            if not value.isfinite().all():
                raise UserError(f"The tensor {key!r} of the weights {path} holds NaN or infinity.")
        state[str(key)] = value
    return state


def _shapes(spec: ModelSpec, num_classes: int) -> dict[str, tuple[int, ...]]:
    with without_memory():
        model = spec.factory(num_classes)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def _head(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Name of the last classifier weight."""
    return [k for k, s in shapes.items() if k.endswith("weight") and len(s) > 1][-1]


def _with_counters(
    state: dict[str, Tensor], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    absent = [
        key
        for key in expected
        if key.endswith(_COUNTER)
        and key not in state
        and key.removesuffix(_COUNTER) + "running_mean" in state
    ]
    return {**state, **{key: torch.tensor(0) for key in absent}}


def _differences(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> list[str]:
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    reshaped = [
        f"{key} ({_by(state[key].shape)} instead of {_by(shape)})"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    groups = {"missing": missing, "not part of it": extra, "of another shape": reshaped}
    return [
        f"{len(names)} of {len(state if label == 'not part of it' else expected)} tensors "
        f"{label}, such as {', '.join(names[:_SHOWN])}"
        for label, names in groups.items()
        if names
    ]


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a number"


def _advice(spec: ModelSpec, state: Mapping[str, Tensor]) -> str:
    prefix = "module."
    if state and sum(key.startswith(prefix) for key in state) > len(state) / 2:
        return f"Its names begin with {prefix!r}: save model.module.state_dict()."
    fits = {name: _fit(MODELS.get(name), state) for name in SHIPPED}
    best = max(fits, key=lambda name: fits[name])
    if best != spec.name and fits[best] > 0.9:
        return f"They fit {best}: name that model."
    return f"Pass weights of {spec.name}; the nearest registered model is {best}."


def _fit(spec: ModelSpec, state: Mapping[str, Tensor]) -> float:
    """Share of names and shapes that a file and an architecture have in common."""
    shapes = _shapes(spec, _PROBE)
    same = sum(key in state and tuple(state[key].shape) == shape for key, shape in shapes.items())
    return same / len(shapes.keys() | state.keys())
