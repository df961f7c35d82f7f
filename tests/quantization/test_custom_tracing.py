"""What is found in models of a user's own by tracing them, and what cannot be, line by line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import odd_networks as odd_nets
from helpers.custom_models import example, registries_unchanged, seeded, traced_recipe
from helpers.odd_networks import Loops, Net
from torch import Tensor, nn

import ptqbench
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.errors import UserError
from ptqbench.models.custom.registration import open_recipe
from ptqbench.quantization import fx
from ptqbench.quantization.classifier_check import check_classifier
from ptqbench.quantization.completion import complete_recipe
from ptqbench.recipes import Recipe
from ptqbench.settings.thresholds import Thresholds

ANY = next(backend.name for backend in TORCH_ENGINES if backend.availability() is None)
SOURCE = Path(odd_nets.__file__).read_text().splitlines()


def images(side: int = 16) -> Tensor:
    return torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0))


def recipe_of(name: str, *keep_float: str, side: int = 16) -> Recipe:
    model = seeded(getattr(odd_nets, name)).eval()
    return traced_recipe(name, model, images(side)[:1], keep_float)


def error_of(call: Callable[..., object], *args: object, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    return str(caught.value)


def at(text: str) -> str:
    """How a message names the line of `odd_networks` with this text."""
    (line,) = (number for number, code in enumerate(SOURCE, 1) if code.strip() == text)
    return f"odd_networks.py, line {line}: {text}"


def check_artifact(model: nn.Module, recipe: Recipe, folder: Path) -> None:
    artifact = BACKENDS.get(ANY).build(model, recipe, [images()], folder / "x.pt")
    with torch.inference_mode():
        exact, int8 = model(images()), artifact.load()(images())
    assert float((exact - int8).abs().max()) < 0.1 * float(exact.abs().max())
    assert not torch.equal(exact, int8)


# What is found


def test_everything_that_users_write_is_found(tmp_path):
    recipe = recipe_of("Everything")
    assert recipe.fusion == (
        ("stem", "bn", "<relu>"),
        ("depthwise", "bn1", "relu"),
        ("pointwise", "bn2"),  # the ReLU belongs to the sum
    )
    assert (recipe.flow, recipe.int8_modules, recipe.keep_float) == ("fx", 4, ())
    check_artifact(seeded(odd_nets.Everything).eval(), recipe, tmp_path)


def test_the_example_is_found():
    module = example()
    recipe = traced_recipe("my_net", seeded(module.MyNet, 7).eval(), torch.zeros(1, 3, 64, 64))
    assert recipe.int8_modules == 12
    assert len(recipe.fusion) == 11
    assert ("blocks.2.conv1", "blocks.2.bn1", "blocks.2.relu") in recipe.fusion
    assert ("blocks.2.conv2", "blocks.2.bn2") in recipe.fusion
    assert ("blocks.3.pointwise", "blocks.3.bn2", "<relu>") in recipe.fusion


def test_a_module_that_looks_at_shapes_is_kept_whole(tmp_path):
    recipe = recipe_of("ShapesInside", "block")
    assert (recipe.fusion, recipe.int8_modules, recipe.keep_float) == ((), 1, ("block",))
    check_artifact(seeded(odd_nets.ShapesInside).eval(), recipe, tmp_path)


def test_a_scripted_module_stays_float(tmp_path):
    def scripted() -> nn.Module:
        model = Net()
        model.block = torch.jit.script(Loops())
        return model

    model = seeded(scripted).eval()
    recipe = traced_recipe("net", model, images()[:1])
    assert (recipe.fusion, recipe.int8_modules, recipe.keep_float) == ((), 1, ("block",))
    check_artifact(model, recipe, tmp_path)


def test_a_recipe_that_says_nothing_is_completed_alike():
    model = seeded(odd_nets.Everything).eval()
    open_one = open_recipe("Everything")
    recipe, derived = complete_recipe(open_one, model, images()[:1]), recipe_of("Everything")
    assert (recipe.groups, recipe.int8_modules) == (derived.fusion, derived.int8_modules)
    assert recipe.hash == open_one.hash != derived.hash


# Models written for eager mode


def test_a_model_with_stubs_goes_through_the_eager_flow(tmp_path):
    recipe = recipe_of("Stubbed")
    assert recipe.flow == "eager"
    assert recipe.fusion == (
        ("first.conv", "first.bn", "first.relu"),
        ("second.conv", "second.bn", "second.relu"),
    )
    assert recipe.int8_modules == 3
    check_artifact(seeded(odd_nets.Stubbed).eval(), recipe, tmp_path)


def test_a_quantizable_variant_may_be_registered(tmp_path):
    with registries_unchanged():
        groups = recipe_of("Stubbed").fusion
        recipe = Recipe("plain", ANY, groups, 3, Thresholds(), flow="eager")
        ptqbench.register_model("plain", recipe=recipe, quantizable=odd_nets.Stubbed)(
            odd_nets.Plain
        )
        check_artifact(seeded(odd_nets.Plain).eval(), recipe, tmp_path)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("StubbedPlus", "x = x + self.second(x)"),
        ("StubbedLate", "return self.relu(self.bn(self.conv(x)))"),
    ],
)
def test_what_eager_mode_cannot_run_is_named(name, line, tmp_path):
    model = seeded(getattr(odd_nets, name)).eval()
    recipe = recipe_of(name)
    build = BACKENDS.get(ANY).build
    message = error_of(build, model, recipe, [images()], tmp_path / "x.pt")
    assert message.startswith("The int8 model cannot run in the eager flow at ")
    assert at(line) in message
    assert re.search(
        r"\(Could not run '\w+::\w+\.\w+' with arguments from the '\w+' backend\)", message
    )
    assert "FloatFunctional" in message
    assert "QuantStub in front" in message
    assert list(tmp_path.iterdir()) == []


def test_a_prelu_is_refused_in_eager_mode_unless_it_stays_in_float(tmp_path):
    model = seeded(odd_nets.StubbedPReLU).eval()
    build = BACKENDS.get(ANY).build
    message = error_of(build, model, recipe_of("StubbedPReLU"), [images()], tmp_path / "x.pt")
    assert message.startswith("second.relu is a PReLU, and torch's int8 kernel for it is wrong")
    assert "second.relu.qconfig = None" in message
    recipe = recipe_of("StubbedFloatPReLU")
    check_artifact(seeded(odd_nets.StubbedFloatPReLU).eval(), recipe, tmp_path)


def test_stubs_and_the_fx_flow_do_not_go_together():
    recipe = Recipe("Stubbed", ANY, (), 3, Thresholds())
    message = error_of(complete_recipe, recipe, seeded(odd_nets.Stubbed).eval(), images()[:1])
    assert "Stubbed has QuantStubs and so is written for eager mode" in message
    assert 'flow = "fx". Set it to "eager"' in message


def test_an_eager_model_that_cannot_be_traced_takes_a_full_recipe(tmp_path):
    message = error_of(recipe_of, "StubbedDecides")
    assert 'written for eager mode, give it a recipe with flow = "eager"' in message
    assert "QuantStub, DeQuantStub" not in message
    recipe = Recipe("any", ANY, recipe_of("Stubbed").fusion, 3, Thresholds(), flow="eager")
    check_artifact(seeded(odd_nets.StubbedDecides).eval(), recipe, tmp_path)


def test_eager_layers_cannot_stay_float(tmp_path):
    model, recipe = seeded(odd_nets.Stubbed).eval(), recipe_of("Stubbed", "head")
    assert recipe.int8_modules == 2
    message = error_of(BACKENDS.get(ANY).build, model, recipe, [images()], tmp_path / "x.pt")
    assert "keeps head in float, but in the eager flow" in message


# What cannot be traced, or is no classifier


@pytest.mark.parametrize(
    ("name", "where", "line", "todo"),
    [
        ("DecidesInside", "the module 'block' (Decides)", "if x.mean() > 0.3:",
         '`ptqbench recipe MODEL --keep-float block`'),
        ("ShapesInside", "the module 'block' (LooksAtShapes)", None, 'keep_float = ["block"]'),
        ("DecidesOutside", "DecidesOutside", "for _ in range(int(x.max() * 2)):",
         "move it into a separate module"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_traced_is_named(name, where, line, todo):
    message = error_of(recipe_of, name)
    assert message.startswith(f"The model cannot be traced: {where} at ")
    assert line is None or at(line) in message
    assert "torch.fx cannot follow Python that depends on the values or the shape" in message
    assert "torch.where in place of if" in message
    assert todo in message
    assert "write the model for eager mode, with QuantStub" in message


def test_a_list_that_is_handed_on_whole_is_taken_apart_or_refused(tmp_path):
    model = seeded(odd_nets.HandsOnLists).eval()
    check_artifact(model, recipe_of("HandsOnLists"), tmp_path)
    check_artifact(model, recipe_of("HandsOnLists", "block"), tmp_path)
    # Where the model is traced as it is, observers see one tensor.
    recipe = complete_recipe(recipe_of("HandsOnLists"), model, images()[:1])
    message = error_of(fx.prepare, model, recipe, images()[:1], saturates=False)
    assert message.startswith("HandsOnLists passes on the result of chunk() as a whole")


def test_a_module_that_decides_by_value_is_not_kept_whole():
    message = error_of(recipe_of, "DecidesInside", "block")
    assert message.startswith("block has data-dependent control flow")
    assert "self.block = torch.jit.script(block) in __init__" in message


@pytest.mark.parametrize(
    ("name", "words", "todo"),
    [
        ("Pair", "a tuple of 2 outputs", "`return self.model(x)[0]`"),
        ("Listing", "a list of 1 output", "`return self.model(x)[0]`"),
        ("Named", "a dictionary of 'out', 'aux'", "`return self.model(x)['out']`"),
        ("Nothing", "a NoneType", "the tensor of logits"),
        ("Maps", "outputs of shape 1×8×16×16", "a module that returns these"),
        ("Rows", "256 rows for a batch of 1", "Flatten with x.flatten(1)"),
    ],
)
def test_what_gives_no_logits_is_refused(name, words, todo):
    message = error_of(recipe_of, name)
    assert message.startswith(f"{name} returns {words}")
    assert "a row of logits per image, N×K" in message
    assert todo in message
    model = seeded(getattr(odd_nets, name))
    assert f"returns {words}" in error_of(ptqbench.quantize, model, [images()])
    assert f"{name} returns " in error_of(ptqbench.validate, model, ANY, "fixture")


def test_a_model_without_layers_has_nothing_to_quantize():
    assert "There is nothing to quantize: Empty has no convolution" in error_of(recipe_of, "Empty")
    message = error_of(recipe_of, "Net", "block", "head")
    assert message.endswith("could become int8 besides those in keep_float.")


def test_a_model_that_takes_another_size_says_so():
    message = error_of(recipe_of, "Wide", side=20)
    assert "Wide cannot run on an input of 1×3×20×20 at " in message
    assert at("return self.head(x.flatten(1))") in message
    assert "Register it with the input_size that it accepts" in message


def test_an_error_without_a_message_is_named_by_its_type():
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise NotImplementedError

    message = error_of(check_classifier, Silent(), images()[:1])
    assert "(NotImplementedError). Register it" in message


# From Python


def test_a_module_needs_no_recipe(tmp_path):
    model = seeded(odd_nets.Everything)
    artifact = ptqbench.quantize(model, [images()], backend=ANY, path=tmp_path / "x.pt")
    assert artifact.info.model == "Everything"
    assert artifact.info.recipe_hash == open_recipe("Everything").hash
    assert artifact.info.build is not None
    with torch.inference_mode():
        assert artifact.load()(images()).shape == (4, 3)


def test_a_function_is_quantized_by_its_name(tmp_path):
    from helpers.custom_models import save

    with registries_unchanged():
        path = save(seeded(odd_nets.Everything, 5), tmp_path / "w.safetensors")
        name = f"{odd_nets.__file__}:Everything"
        artifact = ptqbench.quantize(
            name, [images()], weights=str(path), backend=ANY, path=tmp_path / "x.pt"
        )
        assert artifact.info.model == name
        default = ptqbench.quantize(name, [images()], weights=str(path), backend=ANY)
        assert default.path.name == f"{name.replace('/', '_').replace(':', '_')}-{ANY}.int8.pt"
