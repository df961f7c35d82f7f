"""Open weights of any source: read from a file, downloaded, or computed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ptqbench.core.progress import Progress, silent
from ptqbench.data.fixture.manifest import load_manifest
from ptqbench.data.fixture.shapes import CLASSES
from ptqbench.data.fixture.shard_cache import default_cache_dir
from ptqbench.errors import UserError
from ptqbench.models.catalog import ModelSpec
from ptqbench.settings.weights_specifier import (
    PRETRAINED,
    PROBE,
    default_weights,
    is_source_name,
)
from ptqbench.weights import timm_weights, torchvision_weights
from ptqbench.weights.load import Weights, check_published, load_weights
from ptqbench.weights.probe import probe_cache
from ptqbench.weights.probe.network import compute_probe, preprocessing_of

SEED = 0
"""Seed of probe weights; independent of the seed of a run, so they are the same in all runs."""


def open_weights(
    spec: ModelSpec,
    source: str | None = None,
    overrides: Mapping[str, object] | None = None,
    progress: Progress = silent,
    key: str | None = None,
) -> Weights:
    """Open weights and their settings.

    Args:
        spec: The architecture.
        source: A source of `load_weights`, ``probe`` or ``pretrained``; None: the model's
            default.
        overrides: Preprocessing and classes that take precedence over those of the weights; None
            counts as unset.
        progress: Progress callback of a download or of the computation of probe weights.
        key: Which set of weights to take from a checkpoint; None: see `load_weights`.

    Raises:
        UserError: See `load_weights`; or preprocessing is set for ``probe``, or a key for what
            is not a file.
    """
    source = source or default_weights(spec.name)
    if key is not None and is_source_name(source):
        raise UserError(
            f"weights_key = {key!r} chooses a set of weights in a checkpoint, but the weights "
            f"{source} are no file of yours. Remove it, or name the file with --weights."
        )
    if source == PRETRAINED:
        return timm_weights.pretrained_weights(spec, overrides, progress)
    if source != PROBE:
        return load_weights(spec, source, overrides, progress, key)
    return probe_weights(spec, overrides, progress=progress)


def provide(spec: ModelSpec, source: str, progress: Progress = silent) -> None:
    """Download published weights if necessary, before hours are spent on other models.

    Args:
        spec: The architecture.
        source: Source of the weights; others than torchvision's and timm's are ignored.
        progress: Progress callback of a download.

    Raises:
        UserError: There are no weights of that name, or they cannot be downloaded.
    """
    if source == PRETRAINED:
        timm_weights.pretrained_model(spec, progress)
    else:
        check_published(spec, source, progress)


def published_names(spec: ModelSpec) -> list[str]:
    """Return the names of the weights that torchvision or timm has for a model."""
    return timm_weights.names(spec) or torchvision_weights.names(spec)


def probe_weights(
    spec: ModelSpec,
    overrides: Mapping[str, object] | None = None,
    *,
    cache_dir: Path | None = None,
    progress: Progress = silent,
) -> Weights:
    """Compute probe weights of an architecture, or read them from the cache.

    Those of custom models are always computed, because the code may have changed.

    Args:
        spec: The architecture.
        overrides: Preprocessing and classes, which must be unset.
        cache_dir: Cache of weights and images; by default that of the user.
        progress: Progress callback.

    Raises:
        UserError: Preprocessing or classes are set, or the images cannot be rendered.
    """
    names = [name for name, value in (overrides or {}).items() if value is not None]
    preprocessing = preprocessing_of(spec)
    if names:
        raise UserError(
            f"{' and '.join(names)} cannot be set for the weights `probe`: their head was solved "
            f"for the sixteen fixture classes on images of {preprocessing.crop}×"
            f"{preprocessing.crop} pixels. Remove {'it' if len(names) == 1 else 'them'}, or "
            "use other weights."
        )
    directory = cache_dir or default_cache_dir()
    manifest = load_manifest()
    path = None if spec.origin else probe_cache.path_of(directory, spec, SEED, manifest)
    cached = probe_cache.restore(path, spec, len(CLASSES), SEED) if path else None
    if cached is None:
        probe = compute_probe(spec, SEED, cache_dir=directory, manifest=manifest, progress=progress)
        sha256 = probe_cache.state_hash(probe.state)
        with suppress(OSError):  # computed again the next time
            if path:
                probe_cache.save(path, probe, sha256)
    else:
        probe, sha256 = cached
    return Weights(
        PROBE,
        probe.state,
        preprocessing,
        CLASSES,
        len(CLASSES),
        sha256,
        probe_facts=probe.facts,
        notes=(note(spec, probe.facts),),
    )


def note(spec: ModelSpec, facts: Mapping[str, int | float]) -> str:
    """Explain results under probe weights to their reader."""
    return (
        f"Weights probe of {spec.name}: random (seed {facts['probe_seed']}) with a head solved on "
        f"{facts['probe_head_images']:,} fixture images, not a trained classifier. They show how "
        f"quantization behaves, and nothing about a trained {spec.name}."
    )
