"""Models of a user's own: registering, finding, filling them, and what is said to mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.custom_models import example, registries_unchanged, save, seeded
from torch import nn

import ptqbench
from ptqbench.cli import main
from ptqbench.core.names import safe_file_name
from ptqbench.errors import UserError
from ptqbench.models.catalog import MODELS
from ptqbench.models.custom import importing as plugins
from ptqbench.models.custom.spec import CUSTOM_MODELS
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.recipes.recipe import MEASURED
from ptqbench.recipes.recipe_catalog import CATALOG
from ptqbench.settings.discovery import load
from ptqbench.settings.thresholds import Thresholds
from ptqbench.weights.load import build_model, load_weights

pytestmark = pytest.mark.usefixtures("own_registries")


@pytest.fixture
def own_registries():
    with registries_unchanged():
        yield


class Small(nn.Module):
    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.head = nn.Linear(8, num_classes)
        self.conv = nn.Conv2d(3, 8, 3)  # after the head: its position tells nothing

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


def small(num_classes: int = 4) -> nn.Module:
    return Small(num_classes)


def error_of(call, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    return str(caught.value)


def module(folder: Path, text: str, name: str = "nets") -> Path:
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


NETS = """
import ptqbench
from torch import nn

@ptqbench.register_model("registered", input_size=(3, 32, 32))
def registered(num_classes: int = 5):
    return plain(num_classes)

def plain(num_classes: int = 3):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, num_classes))

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()

number = 3
"""


# register_model


def test_a_registered_function_is_a_model_everywhere():
    decorated = ptqbench.register_model("my_net", input_size=(3, 160, 160))(small)
    assert decorated is small
    spec, recipe = MODELS.get("my_net"), RECIPES.get("my_net")
    assert spec.input_size == (3, 160, 160)
    assert spec.num_classes == 4
    assert "test_custom_models.py, line" in spec.origin
    assert spec.factory(6).head.out_features == 6
    assert recipe.backend == MEASURED
    assert (recipe.fusion, recipe.int8_modules) == (None, None)


def test_a_registered_recipe_is_the_models():
    recipe = Recipe("any", "x86", (("conv",),), 2, Thresholds(agreement=0.9))
    ptqbench.register_model("my_net", recipe=recipe)(small)
    entry = RECIPES.get("my_net")
    assert (entry.model, entry.thresholds.agreement) == ("my_net", 0.9)


def test_the_same_code_may_register_again_and_other_code_may_not():
    ptqbench.register_model("my_net")(small)
    ptqbench.register_model("my_net", input_size=(3, 96, 96))(small)
    assert MODELS.get("my_net").input_size == (3, 96, 96)
    message = error_of(ptqbench.register_model("my_net"), Small)
    assert "already does" in message
    assert message.count("test_custom_models.py, line") == 2


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "regnet_y_8gf"])
def test_names_of_torchvision_are_taken(name):
    message = error_of(ptqbench.register_model(name), small)
    assert f"'{name}', but torchvision has a model of that name" in message
    assert f"'my_{name}'" in message


@pytest.mark.parametrize("name", ["", "my net", "a:b", "a/b", ".hidden", "-x", None])
def test_a_name_has_letters_and_digits(name):
    assert "a model's name consists of letters" in error_of(ptqbench.register_model, name)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (224, "three whole numbers"),
        ((224, 224), "three whole numbers"),
        ((3, 224.0, 224.0), "three whole numbers"),
        ((3, 0, 0), "three whole numbers"),
        ("224", "three whole numbers"),
        ((1, 64, 64), "read in RGB and cut to squares"),
        ((3, 64, 96), "read in RGB and cut to squares"),
    ],
)
def test_an_input_size_is_three_numbers(size, words):
    message = error_of(ptqbench.register_model, "my_net", input_size=size)
    assert words in message
    assert "(3, 224, 224)" in message


def test_a_factory_takes_the_number_of_classes_and_needs_nothing_else():
    register = ptqbench.register_model("my_net")
    assert "has no parameter num_classes" in error_of(register, lambda: small())
    assert "has no parameter num_classes" in error_of(register, lambda num_classes, /: small())
    message = error_of(register, lambda width, num_classes=3: small())
    assert "because width has no default" in message
    register(lambda **options: small(**options))
    assert MODELS.get("my_net").num_classes is None
    assert MODELS.get("my_net").factory(5).head.out_features == 5


def test_a_factory_that_fails_or_makes_something_else_is_named():
    def broken(num_classes: int):
        return [][num_classes]

    ptqbench.register_model("broken")(broken)
    ptqbench.register_model("listing")(lambda num_classes: [num_classes])
    message = error_of(MODELS.get("broken").factory, 3)
    assert "cannot be built for 3 classes: IndexError: list index out of range at " in message
    assert message.endswith(": return [][num_classes].")
    assert "returned a list instead of a torch.nn.Module" in error_of(
        MODELS.get("listing").factory, 3
    )


def test_registering_imports_no_torch(tmp_path):
    code = (
        "import sys, ptqbench\n"
        "@ptqbench.register_model('my_net')\n"
        "def my_net(num_classes=3): ...\n"
        "from ptqbench.models.custom import importing\n"
        "assert 'torch' not in sys.modules\n"
        "from ptqbench.models.catalog import MODELS\n"
        "assert MODELS.get('my_net').num_classes == 3\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


# Plugins and module:function


def test_plugins_register_models_beside_the_settings(tmp_path, monkeypatch):
    module(tmp_path, NETS)
    (tmp_path / "ptqbench.toml").write_text('plugins = ["nets"]\nmodels = ["registered"]\n')
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    settings = load(Path.cwd(), CATALOG)
    plugins.prepare(settings)
    assert settings.chosen_models() == ["registered"]
    assert MODELS.get("registered").input_size == (3, 32, 32)
    plugins.prepare(settings)  # a second time changes nothing


def test_a_function_is_named_by_its_module_or_file(tmp_path):
    path = module(tmp_path, NETS)
    for text in ("nets:plain", f"{path}:plain", "nets:registered", f"{path}:registered"):
        plugins.reference(text, [tmp_path])
        assert MODELS.get(text).name == text
    assert MODELS.get("nets:plain").input_size == (3, 224, 224)
    assert MODELS.get("nets:plain").num_classes == 3
    # What is registered by a name too keeps what it was registered with.
    assert MODELS.get(f"{path}:registered").input_size == (3, 32, 32)
    assert RECIPES.get("nets:registered").model == "nets:registered"
    assert len(MODELS.get("nets:plain").factory(9)(torch.zeros(1, 3, 8, 8))[0]) == 9


def test_a_file_that_is_imported_already_is_not_imported_again(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    path = module(tmp_path / "package", NETS + "made = []\n")
    plugins.load(["package.nets"], [tmp_path])
    plugins.reference(f"{path}:registered")
    assert MODELS.get(f"{path}:registered").input_size == (3, 32, 32)
    plugins.load(["nets"], [path.parent])  # the same file under another name
    assert {custom.origin for custom in CUSTOM_MODELS if custom.name == "registered"} == {
        f"{path}, line 5"
    }


def test_plain_names_and_wildcards_are_no_functions():
    for text in ("resnet18", "resnet*", "mobilenet_v?", "a:b*", ":b", "a:"):
        assert not plugins.is_reference(text)
        plugins.reference(text)
    assert not CUSTOM_MODELS.names()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nets:plian", "nets has no function 'plian'. Did you mean plain"),
        ("nets:Net.make", "nets has no function 'Net.make'"),
        ("nest:plain", "no module nest in "),
        ("nest:plain", "Did you mean nets?"),
        ("package.nets:plain", "no module package in "),
        ("nets:number", "is a int, not a function that returns a model"),
        ("nets.py:plian", "Did you mean plain"),
        ("nest.py:plain", "there is no file nest.py"),
        ("os.path:join", "has no parameter num_classes"),
    ],
)
def test_what_a_reference_lacks_is_said(tmp_path, text, words):
    module(tmp_path, NETS)
    assert words in error_of(plugins.reference, text, [tmp_path])


def test_a_folder_that_cannot_be_listed_is_no_obstacle_to_the_message(tmp_path, monkeypatch):
    def deny(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", deny)
    assert "no module nest in " in error_of(plugins.reference, "nest:plain", [tmp_path / "none"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("import os\nimport tormento\n", ["No module named 'tormento'", "line 2: import tormento"]),
        ("x = 1\ny = x.z\n", ["AttributeError", "line 2: y = x.z"]),
        ("def f(:\n    pass\n", ["SyntaxError", "nets.py, line 1: def f(:"]),
        ("import sys\nsys.exit(1)\n", ["SystemExit: 1", "line 2: sys.exit(1)"]),
        (
            "import ptqbench\n@ptqbench.register_model('resnet18')\ndef f(num_classes): ...\n",
            ["line 2 registers the model 'resnet18', but torchvision has a model of that name"],
        ),
    ],
)
def test_a_plugin_that_fails_is_named_with_the_line(tmp_path, content, words):
    path = module(tmp_path, content)
    for name in ("nets", str(path)):
        message = error_of(plugins.load, [name], [tmp_path], "ptqbench.toml")
        assert message.startswith(f"The plugin {name} (ptqbench.toml) cannot be imported: ")
        assert "nets.py" in message
        assert [word for word in words if word not in message] == []
        assert "nets" not in sys.modules


def test_an_error_in_a_library_is_put_down_to_the_line_that_called_it(tmp_path):
    module(tmp_path, "import json\nvalue = json.loads('{')\n")
    message = error_of(plugins.load, ["nets"], [tmp_path])
    assert "nets.py, line 2: value = json.loads('{')" in message


def test_settings_want_names_of_modules(tmp_path):
    (tmp_path / "ptqbench.toml").write_text('plugins = ["my net"]\n')
    message = error_of(load, tmp_path, CATALOG)
    assert (
        "Wrong value for 'plugins' in ptqbench.toml: expected a list of Python modules" in message
    )


def test_commands_know_models_of_ones_own(tmp_path, monkeypatch, capsys):
    module(tmp_path, NETS)
    monkeypatch.chdir(tmp_path)
    assert main(["show-config", "--plugin", "nets", "registered", "nets:plain"]) == 0
    out = capsys.readouterr().out
    assert "registered" in out
    assert "nets:plain" in out
    assert main(["list", "--plugin", "nets"]) == 0
    assert "registered" in capsys.readouterr().out
    assert main(["run", "my_net"]) == 2
    assert "is named as module:function" in capsys.readouterr().err
    assert main(["run", "nets:plain", "--weights", "fixture"]) == 2
    assert "No weights ship for nets:plain, a custom model (nets.py" in capsys.readouterr().err
    assert main(["run", "registered", "--weights", "imagenet"]) == 2
    assert "has no ImageNet weights for registered" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", "resnet18"),
        ("my.nets:net", "my.nets_net"),
        ("../nets/own.py:net", "_nets_own.py_net"),
        ("/tmp/own.py:net", "_tmp_own.py_net"),
    ],
)
def test_names_are_fit_for_files(name, expected):
    assert safe_file_name(name) == expected


# Weights


@pytest.mark.parametrize("classes", [1, 3, 4, 11])
def test_the_number_of_classes_follows_the_file(tmp_path, classes):
    ptqbench.register_model("small")(small)
    path = save(seeded(Small, classes), tmp_path / "w.safetensors")
    spec = MODELS.get("small")
    weights = load_weights(spec, str(path))
    assert weights.num_classes == classes
    assert (weights.preprocessing.resize, weights.preprocessing.crop) == (256, 224)
    images = torch.rand(2, 3, 9, 9)
    assert torch.equal(build_model(spec, weights)(images), seeded(Small, classes)(images))


def test_a_model_may_have_its_classes_built_in(tmp_path):
    ptqbench.register_model("fixed")(lambda num_classes=4: Small(4))
    path = save(seeded(Small, 4), tmp_path / "w.safetensors")
    assert load_weights(MODELS.get("fixed"), str(path)).state.keys() == Small(4).state_dict().keys()


class HeadFirst(torch.nn.Module):
    """Registers a layer of eight channels behind its head."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(8, 4)
        self.stem = torch.nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)))


def test_built_in_classes_are_those_of_the_outputs(tmp_path):
    ptqbench.register_model("head_first")(lambda num_classes=4: HeadFirst())
    path = save(HeadFirst(), tmp_path / "w.safetensors")
    assert load_weights(MODELS.get("head_first"), str(path)).num_classes == 4


def test_weights_of_another_model_are_refused(tmp_path):
    ptqbench.register_model("small")(small)
    ptqbench.register_model("broken")(lambda num_classes: [][1])
    state = {**Small(4).state_dict(), "more.weight": torch.zeros(2, 2)}
    state["conv.weight"] = torch.zeros(8, 3, 5, 5)
    del state["conv.bias"]
    holder = nn.Module()
    for key, value in state.items():
        holder.register_buffer(key.replace(".", "_"), value)
    path = tmp_path / "w.safetensors"
    from safetensors.torch import save_file

    save_file(state, path)
    message = error_of(load_weights, MODELS.get("small"), str(path))
    assert "are not those of small: 1 of 4 tensors missing, such as conv.bias" in message
    assert "not part of it, such as more.weight" in message
    assert "conv.weight (8×3×5×5 instead of 8×3×3×3)" in message


def test_the_example_is_filled_from_its_file(tmp_path):
    module = example()
    ptqbench.register_model("example", input_size=(3, 64, 64))(module.my_net)
    path = save(seeded(module.MyNet, 5), tmp_path / "w.safetensors")
    weights = load_weights(MODELS.get("example"), str(path))
    assert (weights.num_classes, weights.preprocessing.crop) == (5, 64)
