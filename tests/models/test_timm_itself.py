"""With timm installed: its networks and its pictures are what `timm:NAME` gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.custom_models import registries_unchanged, save
from PIL import Image

import ptqbench
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.models.catalog import MODELS
from ptqbench.models.custom import timm_models
from ptqbench.models.custom.importing import reference
from ptqbench.recipes import RECIPES
from ptqbench.weights.load import build_model
from ptqbench.weights.open_weights import open_weights

pytestmark = pytest.mark.skipif(not timm_models.is_installed(), reason="timm is not installed")


@pytest.fixture(autouse=True)
def own_registries():
    with registries_unchanged():
        yield


def picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet18.tv_in1k", "mobilenetv3_small_100", "vit_tiny_patch16_224"]
)
@pytest.mark.parametrize("size", [(300, 260), (500, 401), (90, 200)])
def test_pictures_are_prepared_as_timm_does(name: str, size: tuple[int, int]) -> None:
    timm = timm_models.import_timm("a test")
    reference(f"timm:{name}")
    preprocessing = Preprocessing(**MODELS.get(f"timm:{name}").preprocessing)
    configuration = timm.get_pretrained_cfg(name).to_dict()
    resolved = timm.data.resolve_data_config(pretrained_cfg=configuration)
    expected = timm.data.create_transform(**resolved)(picture(*size))
    pixels = preprocessing.normalise(preprocessing.pixels(picture(*size))[None])[0]
    torch.testing.assert_close(pixels, expected, rtol=1e-5, atol=1e-5)


def test_a_file_of_timms_model_gives_timms_logits_and_becomes_int8(tmp_path: Path) -> None:
    timm = timm_models.import_timm("a test")
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=5).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)  # timm's residual branches start at 0
    file = save(model, tmp_path / "net.safetensors")
    reference("timm:test_resnet")
    spec = MODELS.get("timm:test_resnet")
    loaded = build_model(spec, open_weights(spec, str(file)))
    images = torch.randn(8, *spec.input_size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(images)
        assert torch.equal(loaded(images), expected)
    artifact = ptqbench.quantize(
        "timm:test_resnet", [images], backend="onednn", weights=str(file), path=tmp_path / "int8.pt"
    )
    error = (artifact.load()(images) - expected).double()
    assert 10 * torch.log10(expected.double().var() / error.pow(2).mean()) > 20
    assert RECIPES.get("timm:test_resnet").int8_modules is None  # derived


def test_architectures_are_those_that_timm_lists() -> None:
    timm = timm_models.import_timm("a test")
    assert timm_models.architectures("resnet1*") == tuple(timm.list_models("resnet1*"))
    assert timm_models.summary() == (timm.__version__, len(timm.list_models()))
