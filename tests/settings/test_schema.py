"""The table of settings: options, show-config, checks and the JSON Schema follow its rows."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ptqbench.cli.parser import build_parser
from ptqbench.cli.setting_options import load_settings
from ptqbench.errors import UserError
from ptqbench.recipes.recipe_catalog import CATALOG
from ptqbench.reporting.console import render
from ptqbench.reporting.settings_table import settings_view
from ptqbench.settings import values
from ptqbench.settings.json_schema import settings_schema
from ptqbench.settings.layers import Settings
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.schema import GROUPS, SETTINGS
from ptqbench.settings.setting import ALL_COMMANDS, CommandOption, PytestOption, Setting
from ptqbench.testing.options import add_options, command_line

ROW = Setting(
    "dither",
    values.whole(1),
    "levels of dithering",
    unset="no dithering",
    commands=(CommandOption("--dither", "N", ("run", "predict")),),
    pytest=PytestOption("--ptqbench-dither", "N"),
)


@pytest.fixture
def with_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SETTINGS, ROW.key, ROW)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.chdir(tmp_path)


def parsed(*argv: str) -> Settings:
    args = build_parser().parse_args(argv)
    return load_settings(args, getattr(args, "models", []))


def test_a_row_becomes_an_option_of_its_commands(
    with_row: None, capsys: pytest.CaptureFixture[str]
) -> None:
    value = parsed("run", "resnet18", "--dither", "3").value("dither", "resnet18")
    assert (value.value, value.origin) == (3, "--dither")
    with pytest.raises(SystemExit):
        build_parser().parse_args(["run", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--dither N levels of dithering; default: no dithering" in shown
    with pytest.raises(SystemExit):
        build_parser().parse_args(["run", "--dither", "0"])
    assert "--dither: expected a whole number of at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        build_parser().parse_args(["recipe", "resnet18", "--dither", "3"])
    assert "unrecognized arguments: --dither" in capsys.readouterr().err


def test_a_row_is_checked_in_a_file_and_shown_with_its_origin(
    with_row: None, tmp_path: Path
) -> None:
    file = tmp_path / "ptqbench.toml"
    file.write_text("model.resnet18.dither = 5\n", "utf-8")
    text = render(settings_view(parsed("show-config"), ["resnet18", "vgg11"]), 120)
    rows = [line.split() for line in text.splitlines() if line.startswith("dither")]
    assert rows[0] == ["dither", "5", "ptqbench.toml", '[model."resnet18"]']
    assert rows[1] == ["dither", "no", "dithering", "default"]
    file.write_text("dither = 'much'\n", "utf-8")
    with pytest.raises(UserError, match="expected a whole number of at least 1, but got 'much'"):
        parsed("show-config")


class Group:
    """Stands in for pytest's parser: records the options."""

    def __init__(self) -> None:
        self.options: dict[str, dict[str, object]] = {}

    def getgroup(self, name: str, description: str) -> Group:
        return self

    def addoption(self, flag: str, **details: object) -> None:
        self.options[flag] = details


class Config:
    """Stands in for pytest's configuration with options."""

    def __init__(self, **options: object) -> None:
        self.options = options
        self.invocation_params = type("Params", (), {"dir": Path.cwd()})

    def getoption(self, name: str) -> object:
        return self.options.get(name)


def test_a_row_becomes_an_option_of_pytest(with_row: None) -> None:
    group = Group()
    add_options(group)  # type: ignore[arg-type]
    assert (
        group.options["--ptqbench-dither"]["help"] == "levels of dithering; default: no dithering"
    )
    layer = command_line(Config(ptqbench_dither="4"))  # type: ignore[arg-type]
    value = layer.get("dither")
    assert value is not None and (value.value, value.origin) == (4, "--ptqbench-dither")
    with pytest.raises(UserError, match="--ptqbench-dither: expected a whole number"):
        command_line(Config(ptqbench_dither="x"))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Wrong value for 'weights' in --ptqbench-weights"):
        command_line(Config(ptqbench_weights=""))  # type: ignore[arg-type]


def test_a_row_is_in_the_json_schema(with_row: None) -> None:
    expected = {"type": "integer", "minimum": 1}
    schema = settings_schema()
    for table in (schema, schema["$defs"]["model"]):
        properties = table["properties"]["dither"]
        assert {key: properties[key] for key in expected} == expected
        assert properties["description"] == "levels of dithering; default: no dithering"


# The rows themselves


def test_every_default_is_the_one_of_the_record() -> None:
    record = RunSettings()
    for name in ("data", "limit", "broken_share", "workers", "batch_size", "threads", "seed"):
        assert SETTINGS[name].default == getattr(record, name)
    assert record.of("resnet18").weights == SETTINGS["weights"].default


@pytest.mark.parametrize("name", ["fixture", "probe", "IMAGENET1K_V2"])
def test_a_path_names_a_file_that_is_called_like_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    case, _ = parsed("run", "resnet18", "--weights", f"./{name}").case("resnet18")
    assert case.weights == str(tmp_path / name)
    case, _ = parsed("run", "resnet18", "--weights", name).case("resnet18")
    assert case.weights == name


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--seed", "4294967296", "at most 4294967295"),
        ("--threads", "1000000000000", "at most 1024"),
        ("--workers", "1025", "at most 1024"),
        ("--time-limit", "9999999", "at most 2000000"),
    ],
)
def test_numbers_that_no_system_takes_are_refused(
    option: str, value: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["run", option, value])
    assert f"argument {option}: expected " in (err := capsys.readouterr().err)
    assert words in err


def test_ten_thousands_of_class_names_are_checked_at_once() -> None:
    names = [f"class {number}" for number in range(20_000)]
    started = time.process_time()
    with pytest.raises(ValueError, match=r"\(class 7 is repeated\)"):
        values.CLASS_NAMES.parse([*names, "class 7"], Path())
    assert time.process_time() - started < 1


def test_options_belong_to_known_commands_and_groups() -> None:
    options = [option for setting in SETTINGS.values() for option in setting.commands]
    assert {option.group for option in options} <= {"", *GROUPS}
    assert {command for option in options for command in option.commands} <= set(ALL_COMMANDS)
    for command in ALL_COMMANDS:
        flags = [option.flag for option in options if command in option.commands]
        assert len(flags) == len(set(flags))


def test_the_help_of_the_models_option_names_its_default() -> None:
    group = Group()
    add_options(group)  # type: ignore[arg-type]
    assert "default: the six shipped models" in str(group.options["--ptqbench-models"]["help"])
    assert len(Settings(CATALOG).chosen_models()) == 6


def test_preprocessing_and_classes_can_be_set_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("cat\ndog\n", "utf-8")
    (tmp_path / "ptqbench.toml").write_text(
        "preprocessing.resize = 72\npreprocessing.mean = [0.5, 0.4, 0.3]\n"
        'model.vgg11.classes = "names.txt"\n',
        "utf-8",
    )
    settings, _ = parsed("show-config").case("vgg11")
    assert settings.overrides == {
        "resize": 72,
        "mean": (0.5, 0.4, 0.3),
        "classes": ("cat", "dog"),
    }
    settings, _ = parsed("run", "vgg11", "--resize", "64", "--classes", "a,b").case("vgg11")
    assert (settings.overrides["resize"], settings.overrides["classes"]) == (64, ("a", "b"))
