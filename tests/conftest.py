"""What several test modules share: rendered scenes, shipped models, and built artifacts.

Everything that takes time is made once per session, when the first test asks for it, and
is only read afterwards.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import pytest
import torch
from helpers.custom_models import registries_unchanged
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.torch_engines import lowering
from ptqbench.data.fixture.scenes import SIZE, render
from ptqbench.data.fixture.shapes import CLASSES
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.models.catalog import MODELS
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.settings.thresholds import Thresholds
from ptqbench.weights.load import Weights, build_model, load_weights

for _name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "COLUMNS"):
    # What a worker of pytest-xdist has in its environment must not reach the sessions of pytest
    # and the commands that tests start.
    os.environ.pop(_name, None)

TRAINING, CALIBRATION, EVALUATION = range(3)
"""Streams of the renderer."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the release gate on speed, which the package brings, and begin with the slow files.

    Two workers that take whole files end at the same time if the longest ones come first.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
    for item in items:
        if getattr(item, "originalname", "") == "test_speedup":
            item.add_marker(pytest.mark.timing)


@dataclass(frozen=True)
class Built:
    """An artifact, and the int8 module that was lowered into it."""

    artifact: Artifact
    converted: nn.Module


class Workshop:
    """The shipped models on rendered scenes, and what is made of them, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = cache(self._weights)
        self.model = cache(self._model)
        self.built = cache(self._built)

    @cached_property
    def calibration(self) -> Tensor:
        """Thirty-two calibration images, two of each class, ``N×3×64×64``."""
        return self.scenes(CALIBRATION, 32)[0]

    @cached_property
    def evaluation(self) -> tuple[Tensor, Tensor]:
        """Ninety-six evaluation images, six of each class, and their labels."""
        return self.scenes(EVALUATION, 96)

    def scenes(self, split: int, count: int, start: int = 0) -> tuple[Tensor, Tensor]:
        """Scenes as the shipped weights want them, and their labels."""
        indices = range(start, start + count)
        pixels = [torch.tensor(render(0, split, i, i % len(CLASSES))) for i in indices]
        preprocessing = self.weights("resnet18").preprocessing
        assert preprocessing.crop == SIZE
        images = preprocessing.normalise(torch.stack(pixels).permute(0, 3, 1, 2).contiguous())
        return images, torch.tensor([i % len(CLASSES) for i in indices])

    def batches(self) -> Iterator[Tensor]:
        """The calibration images in batches."""
        yield from self.calibration.split(16)

    def recipe(self, name: str, **changes: object) -> Recipe:
        """The shipped recipe with changes."""
        return replace(RECIPES.get(name), **changes)

    def _weights(self, name: str) -> Weights:
        return load_weights(MODELS.get(name))

    def _model(self, name: str) -> nn.Module:
        return build_model(MODELS.get(name), self.weights(name))

    def _built(self, name: str, backend: str, flow: str = "fx") -> Built:
        lowered: list[nn.Module] = []
        trace_and_freeze = lowering.trace_and_freeze

        def spy(module: nn.Module, example: Tensor) -> torch.jit.ScriptModule:
            lowered.append(module)
            return trace_and_freeze(module, example)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lowering, "trace_and_freeze", spy)
            artifact = BACKENDS.get(backend).build(
                self.model(name),
                self.recipe(name, flow=flow),
                self.batches(),
                self.folder / f"{name}-{backend}-{flow}.int8.pt",
            )
        return Built(artifact, lowered[0])


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module", autouse=True)
def clean_registries() -> Iterator[None]:
    """Forget after each file of tests which models it registered: others list them all."""
    with registries_unchanged():
        yield


@pytest.fixture
def torch_settings() -> Iterator[None]:
    """Put back what a run sets for the whole process: thread count and quantized engine."""
    threads, before = torch.get_num_threads(), torch.backends.quantized.engine
    yield
    torch.set_num_threads(threads)
    torch.backends.quantized.engine = before


@dataclass(frozen=True)
class UserCase:
    """What a user brings: a weights file with its sidecar, and an image folder."""

    model: str
    weights: Path
    data: Path

    def argv(self, *more: str) -> list[str]:
        """A command line that runs it, small and fast."""
        sources = ["--weights", str(self.weights), "--data", str(self.data)]
        return ["run", self.model, *sources, "--input-size", "64", "--threads", "1", *more]


@pytest.fixture(scope="session")
def user_case(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> UserCase:
    """squeezenet1_1 on rendered scenes, in ``train/`` and ``val/``, PNG and JPEG."""
    folder = tmp_path_factory.mktemp("user")
    weights = workshop.weights("squeezenet1_1")
    path = folder / "mine.safetensors"
    save_file({key: value.contiguous() for key, value in weights.state.items()}, path)
    settings = {"resize": SIZE, "crop": SIZE, "classes": list(CLASSES)}
    Path(f"{path}.json").write_text(json.dumps(settings), "utf-8")
    for split, name, count in ((TRAINING, "train", 48), (EVALUATION, "val", 96)):
        for index in range(count):
            label = index % len(CLASSES)
            target = folder / "photos" / name / CLASSES[label] / f"{index:03}"
            target.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(render(0, split, index, label))
            picture.save(target.with_suffix(".png" if index % 3 else ".jpg"), quality=95)
    assert weights.preprocessing.mean == Preprocessing().mean
    return UserCase("squeezenet1_1", path, folder / "photos")


@pytest.fixture
def thresholds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """Change what a shipped recipe promises, for the length of a test."""

    def change(model: str, **values: object) -> Recipe:
        recipe = replace(RECIPES.get(model), thresholds=Thresholds(**values))
        monkeypatch.setitem(RECIPES._entries, model, recipe)
        return recipe

    return change
