"""The conversion gate on clean models and on planted defects."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.small_artifacts import (
    CLEAN,
    LAYERS,
    SMALL,
    Built,
    SmallEager,
    build,
    judge,
    noise,
    shipped,
    small,
)
from torch import nn

from ptqbench.backends.torch_engines.script_graph import read_script
from ptqbench.backends.traced_model import read_float_graph
from ptqbench.gates import GateResult, Verdict
from ptqbench.measurement.conversion import Conversion, Promise, measure_conversion
from ptqbench.measurement.layer_matching import match_graphs
from ptqbench.quantization import eager
from ptqbench.quantization.completion import complete_recipe
from ptqbench.recipes import RECIPES

PROMISE = Promise(5, (), per_channel=True)
EAGER = replace(SMALL, flow="eager")


def gate(built: Built, promise: Promise = PROMISE) -> GateResult:
    conversion = measure_conversion(built.matched, promise, built.record)
    return judge("conversion", conversion=conversion)


@pytest.mark.parametrize(("name", "backend", "flow"), CLEAN)
def test_passes_clean_models(name: str, backend: str, flow: str) -> None:
    built = shipped(name, backend, flow)
    result = gate(built, Promise(RECIPES.get(name).int8_modules, (), per_channel=True))
    assert result.verdict is Verdict.PASS, result.detail
    layers = (nn.Conv2d, nn.Linear)
    names = {n for n, m in built.model.named_modules() if isinstance(m, layers)}
    assert {m.name for m in built.matched.matches} == names


def test_without_a_recipe_the_float_graph_counts() -> None:
    result = gate(shipped(*CLEAN[0]), Promise())
    assert (result.observed, result.threshold) == (21, 21)
    assert result.verdict is Verdict.PASS


def test_every_layer_gets_its_own_name(tmp_path: Path) -> None:
    built = build(small(), tmp_path / "a.pt")
    assert tuple(m.name for m in built.matched.matches) == LAYERS
    assert all(m.similarity > 0.9 for m in built.matched.matches)


def test_observers_on_paths_never_taken_are_told_apart(tmp_path: Path) -> None:
    built = build(small(SmallEager), tmp_path / "a.pt", EAGER)
    assert built.record.unreached == ("unused.activation_post_process",)
    assert built.record.unseen == ()
    result = gate(built)
    assert result.verdict is Verdict.PASS, result.detail
    assert "unused.activation_post_process" in result.detail


def test_names_layers_left_in_float(tmp_path: Path) -> None:
    built = build(small(), tmp_path / "a.pt", replace(SMALL, keep_float=("conv2", "fc")))
    result = gate(built)
    assert result.verdict is Verdict.FAIL
    assert "not int8: conv2, fc" in result.detail
    assert "float layers left: conv2, fc" in result.detail
    # What the recipe keeps is as it should be.
    as_promised = gate(built, Promise(3, ("conv2", "fc"), per_channel=True))
    assert as_promised.verdict is Verdict.PASS, as_promised.detail


def test_names_observers_that_saw_no_data(tmp_path: Path) -> None:
    built = build(small(), tmp_path / "a.pt", calibrate=False)
    result = gate(built)
    assert result.verdict is Verdict.FAIL
    assert "observers that saw no data: activation_post_process_0" in result.detail
    assert "default scale 1 and zero point 0" in result.detail
    assert "conv1" in result.detail


def test_names_layers_with_one_scale_for_all_channels(tmp_path: Path) -> None:
    result = gate(build(small(), tmp_path / "a.pt", replace(SMALL, per_channel=False)))
    assert result.verdict is Verdict.FAIL
    assert f"one weight scale for all channels: {', '.join(LAYERS)}" in result.detail


def test_names_everything_when_nothing_was_converted(tmp_path: Path) -> None:
    recipe = replace(EAGER, observer="minmax")
    result = gate(build(small(SmallEager), tmp_path / "a.pt", recipe, convert=False))
    assert result.verdict is Verdict.FAIL
    assert result.observed == 0
    assert f"not int8: {', '.join(LAYERS)}" in result.detail
    assert "observers left" in result.detail


def test_names_a_batch_norm_left_behind(tmp_path: Path) -> None:
    recipe = replace(EAGER, fusion=EAGER.fusion[:3])
    result = gate(build(small(SmallEager), tmp_path / "a.pt", recipe))
    assert result.verdict is Verdict.FAIL
    assert "BatchNorm left: quantized::batch_norm2d after depthwise" in result.detail


def test_names_weights_of_another_model(tmp_path: Path) -> None:
    built = build(small(seed=1), tmp_path / "a.pt")
    result = gate(replace(built, model=small(seed=0)))
    assert result.verdict is Verdict.FAIL
    assert result.observed == 0
    assert "weights of no layer of the float model" in result.detail


def test_nothing_int8_and_nothing_promised_is_no_pass() -> None:
    conversion = Conversion(0, (), (), (), (), (), (), (), (), (), None, ())
    result = judge("conversion", conversion=conversion)
    assert result.verdict is Verdict.UNVERIFIED
    assert result.detail == (
        "Nothing was quantized: 0 of 0 promised layers are int8, so there is nothing to judge."
    )


@pytest.mark.parametrize("how", ["scripted", "traced"])
def test_reads_files_that_others_made(how: str) -> None:
    model = small(SmallEager)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        before, torch.backends.quantized.engine = torch.backends.quantized.engine, "fbgemm"
        completed = complete_recipe(EAGER, model, noise()[:1])
        prepared = eager.prepare(model, completed, noise()[:1], saturates=True)
        prepared(noise())
        converted = eager.convert(prepared)
        script = (
            torch.jit.script(converted)
            if how == "scripted"
            else torch.jit.trace(converted, noise()[:1], check_trace=False)
        )
        torch.backends.quantized.engine = before
    graph, reference = read_script(script), read_float_graph(model, noise()[:1])
    assert tuple(layer.path for layer in graph.int8_layers) == LAYERS
    matched = match_graphs(graph, reference)
    result = judge("conversion", conversion=measure_conversion(matched, Promise(), None))
    assert result.verdict is Verdict.PASS, result.detail
    assert result.observed == result.threshold == 5
    assert "does not record" in result.detail
