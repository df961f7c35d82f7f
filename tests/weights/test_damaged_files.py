"""Weights files and sidecars that are damaged, hostile or of formats to come: always a sentence."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

from ptqbench.errors import UserError
from ptqbench.models.catalog import MODELS, ModelSpec
from ptqbench.weights.checkpoint import read_state
from ptqbench.weights.load import build_model, load_weights
from ptqbench.weights.sidecar import WeightsSettings, read_settings

MUTATIONS = 400
DEEP = 200_000


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_state(path)
    return str(caught.value)


def safetensors_bytes(header: object, data: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[int] | None = None, size: int = 64) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape or [size], "data_offsets": [0, size]}


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F3_E9M9", "i8"])
def test_data_types_without_a_tensor_are_named(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "mx.safetensors"
    bits = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}.get(dtype, 8)
    header = {"__metadata__": {}, "head.weight": entry(dtype, [64 * 8 // bits // 2 * 2])}
    path.write_bytes(safetensors_bytes(header))
    message = refused(path)
    assert "'head.weight'" in message and f"data type {dtype}," in message
    assert "float32" in message


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"a": entry("F32", [-1])}, id="negative shape"),
        pytest.param({"a": entry("F32", [2**63])}, id="shape too large"),
        pytest.param({"a": entry("F32", [2**70])}, id="shape beyond 64 bits"),
        pytest.param({"a": entry("F32", [3])}, id="shape of another size"),
        pytest.param({"a": {**entry("F32", [16]), "data_offsets": [64, 0]}}, id="offsets reversed"),
        pytest.param({"a": {"dtype": ["F32"]}}, id="dtype is a list"),
        pytest.param({"a": None}, id="no entry"),
        pytest.param([1, 2], id="header is a list"),
        pytest.param(b'{"a": NaN}', id="NaN"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", id="number of 5000 digits"),
        pytest.param(b"\xff\xfe{", id="not UTF-8"),
        pytest.param(b'{"a":' + b"[" * DEEP, id="deep"),
        pytest.param(b'{"a":' * DEEP + b"1" + b"}" * DEEP, id="deep and valid"),
    ],
)
def test_headers_that_make_no_sense_are_refused(tmp_path: Path, header: object) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(safetensors_bytes(header))
    assert str(path) in refused(path)


@pytest.mark.parametrize("size", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_wrong_lengths_of_the_header_are_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(size.to_bytes(8, "little") + b'{"a": {}}' + bytes(64))
    assert str(path) in refused(path)


def test_any_damage_of_a_safetensors_file_is_refused_or_harmless(tmp_path: Path) -> None:
    state = {"conv.weight": torch.arange(6.0).reshape(1, 2, 3), "n": torch.tensor(3)}
    whole = save(state, {"format": "pt"})
    header_end = 8 + int.from_bytes(whole[:8], "little")
    random_ = random.Random(0)
    path = tmp_path / "damaged.safetensors"
    outcomes = []
    for _ in range(MUTATIONS):
        content = bytearray(whole)
        for _ in range(random_.randint(1, 3)):
            place = random_.randrange(header_end)
            content[place] = random_.choice([random_.randrange(256), *b'{}[]",:09-'])
        path.write_bytes(content[: random_.choice([len(content), random_.randrange(len(content))])])
        try:
            read_state(path)
        except UserError as error:
            outcomes.append(str(error))
    assert len(outcomes) > MUTATIONS / 2
    assert all(str(path) in message for message in outcomes)


def test_a_pickle_that_contains_itself_is_refused(tmp_path: Path) -> None:
    checkpoint: dict[str, object] = {"epoch": 3}
    checkpoint["model"] = {"state_dict": checkpoint}
    path = tmp_path / "cyclic.pth"
    torch.save(checkpoint, path)
    assert "contain themselves" in refused(path)


def test_tensors_without_values_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "meta.pth"
    torch.save({"fc.weight": torch.empty(2, 3, device="meta")}, path)
    message = refused(path)
    assert "'fc.weight'" in message and "meta" in message


def test_a_tensor_larger_than_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.pth"
    torch.save({"fc.weight": torch.zeros(1).expand(2**50)}, path)
    assert "'fc.weight'" in refused(path)


def test_packed_four_bit_floats_in_a_pickle_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mx.pth"
    packed = torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    torch.save({"fc.weight": packed}, path)
    message = refused(path)
    assert "'fc.weight'" in message and "float4_e2m1fn_x2" in message


def test_a_vision_transformer_with_other_patches_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    state = {
        "encoder.pos_embedding": torch.zeros(1, 1 + 37 * 37, 768),
        "conv_proj.weight": torch.zeros(768, 3, 14, 14),
    }
    path.write_bytes(save(state))
    with pytest.raises(UserError, match="are not those of vit_b_16") as caught:
        load_weights(MODELS.get("vit_b_16"), str(path))
    assert "conv_proj.weight (768×3×14×14 instead of 768×3×16×16)" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "dtype"), [("1.running_var", torch.int32), ("index", torch.float32)]
)
def test_values_of_another_kind_are_refused(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    def indexed(num_classes: int) -> nn.Module:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, num_classes))
        model.register_buffer("index", torch.arange(4))
        return model

    state = indexed(3).state_dict()
    state["1.num_batches_tracked"] = torch.tensor(2.0)  # harmless
    spec, path = ModelSpec("indexed", indexed), tmp_path / "x.safetensors"
    path.write_bytes(save(state))
    build_model(spec, load_weights(spec, str(path)))
    path.write_bytes(save({**state, name: state[name].to(dtype)}))
    with pytest.raises(UserError, match=f"'{name}' .* is of type {dtype} instead of torch"):
        build_model(spec, load_weights(spec, str(path)))


def net(num_classes: int) -> nn.Module:
    return nn.Linear(4, num_classes)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * DEEP + "]" * DEEP, "nested too deeply"),
        ('{"mean":' * DEEP, "nested too deeply"),
        ('{"mean": [' + "1" + "0" * 400 + ", 0, 0]}", "too large"),
        ('{"crop": ' + "1" * 5000 + "}", "cannot be read as JSON"),
        ('{"mean": [NaN, 0, 0]}', "mean"),
        ('{"crop": -3}', "crop"),
        ('{"interpolation": {"a": []}}', "interpolation"),
        ("\x00", "cannot be read as JSON"),
    ],
    ids=lambda text: text[:12],
)
def test_odd_sidecars_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(save(net(3).state_dict()))
    path.with_suffix(".json").write_text(text, "utf-8")
    with pytest.raises(UserError, match=reason) as caught:
        load_weights(ModelSpec("net", net), str(path))
    assert str(path.with_suffix(".json")) in str(caught.value)


def test_any_damage_of_a_sidecar_is_refused_or_harmless(tmp_path: Path) -> None:
    settings = {
        **{"resize": 256, "crop": 224, "mean": [0.485, 0.456, 0.406], "std": [0.2, 0.2, 0.2]},
        **{"interpolation": "bilinear", "classes": ["cat", "dog"], "transform_input": False},
    }
    whole = json.dumps(settings).encode()
    values = [b"NaN", b"-1", b"1e999", b"null", b"{}", b"[[]]", b'"\\ud800"', b"1" * 400, b"\xff"]
    random_ = random.Random(0)
    path = tmp_path / "net.safetensors"
    refusals = 0
    for _ in range(MUTATIONS):
        start = random_.randrange(len(whole))
        end = start + random_.randint(0, 12)
        replacement = random_.choice([*values, random_.randbytes(2)])
        path.with_suffix(".json").write_bytes(whole[:start] + replacement + whole[end:])
        try:
            read_settings(path, {}, WeightsSettings())
        except UserError as error:
            assert str(path.with_suffix(".json")) in str(error)
            refusals += 1
    assert refusals > MUTATIONS / 2
