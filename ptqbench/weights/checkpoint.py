"""State dicts from files: read without running anything, checked against an architecture."""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ptqbench.errors import UserError
from ptqbench.models.catalog import ModelSpec
from ptqbench.weights.architecture_match import advice, expected_shapes
from ptqbench.weights.state_dict_names import plain_names, unwrapped

_COUNTER = "num_batches_tracked"
_SHOWN = 3


@dataclass(frozen=True)
class StateFile:
    """What a weights file holds.

    Attributes:
        tensors: By name; floating point values are float32.
        sha256: Hash of the file, in hexadecimal.
        notes: What its reader should know.
    """

    tensors: dict[str, Tensor]
    sha256: str
    notes: tuple[str, ...] = ()


def read_state(path: Path, hash_prefix: str = "") -> StateFile:
    """Read a safetensors file, or a state dict or checkpoint saved by ``torch.save``.

    Args:
        path: The file; its content decides how it is read, not its name.
        hash_prefix: What the SHA-256 of the file must begin with.

    Raises:
        UserError: The file cannot be read, is another than the hash says, or holds something
            else than plain tensors.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"The weights {path} cannot be read: {error.strerror}.") from None
    sha256 = hashlib.sha256(content).hexdigest()
    if not sha256.startswith(hash_prefix):
        raise UserError(
            f"The weights {path} are damaged or another file: their SHA-256 begins with "
            f"{sha256[: len(hash_prefix)]} instead of {hash_prefix}. Remove the file and get it "
            "again."
        )
    loaded = _unpickled(path, content) if _is_pickle(content) else _safetensors(path, content)
    tensors, note = unwrapped(loaded, path)
    return StateFile(_plain(path, tensors), sha256, (note,) if note else ())


def check_architecture(spec: ModelSpec, file: StateFile, path: Path) -> tuple[StateFile, int]:
    """Check names and shapes against an architecture.

    Args:
        spec: The architecture.
        file: What the file holds.
        path: The file, for messages.

    Returns:
        The tensors by the architecture's names, without what only training uses, completed by
        the batch counters of BatchNorm, which old files lack and inference does not use; and
        the number of classes, from the last classifier weight.

    Raises:
        UserError: Something is missing, too much or of another shape.
    """
    expected, num_classes = expected_shapes(spec, file.tensors)
    state = plain_names(file.tensors, expected)
    if state.keys() != file.tensors.keys():
        expected, num_classes = expected_shapes(spec, state)
    state, note = _without_training(spec, state)
    state = _with_counters(state, expected)
    problems = _differences(expected, state)
    if problems:
        raise UserError(
            f"The weights {path} are not those of {spec.name}: {'; '.join(problems)}. "
            f"{advice(spec, state)}"
        )
    return StateFile(state, file.sha256, (*file.notes, *note)), num_classes


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
        # A namespace of options, which torchvision's training scripts save, runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
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


def _without_training(
    spec: ModelSpec, state: dict[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    kept = {key: value for key, value in state.items() if not key.startswith(spec.training_only)}
    if len(kept) == len(state):
        return state, ()
    parts = ", ".join(prefix.rstrip(".") for prefix in spec.training_only)
    note = (
        f"{spec.name}: {len(state) - len(kept)} tensors of the auxiliary classifiers ({parts}), "
        "which only training uses, were left out."
    )
    return kept, (note,)


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
