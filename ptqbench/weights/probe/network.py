"""Compute probe weights: draw, scale, and solve for the head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ptqbench.core.progress import Progress, silent
from ptqbench.core.user_code import describe_error
from ptqbench.data.fixture.images import FixtureImages
from ptqbench.data.fixture.manifest import Manifest, load_manifest
from ptqbench.data.fixture.scenes import SIZE
from ptqbench.data.fixture.shard_cache import ShardCache, default_cache_dir
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError
from ptqbench.models.catalog import ModelSpec
from ptqbench.weights.probe.head_search import Layer, heads_of, layers_of
from ptqbench.weights.probe.layer_scaling import ScalingPass, features, scale_layers
from ptqbench.weights.probe.random_init import initial_model
from ptqbench.weights.probe.ridge_head import bias_above, solve_head

ALGORITHM = 5
"""Incremented whenever the same seed would give other weights than before."""

MOST_IMAGES, FEWEST_IMAGES = 1_000, 96
"""Bounds of the number of training images for the head; cheap networks use the most."""

BUDGET = 3e12
"""Budget of multiply-adds for the head's images: about a minute on two cores."""

_BATCH = 50
_CUT_SHARE = 0.001
"""Share of a convolutional head's outputs that the following ReLU may cut off (SqueezeNet)."""

_SIDES = {"inception_v3": 96}
"""Side of the images for networks that accept none as small as the fixture images."""


@dataclass(frozen=True)
class ProbeWeights:
    """Computed probe weights.

    Attributes:
        state: State dict, float32.
        scales: Divisors of drawn parameters, by name.
        head: Path of the head.
        facts: How they were computed, and how well the head classifies.
    """

    state: Mapping[str, Tensor]
    scales: Mapping[str, float]
    head: str
    facts: Mapping[str, int | float] = field(default_factory=dict)


def preprocessing_of(spec: ModelSpec) -> Preprocessing:
    """Return the preprocessing for probe weights: none, if the network accepts the fixture images.

    Custom models are only known to accept the input size that they are registered with.
    """
    fixed = spec.fixed_input or spec.origin
    side = spec.input_size[1] if fixed else _SIDES.get(spec.name, SIZE)
    return Preprocessing(side, side)


def compute_probe(
    spec: ModelSpec,
    seed: int,
    *,
    cache_dir: Path | None = None,
    manifest: Manifest | None = None,
    most_images: int = MOST_IMAGES,
    progress: Progress = silent,
) -> ProbeWeights:
    """Compute the probe weights of an architecture from training images of the fixture set.

    Args:
        spec: The architecture.
        seed: Seed of the random parameters.
        cache_dir: Cache of the images; by default that of the user.
        manifest: Manifest of the images; by default the shipped one.
        most_images: Upper bound of the number of images for the head.
        progress: Progress callback.

    Raises:
        UserError: Images have to be rendered and cannot be saved, or render differently; or a
            custom model does not run, or has no head that can be solved for.
    """
    with _custom_code(spec):
        return _compute(spec, seed, cache_dir, manifest, most_images, progress)


def _compute(
    spec: ModelSpec,
    seed: int,
    cache_dir: Path | None,
    manifest: Manifest | None,
    most_images: int,
    progress: Progress,
) -> ProbeWeights:
    preprocessing = preprocessing_of(spec)
    shards = ShardCache(
        manifest or load_manifest(), "train", cache_dir or default_cache_dir(), progress
    )
    images = FixtureImages(shards, preprocessing, most_images)
    model = initial_model(spec, len(images.classes), seed)
    head_path, layer = _head(spec, model, images, len(images.classes))
    scaling_images = min(images.limit, 128 if preprocessing.crop < 128 else 16)
    what = f"probe weights of {spec.name}"
    progress(f"{what}: scaling layers", 0, 1)
    batch = next(_batches(images, scaling_images, scaling_images))[0]
    scaling = scale_layers(model, batch, head_path)
    _check_features(spec, scaling, layer)
    count = min(images.limit, head_images(scaling.macs, most_images))
    inputs, labels = _features(model, images, head_path, count, progress, f"{what}: head")
    pooled = inputs.flatten(2).mean(dim=2) if inputs.ndim > 2 else inputs
    head = solve_head(pooled, labels, len(images.classes), with_bias=layer.bias is not None)
    _fill(layer, head.weight, head.bias, inputs)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    facts = {
        "probe_seed": seed,
        "probe_settling_images": scaling_images,
        "probe_head_images": count,
        "probe_leave_one_out_top1": head.top1,
    }
    return ProbeWeights(state, scaling.scales, scaling.head, facts)


@contextmanager
def _custom_code(spec: ModelSpec) -> Iterator[None]:
    """Turn errors of a custom model into a sentence."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        if not spec.origin:
            raise
        raise _refusal(spec, describe_error(error)) from error


def _head(
    spec: ModelSpec, model: nn.Module, images: FixtureImages, classes: int
) -> tuple[str, Layer]:
    """Find the layer that makes the logits, and check that it can be solved for."""
    if not layers_of(model):
        raise _refusal(spec, "it has no convolution or linear layer")
    heads = heads_of(model, next(_batches(images, 1, 1))[0])
    if len(heads) != 1:
        names = " and ".join(path for path, _ in heads) or "no convolution or linear layer"
        raise _refusal(spec, f"its logits are made by {names}, not by one layer")
    ((path, layer),) = heads
    if len(layer.weight) != classes:
        raise _refusal(
            spec,
            f"its last layer, {path}, gives {len(layer.weight)} numbers instead of one for each of "
            f"the {classes} fixture classes",
        )
    if not isinstance(layer, nn.Linear) and layer.weight.shape[2:].numel() > 1:
        raise _refusal(spec, f"its last layer, {path}, is a convolution of more than 1×1")
    return path, layer


def _check_features(spec: ModelSpec, scaling: ScalingPass, layer: Layer) -> None:
    """Check the shape of the input of the head."""
    assert scaling.features is not None  # heads_of has seen it called
    if scaling.features.ndim != 2 and isinstance(layer, nn.Linear):
        shape = "×".join(["N", *map(str, scaling.features.shape[1:])])
        raise _refusal(spec, f"its last layer, {scaling.head}, receives {shape} values, not N×D")


def _refusal(spec: ModelSpec, why: str) -> UserError:
    place = f" ({spec.origin})" if spec.origin else ""
    return UserError(
        f"Probe weights cannot be computed for {spec.name}{place}: {why}. Pass the file of its "
        "state dict with --weights, or set `weights` in its table of the settings."
    )


def head_images(macs: int, most: int = MOST_IMAGES) -> int:
    """Return the number of images for the head: whole rounds of the classes.

    Args:
        macs: Multiply-adds of one image.
        most: Upper bound.
    """
    count = min(most, max(FEWEST_IMAGES, int(BUDGET // max(macs, 1))))
    return max(16, count // 16 * 16)


def _batches(images: FixtureImages, count: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return images.batches(0, count, size)


def _features(
    model: nn.Module,
    images: FixtureImages,
    head: str,
    count: int,
    progress: Progress,
    what: str,
) -> tuple[Tensor, Tensor]:
    pieces, labels = [], []
    done = 0
    progress(what, done, count)
    for pixels, truth in _batches(images, count, _BATCH):
        pieces.append(features(model, pixels, head))
        labels.append(truth)
        done += len(truth)
        progress(what, done, count)
    return torch.cat(pieces), torch.cat(labels)


def _fill(layer: Layer, weight: Tensor, bias: Tensor, inputs: Tensor) -> None:
    """Put the solution into the head; a convolution is followed by a ReLU and the mean."""
    if not isinstance(layer, nn.Linear):
        # The mean of a ReLU is that of its input as long as the ReLU cuts nothing off: the
        # same number is added to every class, which changes no prediction.
        places = torch.einsum("kd,ndp->nkp", weight.float(), inputs.flatten(2))
        places += bias.float()[:, None]
        bias = bias + bias_above(places, _CUT_SHARE)
    layer.weight.copy_(weight.reshape(layer.weight.shape))
    if layer.bias is not None:
        layer.bias.copy_(bias)
