"""State dicts in the wrappers of training scripts, and of every family of architectures."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.quantizable import build_quantizable
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ptqbench.errors import UserError
from ptqbench.models.catalog import MODELS
from ptqbench.weights.load import build_model, load_weights

MODEL = "squeezenet1_1"
CLASSES = 6

FAMILIES = {
    "alexnet": 64, "convnext_tiny": 32, "densenet121": 32, "efficientnet_v2_s": 32,
    "googlenet": 64, "inception_v3": 80, "maxvit_t": 224, "mnasnet0_5": 32,
    "mobilenet_v3_small": 32, "regnet_y_400mf": 32, "resnet18": 32, "shufflenet_v2_x0_5": 32,
    "squeezenet1_0": 64, "swin_t": 32, "vgg11": 32, "vit_b_32": 224,
}  # fmt: skip
"""A model of each family, and the side of a picture that it takes."""

LARGE = (
    "alexnet",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "vgg11",
    "vit_b_32",
)
"""Files of hundreds of megabytes, or constructors of seconds."""

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(1)
    return MODELS.get(MODEL).factory(CLASSES).eval()


def averaged(model: nn.Module) -> State:
    return dict(AveragedModel(model).state_dict())


WRAPPED: dict[str, Callable[[nn.Module], object]] = {
    "plain": lambda model: model.state_dict(),
    "state_dict": lambda model: {"epoch": 3, "state_dict": model.state_dict(), "best": 0.7},
    "model": lambda model: {"model": model.state_dict(), "args": argparse.Namespace(lr=0.1)},
    "model_state_dict": lambda model: {
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.1}]},
    },
    "nested": lambda model: {"model": {"state_dict": model.state_dict()}},
    "DataParallel": lambda model: nn.DataParallel(model).state_dict(),
    "Lightning": lambda model: {
        "state_dict": {f"model.{key}": value for key, value in model.state_dict().items()}
    },
    "averaged": averaged,
    "averaged DataParallel": lambda model: {"model_ema": averaged(nn.DataParallel(model))},
    "compiled": lambda model: {
        f"_orig_mod.{key}": value for key, value in model.state_dict().items()
    },
    "compiled DataParallel": lambda model: {
        "state_dict": {
            f"module._orig_mod.{key}": value for key, value in model.state_dict().items()
        }
    },
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_wrappers_are_understood(model: nn.Module, tmp_path: Path, wrapper: str) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save(WRAPPED[wrapper](model), path)
    weights = load_weights(MODELS.get(MODEL), str(path))
    assert weights.num_classes == CLASSES
    assert weights.notes == ()
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(build_model(MODELS.get(MODEL), weights)(images), model(images))


def test_of_several_sets_the_one_taken_is_said(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    other = {key: torch.zeros_like(value) for key, value in model.state_dict().items()}
    torch.save({"model_ema": other, "model": model.state_dict()}, path)
    weights = load_weights(MODELS.get(MODEL), str(path))
    assert weights.notes == (
        f"The file {path} holds several sets of weights (model, model_ema); model was taken. "
        "--weights-key (setting weights_key) chooses another one.",
    )
    assert weights.facts["weights_key"] == "model"
    assert torch.equal(weights.state["features.0.weight"], model.state_dict()["features.0.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "hold nothing"),
        ({"epoch": 3, "lr": 0.1}, "hold no tensors: 'epoch' of type int, 'lr' of type float"),
        (
            {"generator": {"a": torch.zeros(1)}, "discriminator": {"a": torch.zeros(1)}},
            "hold several sets of weights, 'generator', 'discriminator', and none of them under "
            "state_dict, model_state_dict, model, network, net, module, params. Choose one with "
            "--weights-key (setting weights_key)",
        ),
        ({"a": torch.zeros(1), "step": 7}, "hold more than plain tensors: 'step' is of type int"),
    ],
)
def test_what_holds_no_state_dict_is_explained(
    content: dict[str, object], message: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError) as caught:
        load_weights(MODELS.get(MODEL), str(tmp_path / "x.pth"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in FAMILIES],
)
def test_a_model_of_every_family_comes_back_from_its_state_dict(name: str, tmp_path: Path) -> None:
    """What the factory made, what is read back and what the variant computes are the same."""
    spec, side = MODELS.get(name), FAMILIES[name]
    torch.manual_seed(0)
    original = spec.factory(CLASSES).eval()
    torch.save({"state_dict": nn.DataParallel(original).state_dict()}, tmp_path / "x.pth")
    weights = load_weights(spec, str(tmp_path / "x.pth"))
    assert weights.num_classes == CLASSES
    images = torch.rand(1, 3, side, side)
    with torch.inference_mode():
        expected = original(images)
        assert expected.shape == (1, CLASSES)
        assert torch.equal(build_model(spec, weights)(images), expected)
        if spec.quantizable is not None:
            actual = build_quantizable(spec, weights)(images)
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_vision_transformer_is_made_for_the_pictures_of_its_weights(tmp_path: Path) -> None:
    spec = MODELS.get("vit_b_32")
    assert spec.at is not None
    original = spec.at(96).factory(CLASSES).eval()
    torch.save(original.state_dict(), tmp_path / "x.pth")
    weights = load_weights(spec, str(tmp_path / "x.pth"))
    assert (weights.preprocessing.resize, weights.preprocessing.crop) == (96, 96)
    images = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(build_model(spec, weights)(images), original(images))


@pytest.mark.slow
def test_classifiers_beside_the_last_are_left_out_and_said(tmp_path: Path) -> None:
    from ptqbench.models.import_torchvision import import_torchvision

    original = import_torchvision().models.googlenet(
        weights=None, num_classes=CLASSES, init_weights=False, aux_logits=True
    )
    torch.save(original.state_dict(), tmp_path / "x.pth")
    weights = load_weights(MODELS.get("googlenet"), str(tmp_path / "x.pth"))
    assert "auxiliary classifiers (aux1, aux2)" in weights.notes[0]
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        actual = build_model(MODELS.get("googlenet"), weights)(images)
        assert torch.equal(actual, original.eval()(images))
