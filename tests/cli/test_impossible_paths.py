"""Text that no file can be called is a sentence, wherever a path may stand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import ptqbench
from ptqbench.cli import main
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError
from ptqbench.weights.sidecar import WeightsSettings, read_settings

LONG = "cat dog " * 60
HOME = "home folder"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PTQBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    try:
        code: object = main(argv)
    except SystemExit as left:
        code = left.code
    assert code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("run", "resnet18", "--classes", LONG), "there is no file"),
        (("run", "resnet18", "--weights", LONG), "There are no weights"),
        (("run", "resnet18", "--data", LONG), "There are no images"),
        (("run", "resnet18", "--data", f"cifar10:{LONG}"), "does not exist"),
        (("run", "resnet18", "--data", f"imagenet:{LONG}"), "does not exist"),
        (("run", "resnet18", "--json", LONG), "Cannot write"),
        (("run", "resnet18", "--recipe", LONG), "cannot be read"),
        (("run", "resnet18", "--plugin", f"{LONG}.py"), "there is no file"),
        (("gate", "--model", "resnet18", "--artifact", LONG), "does not exist"),
        (("predict", LONG, "--model", "resnet18"), "does not exist"),
        (("run", "resnet18", "--weights", "~backup.pth"), HOME),
        (("run", "resnet18", "--data", "~nobody-at-all/photos"), HOME),
        (("run", "resnet18", "--data", "cifar10:~nobody-at-all"), HOME),
        (("run", "resnet18", "--json", "~nobody-at-all/result.json"), HOME),
        (("run", "resnet18", "--recipe", "~nobody-at-all/my.toml"), HOME),
        (("gate", "--model", "resnet18", "--artifact", "~nobody-at-all/int8.pt"), HOME),
        (("predict", "~nobody-at-all/cat.jpg", "--model", "resnet18"), HOME),
    ],
)
def test_on_the_command_line(
    argv: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, *argv)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('weights = "~nobody-at-all/w.pth"', HOME),
        ('data = "~nobody-at-all/photos"', HOME),
        ('data = "imagenet:~nobody-at-all"', HOME),
        ('data = "imagenet"', "needs its ROOT"),
        ('report.json = "~nobody-at-all/result.json"', HOME),
        (r'weights = "nul\u0000"', "There are no weights"),
        (r'data = "nul\u0000"', "There are no images"),
        (r'report.json = "nul\u0000"', "Cannot write"),
        (r'recipes = ["nul\u0000.toml"]', "cannot be read"),
        (f'weights = "{LONG}"', "There are no weights"),
    ],
)
def test_in_the_settings(
    line: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ptqbench.toml").write_text(line, "utf-8")
    assert words in refused(capsys, "run", "resnet18")


@pytest.mark.parametrize(
    "arguments",
    [
        {"artifact": LONG},
        {"artifact": "x86", "weights": LONG},
        {"artifact": "x86", "data": LONG},
        {"artifact": "x86", "data": "nul\0"},
        {"artifact": "x86", "weights": "~backup.pth"},
        {"artifact": "x86", "data": "~nobody-at-all/x"},
    ],
)
def test_from_python(arguments: dict[str, str]) -> None:
    with pytest.raises(UserError):
        ptqbench.validate("resnet18", **arguments)  # type: ignore[arg-type]


def test_a_cache_that_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert "name too long" in refused(
        capsys, "run", "squeezenet1_1", "--limit", "20", "--cache-dir", LONG
    )


def test_a_name_that_is_not_utf_8_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9")
    assert r"There are no images at caf\xe9:" in refused(capsys, "run", "--data", name)


def test_a_name_that_leaves_no_room_for_a_sidecar(tmp_path: Path) -> None:
    weights = tmp_path / f"{'w' * 243}.safetensors"
    weights.touch()
    default = WeightsSettings(Preprocessing())
    assert read_settings(weights, {}, default) == default
