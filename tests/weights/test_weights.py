"""Weights files: what is read, what is refused, and what a refusal says."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.quantizable import build_quantizable
from safetensors.torch import save_file
from torch import Tensor, nn

from ptqbench.core.package_data import SHIPPED, fixtures_dir
from ptqbench.data.fixture.shapes import CLASSES
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError
from ptqbench.models.catalog import MODELS, ModelSpec
from ptqbench.weights import load as weights_module
from ptqbench.weights.checkpoint import read_state
from ptqbench.weights.load import build_model, load_weights

SQUEEZENET = MODELS.get("squeezenet1_1")
FIXTURES = sorted(path.stem for path in (fixtures_dir() / "weights").glob("*.safetensors"))


def small(num_classes: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(), head=nn.Linear(4, num_classes),
        )
    )  # fmt: skip


SMALL = ModelSpec("small", small, small)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {key: value.clone() for key, value in small(7).state_dict().items()}


@pytest.fixture
def file(tmp_path: Path, state: dict[str, Tensor]) -> Path:
    save_file(state, tmp_path / "my.safetensors")
    return tmp_path / "my.safetensors"


def refused(source: Path | str, spec: ModelSpec = SMALL, **overrides: object) -> str:
    with pytest.raises(UserError) as caught:
        load_weights(spec, str(source), overrides)
    return str(caught.value)


def test_safetensors_are_read(file: Path, state: dict[str, Tensor]) -> None:
    weights = load_weights(SMALL, str(file))
    assert weights.source == str(file)
    assert weights.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert weights.num_classes == 7
    assert weights.classes is None
    assert weights.preprocessing == Preprocessing()
    assert weights.state.keys() == state.keys()
    assert all(torch.equal(weights.state[key], state[key]) for key in state)


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_state_dicts_of_torch_save_are_read(
    tmp_path: Path, state: dict[str, Tensor], zipped: bool
) -> None:
    path = tmp_path / "my.pth"
    torch.save(OrderedDict(state), path, _use_new_zipfile_serialization=zipped)
    weights = load_weights(SMALL, str(path))
    assert all(torch.equal(weights.state[key], state[key]) for key in state)


def test_the_content_decides_not_the_name(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "my.safetensors")
    assert load_weights(SMALL, str(tmp_path / "my.safetensors")).num_classes == 7


def test_the_model_computes_what_the_saved_one_does(file: Path, state: dict[str, Tensor]) -> None:
    reference = small(7)
    reference.load_state_dict(state)
    images = torch.randn(2, 3, 8, 8)
    weights = load_weights(SMALL, str(file))
    for build in (build_model, build_quantizable):
        model = build(SMALL, weights)
        assert not any(module.training for module in model.modules())
        assert torch.equal(model(images), reference.eval()(images))


def test_half_precision_becomes_float32(tmp_path: Path, state: dict[str, Tensor]) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, tmp_path / "half.safetensors")
    model = build_model(SMALL, load_weights(SMALL, str(tmp_path / "half.safetensors")))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model.state_dict()["conv.weight"], half["conv.weight"].float())


def test_models_share_no_memory_with_the_weights(file: Path) -> None:
    weights = load_weights(SMALL, str(file))
    first, second = build_model(SMALL, weights), build_model(SMALL, weights)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert second.state_dict()["head.weight"].abs().sum() > 0
    assert weights.state["head.weight"].abs().sum() > 0


def test_batch_counters_that_old_files_lack_are_filled_in(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    del state["norm.num_batches_tracked"]
    torch.save(state, tmp_path / "old.pth")
    model = build_model(SMALL, load_weights(SMALL, str(tmp_path / "old.pth")))
    assert model.state_dict()["norm.num_batches_tracked"] == 0


@pytest.mark.parametrize("spec", [MODELS.get(name) for name in SHIPPED], ids=lambda spec: spec.name)
def test_every_shipped_architecture_takes_its_state_in_both_variants(
    tmp_path: Path, spec: ModelSpec
) -> None:
    torch.manual_seed(0)
    reference = spec.factory(5).eval()
    save_file(reference.state_dict(), tmp_path / "my.safetensors")
    weights = load_weights(spec, str(tmp_path / "my.safetensors"))
    assert weights.num_classes == 5
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = reference(images)
        assert torch.equal(build_model(spec, weights)(images), expected)
        if spec.quantizable is not None:
            torch.testing.assert_close(build_quantizable(spec, weights)(images), expected)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_unopened(tmp_path: Path, zipped: bool) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({"x": Payload(trace)}, path, _use_new_zipfile_serialization=zipped)
    assert "more than plain tensors" in refused(path)
    assert not trace.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(small(7), tmp_path / "module.pth")
    assert "Save model.state_dict()" in refused(tmp_path / "module.pth")


def test_one_tensor_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    assert "hold one Tensor" in refused(tmp_path / "tensor.pth")


def test_sparse_and_nonfinite_tensors_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["head.bias"][2] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    assert "'head.bias'" in refused(tmp_path / "nan.pth")
    state["head.bias"] = torch.zeros(7).to_sparse()
    torch.save(state, tmp_path / "sparse.pth")
    assert "sparse" in refused(tmp_path / "sparse.pth")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04rubbish", b"\x80\x02rubbish"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(content)
    assert str(path) in refused(path)


@pytest.mark.parametrize("name", ["my.pth", "my.safetensors"])
def test_truncated_files_are_refused(tmp_path: Path, state: dict[str, Tensor], name: str) -> None:
    path = tmp_path / name
    torch.save(state, path) if name.endswith("pth") else save_file(state, path)
    path.write_bytes(path.read_bytes()[:-40])
    assert str(path) in refused(path)


def test_another_architecture_is_named(tmp_path: Path) -> None:
    save_file(SQUEEZENET.factory(16).state_dict(), tmp_path / "squeezenet.safetensors")
    message = refused(tmp_path / "squeezenet.safetensors", MODELS.get("resnet18"))
    assert "not those of resnet18" in message
    assert "conv1.weight" in message
    assert "52 of 52 tensors not part of it" in message
    assert "They fit squeezenet1_1" in message


def test_another_shape_is_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["conv.weight"] = torch.zeros(8, 3, 3, 3)
    torch.save(state, tmp_path / "wide.pth")
    assert "conv.weight (8×3×3×3 instead of 4×3×3×3)" in refused(tmp_path / "wide.pth")


def test_a_head_that_contradicts_itself_is_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["head.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "head.pth")
    assert "head.bias (5 instead of 7)" in refused(tmp_path / "head.pth")


def test_files_that_are_not_there(tmp_path: Path, file: Path) -> None:
    assert "Did you mean my.safetensors" in refused(tmp_path / "mi.safetensors")
    assert "`fixture`" in refused(tmp_path / "nowhere" / "x.pth")
    assert "are a folder" in refused(tmp_path)


def test_a_folder_that_cannot_be_listed_is_no_obstacle_to_the_message(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "listdir", deny)
    monkeypatch.setattr(os, "scandir", deny)
    message = refused(file.with_name("other.safetensors"))
    assert "There is no weights file" in message and "Weights may come from" in message


def test_missing_fixture_weights_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_module, "fixtures_dir", lambda: tmp_path)
    assert "no fixture weights for small" in refused("fixture")


@pytest.mark.parametrize("name", ["my.safetensors.json", "my.json"])
def test_the_sidecar_is_found(file: Path, name: str) -> None:
    classes = list("abcdefg")
    settings = {"resize": 64, "crop": 56, "mean": [0, 0.5, 1], "interpolation": "bicubic"}
    file.with_name(name).write_text(json.dumps({**settings, "classes": classes, "training": {}}))
    weights = load_weights(SMALL, str(file))
    assert weights.classes == tuple(classes)
    assert weights.preprocessing == Preprocessing(64, 56, (0, 0.5, 1), interpolation="bicubic")


def test_overrides_win_and_none_is_not_given(file: Path) -> None:
    file.with_name("my.json").write_text('{"resize": 64, "crop": 64, "std": [1, 1, 1]}')
    overrides = {"crop": 48, "resize": None, "classes": list("gfedcba")}
    weights = load_weights(SMALL, str(file), overrides)
    assert weights.preprocessing == Preprocessing(64, 48, std=(1, 1, 1))
    assert weights.classes == tuple("gfedcba")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"reszie": 64}', "Unknown setting 'reszie'.*Did you mean resize"),
        ('{"resize": 64}', "In the sidecar .*crop=224 is larger than resize=64"),
        ('{"mean": 3}', "mean=3 must be three numbers"),
        ('{"classes": ["a", "b"]}', "2 class names for .* has 7 outputs"),
        ('{"classes": "abcdefg"}', "must be a list of names"),
        ('{"classes": ["a", "a", "b", "c", "d", "e", "f"]}', "names a more than once"),
        ("[1, 2]", "must be a JSON object"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_wrong_sidecars_are_explained(file: Path, content: str, message: str) -> None:
    file.with_name("my.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_weights(SMALL, str(file))


def test_misspelt_overrides_are_explained(file: Path) -> None:
    assert "Did you mean crop" in refused(file, corp=3)


@pytest.mark.parametrize("name", FIXTURES)
def test_fixture_weights_load_with_their_sidecar(name: str) -> None:
    weights = load_weights(MODELS.get(name))
    assert weights.classes == CLASSES
    assert (weights.preprocessing.resize, weights.preprocessing.crop) == (64, 64)
    logits = build_model(MODELS.get(name), weights)(torch.zeros(1, 3, 64, 64))
    assert logits.shape == (1, 16)


def test_a_safetensors_file_that_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    # A header of 0x80 bytes, modulo 256, makes the first byte that of a pickle.
    for padding in range(300):
        save_file({"a" * (padding + 1): torch.ones(2)}, path)
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert [value.tolist() for value in read_state(path).tensors.values()] == [[1.0, 1.0]]
