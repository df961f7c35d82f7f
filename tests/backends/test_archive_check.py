"""Archives in which bits have changed, and metadata that nobody wrote by accident."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from ptqbench.backends.torch_engines.archive_check import METADATA, check_torchscript, read_info
from ptqbench.errors import UserError

INFO = {"precision": "int8", "backend": "x86", "engine": "x86", "model": "relu"}


def saved(path: Path, metadata: str) -> Path:
    script = torch.jit.script(nn.ReLU())
    torch.jit.save(script, str(path), _extra_files={METADATA: metadata})
    return path


def flipped(content: bytes, choose: random.Random) -> bytes:
    changed = bytearray(content)
    changed[choose.randrange(len(changed))] ^= 1 << choose.randrange(8)
    return bytes(changed)


def replaced(content: bytes, choose: random.Random) -> bytes:
    """Bytes of the directory, where most of what can go wrong is, are others."""
    changed = bytearray(content)
    start = content.index(b"PK\x01\x02")
    for _ in range(choose.randrange(1, 4)):
        changed[choose.randrange(start, len(changed))] = choose.randrange(256)
    return bytes(changed)


def truncated(content: bytes, choose: random.Random) -> bytes:
    return content[: choose.randrange(len(content))]


@pytest.mark.parametrize("change", [flipped, replaced, truncated])
def test_whatever_has_changed_is_refused_in_a_sentence_or_does_no_harm(
    tmp_path: Path, change: Callable[[bytes, random.Random], bytes]
) -> None:
    content = saved(tmp_path / "sound.pt", json.dumps(INFO)).read_bytes()
    path = tmp_path / "changed.pt"
    choose = random.Random(0)
    for _ in range(300):
        path.write_bytes(change(content, choose))
        with suppress(UserError):
            check_torchscript(path)
            read_info(path)


def marked(content: bytes, offset: int, value: int) -> bytes:
    """The first entry of the directory with another value in one byte."""
    changed = bytearray(content)
    changed[content.index(b"PK\x01\x02") + offset] = value
    return bytes(changed)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        pytest.param(8, 0x09, id="encrypted"),
        pytest.param(46, 0xFF, id="name that is not UTF-8"),
        pytest.param(10, 99, id="unknown compression"),
        pytest.param(10, 14, id="another compression"),
    ],
)
def test_changes_of_the_directory_are_damage(tmp_path: Path, offset: int, value: int) -> None:
    path = saved(tmp_path / "a.pt", json.dumps(INFO))
    path.write_bytes(marked(path.read_bytes(), offset, value))
    with pytest.raises(UserError, match="damaged"):
        check_torchscript(path)


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param("[" * 100_000, id="deeply nested"),
        pytest.param('{"a":' * 100_000, id="deeply nested objects"),
        pytest.param("{", id="not JSON"),
        pytest.param("3", id="a number"),
        pytest.param(json.dumps({**INFO, "colour": "green"}), id="unknown words"),
        pytest.param(json.dumps({**INFO, "backend": 3}), id="other types"),
        pytest.param(json.dumps({**INFO, "build": "none"}), id="a build that is a text"),
    ],
)
def test_metadata_of_another_kind_is_refused(tmp_path: Path, metadata: str) -> None:
    path = saved(tmp_path / "a.pt", metadata)
    with pytest.raises(UserError, match="metadata that this version"):
        read_info(path)


def test_sound_metadata_is_read(tmp_path: Path) -> None:
    info = read_info(saved(tmp_path / "a.pt", json.dumps(INFO)))
    assert info is not None and (info.backend, info.model) == ("x86", "relu")


def test_an_onnx_model_is_sent_to_its_backend(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x09\x12\x07pytorch")
    with pytest.raises(UserError, match="an ONNX model, which only --backend onnxruntime loads"):
        check_torchscript(path)
