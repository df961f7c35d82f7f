"""Checkpoints that hold weights and averages of them: which set is taken, and what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ptqbench import RunSettings, UserError, quantize
from ptqbench.evaluation.case_plan import ModelPlan
from ptqbench.evaluation.resume import _shared_request
from ptqbench.models.catalog import MODELS, ModelSpec
from ptqbench.recipes import RECIPES
from ptqbench.weights.load import Weights, load_weights
from ptqbench.weights.open_weights import open_weights

State = dict[str, Tensor]
Layout = Callable[[State, State], object]


def net(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, num_classes)
    )


SPEC = ModelSpec("net", net, input_size=(3, 4, 4))
SHAPES = {name: value.shape for name, value in net(5).state_dict().items()}


def filled(value: float) -> State:
    return {name: torch.full(shape, value) for name, shape in SHAPES.items()}


TRAINED, AVERAGED = filled(1.0), filled(2.0)


def averaged_model(state: State) -> State:
    model = net(5)
    model.load_state_dict(state)
    return dict(AveragedModel(model).state_dict())


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}.{name}": value for name, value in state.items()}


OPTIMIZER = {"state": {"0.weight": {"exp_avg": torch.zeros(4, 3, 3, 3)}}, "param_groups": []}

LAYOUTS: dict[str, tuple[Layout, str, str]] = {
    "timm": (
        lambda a, b: {
            "epoch": 3, "arch": "net", "state_dict": a, "optimizer": OPTIMIZER,
            "state_dict_ema": b, "metric": 0.7,
        },
        "state_dict", "state_dict_ema",
    ),
    "the average first": (
        lambda a, b: {"model_ema": b, "model": a, "lr_scheduler": {"last": torch.ones(2)}},
        "model", "model_ema",
    ),
    "ema": (lambda a, b: {"model": a, "ema": b, "best": torch.tensor([0.5])}, "model", "ema"),
    "MMEngine": (
        lambda a, b: {"state_dict": a, "ema_state_dict": averaged_model(b)},
        "state_dict", "ema_state_dict",
    ),
    "swa_utils": (
        lambda a, b: {"model_state_dict": a, "averaged_model": averaged_model(b)},
        "model_state_dict", "averaged_model",
    ),
    "nested": (
        lambda a, b: {"model": {"state_dict": a, "ema": b}}, "model.state_dict", "model.ema"
    ),
    "BasicSR": (lambda a, b: {"params": a, "params_ema": b}, "params", "params_ema"),
    "Lightning, side by side": (
        lambda a, b: {"state_dict": prefixed(a, "model") | prefixed(b, "ema_model")},
        "state_dict", "state_dict.ema_model",
    ),
    "Lightning, AveragedModel": (
        lambda a, b: {"state_dict": prefixed(a, "model") | prefixed(averaged_model(b), "ema")},
        "state_dict", "state_dict.ema",
    ),
    "Lightning, callback": (
        lambda a, b: {
            "state_dict": a, "optimizer_states": [OPTIMIZER],
            "callbacks": {"EMAWeights{'decay': 0.99}": {"ema_weights": b}},
        },
        "state_dict", "callbacks.EMAWeights{'decay': 0.99}.ema_weights",
    ),
}  # fmt: skip
"""Content of a checkpoint, and the keys of what was trained and of its average."""


def saved(content: object, folder: Path) -> str:
    torch.save(content, folder / "x.pth")
    return str(folder / "x.pth")


def value_of(weights: Weights) -> float:
    (value,) = {float(v) for tensor in weights.state.values() for v in tensor.flatten()}
    return value


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_was_trained_is_taken_and_both_are_named(name: str, tmp_path: Path) -> None:
    layout, trained, averaged = LAYOUTS[name]
    path = saved(layout(TRAINED, AVERAGED), tmp_path)
    weights = load_weights(SPEC, path)
    assert value_of(weights) == 1
    (note,) = weights.notes
    assert f"({trained}, {averaged}); {trained} was taken. --weights-key" in note
    assert weights.facts["weights_key"] == trained


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_key_chooses(name: str, tmp_path: Path) -> None:
    layout, trained, averaged = LAYOUTS[name]
    path = saved(layout(TRAINED, AVERAGED), tmp_path)
    for key, value in ((trained, 1), (averaged, 2)):
        weights = load_weights(SPEC, path, key=key)
        assert (value_of(weights), weights.key) == (value, key)
        assert f"{key} was taken" in weights.notes[0]


def test_the_sidecar_chooses_unless_an_option_does(tmp_path: Path) -> None:
    path = saved({"model": TRAINED, "ema": AVERAGED}, tmp_path)
    (tmp_path / "x.pth.json").write_text(json.dumps({"weights_key": "ema"}), "utf-8")
    assert value_of(load_weights(SPEC, path)) == 2
    assert value_of(load_weights(SPEC, path, key="model")) == 1
    (tmp_path / "x.pth.json").write_text(json.dumps({"weights_key": 3}), "utf-8")
    with pytest.raises(UserError, match="weights_key=3 must be a text"):
        load_weights(SPEC, path)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"net_g": AVERAGED, "epoch": 3}, "net_g"),
        ({"state_dict_ema": AVERAGED}, "state_dict_ema"),
        ({"generator": AVERAGED, "state_dict": TRAINED, "teacher": TRAINED}, "generator"),
        ({"outer": {"inner": {"weights": AVERAGED, "old": TRAINED}}}, "weights"),
    ],
)
def test_other_keys(content: object, key: str, tmp_path: Path) -> None:
    assert value_of(load_weights(SPEC, saved(content, tmp_path), key=key)) == 2
    if isinstance(content, dict) and "state_dict" not in content and "outer" not in content:
        assert value_of(load_weights(SPEC, saved(content, tmp_path))) == 2


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        (
            {"state_dict": TRAINED, "state_dict_ema": AVERAGED},
            "state_dict_em",
            "no set of weights 'state_dict_em'. Did you mean state_dict_ema or state_dict? It "
            "holds 'state_dict', 'state_dict_ema'.",
        ),
        ({"model": TRAINED, "ema": AVERAGED}, "xyz", "no set of weights 'xyz'. Known: model, ema."),
        (TRAINED, "ema", "are one state dict, so there is no 'ema' to choose in it"),
    ],
)
def test_unknown_keys_are_refused(content: object, key: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_weights(SPEC, saved(content, tmp_path), key=key)
    assert message in str(caught.value)


class Momentum(nn.Module):
    """A network whose own part has the name of an average."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.encoder, self.ema_encoder = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, num_classes)


def test_a_part_of_the_network_is_no_average(tmp_path: Path) -> None:
    spec = ModelSpec("momentum", Momentum)
    weights = load_weights(spec, saved(Momentum(5).state_dict(), tmp_path))
    assert weights.state.keys() == Momentum(5).state_dict().keys()
    assert weights.notes == ()


@pytest.mark.parametrize("source", ["fixture", "probe", "imagenet", "IMAGENET1K_V1"])
def test_a_key_for_what_is_no_checkpoint_is_refused(source: str) -> None:
    with pytest.raises(UserError, match="weights_key = 'ema' chooses a set of weights"):
        open_weights(MODELS.get("resnet18"), source, key="ema")
    with pytest.raises(UserError, match="weights_key applies to a named model"):
        quantize(net(5), [torch.rand(1, 3, 4, 4)], weights_key="ema")


def test_a_result_of_other_weights_in_the_same_file_is_not_resumed(tmp_path: Path) -> None:
    path = saved({"model": TRAINED, "ema": AVERAGED}, tmp_path)
    settings = RunSettings(weights=path, data=str(tmp_path))
    plan = ModelPlan(RECIPES.get("resnet18"), settings, ("x86",))
    other = replace(plan, settings=replace(settings, weights_key="ema"))
    first, second = (_shared_request(each, lambda file: file.name) for each in (plan, other))
    assert [name for name in first if first[name] != second[name]] == ["settings"]


def test_a_variance_below_zero_is_refused_by_layer(tmp_path: Path) -> None:
    state = filled(1.0)
    state["1.running_var"][2] = -0.25
    with pytest.raises(UserError) as caught:
        load_weights(SPEC, saved(state, tmp_path))
    assert (
        "the BatchNorm '1' has a running variance below zero in 1 of 4 channels (down to -0.25)"
        in str(caught.value)
    )
