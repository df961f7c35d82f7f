"""The Python door: quantize a model, validate an artifact."""

from __future__ import annotations

import atexit
import copy
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.engine import BACKENDS, TorchBackend
from ptqbench.backends.isa import physical_cores
from ptqbench.case import FloatSide, Subject, build_int8, calibration_batches, judge, unavailable
from ptqbench.data.sets import Data, check_disjoint
from ptqbench.errors import UserError
from ptqbench.models.preprocessing import Preprocessing
from ptqbench.models.weights import Weights, build_model, load_weights
from ptqbench.models.zoo import MODELS
from ptqbench.phases import Phases
from ptqbench.progress import Progress, silent
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.registry import nearest
from ptqbench.reporting.machine import machine_facts
from ptqbench.reporting.result import Report
from ptqbench.subjects import RunSettings, artifact_folder, open_data


def quantize(
    model: str | nn.Module,
    calibration: Iterable[Tensor] | str = "fixture",
    *,
    backend: str | None = None,
    recipe: Recipe | str | None = None,
    weights: str = "fixture",
    path: str | Path | None = None,
    seed: int = 0,
) -> Artifact:
    """Quantize a model after training and save the int8 artifact.

    Args:
        model: A registered name, or a float32 module of a registered architecture.
        calibration: Batches ``N×C×H×W`` float32, normalised as in training; or, for a
            named model, ``fixture`` or an image folder.
        backend: By default the one that the recipe recommends.
        recipe: By default that of the named model; a module needs one (or the name of
            its architecture).
        weights: For a named model: ``fixture`` or a file.
        path: The file to write; by default one that goes away with the process.
        seed: Of every random choice.

    Returns:
        The artifact: ``artifact.load()`` gives a function from images to logits.

    Raises:
        UserError: Unknown names, a backend that cannot run here, weights or images that
            cannot be read or do not fit.
    """
    chosen = _recipe(model, recipe)
    target = BACKENDS.get(backend or chosen.backend)
    if isinstance(model, str):
        spec = MODELS.get(model)
        loaded = load_weights(spec, weights)
        module = build_model(spec, loaded)
        if isinstance(calibration, str):
            data = open_data(calibration, loaded, seed)
            calibration = calibration_batches(data, chosen)
    else:
        module = copy.deepcopy(model).eval()
    if isinstance(calibration, str):
        raise UserError(
            f"calibration={calibration!r} names images, but a module does not say how they are "
            "prepared. Pass batches of normalised images, N×C×H×W float32."
        )
    if path is None:
        folder = tempfile.mkdtemp(prefix="ptqbench-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder) / f"{chosen.model}-{target.name}.int8.pt"
    return target.build(module, chosen, calibration, Path(path))


def validate(
    model: str | nn.Module,
    artifact: Artifact | str | Path,
    data: str | Path | Data = "fixture",
    *,
    recipe: Recipe | str | None = None,
    weights: str = "fixture",
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | None = None,
    settings: RunSettings | None = None,
    progress: Progress = silent,
) -> Report:
    """Judge an int8 artifact against its float32 model, or make it for a backend first.

    Args:
        model: A registered name, or the float32 module itself.
        artifact: An artifact, the path of one, or the name of a backend to make it for.
        data: ``fixture``, an image folder, or opened data.
        recipe: By default that of the named model; a module needs one (or the name of
            its architecture).
        weights: For a named model: ``fixture`` or a file.
        preprocessing: For a module: how its images are prepared; default ImageNet's.
        classes: For a module: its class names in output order, if the folders of the
            data shall be matched by name.
        settings: Input size, batch size, threads and seed of the measurements.
        progress: Told how far the work is.

    Raises:
        UserError: Unknown names, files that cannot be read or do not fit.
    """
    settings = settings or RunSettings()
    chosen = _recipe(model, recipe)
    spec = MODELS.get(chosen.model)
    backend, made = _artifact_and_backend(artifact)
    if made is not None:
        _check_fits(made, chosen)
    if isinstance(model, str):
        loaded = load_weights(spec, weights, settings.overrides)
        module = build_model(spec, loaded)
    else:
        module = copy.deepcopy(model).eval()
        loaded = _weights_of(module, spec.input_size, preprocessing, classes)
    if isinstance(data, Data):
        check_disjoint(data)
        opened = data
    else:
        opened = open_data(str(data), loaded, settings.seed, progress)
    phases = Phases()
    torch.set_num_threads(settings.threads or physical_cores())
    with ExitStack() as stack:
        folder = artifact_folder(settings.artifacts, stack)
        timing = settings.timing(spec.input_size)
        subject = Subject(module, chosen, loaded.source, opened, timing, folder, {})
        if reason := backend.availability():
            case = unavailable(chosen, backend, reason, weights=loaded.source, data=opened.name)
        else:
            made = made or build_int8(subject, backend, phases)
            float_side = FloatSide(subject, backend, phases)
            case = judge(subject, backend, made, float_side, progress, phases)
    return Report(machine_facts(), (case,), settings.to_dict(), phases.records())


def _recipe(model: str | nn.Module, recipe: Recipe | str | None) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is None and not isinstance(model, str):
        raise UserError(
            "A module does not say which recipe is for it. Pass recipe= with the name of its "
            f"architecture, one of {', '.join(RECIPES.names())}, or a Recipe."
        )
    if isinstance(model, str):
        MODELS.get(model)
    return RECIPES.get(recipe or str(model))


def _artifact_and_backend(artifact: Artifact | str | Path) -> tuple[TorchBackend, Artifact | None]:
    if isinstance(artifact, Artifact):
        return BACKENDS.get(artifact.info.backend), artifact
    if str(artifact) in BACKENDS:
        return BACKENDS.get(str(artifact)), None
    path = Path(artifact)
    if not path.is_file():
        hint = nearest(str(artifact), BACKENDS.names())
        raise UserError(f"{artifact} is neither a backend nor a file. {hint}")
    opened = Artifact.open(path)
    return BACKENDS.get(opened.info.backend), opened


def _check_fits(artifact: Artifact, recipe: Recipe) -> None:
    info = artifact.info
    if info.precision != "int8":
        raise UserError(
            f"{artifact.path} is a {info.precision} artifact, and so there is nothing to judge. "
            "Pass the int8 one."
        )
    if info.model != recipe.model:
        raise UserError(
            f"{artifact.path} was made from {info.model}, but the model is {recipe.model}. Pass "
            "the model that the artifact was made from."
        )


def _weights_of(
    module: nn.Module,
    input_size: tuple[int, int, int],
    preprocessing: Preprocessing | None,
    classes: Sequence[str] | None,
) -> Weights:
    with torch.inference_mode():
        num_classes = module(torch.zeros(1, *input_size)).shape[1]
    names = tuple(classes) if classes is not None else None
    return Weights("given", {}, preprocessing or Preprocessing(), names, num_classes, "")
