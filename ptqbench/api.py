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
from ptqbench.backends.process_state import process_unchanged
from ptqbench.backends.registry import BACKENDS, recommended
from ptqbench.core.cpu_count import physical_cores
from ptqbench.core.names import nearest, safe_file_name
from ptqbench.core.paths import is_file
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.data.image_set import Data, check_disjoint, example_image
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError
from ptqbench.evaluation.case import (
    FloatSide,
    Subject,
    build_int8,
    calibration_batches,
    judge,
    unavailable,
)
from ptqbench.evaluation.foreign import judge_given, recipe_for
from ptqbench.evaluation.foreign_notes import Given, check_model, open_given
from ptqbench.evaluation.machine import machine_facts
from ptqbench.evaluation.result import Report
from ptqbench.evaluation.subject import (
    artifact_folder,
    open_data,
    shown_settings,
    source_facts,
    timing_of,
)
from ptqbench.models.catalog import MODELS
from ptqbench.models.custom.importing import reference
from ptqbench.models.custom.registration import open_recipe
from ptqbench.quantization.completion import complete_recipe
from ptqbench.quantization.fx_tracing import check_classifier
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.settings.run_settings import BROKEN_SHARE, RunSettings
from ptqbench.weights.load import Weights, build_model
from ptqbench.weights.open_weights import open_weights


def quantize(
    model: str | nn.Module,
    calibration: Iterable[Tensor] | str = "fixture",
    *,
    backend: str | None = None,
    recipe: Recipe | str | None = None,
    weights: str | None = None,
    path: str | Path | None = None,
    seed: int = 0,
    broken_share: float = BROKEN_SHARE,
    progress: Progress = silent,
) -> Artifact:
    """Quantize a model after training and save the int8 artifact.

    Args:
        model: A registered name, ``module:function``, or a float32 module.
        calibration: Batches ``N×C×H×W`` float32, normalised as in training; or, for a
            named model, ``fixture``, ``cifar10[:ROOT]``, ``imagenet:ROOT`` or an image folder.
        backend: By default the one that the recipe recommends.
        recipe: By default that of the named model, and for a module one that is found by
            tracing it; a Recipe or the name of an architecture.
        weights: For a named model: ``fixture``, ``probe``, ``imagenet``, a name in
            torchvision's weights enums, or a file; by default ``fixture`` where they ship, and
            else ``probe``.
        path: The file to write; by default one that goes away with the process.
        seed: Of every random choice.
        broken_share: Share of a folder's pictures that may be undecodable.
        progress: Told while weights are downloaded and images are rendered.

    Returns:
        The artifact: ``artifact.load()`` gives a function from images to logits.

    Raises:
        UserError: Unknown names, a backend that cannot run here, weights or images that
            cannot be read or do not fit.
    """
    chosen = _recipe(model, recipe)
    target = BACKENDS.get(backend or recommended(chosen))
    if isinstance(model, str):
        spec = MODELS.get(model)
        loaded = open_weights(spec, weights, progress=progress)
        module = build_model(spec, loaded)
        if isinstance(calibration, str):
            reading = RunSettings(broken_share=broken_share)
            data = open_data(calibration, loaded, seed, progress, reading)
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
        path = Path(folder) / f"{safe_file_name(chosen.model)}-{target.name}.int8.pt"
    return target.build(module, chosen, calibration, Path(path))


@process_unchanged()
def validate(
    model: str | nn.Module,
    artifact: Artifact | str | Path,
    data: str | Path | Data = "fixture",
    *,
    backend: str | None = None,
    recipe: Recipe | str | None = None,
    weights: str | None = None,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | None = None,
    keep_float: Sequence[str] = (),
    settings: RunSettings | None = None,
    progress: Progress = silent,
) -> Report:
    """Judge an int8 artifact against its float32 model, or make it for a backend first.

    Args:
        model: A registered name, ``module:function``, or the float32 module itself.
        artifact: An artifact; the path of one, or of int8 TorchScript that was made
            elsewhere, which is loaded and run; or the name of a backend to make it for.
        data: ``fixture``, ``cifar10[:ROOT]``, ``imagenet:ROOT``, an image folder, or opened data.
        backend: What a file will run on; by default what it records, or else what the
            recipe recommends.
        recipe: By default that of the named model, and for a module one that is found by
            tracing it; a Recipe or the name of an architecture.
        weights: For a named model: ``fixture``, ``probe``, ``imagenet``, a name in
            torchvision's weights enums, or a file; by default ``fixture`` where they ship, and
            else ``probe``.
        preprocessing: For a module: how its images are prepared; default ImageNet's.
        classes: For a module: its class names in output order, if the folders of the
            data shall be matched by name.
        keep_float: For a file that was made elsewhere: modules that are meant to stay
            float32, with all below them.
        settings: Input size, batch size, threads and seed of the measurements, thresholds, and
            how images are read (``limit``, ``broken_share``, ``workers``).
        progress: Told how far the work is.

    Raises:
        UserError: Unknown names, files that cannot be read or do not fit.
    """
    settings = settings or RunSettings()
    given = _given(artifact, backend)
    if given is None:
        backend = str(artifact)
    chosen = _recipe_beside(model, recipe, given, backend)
    if given is not None:
        _check_fits(given, chosen)
        backend = backend or given.backend or recommended(chosen)
    target = BACKENDS.get(str(backend))
    module, loaded, input_size = _float_side(
        model, chosen, data, weights, preprocessing, classes, settings, progress
    )
    opened = _opened(data, loaded, settings, progress)
    phases = Phases()
    torch.set_num_threads(settings.threads or physical_cores())
    with ExitStack() as stack:
        folder = artifact_folder(settings.artifacts, stack)
        timing = timing_of(settings, input_size)
        asked = chosen.thresholds_for(loaded.source).replaced(settings.thresholds)
        completed = None
        if given is None or given.info is not None:
            completed = complete_recipe(chosen, module, timing.example())
        facts = source_facts(loaded, opened)
        subject = Subject(
            module,
            chosen,
            loaded.source,
            opened,
            timing,
            folder,
            facts,
            asked,
            completed=completed,
        )
        refused = target.refusal(chosen) if given is None else target.availability()
        if reason := refused:
            case = unavailable(chosen, target, reason, weights=loaded.source, data=opened.name)
        elif given is None or given.backend == target.name:
            made = _artifact(given) or build_int8(subject, target, phases)
            float_side = FloatSide(subject, target, phases)
            case = judge(subject, target, made, float_side, progress, phases)
        else:
            case = judge_given(
                subject, target, given, keep_float=keep_float, progress=progress, phases=phases
            )
    return Report(machine_facts(), (case,), shown_settings(settings), phases.records())


def _given(artifact: Artifact | str | Path, backend: str | None) -> Given | None:
    """The file that is to be judged; None if it is to be made for the backend it names."""
    if isinstance(artifact, Artifact):
        return Given(artifact.path, artifact.info)
    if str(artifact) in BACKENDS:
        if backend not in (None, str(artifact)):
            raise UserError(
                f"artifact={artifact!r} asks for an artifact for {artifact}, backend={backend!r} "
                "for another. Pass one of them."
            )
        return None
    if not is_file(artifact):
        hint = nearest(str(artifact), BACKENDS.names())
        raise UserError(f"{artifact} is neither a backend nor a file. {hint}")
    return open_given(artifact)


def _artifact(given: Given | None) -> Artifact | None:
    """The artifact that a file is, if ptqbench made it."""
    if given is None or given.info is None:
        return None
    return Artifact(given.path, given.info)


def _recipe_beside(
    model: str | nn.Module, recipe: Recipe | str | None, given: Given | None, backend: str | None
) -> Recipe:
    """The recipe; beside a file that was made elsewhere one that only has thresholds will do."""
    if isinstance(model, str) or recipe is not None or given is None or given.info is not None:
        return _recipe(model, recipe)
    return recipe_for(type(model).__name__, backend, given)


def _float_side(
    model: str | nn.Module,
    recipe: Recipe,
    data: str | Path | Data,
    weights: str | None,
    preprocessing: Preprocessing | None,
    classes: Sequence[str] | None,
    settings: RunSettings,
    progress: Progress,
) -> tuple[nn.Module, Weights, tuple[int, int, int]]:
    """The float32 module, what is known of its weights, and its standard input ``C×H×W``."""
    if isinstance(model, str):
        spec = MODELS.get(recipe.model)
        loaded = open_weights(spec, weights, settings.overrides, progress)
        return build_model(spec, loaded), loaded, spec.fitted(loaded.state).input_size
    module = copy.deepcopy(model).eval()
    preprocessing = preprocessing or Preprocessing()
    if recipe.model in MODELS:
        input_size = MODELS.get(recipe.model).input_size
    elif isinstance(data, Data):
        _, *sizes = example_image(data.evaluation).shape
        input_size = (sizes[0], sizes[1], sizes[2])
    else:
        input_size = (3, preprocessing.crop, preprocessing.crop)
    check_classifier(module, torch.zeros(1, *input_size))
    return module, _weights_of(module, input_size, preprocessing, classes), input_size


def _opened(
    data: str | Path | Data, weights: Weights, settings: RunSettings, progress: Progress
) -> Data:
    if isinstance(data, Data):
        check_disjoint(data)
        return data
    return open_data(str(data), weights, settings.seed, progress, settings)


def _recipe(model: str | nn.Module, recipe: Recipe | str | None) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is None and not isinstance(model, str):
        return open_recipe(type(model).__name__)
    if isinstance(model, str):
        reference(model, [Path.cwd()])
        MODELS.get(model)
    return RECIPES.get(recipe or str(model))


def _check_fits(given: Given, recipe: Recipe) -> None:
    if given.info is not None and given.info.precision != "int8":
        raise UserError(
            f"{given.path} is a {given.info.precision} artifact, and so there is nothing to "
            "judge. Pass the int8 one."
        )
    check_model(given, recipe.model)


def _weights_of(
    module: nn.Module,
    input_size: tuple[int, int, int],
    preprocessing: Preprocessing,
    classes: Sequence[str] | None,
) -> Weights:
    with torch.inference_mode():
        num_classes = module(torch.zeros(1, *input_size)).shape[1]
    names = tuple(classes) if classes is not None else None
    return Weights("given", {}, preprocessing, names, num_classes, "")
