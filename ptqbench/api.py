"""The Python door: quantize a model, validate an artifact."""

from __future__ import annotations

import atexit
import copy
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ptqbench.backends.artifact import Artifact, int8_file_name
from ptqbench.backends.backend import Backend
from ptqbench.backends.backend_registry import BACKENDS, recommended
from ptqbench.backends.process_state import process_unchanged
from ptqbench.core.cpu_count import physical_cores
from ptqbench.core.names import nearest
from ptqbench.core.paths import is_file
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, silent
from ptqbench.data.image_set import Data
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError
from ptqbench.evaluation.artifact_file import ArtifactFile, annotate, open_artifact_file
from ptqbench.evaluation.case import CaseEvaluation, unavailable_case
from ptqbench.evaluation.float_rivals import FloatRivals
from ptqbench.evaluation.foreign import evaluate_file, gate, recipe_for
from ptqbench.evaluation.int8_artifact import build_int8
from ptqbench.evaluation.machine import machine_facts
from ptqbench.evaluation.open_subject import open_data, open_module_subject, open_subject
from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.evaluation.subject import MODULE, Subject, calibration_batches, shown_settings
from ptqbench.models.catalog import MODELS
from ptqbench.models.custom.importing import reference
from ptqbench.models.custom.registration import open_recipe
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.settings.run_settings import BROKEN_SHARE, RunSettings
from ptqbench.weights.load import build_model
from ptqbench.weights.open_weights import open_weights


def quantize(
    model: str | nn.Module,
    calibration: Iterable[Tensor] | str = "fixture",
    *,
    backend: str | None = None,
    recipe: Recipe | str | None = None,
    weights: str | None = None,
    weights_key: str | None = None,
    path: str | Path | None = None,
    seed: int = 0,
    broken_share: float = BROKEN_SHARE,
    progress: Progress = silent,
) -> Artifact:
    """Quantize a model after training and save the int8 artifact.

    Args:
        model: A registered name, ``module:function``, ``timm:NAME``, or a float32 module.
        calibration: Batches ``N×C×H×W`` float32, normalised as in training; or, for a
            named model, ``fixture``, ``cifar10[:ROOT]``, ``imagenet:ROOT`` or an image folder.
        backend: By default the one that the recipe recommends.
        recipe: By default that of the named model, and for a module one that is derived by
            tracing it; a Recipe or the name of an architecture.
        weights: For a named model: a source or a file (docs/weights.md).
        weights_key: Which of the sets of weights in a checkpoint to take.
        path: The file to write; by default one that is removed with the process.
        seed: Seed of every random choice.
        broken_share: Share of a folder's pictures that may be undecodable.
        progress: Progress callback for downloads and rendering.

    Returns:
        The artifact: ``artifact.load()`` gives a function from images to logits.

    Raises:
        UserError: Unknown names, a backend that is not available, weights or images that
            cannot be read or do not fit, or an argument that does not apply.
    """
    chosen = _recipe(model, recipe)
    target = BACKENDS.get(backend or recommended(chosen))
    if isinstance(model, str):
        spec = MODELS.get(model)
        loaded = open_weights(spec, weights, progress=progress, key=weights_key)
        module = build_model(spec, loaded)
        if isinstance(calibration, str):
            settings = RunSettings(data=calibration, seed=seed, broken_share=broken_share)
            calibration = calibration_batches(open_data(settings, loaded, progress), chosen)
    else:
        if weights is not None or weights_key is not None:
            raise _not_for_a_module("weights_key" if weights is None else "weights")
        module = copy.deepcopy(model).eval()
    if isinstance(calibration, str):
        raise UserError(
            f"calibration={calibration!r} names images, but a module does not say how they are "
            "prepared. Pass batches of normalised images, N×C×H×W float32."
        )
    if path is None:
        folder = tempfile.mkdtemp(prefix="ptqbench-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder) / int8_file_name(chosen.model, target)
    return target.build(module, chosen, _image_batches(calibration), Path(path))


def _image_batches(calibration: Iterable[object]) -> Iterator[Tensor]:
    """Yield calibration batches; anything else, such as images with labels, is refused."""
    for batch in calibration:
        if not isinstance(batch, Tensor) or batch.ndim != 4:
            kind = f"{batch.ndim}-D tensor" if isinstance(batch, Tensor) else type(batch).__name__
            raise UserError(
                f"calibration must yield tensors N×C×H×W float32, but yielded a {kind}. Of a data "
                "loader, pass (images for images, labels in loader); of a single batch, [batch]."
            )
        yield batch


@process_unchanged()
def validate(
    model: str | nn.Module,
    artifact: Artifact | str | Path,
    data: str | Path | Data | None = None,
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
    """Judge an int8 artifact against its float32 model, or build one for a backend first.

    Arguments take precedence over the fields of ``settings``. The report shows what was used.

    Args:
        model: A registered name, ``module:function``, ``timm:NAME``, or the float32 module.
        artifact: An artifact; the path of one, or of a foreign one, which is first loaded and
            run in another process; or the name of a backend to build it for.
        data: ``fixture``, ``cifar10[:ROOT]``, ``imagenet:ROOT``, an image folder, or opened
            data; by default those of ``settings``.
        backend: What a file will run on; by default what it records, else what the recipe
            recommends.
        recipe: By default that of the named model, and for a module one that is derived by
            tracing it; a Recipe or the name of an architecture.
        weights: For a named model: ``fixture``, ``probe``, ``imagenet``, a name in
            torchvision's weights enums, or a file; by default those of ``settings``.
        preprocessing: For a module: what is done to its images; default ImageNet's.
        classes: For a module: its class names in output order, to match the folders of the
            data by name. Opened data need neither.
        keep_float: For a file: modules that are meant to stay float32, with all below them;
            wildcards allowed.
        settings: Everything else; its ``overrides`` are for a named model.
        progress: Progress callback.

    Raises:
        UserError: Unknown names, files that cannot be read or do not fit, or an argument or
            setting that does not apply.
    """
    settings = settings or RunSettings()
    opened = data if isinstance(data, Data) else None
    if opened is None and data is not None:
        settings = replace(settings, data=str(data))
    if weights is not None:
        settings = replace(settings, weights=weights)
    file = _file(artifact, backend)
    _check_applicable(model, file, opened, settings, preprocessing, classes, keep_float)
    if isinstance(model, str):
        chosen = _recipe(model, recipe)
        if file is not None:
            source = artifact if isinstance(artifact, Artifact) else file.path
            return gate(
                model,
                source,
                backend,
                settings,
                recipe=chosen,
                data=opened,
                keep_float=keep_float,
                progress=progress,
            )
    elif file is None or file.info is not None or recipe is not None:
        chosen = _recipe(model, recipe)
    else:
        chosen = recipe_for(type(model).__name__, backend, file)
    phases = Phases()
    torch.set_num_threads(settings.threads or physical_cores())
    if file is None:
        target = BACKENDS.get(str(artifact))
        refusal = target.refusal(chosen)
    else:
        file.check_model(chosen.model)
        target = file.choose_backend(backend, chosen)
        refusal = target.availability()
    if refusal:
        shown = settings if isinstance(model, str) else replace(settings, weights=MODULE)
        shown = shown if opened is None else replace(shown, data=opened.name)
        case = unavailable_case(chosen, target, refusal, shown)
        case = case if file is None else annotate(case, file)
        return Report(machine_facts(), (case,), shown_settings(shown), phases.records())
    with ExitStack() as stack:
        if isinstance(model, str):
            subject = open_subject(chosen, settings, stack, progress, phases, data=opened)
        else:
            subject = open_module_subject(
                model,
                chosen,
                settings,
                stack,
                progress,
                phases,
                preprocessing=preprocessing,
                classes=classes,
                data=opened,
                complete=file is None or file.info is not None,
            )
        case = _evaluated(subject, target, file, keep_float, progress, phases)
    return Report(machine_facts(), (case,), shown_settings(subject.settings), phases.records())


def _evaluated(
    subject: Subject,
    backend: Backend,
    file: ArtifactFile | None,
    keep_float: Sequence[str],
    progress: Progress,
    phases: Phases,
) -> CaseResult:
    if file is not None:
        return evaluate_file(
            subject, backend, file, keep_float=keep_float, progress=progress, phases=phases
        )
    artifact = build_int8(subject, backend, phases)
    rivals = FloatRivals.of_subject(subject, phases)
    case = CaseEvaluation(subject, backend, artifact, rivals, progress=progress, phases=phases)
    return case.judge()


def _file(artifact: Artifact | str | Path, backend: str | None) -> ArtifactFile | None:
    """The file to judge; None if it is to be built for the backend that ``artifact`` names."""
    if isinstance(artifact, Artifact):
        return open_artifact_file(artifact)
    if str(artifact) in BACKENDS:
        if backend not in (None, str(artifact)):
            raise UserError(
                f"artifact={artifact!r} names one backend to build an artifact for, "
                f"backend={backend!r} another. Pass one of them."
            )
        return None
    if not is_file(artifact):
        hint = nearest(str(artifact), BACKENDS.names())
        raise UserError(f"{artifact} is neither a backend nor a file. {hint}")
    return open_artifact_file(artifact)


def _check_applicable(
    model: str | nn.Module,
    file: ArtifactFile | None,
    data: Data | None,
    settings: RunSettings,
    preprocessing: Preprocessing | None,
    classes: Sequence[str] | None,
    keep_float: Sequence[str],
) -> None:
    """Refuse arguments and settings that would have no effect.

    Raises:
        UserError: There is one.
    """
    arguments = {"preprocessing": preprocessing, "classes": classes}
    names = [name for name, value in arguments.items() if value is not None]
    if isinstance(model, str):
        if names:
            raise UserError(
                f"{names[0]} applies to a module, but the model is {model!r}, whose weights say "
                "it. To replace that, pass settings=RunSettings(overrides={...}), with the "
                "names of the sidecar: resize, crop, mean, std, interpolation, classes."
            )
    elif settings.weights is not None or settings.weights_key is not None:
        raise _not_for_a_module("weights_key" if settings.weights is None else "weights")
    elif settings.overrides:
        raise UserError(
            "settings.overrides applies to a named model, but a module was passed. Pass "
            "preprocessing= and classes= instead."
        )
    if keep_float and file is None:
        raise UserError(
            "keep_float applies to a file, but the artifact is to be built. Set keep_float in "
            "its recipe instead: recipe=dataclasses.replace(recipe, keep_float=...)."
        )
    unset = RunSettings()
    # What opened data have been read with already.
    reading = ("data", "limit", "broken_share", "workers", "overrides")
    names += [f"settings.{n}" for n in reading if getattr(settings, n) != getattr(unset, n)]
    if data is not None and names:
        raise UserError(
            f"{names[0]} does not apply to data that are opened already. Pass the name of the data "
            f"instead, or leave {names[0]} out."
        )


def _not_for_a_module(argument: str) -> UserError:
    return UserError(
        f"{argument} applies to a named model, but a module was passed, which already has them. "
        "Load them into the module, or pass the name of a registered model."
    )


def _recipe(model: str | nn.Module, recipe: Recipe | str | None) -> Recipe:
    if isinstance(model, str):
        reference(model, [Path.cwd()])
        MODELS.get(model)
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is None and not isinstance(model, str):
        return open_recipe(type(model).__name__)
    return RECIPES.get(recipe or str(model))
