"""Probe weights: drawn by name, scaled exactly, a head that is the regression's solution."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.quantizable import build_quantizable
from safetensors import SafetensorError
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from ptqbench.data.fixture.images import FixtureImages
from ptqbench.data.fixture.manifest import load_manifest
from ptqbench.data.fixture.shard_cache import ShardCache, default_cache_dir
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.measurement.macs import count_macs
from ptqbench.models.catalog import MODELS, ModelSpec
from ptqbench.models.meta_init import shapes_of, skeleton
from ptqbench.weights import open_weights as opening
from ptqbench.weights.load import Weights, build_model
from ptqbench.weights.probe import probe_cache
from ptqbench.weights.probe.head_search import heads_of
from ptqbench.weights.probe.layer_scaling import features, scale_layers
from ptqbench.weights.probe.network import (
    FEWEST_IMAGES,
    MOST_IMAGES,
    ProbeWeights,
    compute_probe,
    head_images,
)
from ptqbench.weights.probe.random_init import SHIFT, initial_model
from ptqbench.weights.probe.ridge_head import bias_above, solve_head

CLASSES, CHANCE = 16, 1 / 16
SMALL = "mnasnet0_5"


@cache
def probe_of(model: str, most_images: int = 320) -> ProbeWeights:
    return compute_probe(MODELS.get(model), 0, most_images=most_images)


def weights(model: str, most_images: int = 320) -> Weights:
    probe = probe_of(model, most_images)
    side = Preprocessing(64, 64)
    return Weights("probe", probe.state, side, None, CLASSES, probe_cache.state_hash(probe.state))


@cache
def evaluation(count: int = 256) -> tuple[Tensor, Tensor]:
    cache = ShardCache(load_manifest(), "evaluation", default_cache_dir())
    images = FixtureImages(cache, Preprocessing(64, 64), count)
    pixels, labels = next(images.batches(0, count, count))
    return pixels, labels


# What is drawn


def net(num_classes: int, names: tuple[str, ...]) -> nn.Module:
    layers: dict[str, Callable[[], nn.Module]] = {
        "first": lambda: nn.Conv2d(3, 8, 3),
        "norm": lambda: nn.BatchNorm2d(8),
        "head": lambda: nn.Linear(8, num_classes),
    }
    module = nn.Module()
    for name in names:
        module.add_module(name, layers[name]())
    return module


def test_a_parameter_depends_on_its_name_and_the_seed_alone() -> None:
    names = ("first", "norm", "head")
    one = initial_model(ModelSpec("one", lambda n: net(n, names)), CLASSES, 0).state_dict()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    other = ModelSpec("other", lambda n: net(n, names[::-1]))
    two = initial_model(other, CLASSES, 0).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    three = initial_model(other, CLASSES, 1).state_dict()
    assert not torch.equal(one["first.weight"], three["first.weight"])
    assert float(one["first.weight"].std()) == pytest.approx(27**-0.5, rel=0.15)


def test_layer_scales_and_embeddings_do_not_vanish() -> None:
    state = initial_model(MODELS.get("convnext_tiny"), CLASSES, 0).state_dict()
    assert all(float(v.min()) > 0.1 for k, v in state.items() if k.endswith("layer_scale"))
    state = initial_model(MODELS.get("swin_v2_t"), CLASSES, 0).state_dict()
    index = state["features.1.0.attn.relative_position_index"]
    assert index.unique().numel() == 15 * 15  # what the constructor computed is still there
    scale = state["features.1.0.attn.logit_scale"]
    assert scale.exp().allclose(torch.full_like(scale, 10.0))


@pytest.mark.parametrize(
    "model",
    ["alexnet", "squeezenet1_0", "densenet121", "googlenet", "regnet_y_400mf", "swin_t", "vgg11"],
)
def test_the_head_is_the_layer_that_gives_the_classes(model: str) -> None:
    factory = MODELS.get(model).factory
    sizes = [shapes_of(factory, n) for n in (CLASSES, CLASSES + 1)]
    model = skeleton(factory, CLASSES).to("meta").eval()
    ((path, _),) = heads_of(model, torch.zeros(1, 3, 64, 64, device="meta"))
    changed = {key for key in sizes[0] if sizes[0][key] != sizes[1][key]}
    assert changed == {f"{path}.weight", f"{path}.bias"}


# What is scaled


def inputs_of(model: nn.Module, kind: type[nn.Module], images: Tensor) -> dict[str, Tensor]:
    """What modules get (BatchNorm) or give (everything else) in a plain pass."""
    seen: dict[str, Tensor] = {}

    def record(module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
        value = args[0] if isinstance(module, nn.BatchNorm2d) else output
        # A copy: the activation behind may overwrite it.
        seen[names[module]] = (value[0] if isinstance(value, tuple) else value).clone()

    names = {module: name for name, module in model.named_modules()}
    for module in names:
        if isinstance(module, kind):
            module.register_forward_hook(record)
    with torch.no_grad():
        model(images)
    return seen


def test_batchnorm_gets_the_statistics_of_its_input() -> None:
    images = torch.randn(24, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = initial_model(MODELS.get("resnet18"), CLASSES, 0)
    scale_layers(model, images, "fc")
    state = model.state_dict()
    seen = inputs_of(model, nn.BatchNorm2d, images)
    assert len(seen) == 20
    for name, value in seen.items():
        array = value.double().numpy()
        mean, variance = array.mean(axis=(0, 2, 3)), array.var(axis=(0, 2, 3))
        np.testing.assert_allclose(state[f"{name}.running_mean"], mean, atol=2e-4)
        np.testing.assert_allclose(state[f"{name}.running_var"], variance, rtol=2e-3)


def test_layers_with_a_bias_give_one_deviation_around_the_mean_of_activations() -> None:
    images = torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = initial_model(MODELS.get("squeezenet1_0"), CLASSES, 0)
    scaling = scale_layers(model, images, "classifier.1")
    seen = inputs_of(model, nn.Conv2d, images)
    del seen[scaling.head]
    assert len(seen) == 25
    for value in seen.values():
        assert float(value.std(correction=0)) == pytest.approx(1, abs=1e-3)
        assert value.mean(dim=(0, 2, 3)).numpy() == pytest.approx(SHIFT, abs=1e-3)
    counted = dict(count_macs(model, images[:1]).layers)
    del counted[scaling.head]
    assert scaling.macs == sum(counted.values())


def test_attention_and_embeddings_reach_the_head_of_a_transformer() -> None:
    def small(num_classes: int) -> nn.Module:
        return VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=num_classes)

    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = initial_model(ModelSpec("small", small), CLASSES, 0)
    seen = scale_layers(model, images, "heads.head").features
    assert seen is not None and seen.shape == (16, 32)
    assert float(seen.std()) == pytest.approx(1, rel=0.3)
    assert float(seen.std(dim=0).mean()) > 0.2  # it differs from image to image
    attended = inputs_of(model, nn.MultiheadAttention, images)
    deviations = [float(value.std(correction=0)) for value in attended.values()]
    assert deviations == pytest.approx([1, 1], abs=1e-3)
    assert features(model, images, "heads.head").allclose(seen, atol=1e-3)


# The head


@pytest.mark.parametrize("width", [12, 90])
def test_the_head_solves_the_ridge_regression(width: int) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 4
    features = generator.normal(size=(60, width)) + np.eye(4)[labels] @ generator.normal(
        size=(4, width)
    )
    head = solve_head(torch.tensor(features), torch.tensor(labels), 4)

    def solution(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ridge regression with a free intercept, as least squares on stacked rows."""
        mean, targets = features[rows].mean(axis=0), np.eye(4)[labels[rows]]
        shares = targets.mean(axis=0)
        stacked = np.vstack([features[rows] - mean, np.sqrt(head.penalty) * np.eye(width)])
        targets_and_zeros = np.vstack([targets - shares, np.zeros((width, 4))])
        weight = np.linalg.lstsq(stacked, targets_and_zeros, rcond=None)[0]
        return weight, shares - mean @ weight

    weight, bias = solution(np.arange(60))
    scale = float(np.linalg.norm(head.weight) / np.linalg.norm(weight))
    np.testing.assert_allclose(head.weight.numpy().T, weight * scale, atol=1e-8 * scale)
    np.testing.assert_allclose(head.bias.numpy(), bias * scale, atol=1e-8 * scale)
    right = 0
    for left_out in range(60):
        weight, bias = solution(np.delete(np.arange(60), left_out))
        right += int(np.argmax(features[left_out] @ weight + bias) == labels[left_out])
    assert head.top1 == right / 60
    loss = partial(nn.functional.cross_entropy, target=torch.tensor(labels))
    logits = torch.tensor(features) @ head.weight.T + head.bias
    assert float(loss(logits)) < float(loss(logits / 10))


def test_a_bias_keeps_a_share_above_zero() -> None:
    outputs = torch.arange(-50.0, 50.0).reshape(4, 25)
    shifted = outputs + bias_above(outputs, 0.1)
    assert int((shifted < 0).sum()) == 9 and int((shifted == 0).sum()) == 1


def test_dear_networks_see_fewer_images() -> None:
    assert head_images(10**6) == MOST_IMAGES // 16 * 16
    assert head_images(167 * 10**9) == FEWEST_IMAGES
    counts = [head_images(10**power) for power in range(6, 13)]
    assert counts == sorted(counts, reverse=True) and all(n % 16 == 0 for n in counts)


# The result


def test_two_makes_give_the_same_bytes() -> None:
    torch.manual_seed(123)
    again = compute_probe(MODELS.get(SMALL), 0, most_images=96)
    assert probe_cache.state_hash(again.state) == probe_cache.state_hash(probe_of(SMALL, 96).state)
    assert again.facts == probe_of(SMALL, 96).facts


@pytest.mark.parametrize("model", ["resnet18", "squeezenet1_0", SMALL, "alexnet"])
def test_it_classifies_well_above_chance(model: str) -> None:
    count = 640 if model == SMALL else 320
    pixels, labels = evaluation()
    with torch.no_grad():
        logits = build_model(MODELS.get(model), weights(model, count))(pixels)
    right = int((logits.argmax(dim=1) == labels).sum())
    # Twice what guessing gives is 4 standard deviations of it away, of 256 images.
    assert right / len(labels) > 2 * CHANCE
    assert float(probe_of(model, count).facts["probe_leave_one_out_top1"]) > 2 * CHANCE


@pytest.mark.slow
def test_a_network_without_batchnorm_and_with_layer_scales_classifies_too() -> None:
    pixels, labels = evaluation(128)
    probe = weights("convnext_tiny", 480)
    with torch.no_grad():
        logits = build_model(MODELS.get("convnext_tiny"), probe)(pixels)
    assert float((logits.argmax(dim=1) == labels).float().mean()) > 2 * CHANCE


def test_the_eager_variant_takes_the_same_state() -> None:
    spec, probe = MODELS.get("resnet18"), weights("resnet18")
    images = evaluation()[0][:4]
    with torch.no_grad():
        plain, prepared = build_model(spec, probe)(images), build_quantizable(spec, probe)(images)
    assert plain.allclose(prepared, atol=1e-4)


# The cache


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory that has the images and no weights; few images for the head."""
    images = default_cache_dir() / "fixture"
    images.mkdir(parents=True, exist_ok=True)
    (tmp_path / "fixture").symlink_to(images)
    monkeypatch.setattr(opening, "compute_probe", partial(compute_probe, most_images=96))
    return tmp_path


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("made anew")

    monkeypatch.setattr(opening, "compute_probe", refuse)


def test_what_was_made_is_kept(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = MODELS.get(SMALL)
    first = opening.probe_weights(spec, cache_dir=directory)
    (file,) = (directory / "probe").iterdir()
    assert file.name.startswith(f"{SMALL}-") and file.suffix == ".safetensors"
    parameters = sum(value.nbytes for value in first.state.values())
    assert file.stat().st_size < parameters / 4  # what can be drawn again is not in it
    forbid(monkeypatch)
    again = opening.probe_weights(spec, cache_dir=directory)
    assert again.sha256 == first.sha256 == probe_cache.state_hash(again.state)
    assert all(torch.equal(first.state[key], again.state[key]) for key in first.state)
    assert again.facts == first.facts and first.facts["probe_head_images"] == 96


def test_a_damaged_file_is_noticed_and_made_anew(directory: Path) -> None:
    spec = MODELS.get(SMALL)
    first = opening.probe_weights(spec, cache_dir=directory)
    (file,) = (directory / "probe").iterdir()
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[-5] ^= 0x10
    for content in (whole[:-100], b"no tensors", bytes(changed)):
        file.write_bytes(content)
        assert probe_cache.restore(file, spec, CLASSES, opening.SEED) is None
    assert opening.probe_weights(spec, cache_dir=directory).sha256 == first.sha256
    assert file.read_bytes() == whole


def test_damaged_records_in_a_file_are_noticed(tmp_path: Path) -> None:
    spec = ModelSpec("small", lambda n: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, n)))
    state = initial_model(spec, CLASSES, 0).state_dict()
    facts = {"probe_seed": 0, "probe_head_images": 96, "probe_leave_one_out_top1": 0.5}
    path = tmp_path / "probe.safetensors"
    probe_cache.save(path, ProbeWeights(state, {}, "1", facts), probe_cache.state_hash(state))
    whole = path.read_bytes()
    assert probe_cache.restore(path, spec, CLASSES, 0) is not None
    for key in (b"ptqbench", b"sha256", b"facts", b"head", b"probe_seed", b"probe_head_images"):
        path.write_bytes(whole.replace(key, key[:-1] + b"#", 1))
        assert probe_cache.restore(path, spec, CLASSES, 0) is None


def test_weights_that_cannot_be_stored_are_computed_all_the_same(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(probe_cache, "save_file", full)
    assert opening.probe_weights(MODELS.get(SMALL), cache_dir=directory).source == "probe"
    assert [*(directory / "probe").iterdir()] == []


def test_the_file_of_another_seed_or_of_other_images_is_another() -> None:
    manifest = load_manifest()
    folder, spec = Path("cache"), MODELS.get(SMALL)
    path = probe_cache.path_of(folder, spec, 0, manifest)
    assert path == probe_cache.path_of(folder, spec, 0, manifest)
    assert path != probe_cache.path_of(folder, spec, 1, manifest)
    splits = manifest.splits | {"train": manifest.splits["evaluation"]}
    other = type(manifest)(manifest.seed, splits)
    assert path != probe_cache.path_of(folder, spec, 0, other)
