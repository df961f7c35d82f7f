"""Settings: precedence, origins, wildcards, and the answers to mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ptqbench.errors import UserError
from ptqbench.recipes.recipe_catalog import CATALOG
from ptqbench.reporting.console import render
from ptqbench.reporting.settings_table import settings_view
from ptqbench.settings import discovery
from ptqbench.settings.layers import Layer, Settings, marker_layer


def load(folder: Path, line: Layer | None = None) -> Settings:
    settings = discovery.load(folder, CATALOG, line)
    discovery.check_paths(settings)
    return settings


PROJECT = """
[tool.ptqbench]
profile = "ci"
backends = ["x86", "onednn"]
baselines = "references"

[tool.ptqbench.thresholds]
accuracy = 0.98
speedup = 1.2

[tool.ptqbench.model."mobilenet_*"]
seed = 1
input_size = 64
thresholds.accuracy = 0.97

[tool.ptqbench.model.mobilenet_v2]
seed = 2

[tool.ptqbench.model."*"]
seed = 3
thresholds.speedup.avx2 = 1.7
"""


@pytest.fixture(autouse=True)
def not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)


def written(folder: Path, text: str, name: str = "pyproject.toml") -> Path:
    (folder / name).write_text(text)
    return folder


def test_without_a_file_recipes_and_defaults_hold(tmp_path):
    settings = load(tmp_path)
    assert settings.file is None
    assert settings.value("profile").value == "local"
    case, _ = settings.case("resnet18")
    assert (case.weights, case.data, case.batch_size, case.thresholds) == (
        "fixture",
        "fixture",
        1,
        {},
    )
    assert settings.value("backends", "resnet18").value == ("onednn",)
    size_ratio = settings.value("thresholds.size_ratio", "resnet18")
    assert (size_ratio.value, size_ratio.origin) == (3.8, "recipe")


def test_precedence_command_line_marker_model_general_recipe(tmp_path):
    line = Layer("command line", {"thresholds.agreement": 0.9})
    settings = load(written(tmp_path, PROJECT), line)
    marker = marker_layer((), {"accuracy": 0.5, "agreement": 0.1}, "a test")

    def origin(name: str, model: str, marker: Layer | None = None) -> tuple[object, str]:
        setting = settings.value(name, model, marker)
        return setting.value, setting.origin

    assert origin("thresholds.agreement", "resnet18", marker) == (0.9, "command line")
    assert origin("thresholds.accuracy", "resnet18", marker) == (0.5, "marker")
    wildcard = 'pyproject.toml [tool.ptqbench.model."mobilenet_*"]'
    assert origin("thresholds.accuracy", "mobilenet_v2") == (0.97, wildcard)
    assert origin("thresholds.accuracy", "resnet18") == (0.98, "pyproject.toml [tool.ptqbench]")
    assert origin("thresholds.size_ratio", "resnet18") == (3.8, "recipe")


def test_own_name_beats_wildcards_and_later_wildcards_beat_earlier(tmp_path):
    settings = load(written(tmp_path, PROJECT))
    seeds = [
        settings.value("seed", name).value
        for name in ("mobilenet_v2", "mobilenet_v3_large", "resnet18")
    ]
    assert seeds == [2, 3, 3]
    assert settings.case("mobilenet_v3_large")[0].input_size == 64


def test_a_speedup_for_all_instruction_sets_yields_to_one_for_some(tmp_path):
    case, _ = load(written(tmp_path, PROJECT)).case("resnet18")
    speedup = case.thresholds["speedup"]
    assert speedup["avx2"] == 1.7 and speedup["neon"] == 1.2


def test_paths_start_at_the_file(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    settings = load(written(tmp_path, PROJECT) / "a" / "b")
    assert settings.file == tmp_path / "pyproject.toml"
    assert settings.value("baselines").value == tmp_path / "references"


def test_ptqbench_toml_has_the_same_settings_without_prefix(tmp_path):
    text = "seed = 4\n[thresholds]\naccuracy = 0.9\n[model.resnet18]\nseed = 5\n"
    settings = load(written(tmp_path, text, "ptqbench.toml"))
    assert settings.value("seed").value == 4
    assert settings.value("seed", "resnet18").origin == 'ptqbench.toml [model."resnet18"]'


def test_the_environment_of_a_ci_makes_the_profile_strict(tmp_path, monkeypatch):
    monkeypatch.setenv("CI", "true")
    profile = load(tmp_path).value("profile")
    assert profile.value == "ci" and "CI is set" in profile.origin
    monkeypatch.setenv("CI", "false")
    assert load(tmp_path).value("profile").value == "local"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wieghts = 'a'", "Unknown setting 'wieghts' in pyproject.toml [tool.ptqbench]. Did you"),
        ("thresholds.acuracy = 1", "'thresholds.acuracy' in .* Did you mean thresholds.accuracy"),
        ("thresholds.speedup.avx3 = 1", "Did you mean .*avx2"),
        ("thresholds.accuracy = 99", "expected a share between 0 and 1"),
        ("thresholds.accuracy = true", "expected a share|a number"),
        ("thresholds = 1", "expected a table"),
        ("profile = 'strict'", "expected local or ci, but got 'strict'"),
        ("threads = 0", "a whole number of at least 1"),
        ("models = []", "a list of names"),
        ("weights = 'nowhere.safetensors'", "There are no weights at .*nowhere"),
        ("data = 'nowhere'", "There are no images at .*nowhere"),
        ("model = 'resnet18'", "expected a table for each model"),
        ("[tool.ptqbench.model.resnet18]\nprofile = 'ci'", "cannot be set for one model"),
        ("model.resnet18.sed = 1", r'model."resnet18"\]. Did you mean seed'),
        ("seed = ", "cannot be read"),
    ],
)
def test_mistakes_are_named_with_place_and_remedy(tmp_path, text, words):
    with pytest.raises(UserError) as caught:
        load(written(tmp_path, f"[tool.ptqbench]\n{text}\n"))
    assert re.search(words.replace("[tool.ptqbench].", r"\[tool.ptqbench\]."), str(caught.value))


def test_a_table_for_no_model_is_an_error(tmp_path):
    settings = load(written(tmp_path, "[tool.ptqbench.model.resnet81]\nseed = 1\n"))
    with pytest.raises(
        UserError, match=r"resnet81.* does not match any model.*Did you mean resnet18"
    ):
        settings.chosen_models()


def test_weights_of_one_model_are_not_used_for_several(tmp_path):
    (tmp_path / "w.safetensors").touch()
    settings = load(written(tmp_path, "[tool.ptqbench]\nweights = 'w.safetensors'\n"))
    with pytest.raises(UserError, match="belong to one model"):
        settings.chosen_models()
    settings = load(tmp_path, Layer("--ptqbench-models", {"models": ("resnet18",)}))
    assert settings.chosen_models() == ["resnet18"]


def test_two_files_in_one_folder_are_an_error(tmp_path):
    written(tmp_path, "seed = 1", "ptqbench.toml")
    with pytest.raises(UserError, match=r"Both .* Keep one"):
        load(written(tmp_path, "[tool.ptqbench]\nseed = 1\n"))


def test_a_project_without_settings_is_passed_over(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    written(tmp_path, "[tool.ptqbench]\nseed = 7\n")
    written(inner, "[project]\nname = 'x'\ndependencies = ['ptqbench']\n")
    assert load(inner).value("seed").value == 7


def test_markers_take_known_keywords_only():
    with pytest.raises(UserError, match=r"Unknown threshold 'acuracy'.*Did you mean accuracy"):
        marker_layer((), {"acuracy": 0.9}, "test_a")
    with pytest.raises(UserError, match="keyword arguments only"):
        marker_layer((0.9,), {}, "test_a")
    with pytest.raises(UserError, match=r"test_a.*between 0 and 1"):
        marker_layer((), {"accuracy": 90}, "test_a")


def test_the_view_shows_every_value_with_its_origin(tmp_path):
    settings = load(written(tmp_path, PROJECT))
    text = render(settings_view(settings, ["resnet18"]), 120)
    lines = {line.split()[0]: line for line in text.splitlines() if line}
    assert "0.98" in lines["thresholds.accuracy"]
    assert "pyproject.toml [tool.ptqbench]" in lines["thresholds.accuracy"]
    assert "recipe" in lines["thresholds.size_ratio"]
    assert lines["weights"].split()[1:] == ["fixture", "default"]
    assert "ci" in lines["profile"]
