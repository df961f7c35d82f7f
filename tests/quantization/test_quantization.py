"""Fusing, observing, converting: against the float model and exact integer arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.tiny_networks import ANY, TINY, Tiny, decibels, quantized, random_images
from torch import Tensor, nn
from torch.ao.nn.intrinsic import quantized as intrinsic
from torch.ao.nn.quantized import Conv2d, Linear

from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.backends.torch_engines.torchscript import engine_set
from ptqbench.core.package_data import SHIPPED
from ptqbench.core.phases import Phases
from ptqbench.errors import UserError
from ptqbench.models.catalog import MODELS
from ptqbench.quantization import eager, fx
from ptqbench.quantization.calibration import calibrate
from ptqbench.quantization.completion import complete_recipe
from ptqbench.quantization.pairing import SUM, largest_sums, pairs_of
from ptqbench.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from conftest import Workshop

NAMES = list(SHIPPED)
QUANTIZABLE = [name for name in SHIPPED if MODELS.get(name).quantizable is not None]
FLOWS = {"fx": fx, "eager": eager}
MODEL_AND_FLOW = [(name, "fx") for name in NAMES] + [(name, "eager") for name in QUANTIZABLE]
AVAILABLE = [backend.name for backend in TORCH_ENGINES if backend.availability() is None]


def int8_layers(module: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in module.named_modules() if isinstance(m, Conv2d | Linear)}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return random_images()


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Tiny()
        # Channels of very different range, outputs far above 6, and weights that use both ends.
        model.bn1.weight.data = torch.logspace(-1, 1, 16)
        model.conv1.weight.data[:, 0, 0, 0] = 0.5
        model.conv2.weight.data[:, 0, 1, 1] = -0.5
    return model.eval()


def prepare(flow: ModuleType, model: nn.Module, recipe: Recipe, images: Tensor) -> nn.Module:
    completed = complete_recipe(recipe, model, images[:1])
    return flow.prepare(model, completed, images[:1], saturates=True)


# Fusing and observing change nothing


@pytest.mark.parametrize(("name", "flow"), MODEL_AND_FLOW)
def test_fused_float_equals_unfused_float(workshop: Workshop, name: str, flow: str) -> None:
    model, recipe = workshop.model(name), workshop.recipe(name, flow=flow, observer="minmax")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = workshop.evaluation[0][:16]
    prepared = prepare(FLOWS[flow], model, recipe, images)
    with torch.inference_mode():
        expected, logits = model(images), prepared(images)
    # Folding BatchNorm reorders float32 arithmetic; over fifty layers that is about 1e-5.
    assert float((logits - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
    assert (logits.argmax(1) == expected.argmax(1)).all()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in prepared.modules())
    # And the original has stayed as it was.
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules()) or name == "squeezenet1_1"
    assert not model.training


@pytest.mark.parametrize("flow", ["fx", "eager"])
def test_relu6_stays_where_seven_bit_activations_could_not_cap(
    workshop: Workshop, flow: str
) -> None:
    recipe = workshop.recipe("mobilenet_v2", flow=flow, observer="minmax", spare_bit="activations")
    images, model = workshop.calibration[:8], workshop.model("mobilenet_v2")
    prepared = prepare(FLOWS[flow], model, recipe, images)
    assert sum(isinstance(m, nn.ReLU6) for m in prepared.modules()) == 35
    with torch.inference_mode():
        expected = model(images)
        assert float((prepared(images) - expected).abs().max()) <= 1e-4 * float(
            expected.abs().max()
        )


@pytest.mark.parametrize("observer", ["histogram", "minmax"])
def test_calibration_computes_relu6_exactly(tiny: nn.Module, images: Tensor, observer: str) -> None:
    recipe = Recipe(**{**vars(TINY), "observer": observer})
    prepared = prepare(fx, tiny, recipe, images)
    with torch.inference_mode():
        plain = tiny.bn1(tiny.conv1(images))
        assert float(plain.max()) > 12  # or this test would show nothing
        torch.testing.assert_close(prepared(images), tiny(images))


@pytest.mark.parametrize("observer", ["histogram", "minmax"])
def test_the_range_of_a_relu6_ends_at_6(tiny: nn.Module, images: Tensor, observer: str) -> None:
    converted = quantized(tiny, images, observer=observer)
    layer = converted.conv1
    assert isinstance(layer, intrinsic.ConvReLU2d)
    end = (255 - layer.zero_point) * layer.scale
    assert 4 < end <= 6 * (1 + 1e-6)


@pytest.mark.parametrize("flow", ["fx", "eager"])
def test_all_relu6_ranges_of_mobilenet_v2_end_at_6(workshop: Workshop, flow: str) -> None:
    converted = workshop.built("mobilenet_v2", ANY, flow).converted
    groups = [group for group in RECIPES.get("mobilenet_v2").fusion if len(group) == 3]
    layers = [converted.get_submodule(group[0]) for group in groups]
    assert len(layers) == 35
    assert all(isinstance(layer, intrinsic.ConvReLU2d) for layer in layers)
    assert max((255 - layer.zero_point) * layer.scale for layer in layers) <= 6 * (1 + 1e-6)


# Which side gives up a bit


@pytest.mark.parametrize(
    ("spare_bit", "saturates", "low", "high"),
    [
        ("weights", True, -64, 64),
        ("activations", True, -127, 127),
        ("none", True, -127, 127),
        ("weights", False, -127, 127),
        ("pairs", False, -127, 127),
    ],
)
def test_range_of_the_weights(
    tiny: nn.Module, images: Tensor, spare_bit: str, saturates: bool, low: int, high: int
) -> None:
    converted = quantized(tiny, images, spare_bit=spare_bit, saturates=saturates)
    values = [m.weight().int_repr() for m in int8_layers(converted).values()]
    assert len(values) == TINY.int8_modules
    least, most = min(int(v.min()) for v in values), max(int(v.max()) for v in values)
    assert (least, most) == (low, high)


@pytest.mark.parametrize(
    ("spare_bit", "saturates", "high"),
    [
        ("weights", True, 255),
        ("pairs", True, 255),
        ("activations", True, 127),
        ("activations", False, 255),
    ],
)
def test_range_of_the_activations(
    tiny: nn.Module, images: Tensor, spare_bit: str, saturates: bool, high: int
) -> None:
    converted = quantized(tiny, images, spare_bit=spare_bit, saturates=saturates)
    most: list[int] = []
    for layer in int8_layers(converted).values():
        layer.register_forward_pre_hook(
            lambda _, inputs: most.append(int(inputs[0].int_repr().max()))
        )
    with engine_set(ANY), torch.inference_mode():
        converted(images)
    assert len(most) == TINY.int8_modules
    assert high - 8 <= max(most) <= high


@pytest.mark.parametrize("backend", AVAILABLE)
def test_weights_of_shipped_artifacts(workshop: Workshop, backend: str) -> None:
    converted = workshop.built("resnet18", backend).converted
    runtime = BACKENDS.get(backend)
    with engine_set(runtime.engine):
        weights = [layer.weight() for layer in int8_layers(converted).values()]
    assert len(weights) == RECIPES.get("resnet18").int8_modules
    for weight in weights:
        assert weight.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
        scales = weight.q_per_channel_scales()
        assert len(scales) == len(weight)
        assert len(scales.unique()) > len(scales) / 2
        values = weight.int_repr().float()
        largest = values.abs().flatten(1).amax(1)
        if runtime.saturates():
            most, least = largest_sums(pairs_of(values, runtime.pairing))
            largest = torch.maximum(most, -least)
        # Rounding both weights of the largest pair takes or adds one.
        assert int(largest.min()) >= SUM - 2
        assert int(largest.max()) <= SUM


# int8 against references


@pytest.mark.parametrize(("name", "flow"), MODEL_AND_FLOW)
def test_everything_promised_is_int8(workshop: Workshop, name: str, flow: str) -> None:
    converted = workshop.built(name, ANY, flow).converted
    assert len(int8_layers(converted)) == RECIPES.get(name).int8_modules
    left = [m for m in converted.modules() if type(m) in (nn.Conv2d, nn.Linear, nn.BatchNorm2d)]
    assert left == []


def integer_convolution(layer: nn.Module, source: Tensor) -> Tensor:
    """What an int8 convolution stands for, with exact sums of integers."""
    weight, bias = layer.weight(), layer.bias()
    # Integers below 2^53 are exact in float64, whatever the order of the sum.
    sums = nn.functional.conv2d(
        source.int_repr().double() - source.q_zero_point(),
        weight.int_repr().double(),
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
    )
    scales = weight.q_per_channel_scales().double() * source.q_scale()
    values = sums * scales[:, None, None] + bias.double()[:, None, None]
    low = layer.zero_point if isinstance(layer, intrinsic.ConvReLU2d) else 0
    steps = (values / layer.scale).round() + layer.zero_point
    return steps.clamp(low, 255)


@pytest.mark.parametrize("name", ["layer1.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0"])
@pytest.mark.parametrize("backend", AVAILABLE)
def test_a_convolution_against_exact_integers(workshop: Workshop, backend: str, name: str) -> None:
    converted = workshop.built("resnet18", backend).converted
    seen: list[tuple[Tensor, Tensor]] = []
    layer = converted.get_submodule(name)
    hook = layer.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
    with engine_set(BACKENDS.get(backend).engine), torch.inference_mode():
        converted(workshop.evaluation[0][:4])
        hook.remove()
        ((source, out),) = seen
        expected = integer_convolution(layer, source)
    assert int(source.int_repr().max()) > 128  # large enough that two products could saturate
    off = (out.int_repr().double() - expected).abs()
    # Kernels scale in float32 and differ in how they round halves: rarely, and by one step.
    assert float(off.max()) <= 1
    assert float((off > 0).double().mean()) < 1e-3


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_eager_and_fx_agree(workshop: Workshop, name: str) -> None:
    images, _ = workshop.evaluation
    with engine_set(ANY), torch.inference_mode():
        by_fx = workshop.built(name, ANY, "fx").converted(images)
        by_eager = workshop.built(name, ANY, "eager").converted(images)
        expected = workshop.model(name)(images)
    # In FX, pooling shares the observer of its input, which then counts the means too: the
    # last layer's scale and the rounding of the means differ. Errors that have nothing in
    # common would lie 3 dB below the fidelity of each flow to float32.
    fidelity = decibels(expected, by_fx)
    assert fidelity > 20
    assert decibels(expected, by_eager) == pytest.approx(fidelity, abs=3)
    assert decibels(by_fx, by_eager) >= fidelity - 3
    same = (by_fx.argmax(1) == by_eager.argmax(1)).sum()
    assert int(same) >= 0.95 * len(images)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_eager_and_fx_find_the_same_ranges_and_weights(workshop: Workshop, name: str) -> None:
    by_fx = int8_layers(workshop.built(name, ANY, "fx").converted)
    by_eager = int8_layers(workshop.built(name, ANY, "eager").converted)
    assert by_fx.keys() == by_eager.keys()
    for key, layer in by_fx.items():
        other = by_eager[key]
        weight, other_weight = layer.weight(), other.weight()
        assert torch.equal(weight.q_per_channel_scales(), other_weight.q_per_channel_scales())
        # The largest weight of a channel lies between two steps, 63 and 64; the flows round it
        # on their own. All others are equal.
        off = (weight.int_repr().short() - other_weight.int_repr().short()).abs()
        assert int(off.max()) <= 1
        assert int(off.sum()) <= len(weight)
        assert layer.zero_point == other.zero_point
        assert layer.scale == pytest.approx(other.scale, rel=0.02)


def test_layers_can_be_kept_in_float(tiny: nn.Module, images: Tensor) -> None:
    converted = quantized(tiny, images, keep_float=("conv1",))
    assert set(int8_layers(converted)) == {"conv2", "fc"}
    with engine_set(ANY), torch.inference_mode():
        assert decibels(tiny(images), converted(images)) > 25


@pytest.mark.parametrize("spare_bit", ["pairs", "weights", "activations"])
def test_relu6_holds_for_values_that_calibration_never_saw(
    tiny: nn.Module, images: Tensor, spare_bit: str
) -> None:
    converted = quantized(tiny, images, spare_bit=spare_bit)
    with engine_set(ANY), torch.inference_mode():
        assert decibels(tiny(3 * images), converted(3 * images)) > 15


# Mistakes


def test_eager_cannot_keep_layers_in_float(workshop: Workshop) -> None:
    recipe = workshop.recipe("resnet18", flow="eager", keep_float=("fc",))
    with pytest.raises(UserError, match=r"keeps fc in float.* Use the FX flow"):
        prepare(eager, workshop.model("resnet18"), recipe, workshop.calibration)


def none() -> Iterator[Tensor]:
    return iter(())


@pytest.mark.parametrize("flow", ["fx", "eager"])
def test_no_calibration_images(workshop: Workshop, flow: str) -> None:
    recipe = workshop.recipe("resnet18", flow=flow)
    path = workshop.folder / "never.pt"
    with pytest.raises(UserError, match="no calibration images"):
        BACKENDS.get(ANY).build(workshop.model("resnet18"), recipe, none(), path)
    with pytest.raises(UserError, match="no calibration images"):
        calibrate(nn.Identity(), none(), Phases())
    assert not path.exists()


@pytest.mark.parametrize("flow", ["fx", "eager"])
def test_a_recipe_for_another_architecture(workshop: Workshop, flow: str) -> None:
    recipe = workshop.recipe("mobilenet_v2", flow=flow)
    with pytest.raises(UserError, match=r"lacks, first 'features\.0\.0.*another architecture"):
        prepare(FLOWS[flow], workshop.model("resnet18"), recipe, workshop.calibration)


def test_a_recipe_for_a_smaller_model_of_the_family(workshop: Workshop) -> None:
    larger = MODELS.get("resnet34").factory(16).eval()  # has all tensors of resnet18, and more
    recipe = workshop.recipe("resnet18", flow="eager")
    with pytest.raises(UserError, match=r"quantizable resnet18 lacks .*another architecture"):
        prepare(eager, larger, recipe, workshop.calibration)


def test_a_recipe_for_a_model_of_other_widths(workshop: Workshop) -> None:
    wider = MODELS.get("wide_resnet50_2").factory(16).eval()  # the tensors of resnet50 by name
    recipe = workshop.recipe("resnet18", model="resnet50", flow="eager", fusion=(), int8_modules=54)
    with pytest.raises(UserError, match=r"other shapes.* first 'layer1.*another architecture"):
        prepare(eager, wider, recipe, workshop.calibration)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(QUANTIZABLE)))
def test_eager_needs_a_quantizable_variant(workshop: Workshop, name: str) -> None:
    recipe = workshop.recipe(name, flow="eager")
    with pytest.raises(UserError, match=rf"{name} has no quantizable variant.* Use the FX flow"):
        prepare(eager, workshop.model(name), recipe, workshop.calibration)


def test_a_model_with_stubs_of_its_own_can_be_eager(workshop: Workshop) -> None:
    variant = MODELS.get("resnet18").quantizable(16)
    variant.load_state_dict(workshop.model("resnet18").state_dict())
    original = copy.deepcopy(variant)
    recipe = workshop.recipe("resnet18", flow="eager", model="my_resnet", observer="minmax")
    images = workshop.calibration[:8]
    prepared = prepare(eager, variant.eval(), recipe, images)
    with torch.inference_mode():
        torch.testing.assert_close(prepared(images), original.eval()(images), rtol=1e-4, atol=1e-4)
