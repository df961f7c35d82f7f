"""Models of timm by name, at every door: found, prepared, filled, and refused with a sentence."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers.custom_models import registries_unchanged, save, seeded
from helpers.timm_double import CONFIGURATIONS, Net, timm_double

import ptqbench
from ptqbench.cli import main
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError
from ptqbench.evaluation import resume
from ptqbench.models.catalog import MODELS
from ptqbench.models.custom import timm_models
from ptqbench.models.custom.importing import prepare, reference
from ptqbench.recipes import RECIPES
from ptqbench.recipes.recipe_catalog import CATALOG
from ptqbench.settings.discovery import load
from ptqbench.settings.layers import COMMAND_LINE, Layer
from ptqbench.weights.load import build_model
from ptqbench.weights.open_weights import open_weights, provide, published_names


@pytest.fixture(autouse=True)
def double(monkeypatch, tmp_path):
    """A timm that is not the real one, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    hub = ModuleType("huggingface_hub.constants")
    hub.HF_HUB_OFFLINE, hub.ENDPOINT, hub.HF_HUB_CACHE = False, "https://hub.example", "/cache"
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", hub)
    monkeypatch.setitem(sys.modules, "timm", timm_double())
    timm_models.architectures.cache_clear()
    with registries_unchanged():
        yield hub
    timm_models.architectures.cache_clear()


def error_of(call, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    return str(caught.value)


def test_a_name_is_a_model_with_timms_size_classes_and_preprocessing() -> None:
    reference("timm:resnet18")
    spec = MODELS.get("timm:resnet18")
    assert (spec.input_size, spec.num_classes, spec.fixed_input) == ((3, 32, 32), 1000, False)
    assert Preprocessing(**spec.preprocessing) == Preprocessing(
        40, 32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear"
    )
    assert RECIPES.get("timm:resnet18").backend == "measured"
    reference("timm:resnet18.small_in1k")  # a tag chooses other weights, and what they need
    assert MODELS.get("timm:resnet18.small_in1k").input_size == (3, 64, 64)
    before = RECIPES.get("timm:resnet18")
    reference("timm:resnet18")
    assert RECIPES.get("timm:resnet18") is before


def test_a_file_is_read_with_timms_preprocessing_and_its_own_classes(tmp_path) -> None:
    file = save(seeded(Net, 7, CONFIGURATIONS["vit_fixed"]), tmp_path / "net.safetensors")
    reference("timm:vit_fixed")
    spec = MODELS.get("timm:vit_fixed")
    weights = open_weights(spec, str(file))
    assert (weights.num_classes, weights.preprocessing.resize) == (7, 40)
    assert weights.preprocessing.interpolation == "bicubic"
    assert ["squash" in note for note in weights.notes] == [True]
    assert build_model(spec, weights)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    file.with_suffix(".json").write_text(json.dumps({"interpolation": "nearest"}))
    assert open_weights(spec, str(file)).preprocessing.interpolation == "nearest"


def chosen(*models: str) -> list[str]:
    settings = load(Path.cwd(), CATALOG, Layer(COMMAND_LINE, {"models": models}))
    prepare(settings)
    return settings.chosen_models()


def test_wildcards_choose_architectures_and_tables_set_them() -> None:
    assert chosen("timm:resnet1*") == ["timm:resnet18", "timm:resnet101"]
    assert chosen("timm:lcnet_050", "resnet18") == ["resnet18", "timm:lcnet_050"]
    (Path.cwd() / "ptqbench.toml").write_text('[model."timm:lc*"]\nlimit = 3\n')
    assert chosen("timm:lcnet_075") == ["timm:lcnet_075"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("timm:resnet19", ["timm 9.9.9 has no model 'resnet19'", "Did you mean timm:resnet18"]),
        ("timm:resnet18.large", ["no model 'resnet18.large'", "comes as resnet18.small_in1k."]),
        ("timm:qqq*", ["No architecture of timm 9.9.9 matches", "lists all 6"]),
        ("timm:oblong", ["takes pictures of 3×32×48"]),
    ],
)
def test_a_name_that_does_not_exist_is_a_sentence(text: str, parts: list[str], capsys) -> None:
    for command in ("run", "show-config", "list"):
        assert main([command, text]) == 2
        error = capsys.readouterr().err
        assert all(part in error for part in parts) and "Traceback" not in error
    assert parts[0] in error_of(ptqbench.validate, text, "onednn")


def test_without_timm_the_command_that_installs_it_is_named(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert main(["recipe", "timm:resnet18"]) == 2
    assert (
        "timm:resnet18 needs timm, which is not installed: python -m pip install timm"
        in capsys.readouterr().err
    )


def test_a_timm_that_does_not_fit_is_a_sentence(monkeypatch, tmp_path) -> None:
    monkeypatch.delitem(sys.modules, "timm")
    (tmp_path / "timm.py").write_text("import torchvision.gone")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = error_of(reference, "timm:resnet18")
    assert "cannot be imported: ModuleNotFoundError: No module named 'torchvision.gone'" in text
    assert "pip install timm" in text


def test_list_counts_timm_and_lists_what_matches(monkeypatch, capsys) -> None:
    monkeypatch.setattr(timm_models, "is_installed", lambda: True)
    assert main(["list", "timm:lcnet*"]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert [line.split() for line in lines[1:3]] == [
        ["timm:lcnet_050", "3×32×32", "probe,", "pretrained,", "or", "a", "file"],
        ["timm:lcnet_075", "3×32×32", "probe,", "or", "a", "file"],
    ]
    assert main(["list", "--json", "timm:lcnet_050"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in content["models"]] == ["timm:lcnet_050"]
    assert content["timm"] == ["9.9.9", 6]
    assert main(["list"]) == 0
    assert "timm 9.9.9 has 6 more architectures" in " ".join(capsys.readouterr().out.split())


def pretrained(name: str, pretrained: bool = False, num_classes: int = 1000) -> torch.nn.Module:
    return seeded(Net, num_classes, CONFIGURATIONS[name])


def test_pretrained_weights_come_through_timm(double) -> None:
    offline = []

    def create(name: str, **options) -> torch.nn.Module:
        offline.append(double.HF_HUB_OFFLINE)
        return pretrained(name, **options)

    sys.modules["timm"].create_model = create
    reference("timm:lcnet_050")
    spec = MODELS.get("timm:lcnet_050")
    assert published_names(spec) == ["pretrained"]
    weights = open_weights(spec, "pretrained", {"resize": 36})
    assert offline == [True] and double.HF_HUB_OFFLINE is False  # what is there needs no network
    assert (weights.preprocessing.resize, weights.preprocessing.mean[0]) == (36, 0.5)
    assert weights.classes[:2] == ("tench", "goldfish") and weights.name == "timm/double"
    model, images = build_model(spec, weights), torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), pretrained("lcnet_050").eval()(images))
    again = open_weights(spec, "pretrained")
    assert again.sha256 == weights.sha256


def test_without_a_network_pretrained_weights_are_a_sentence_at_once(monkeypatch, double) -> None:
    reference("timm:lcnet*")
    spec = MODELS.get("timm:lcnet_050")
    calls = []

    def nobody(request, timeout):
        calls.append((request.full_url, timeout))
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", nobody)
    text = error_of(provide, spec, "pretrained")
    assert calls == [("https://hub.example", 10)]
    assert "timm's weights of lcnet_050 (timm/double) are not in /cache" in text
    assert "Name or service not known" in text and "HF_HOME" in text
    double.HF_HUB_OFFLINE = True
    assert "HF_HUB_OFFLINE is set" in error_of(provide, spec, "pretrained")
    assert len(calls) == 1
    text = error_of(provide, MODELS.get("timm:lcnet_075"), "pretrained")
    assert "no pretrained weights for lcnet_075" in text
    assert "named timm:NAME, and resnet18 is none" in error_of(
        provide, MODELS.get("resnet18"), "pretrained"
    )


def test_results_are_kept_until_timm_changes(monkeypatch) -> None:
    reference("timm:resnet18")
    before = resume._code_hash("timm:resnet18", lambda path: "file")
    assert before == "timm 9.9.9"
    monkeypatch.setitem(sys.modules, "timm", timm_double("9.9.10"))
    with registries_unchanged():
        reference("timm:resnet101")
        assert resume._code_hash("timm:resnet101", lambda path: "file") == "timm 9.9.10"
