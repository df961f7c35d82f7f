"""Backends that share a calibration make what each would make alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.quantization.calibration import CalibrationCache

if TYPE_CHECKING:
    from conftest import Workshop

AVAILABLE = [backend for backend in TORCH_ENGINES if backend.availability() is None]


@pytest.mark.parametrize(("name", "flow"), [("resnet18", "fx"), ("shufflenet_v2_x1_0", "eager")])
def test_logits_are_the_same_with_fewer_calibrations(
    workshop: Workshop, tmp_path: Path, torch_settings: None, name: str, flow: str
) -> None:
    shown: list[str] = []

    def batches(backend: str) -> Iterator[Tensor]:
        for batch in workshop.batches():
            shown.append(backend)
            yield batch

    images, _ = workshop.evaluation
    calibrations = CalibrationCache()
    for backend in AVAILABLE:
        path = tmp_path / f"{backend.name}.int8.pt"
        recipe = workshop.recipe(name, flow=flow)
        shared = backend.build(
            workshop.model(name), recipe, batches(backend.name), path, calibrations=calibrations
        )
        alone = workshop.built(name, backend.name, flow).artifact
        assert shared.info == alone.info
        with torch.inference_mode():
            assert torch.equal(shared.load()(images), alone.load()(images))
    whole = [b.name for b in AVAILABLE if shown.count(b.name) == 2]  # all batches, not the first
    assert len(whole) == 1


def test_another_recipe_is_calibrated_anew(workshop: Workshop, tmp_path: Path) -> None:
    backend, calibrations = AVAILABLE[0], CalibrationCache()
    seen = []
    for count, changes in enumerate(({}, {"observer": "minmax"}, {"observer": "minmax"})):
        recipe = workshop.recipe("squeezenet1_1", **changes)
        images = workshop.calibration[: 8 if count < 2 else 4].split(4)
        path = tmp_path / f"{count}.int8.pt"
        model = workshop.model("squeezenet1_1")
        artifact = backend.build(model, recipe, images, path, calibrations=calibrations)
        seen.append((artifact.info.calibration_images, artifact.info.recipe_hash))
    assert [images for images, _ in seen] == [8, 8, 8]
    assert len({recipe for _, recipe in seen}) == 2
