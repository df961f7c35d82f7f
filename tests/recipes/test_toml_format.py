"""Recipes as files: what is written is read back, and what is wrong is named."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.custom_models import registries_unchanged

from ptqbench.cli import main
from ptqbench.errors import UserError
from ptqbench.models.custom import importing as plugins
from ptqbench.recipes import RECIPES, CompletedRecipe, Recipe
from ptqbench.recipes.recipe import MEASURED
from ptqbench.recipes.recipe_catalog import CATALOG
from ptqbench.recipes.toml_format import from_toml, read, to_toml
from ptqbench.settings.discovery import load
from ptqbench.settings.thresholds import Thresholds

FULL = Recipe(
    model="my.nets:net",
    backend="onednn",
    fusion=(("conv1", "bn1", "relu"), ("blocks.0.conv", "<relu>")),
    int8_modules=0,
    thresholds=Thresholds(
        accuracy_points=1, top5=0.99, sqnr_db=25, max_bytes=3_000_000, size_ratio=3,
        speedup={"avx2": 1.5, "neon": 2},
    ),
    flow="eager",
    observer="minmax",
    per_channel=False,
    spare_bit="none",
    calibration_images=7,
    keep_float=("head", "<add>", 'odd "name" \\ \x7f é'),
    fused_groups=4,
    probe={"agreement": 0.5, "sqnr_db": 12},
    unsupported={"qnnpack": "Could not run 'x' with \"y\"\nat all"},
)  # fmt: skip


@pytest.fixture(autouse=True)
def registries():
    with registries_unchanged():
        yield


def error_of(call, *args) -> str:
    with pytest.raises(UserError) as caught:
        call(*args)
    return str(caught.value)


@pytest.mark.parametrize("recipe", [FULL, *RECIPES], ids=lambda recipe: recipe.model)
def test_a_recipe_is_read_back(recipe: Recipe):
    text = to_toml(recipe, ["Heading"], {"backend": "note " * 40, "speedup": "measured"})
    assert max(map(len, text.splitlines())) <= 100
    restored = from_toml(text, "here")
    assert restored == recipe
    assert restored.hash == recipe.hash
    assert to_toml(restored) == to_toml(recipe)


def test_comments_stand_above_what_they_explain():
    text = to_toml(FULL, ["Heading"], {"backend": "because", "speedup": "measured"})
    assert text.startswith("# Heading\n\nmodel = ")
    assert '# because\nbackend = "onednn"\n' in text
    assert "[thresholds.speedup]\n# measured\navx2 = 1.5\n" in text
    assert '  ["conv1", "bn1", "relu"],\n' in text


def test_what_is_left_out_is_open():
    assert from_toml('model = "net"', "here") == Recipe(
        "net", MEASURED, None, None, thresholds=Thresholds()
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("modell = 1", "Unknown key 'modell' in the recipe my.toml. Did you mean model?"),
        ("keep-float = []", "Did you mean keep_float?"),
        ("declared = []", "Unknown key 'declared'"),
        ('flow = "fxx"', "Wrong value for 'flow' in the recipe my.toml: expected fx or eager"),
        ('observer = "mean"', "expected histogram or minmax, but got 'mean'"),
        ('spare_bit = "weight"', "expected pairs, weights, activations or none"),
        ("per_channel = 1", "expected true or false, but got 1"),
        ("int8_modules = 1.5", "a whole number of at least 0"),
        ("calibration_images = 0", "a whole number of at least 1"),
        ('keep_float = "head"', "a list of names"),
        ('fusion = [["conv"]]', "groups of two names or more"),
        ('fusion = ["conv", "bn"]', "groups of two names or more"),
        ("backend = 3", "expected a name"),
        ("thresholds = 3", "a table of thresholds"),
        ("thresholds.acuracy = 0.9", "Did you mean thresholds.accuracy"),
        ("thresholds.speedup.avx3 = 2", "Did you mean thresholds.speedup.avx2"),
        ("thresholds.accuracy = 2", "a share between 0 and 1"),
        ("thresholds = {accuracy = 0.9, reference_top1 = 0.7}", "judged by one policy"),
        ("probe.agrement = 0.9", "Did you mean thresholds.agreement"),
        ("unsupported.x86 = 3", "a table of reasons by backend"),
        ("fusion = [", "The recipe my.toml is not valid TOML: "),
    ],
)
def test_what_is_wrong_is_named(line, words):
    message = error_of(from_toml, f'model = "net"\n{line}\n', "my.toml")
    assert words in message
    assert "my.toml" in message


@pytest.mark.parametrize(
    "text",
    [
        "keep_float = " + "[" * 100_000,
        "probe = " + "{a=" * 100_000,
        "calibration_images = " + "1" * 5000,
        "thresholds.size_ratio = 1" + "0" * 400,
        r'backend = "\ud800"',
    ],
    ids=lambda text: text[:20],
)
def test_odd_recipes_are_refused(text):
    message = error_of(from_toml, f'model = "net"\n{text}\n', "my.toml")
    assert "recipe my.toml" in message


def test_any_damage_of_a_recipe_is_refused_or_harmless():
    whole = to_toml(RECIPES.get("resnet18"))
    values = [
        "nan",
        "-inf",
        "1e999",
        "{}",
        "[[]]",
        '"\\ud800"',
        "1979-05-27",
        "=",
        "\n[[",
        "9" * 400,
    ]
    random_ = random.Random(0)
    refusals = 0
    for _ in range(200):
        start = random_.randrange(len(whole))
        damaged = whole[:start] + random_.choice(values) + whole[start + random_.randint(0, 9) :]
        try:
            from_toml(damaged, "my.toml")
        except UserError as error:
            assert "my.toml" in str(error)
            refusals += 1
    assert refusals > 50


def test_a_recipe_says_its_model():
    assert "does not name its model" in error_of(from_toml, 'backend = "x86"', "my.toml")
    assert "cannot be read: No such file" in error_of(read, Path("nowhere.toml"))


# Using them


def own_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "nets.py").write_text(
        "from torch import nn\n"
        "def net(num_classes=3):\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),\n"
        "        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))\n"
    )
    monkeypatch.chdir(folder)


def test_recipes_in_the_settings_are_used(tmp_path, monkeypatch):
    own_model(tmp_path, monkeypatch)
    (tmp_path / "net.toml").write_text('model = "nets:net"\nbackend = "onednn"\n')
    (tmp_path / "res.toml").write_text('model = "resnet18"\nthresholds.agreement = 0.5\n')
    (tmp_path / "ptqbench.toml").write_text('recipes = ["net.toml", "res.toml"]\n')
    settings = load(tmp_path, CATALOG)
    plugins.prepare(settings)
    assert settings.value("backends", "nets:net").value == ("onednn",)
    assert settings.value("thresholds.agreement", "resnet18").value == 0.5


def test_a_recipe_is_for_one_model_that_there_is(tmp_path):
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text('model = "resnet81"')
    assert "a.toml is for the model 'resnet81', which does not exist. Did you mean resnet18" in (
        error_of(plugins.use_recipes, [first])
    )
    for path in (first, second):
        path.write_text('model = "resnet18"')
    assert "are both recipes for resnet18" in error_of(plugins.use_recipes, [first, second])


def test_a_registered_recipe_may_be_a_file_beside_the_function(tmp_path, monkeypatch):
    (tmp_path / "net.toml").write_text('model = "any"\nkeep_float = ["head"]\n')
    (tmp_path / "nets.py").write_text(
        "import ptqbench\n@ptqbench.register_model('mine', recipe='net.toml')\n"
        "def net(num_classes=3): ...\n"
    )
    plugins.load([str(tmp_path / "nets.py")], [])
    assert (RECIPES.get("mine").model, RECIPES.get("mine").keep_float) == ("mine", ("head",))


# ptqbench recipe


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["recipe", *argv]) == 0
    return capsys.readouterr().out


def test_a_recipe_is_printed_edited_and_used(tmp_path, monkeypatch, capsys):
    own_model(tmp_path, monkeypatch)
    text = printed(capsys, "nets:net", "--backend", "x86", "--input-size", "16", "--threads", "1")
    recipe = from_toml(text, "here")
    assert recipe.fusion == (("0", "1", "2"),)
    assert (recipe.int8_modules, recipe.keep_float, recipe.backend) == (2, (), "x86")
    assert f"# Recipe {recipe.hash} of nets:net, printed by ptqbench" in text
    assert "times as fast as float32" in text
    path = tmp_path / "net.toml"
    path.write_text(text.replace("keep_float = []", 'keep_float = ["5"]'))
    # Printed again it is the same; what was measured is not measured again.
    argv = ("nets:net", "--recipe", "net.toml", "--input-size", "16", "--threads", "1")
    again = from_toml(printed(capsys, *argv), "again")
    assert again == from_toml(path.read_text(), "edited")
    path.write_text(path.read_text().replace("int8_modules = 2\n", ""))
    assert from_toml(printed(capsys, *argv), "again").int8_modules == 1


def test_a_backend_is_measured_where_none_is_named(tmp_path, monkeypatch, capsys):
    own_model(tmp_path, monkeypatch)
    argv = ("nets:net", "--keep-float", "5", "--input-size", "16", "--threads", "1")
    text = printed(capsys, *argv)
    recipe = from_toml(text, "here")
    assert recipe.backend != MEASURED
    assert f"{recipe.backend} 0." in text
    assert "agreement with float32 not measured" in " ".join(text.replace("#", "").split())
    assert (recipe.keep_float, recipe.int8_modules) == (("5",), 1)


def test_torchvisions_models_have_recipes_to_print_too(capsys):
    text = printed(capsys, "squeezenet1_0")
    recipe = from_toml(text, "here")
    assert (len(recipe.fusion), recipe.int8_modules) == (26, 26)
    assert recipe.backend == RECIPES.get("squeezenet1_0").backend
    assert "Measured on" not in text


def test_mistakes_are_said_at_once(tmp_path, monkeypatch, capsys):
    own_model(tmp_path, monkeypatch)
    for argv, words in (
        (["nets:net", "--backend", "x68"], "Unknown backend 'x68'. Did you mean x86?"),
        (["nets:net", "--backend", "x86", "--backend", "onednn"], "recommends one backend"),
        (["nets:net", "--keep-float", "6"], "keep_float names '6', but the model has no such"),
        (["nets:net", "--recipe", "none.toml"], "none.toml cannot be read: No such file"),
        (["resnet*"], "MODEL takes one name, but resnet* matches several"),
        (["nets:net", "--keep-float", "0,5"], "There is nothing to quantize: nets:net has no"),
    ):
        assert main(["recipe", *argv]) == 2
        assert words in capsys.readouterr().err


def test_a_promise_that_is_not_true_any_more_is_refused(tmp_path, monkeypatch):
    from torch import nn

    from ptqbench.quantization.completion import check_count

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 3)).eval()
    recipe = CompletedRecipe(Recipe("net", "x86", (), 2, Thresholds()), (), 2, (), "fx")
    check_count(recipe, model)
    message = error_of(check_count, replace(recipe, keep_float=("2",)), model)
    assert "promises 2 int8 layers, but the model has 1 with keep_float = [2]" in message
    assert "Set int8_modules = 1 in it, or leave that out" in message
