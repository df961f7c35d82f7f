"""Cache probe weights on disk: only what cannot be drawn again, in a safetensors file."""

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
from ptqbench.weights.probe.network import ALGORITHM, ProbeWeights
from ptqbench.weights.probe.random_init import initial_model, is_drawn

_SCALE = "scale:"
_META = "ptqbench"
_COUNTS = ("probe_seed", "probe_head_images")
"""Facts that the note on the weights quotes."""


def path_of(directory: Path, spec: ModelSpec, seed: int, manifest: Manifest) -> Path:
    """Return the file of a model's probe weights; its name covers all that they depend on.

    Args:
        directory: The cache directory.
        spec: The architecture.
        seed: Seed of the random parameters.
        manifest: Manifest of the images.
    """
    parts = [ALGORITHM, seed, torch.__version__, torchvision.__version__, np.__version__]
    parts += [manifest.seed, manifest.splits["train"].sha256]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    return directory / "probe" / f"{spec.name}-{key}.safetensors"


def state_hash(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict: of every name, type, shape and value."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save(path: Path, probe: ProbeWeights, sha256: str) -> None:
    """Write the scales of drawn parameters, and all other parameters.

    Args:
        path: The file.
        probe: The weights.
        sha256: Their :func:`state_hash`.

    Raises:
        OSError: The file cannot be written.
    """
    tensors = {
        name: value
        for name, value in probe.state.items()
        if not is_drawn(value.shape) or name == f"{probe.head}.weight"
    }
    for name, scale in probe.scales.items():
        tensors[_SCALE + name] = torch.tensor(scale, dtype=torch.float64)
    content = {"sha256": sha256, "head": probe.head, "facts": dict(probe.facts)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_META: json.dumps(content)})
        except SafetensorError as error:  # a full disk, for instance
            raise OSError(str(error)) from None


def restore(
    path: Path, spec: ModelSpec, num_classes: int, seed: int
) -> tuple[ProbeWeights, str] | None:
    """Restore probe weights: draw again, scale, and load the rest.

    Args:
        path: The file.
        spec: The architecture.
        num_classes: Number of outputs.
        seed: Seed of the random parameters.

    Returns:
        The weights and their hash; None if there is no such file, it is damaged, or the drawn
        parameters differ from those of the file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads(file.metadata()[_META])
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        probe = _restored(spec, num_classes, seed, stored, content)
        sha256 = state_hash(probe.state)
        return (probe, sha256) if sha256 == content["sha256"] else None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
        return None


def _restored(
    spec: ModelSpec,
    num_classes: int,
    seed: int,
    stored: Mapping[str, Tensor],
    content: Mapping[str, object],
) -> ProbeWeights:
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
    if not isinstance(facts, dict) or not all(isinstance(facts[name], int) for name in _COUNTS):
        raise TypeError("facts is not a table of numbers")
    whole = {name: value.contiguous() for name, value in state.items()}
    return ProbeWeights(whole, scales, str(content["head"]), facts)
