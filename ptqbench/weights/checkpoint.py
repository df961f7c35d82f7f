"""Read state dicts from files without running anything, and check them against an architecture."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ptqbench.errors import UserError
from ptqbench.models.catalog import ModelSpec
from ptqbench.weights.architecture_match import advice, expected_shapes
from ptqbench.weights.state_dict_names import plain_names
from ptqbench.weights.weight_sets import Belongs, choose_weights

COUNTER = "num_batches_tracked"
"""End of the names of BatchNorm's counters, which inference does not use."""

_SHOWN = 3
_HEADER_SIZE = 8
"""Bytes in front of the JSON header of a safetensors file: the header's length."""

_SAFETENSORS_DTYPES = frozenset(
    {
        *("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"),
        *("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"),
    }
)
"""Data types that torch has a tensor for; microscaling formats such as F4 are not among them."""


@dataclass(frozen=True)
class StateFile:
    """The content of a weights file.

    Attributes:
        tensors: Tensors by name; floating-point values are float32.
        sha256: Hash of the file, in hexadecimal.
        notes: Remarks for readers of a report.
        key: Which set of weights of the file it is; empty if the file is one.
    """

    tensors: dict[str, Tensor]
    sha256: str
    notes: tuple[str, ...] = ()
    key: str = ""


def read_state(
    path: Path,
    hash_prefix: str = "",
    key: str | None = None,
    belongs: Belongs = lambda name: False,
) -> StateFile:
    """Read a safetensors file, or a state dict or checkpoint saved by ``torch.save``.

    Args:
        path: The file; its content decides how it is read, not its name.
        hash_prefix: Expected beginning of the file's SHA-256.
        key: Which set of weights to take, if the file holds several.
        belongs: Whether a name is that of a part of the model; see `choose_weights`.

    Raises:
        UserError: The file cannot be read, has another hash, or holds anything but plain tensors.
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
    chosen = choose_weights(loaded, path, key, belongs)
    notes = (chosen.note,) if chosen.note else ()
    return StateFile(_plain(path, chosen.tensors), sha256, notes, chosen.key)


def check_architecture(spec: ModelSpec, file: StateFile, path: Path) -> tuple[StateFile, int]:
    """Check names and shapes against an architecture.

    Args:
        spec: The architecture.
        file: Content of the file.
        path: The file, for messages.

    Returns:
        The tensors by the architecture's names, without those that only training uses, and with
        the batch counters of BatchNorm, which old files lack and inference does not use; and
        the number of classes, from the last classifier weight.

    Raises:
        UserError: Tensors are missing, unexpected, or of another shape; or a BatchNorm has a
            variance below zero.
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
    _check_variances(state, path)
    return replace(file, tensors=state, notes=(*file.notes, *note)), num_classes


def _is_pickle(content: bytes) -> bool:
    # torch.save writes a zip archive, or in old versions a bare pickle of protocol 2, whose
    # first byte a safetensors file may share: that begins with the length of a JSON header.
    size = int.from_bytes(content[:_HEADER_SIZE], "little")
    if content[_HEADER_SIZE : _HEADER_SIZE + 1] == b"{" and size <= len(content):
        return False
    return content.startswith((b"PK\x03\x04", b"\x80"))


def _safetensors(path: Path, content: bytes) -> Mapping[str, object]:
    _check_dtypes(path, content)
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise UserError(
            f"The weights {path} are neither a safetensors file nor one written by torch.save "
            f"({error}). Save model.state_dict() with safetensors.torch.save_file."
        ) from None
    except Exception as error:  # an older safetensors or torch lacks a data type
        raise UserError(
            f"The weights {path} cannot be read by safetensors {safetensors.__version__} and torch "
            f"{torch.__version__} ({type(error).__name__}: {error}). Save model.state_dict() in "
            "float32 with safetensors.torch.save_file."
        ) from None


def _check_dtypes(path: Path, content: bytes) -> None:
    """Refuse data types that torch has no tensor for; safetensors refuses damaged headers."""
    size = int.from_bytes(content[:_HEADER_SIZE], "little")
    try:
        header = json.loads(content[_HEADER_SIZE : _HEADER_SIZE + size])
    except (ValueError, RecursionError, OverflowError):
        return
    if not isinstance(header, dict):
        return
    for name, entry in header.items():
        dtype = entry.get("dtype") if name != "__metadata__" and isinstance(entry, dict) else None
        if isinstance(dtype, str) and dtype not in _SAFETENSORS_DTYPES:
            raise UserError(
                f"The tensor {name!r} of the weights {path} has the data type {dtype}, for which "
                "torch has no tensor. ptqbench starts from the float32 model: save its "
                "state_dict() in float32, float16 or bfloat16."
            )


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
        try:
            state[str(key)] = _float32(path, str(key), value.detach())
        except RuntimeError as error:  # a data type that torch cannot convert, too little memory
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(
                f"The tensor {key!r} of the weights {path}, of type {value.dtype}, cannot be read: "
                f"{reason}. ptqbench starts from the float32 model: save its state_dict()."
            ) from None
    return state


def _float32(path: Path, key: str, value: Tensor) -> Tensor:
    """Convert floating-point values to float32, and refuse what is not a plain tensor."""
    if value.is_quantized or value.layout is not torch.strided or value.is_complex():
        raise UserError(
            f"The tensor {key!r} of the weights {path} is quantized, sparse or complex. "
            "ptqbench starts from the float32 model: save its state_dict()."
        )
    if value.is_meta:
        raise UserError(
            f"The tensor {key!r} of the weights {path} is on the device meta, without values. "
            "Load the model's weights before you save its state_dict()."
        )
    if not value.is_floating_point():
        return value
    value = value.float()
    if not value.isfinite().all():
        raise UserError(f"The tensor {key!r} of the weights {path} holds NaN or infinity.")
    return value


def _check_variances(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a running variance below zero: its square root is not a number.

    Raises:
        UserError: There is one.
    """
    for name, value in state.items():
        if name.rpartition(".")[2] == "running_var" and value.numel() and value.min() < 0:
            raise UserError(
                f"In the weights {path}, the BatchNorm {name.rpartition('.')[0]!r} has a running "
                f"variance below zero in {int((value < 0).sum())} of {value.numel()} channels "
                f"(down to {float(value.min()):g}), so that its outputs are not numbers. Save the "
                "state_dict() of the trained model, or estimate the statistics again."
            )


def _without_training(
    spec: ModelSpec, state: dict[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    rest = {key: value for key, value in state.items() if not key.startswith(spec.training_only)}
    if len(rest) == len(state):
        return state, ()
    parts = ", ".join(prefix.rstrip(".") for prefix in spec.training_only)
    note = (
        f"{spec.name}: {len(state) - len(rest)} tensors of the auxiliary classifiers ({parts}), "
        "which only training uses, were left out."
    )
    return rest, (note,)


def _with_counters(
    state: dict[str, Tensor], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    absent = [
        key
        for key in expected
        if key.endswith(COUNTER)
        and key not in state
        and key.removesuffix(COUNTER) + "running_mean" in state
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
