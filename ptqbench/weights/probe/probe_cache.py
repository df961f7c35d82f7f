"""Probe weights on disk: only what cannot be drawn again, in a safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ptqbench.core.atomic import atomic_path
from ptqbench.data.fixture.manifest import Manifest
from ptqbench.models.catalog import ModelSpec
from ptqbench.weights.probe.network import ALGORITHM, Made
from ptqbench.weights.probe.random_init import initial_model, is_drawn

_SCALE = "scale:"
_META = "ptqbench"


def path_of(directory: Path, spec: ModelSpec, seed: int, manifest: Manifest) -> Path:
    """The file of a model's probe weights; everything that they depend on is in its name.

    Args:
        directory: The cache directory.
        spec: The architecture.
        seed: Of what is drawn.
        manifest: Of the images.
    """
    parts = [ALGORITHM, seed, torch.__version__, torchvision.__version__, np.__version__]
    parts += [manifest.seed, manifest.splits["train"].sha256]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    return directory / "probe" / f"{spec.name}-{key}.safetensors"


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict: of every name, type, shape and value, in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save(path: Path, made: Made, sha256: str) -> None:
    """Write what was found out about drawn parameters, and the others whole.

    Args:
        path: The file.
        made: The weights.
        sha256: Their :func:`state_hash`.

    Raises:
        OSError: It cannot be written.
    """
    tensors = {
        name: value
        for name, value in made.state.items()
        if not is_drawn(value.shape) or name == f"{made.head}.weight"
    }
    for name, scale in made.scales.items():
        tensors[_SCALE + name] = torch.tensor(scale, dtype=torch.float64)
    content = {"sha256": sha256, "head": made.head, "facts": dict(made.facts)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_META: json.dumps(content)})


def restore(path: Path, spec: ModelSpec, num_classes: int, seed: int) -> tuple[Made, str] | None:
    """Draw again, scale, and put the rest in.

    Args:
        path: The file.
        spec: The architecture.
        num_classes: Number of outputs.
        seed: Of what is drawn.

    Returns:
        The weights and their hash; None if there is no such file, it is damaged, or what is
        drawn here is not what was drawn when it was made.
    """
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads(file.metadata()[_META])
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        made = _restored(spec, num_classes, seed, stored, content)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
        return None
    sha256 = state_hash(made.state)
    return (made, sha256) if sha256 == content["sha256"] else None


def _restored(
    spec: ModelSpec,
    num_classes: int,
    seed: int,
    stored: Mapping[str, Tensor],
    content: Mapping[str, object],
) -> Made:
    state = initial_model(spec, num_classes, seed).state_dict()
    scales = {}
    for name, value in stored.items():
        if name.startswith(_SCALE):
            drawn = name.removeprefix(_SCALE)
            scales[drawn] = value.item()
            state[drawn].div_(scales[drawn])
        else:
            state[name].copy_(value)
    facts = content["facts"]
    if not isinstance(facts, dict):
        raise TypeError("no facts")
    whole = {name: value.contiguous() for name, value in state.items()}
    return Made(whole, scales, str(content["head"]), facts)
