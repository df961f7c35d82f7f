"""Weights of every source: read from files, downloaded, or made."""

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
from ptqbench.settings.weights_specifier import PROBE, default_weights
from ptqbench.weights.load import Weights, load_weights
from ptqbench.weights.probe import probe_cache as store
from ptqbench.weights.probe.network import make, preprocessing_of

SEED = 0
"""The seed of probe weights. It is not that of a run: these weights are the same in all runs."""


def open_weights(
    spec: ModelSpec,
    source: str | None = None,
    overrides: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Weights:
    """Weights and what they bring along, wherever they come from.

    Args:
        spec: The architecture.
        source: As `load_weights` takes it, or ``probe``; None: the model's default.
        overrides: Preprocessing and classes that win over what the weights bring; None counts
            as not given.
        progress: Told while a file is downloaded or weights are made.

    Raises:
        UserError: See `load_weights`; or preprocessing is given for ``probe``.
    """
    source = source or default_weights(spec.name)
    if source != PROBE:
        return load_weights(spec, source, overrides, progress)
    return probe_weights(spec, overrides, progress=progress)


def probe_weights(
    spec: ModelSpec,
    overrides: Mapping[str, object] | None = None,
    *,
    cache_dir: Path | None = None,
    progress: Progress = silent,
) -> Weights:
    """Probe weights of an architecture, from the cache or made anew (a user's own always are).

    Args:
        spec: The architecture.
        overrides: Preprocessing and classes, which must not be given.
        cache_dir: Where weights and images are kept; by default that of the user.
        progress: Told while weights are made.

    Raises:
        UserError: Preprocessing or classes are given, or the images cannot be made.
    """
    given = [name for name, value in (overrides or {}).items() if value is not None]
    preprocessing = preprocessing_of(spec)
    if given:
        raise UserError(
            f"{' and '.join(given)} cannot be set for the weights `probe`: their head was solved "
            f"for the sixteen fixture classes on images of {preprocessing.crop}×"
            f"{preprocessing.crop} pixels. Leave {'it' if len(given) == 1 else 'them'} out, or "
            "name other weights."
        )
    directory = cache_dir or default_cache_dir()
    manifest = load_manifest()
    # A user's own code may have changed since: its weights are made anew each time.
    path = None if spec.origin else store.path_of(directory, spec, SEED, manifest)
    found = store.restore(path, spec, len(CLASSES), SEED) if path else None
    if found is None:
        made = make(spec, SEED, cache_dir=directory, manifest=manifest, progress=progress)
        found = made, store.state_hash(made.state)
        with suppress(OSError):  # made once more the next time
            if path:
                store.save(path, *found)
    made, sha256 = found
    return Weights(
        PROBE,
        made.state,
        preprocessing,
        CLASSES,
        len(CLASSES),
        sha256,
        made=made.facts,
        notes=(note(spec, made.facts),),
    )


def note(spec: ModelSpec, facts: Mapping[str, int | float]) -> str:
    """What whoever reads a result under probe weights must know."""
    return (
        f"Weights probe of {spec.name}: random (seed {facts['probe_seed']}) with a head solved on "
        f"{facts['probe_head_images']:,} fixture images, no trained classifier. They say how "
        f"quantization behaves, and nothing about a trained {spec.name}."
    )
