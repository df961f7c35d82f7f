"""What the gates that look inside find in files that somebody else made, sound and spoiled."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.foreign_artifacts import AVAILABLE, FULL_RANGE, STATIC, Strangers, needs
from torch import Tensor, nn
from torch.ao.quantization import (
    get_default_qconfig,
    get_default_qconfig_mapping,
    prepare,
    quantize_dynamic,
)

from ptqbench import Verdict
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.cpu import instruction_set, multiplies_into_16_bits
from ptqbench.backends.graph import IntegerWeights
from ptqbench.backends.torch_engines.torchscript import reason_of
from ptqbench.measurement.bn_folding import steps_off

if TYPE_CHECKING:
    from conftest import Workshop

pytestmark = pytest.mark.usefixtures("torch_settings")


@pytest.fixture(scope="module")
def strangers(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Strangers:
    return Strangers(workshop, tmp_path_factory.mktemp("strangers"))


@pytest.mark.parametrize("way", ["traced", "traced frozen", "scripted", "scripted frozen"])
@needs("fbgemm")
def test_a_file_is_read_however_it_was_lowered(strangers: Strangers, way: str) -> None:
    path = strangers.save(strangers.eager("fbgemm"), way.replace(" ", "-"), way)
    results = strangers.look(path, "fbgemm", STATIC)
    assert {r.verdict for r in results.values()} == {Verdict.PASS}
    assert results["fusion"].observed == 20 and results["conversion"].observed == 21
    assert "in 21 layers the int8 weights are the float weights" in results["fusion"].detail


@pytest.mark.parametrize("engine", [name for name in AVAILABLE if name != "fbgemm"])
def test_graph_mode_on_every_engine(strangers: Strangers, engine: str) -> None:
    path = strangers.save(strangers.fx(engine), f"mobilenet-{engine}")
    results = strangers.look(path, engine, STATIC)
    assert {r.verdict for r in results.values()} == {Verdict.PASS}, results
    assert results["conversion"].observed == 53


def test_branches_that_are_never_taken_are_no_part_of_it(strangers: Strangers) -> None:
    engine = AVAILABLE[0]
    model = strangers.eager(engine, name="mobilenet_v2")
    # `if self.use_res_connect`: scripted, each block is there twice, once never calibrated.
    path = strangers.save(model, "mobilenet-scripted", "scripted")
    results = strangers.look(path, engine, (*STATIC, "saturation"))
    assert {results[name].verdict for name in STATIC} == {Verdict.PASS}, results
    assert results["conversion"].observed == 53
    assert "53 int8 layers" in results["saturation"].detail


@needs("qnnpack")
def test_an_activation_in_place_is_not_taken_for_the_layer(strangers: Strangers) -> None:
    # Graph mode leaves ReLU6 behind the convolution, which changes its output in place.
    path = strangers.save(strangers.fx("qnnpack"), "mobilenet-in-place")
    assert any("hardtanh_" in o.kind for o in BACKENDS.get("qnnpack").layers(path).operators)
    (result,) = strangers.look(path, "qnnpack", ("saturation",)).values()
    assert result.verdict is Verdict.PASS, result.detail
    assert "53 int8 layers equal exact integer arithmetic" in result.detail


def test_not_fused(strangers: Strangers) -> None:
    engine = AVAILABLE[0]
    path = strangers.save(strangers.eager(engine, fuse=False), "not-fused")
    results = strangers.look(path, engine, STATIC)
    assert results["fusion"].verdict is Verdict.FAIL
    assert "conv1: the BatchNorm that follows is not fused" in results["fusion"].detail
    assert "BatchNorm left: quantized::batch_norm2d after conv1" in results["conversion"].detail


def test_one_layer_left_float(strangers: Strangers) -> None:
    engine = AVAILABLE[0]
    mapping = get_default_qconfig_mapping(engine).set_module_name("features.5.conv.2", None)
    path = strangers.save(strangers.fx(engine, mapping), "mobilenet-one-float")
    results = strangers.look(path, engine, STATIC)
    assert results["conversion"].verdict is Verdict.FAIL
    assert "not int8: features.5.conv.2 " in results["conversion"].detail
    results = strangers.look(path, engine, ("conversion",), keep_float=("features.5.conv",))
    assert "int8 although keep_float names them" in results["conversion"].detail
    results = strangers.look(path, engine, STATIC, keep_float=("features.5.conv.2",))
    assert {r.verdict for r in results.values()} == {Verdict.PASS}


@pytest.mark.filterwarnings("ignore:must run observer before calling calculate_qparams")
def test_never_calibrated(strangers: Strangers) -> None:
    engine = AVAILABLE[0]
    path = strangers.save(strangers.eager(engine, calibrate=False), "not-calibrated")
    (result,) = strangers.look(path, engine, ("conversion",)).values()
    assert result.verdict is Verdict.FAIL
    assert "default scale 1 and zero point 0: aten::quantize_per_tensor" in result.detail
    assert "(never calibrated)" in result.detail


@needs("fbgemm")
def test_full_range_where_kernels_saturate(strangers: Strangers) -> None:
    path = strangers.save(strangers.eager("fbgemm", FULL_RANGE), "full-range")
    (result,) = strangers.look(path, "fbgemm", ("saturation",)).values()
    if multiplies_into_16_bits(instruction_set()):  # else its depthwise kernels alone do
        assert result.verdict is Verdict.FAIL
        assert (
            "int8 layers differ from exact integer arithmetic under fbgemm: conv1" in result.detail
        )
    else:
        assert "On a CPU without VNNI" in result.detail and "conv1" in result.detail


def test_folded_with_other_statistics(strangers: Strangers) -> None:
    engine = AVAILABLE[0]
    path = strangers.save(strangers.eager(engine, drift=True), "drifted")
    (result,) = strangers.look(path, engine, ("fusion",)).values()
    assert result.verdict is Verdict.UNVERIFIED
    assert "in 20 of 21 layers the int8 weights are not the float weights" in result.detail
    assert "conv1 (weights off by " in result.detail


def test_a_changed_bias_is_seen_too(strangers: Strangers) -> None:
    engine = AVAILABLE[0]
    model = copy.deepcopy(strangers.eager(engine))
    with torch.no_grad():
        model.fc.set_weight_bias(model.fc.weight(), model.fc.bias() + 0.5)
    path = strangers.save(model, "changed-bias")
    (result,) = strangers.look(path, engine, ("fusion",)).values()
    assert result.verdict is Verdict.UNVERIFIED
    assert "in 1 of 21 layers" in result.detail and "fc (bias off by " in result.detail


def test_prepared_and_never_converted(strangers: Strangers) -> None:
    engine = AVAILABLE[0]
    torch.backends.quantized.engine = engine
    model = strangers.quantizable()
    model.qconfig = get_default_qconfig(engine)
    prepare(model, inplace=True)(strangers.workshop.calibration[:2])
    path = strangers.save(model, "prepared", "traced")
    (result,) = strangers.look(path, engine, ("conversion",)).values()
    assert result.verdict is Verdict.FAIL
    assert result.detail.startswith("Nothing was quantized: 0 of 21")
    assert "observers left: " in result.detail and "but not converted" in result.detail


def test_only_the_linear_layer_is_int8(strangers: Strangers) -> None:
    engine = AVAILABLE[0]
    torch.backends.quantized.engine = engine
    model = quantize_dynamic(copy.deepcopy(strangers.workshop.model("resnet18")), {nn.Linear})
    path = strangers.save(model, "dynamic")
    (result,) = strangers.look(path, engine, ("conversion",)).values()
    assert result.verdict is Verdict.FAIL
    assert result.detail.startswith("1 of 21 promised layers are int8; not int8: conv1")


# Parts


def weights(integers: Tensor, scale: float) -> IntegerWeights:
    scales = torch.full((len(integers),), scale, dtype=torch.float64)
    return IntegerWeights(integers, scales, torch.zeros(len(integers)).long(), True, None)


def test_steps_between_weights() -> None:
    integers = torch.tensor([[0, 2, 127], [0, 2, 5]], dtype=torch.int8)
    steps = steps_off(weights(integers, 0.1), torch.tensor([[0.0, 0.24, 15.0], [0.04, 0.2, 15.0]]))
    # 150 steps are clipped to 127 by a channel that uses its range, and wrong in the other.
    expected = torch.tensor([[0.0, 0.4, 0.5], [0.4, 0.0, 145.0]], dtype=torch.float64)
    torch.testing.assert_close(steps, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "RuntimeError"),
        ("one\ntwo", "one"),
        ("The following\nTraceback\n  a: b\nRuntimeError: it broke. More.\n\n", "it broke"),
        ("x\nValueError: first\ny\nNotImplementedError: second. z", "second"),
    ],
)
def test_the_reason_in_an_error_of_torchscript(text: str, reason: str) -> None:
    assert reason_of(RuntimeError(text)) == reason


def test_the_float_graph_knows_its_biases(strangers: Strangers) -> None:
    reference, path = strangers.float32("resnet18")
    (linear,) = [each for each in reference.float_layers if each.path == "fc"]
    expected = strangers.workshop.weights("resnet18").state["fc.bias"]
    assert linear.bias is not None and torch.equal(linear.bias, expected)
    # Frozen, every convolution has taken up the bias of its BatchNorm.
    assert all(
        each.bias is not None for each in BACKENDS.get(AVAILABLE[0]).layers(path).float_layers
    )
