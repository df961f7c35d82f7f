"""Models of a user's own for the tests, and the folders that they are judged on."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from ptqbench.data.fixture.scenes import render
from ptqbench.data.fixture.shapes import CLASSES
from ptqbench.models.catalog import MODELS
from ptqbench.models.custom.registration import open_recipe
from ptqbench.models.custom.spec import CUSTOM_MODELS
from ptqbench.quantization.classifier_check import check_classifier
from ptqbench.quantization.completion import complete_recipe
from ptqbench.recipes import RECIPES, Recipe

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_model.py"


def example() -> ModuleType:
    """The example's module, without registering its model."""
    with registries_unchanged():
        spec = importlib.util.spec_from_file_location("own_model_example", EXAMPLE)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@contextmanager
def registries_unchanged() -> Iterator[None]:
    """Forget afterwards what was registered, and which modules and folders were imported from."""
    registries = (CUSTOM_MODELS, MODELS, RECIPES)
    before = [dict(registry._entries) for registry in registries]
    path, modules = list(sys.path), set(sys.modules)
    try:
        yield
    finally:
        for registry, entries in zip(registries, before, strict=True):
            registry._entries.clear()
            registry._entries.update(entries)
        added = [Path(folder) for folder in sys.path if folder not in path]
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            file = Path(getattr(sys.modules[name], "__file__", None) or "/")
            if any(file.is_relative_to(folder) for folder in added):
                del sys.modules[name]


def write_photos(folder: Path, classes: int, count: int, split: int) -> Path:
    """Scenes as PNG files, in a folder per class."""
    for index in range(count):
        label = index % classes
        target = folder / CLASSES[label] / f"{index:04}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(render(0, split, index, label)).save(target)
    return folder


def save(model: nn.Module, path: Path) -> Path:
    """The state dict as a safetensors file."""
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return path


def seeded(make: type[nn.Module], *args: object) -> nn.Module:
    """A module with the same random parameters every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(*args)


def traced_recipe(
    name: str, model: nn.Module, example: Tensor, keep_float: Sequence[str] = ()
) -> Recipe:
    """A recipe in which everything is found by tracing the model, written out by name."""
    check_classifier(model, example)
    declared = replace(open_recipe(name), backend="x86", keep_float=tuple(keep_float))
    return complete_recipe(declared, model, example).written_out()
