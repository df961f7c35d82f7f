"""Where the parameters of a model come from, and the models built from them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ptqbench.core.names import nearest
from ptqbench.core.package_data import fixtures_dir
from ptqbench.core.paths import is_dir, is_file, user_path
from ptqbench.core.progress import Progress, silent
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError
from ptqbench.models.catalog import ModelSpec
from ptqbench.models.meta_init import initialised, skeleton, unfilled
from ptqbench.recipes.published_accuracy import PublishedAccuracy
from ptqbench.settings.weights_specifier import (
    ALLOWED,
    FIXTURE,
    IMAGENET,
    NAMES,
    PROBE,
    is_enum_name,
)
from ptqbench.weights import torchvision_weights as imagenet
from ptqbench.weights.checkpoint import check_architecture, read_state
from ptqbench.weights.download import fetched, hash_prefix
from ptqbench.weights.sidecar import WeightsSettings, override_settings, read_settings


@dataclass(frozen=True)
class Weights:
    """Parameters of a classifier with what is needed to use them.

    Attributes:
        source: ``fixture``, ``probe``, ``imagenet``, a name in torchvision's enums, or the path
            that they were read from.
        state: State dict; floating point values are float32.
        preprocessing: How pictures are prepared for them.
        classes: Class names in output order, or None if they are not known.
        num_classes: Number of outputs.
        sha256: Hash of the file, in hexadecimal.
        transform_input: Whether the model itself changes the normalisation of its input
            (GoogLeNet and Inception with torchvision's own weights).
        name: Full name in torchvision's enums, or None.
        published: What torchvision published about them, or None.
        made: How they were made and what was measured then, of those that are made here.
        notes: What a reader of results should know.
    """

    source: str
    state: Mapping[str, Tensor]
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    num_classes: int
    sha256: str
    transform_input: bool = False
    name: str | None = None
    published: PublishedAccuracy | None = None
    made: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, object]:
        """What a report tells about them."""
        told = {"weights_sha256": self.sha256, "weights_name": self.name}
        facts: dict[str, object] = {key: value for key, value in told.items() if value}
        return facts | dict(self.made) | (self.published.facts() if self.published else {})


def load_weights(
    spec: ModelSpec,
    source: str = FIXTURE,
    overrides: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Weights:
    """Read weights and what they bring along.

    Beside a file may lie a sidecar, ``FILE.json`` (``weights.safetensors.json`` or
    ``weights.json``), with any of ``resize``, ``crop``, ``mean``, ``std``, ``interpolation``,
    ``classes`` and ``transform_input``. What neither it nor ``overrides`` gives is ImageNet's
    mean and deviation, and a crop of the model's standard side, out of a picture whose shorter
    side is an eighth of the crop and a seventh of that longer (256 for 224).

    Args:
        spec: The architecture.
        source: ``fixture``; ``imagenet`` or the name of torchvision's weights, which are
            downloaded if they are not there; or the path of a safetensors file, or of a state
            dict or checkpoint saved by ``torch.save``, read with ``weights_only=True``.
        overrides: Values that win over the sidecar's; None counts as not given.
        progress: Told while a file is downloaded.

    Returns:
        The weights; the number of classes follows the file.

    Raises:
        UserError: There is no such file or name, the file holds something else than plain
            tensors, the tensors are of another architecture, or a setting is wrong.
    """
    overrides = overrides or {}
    if source == IMAGENET or is_enum_name(source):
        weights = _published_weights(spec, source, overrides, progress)
    else:
        weights = _weights_of_file(spec, source, _locate(spec, source), overrides)
    _check(spec.fitted(weights.state), weights)
    return weights


def check_published(spec: ModelSpec, source: str, progress: Progress = silent) -> None:
    """See that torchvision's weights are there, before hours are spent on other models.

    Args:
        spec: The architecture.
        source: Where its weights come from; only torchvision's are looked for.
        progress: Told while a file is downloaded.

    Raises:
        UserError: There are none of that name, or they are not there and cannot be downloaded.
    """
    if source == IMAGENET or is_enum_name(source):
        fetched(imagenet.choose(spec, source).url, progress)


def build_model(spec: ModelSpec, weights: Weights) -> nn.Module:
    """The float32 model with these weights, in evaluation mode.

    A vision transformer is made for the input size that the weights are for.

    Raises:
        UserError: The weights are of another architecture.
    """
    spec = spec.fitted(weights.state)
    return _filled(spec.factory, spec, weights)


def build_quantizable(spec: ModelSpec, weights: Weights) -> nn.Module:
    """The variant prepared for eager quantization (stubs, ``FloatFunctional``), evaluation mode.

    Raises:
        UserError: The architecture has none, or the weights are of another architecture.
    """
    if spec.quantizable is None:
        raise UserError(
            f"{spec.name} has no variant for eager quantization. Use the FX flow for it."
        )
    return _filled(spec.quantizable, spec, weights)


def _filled(factory: Callable[[int], nn.Module], spec: ModelSpec, weights: Weights) -> nn.Module:
    # Built without memory and then assigned: random initialisation would take longer than
    # everything else.
    model = skeleton(factory, weights.num_classes)
    _assign(model, spec, weights)
    if unfilled(model):
        # It keeps tensors beside the state dict, and these were filled by the constructor.
        model = initialised(factory, weights.num_classes)
        _assign(model, spec, weights)
    if weights.transform_input:
        _transform_input(model, spec)
    return model.eval()


def _assign(model: nn.Module, spec: ModelSpec, weights: Weights) -> None:
    # Copies, so that models made from one record share nothing.
    state: OrderedDict[str, Any] = OrderedDict(copy.deepcopy(dict(weights.state)))
    # The versions of the modules, without which MNASNet refuses a state dict; names were brought
    # up to date when the file was read.
    state._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"The weights {weights.source} do not fit {spec.name}: {reason}") from None


def _transform_input(model: nn.Module, spec: ModelSpec) -> None:
    if not hasattr(model, "transform_input"):
        raise UserError(
            f"transform_input is set, but {spec.name} has no such option: only GoogLeNet and "
            "Inception do. Remove it from the sidecar."
        )
    model.transform_input = True  # type: ignore[assignment]


def _published_weights(
    spec: ModelSpec, source: str, overrides: Mapping[str, object], progress: Progress
) -> Weights:
    member = imagenet.choose(spec, source)
    path = fetched(member.url, progress)
    file = read_state(path, hash_prefix(member.url))
    file, num_classes = check_architecture(spec, file, path)
    default = imagenet.settings_of(member, spec)
    settings = override_settings(default, {}, overrides, "the given options")
    return Weights(
        source,
        file.tensors,
        settings.preprocessing,
        settings.classes,
        num_classes,
        file.sha256,
        transform_input=settings.transform_input,
        name=str(member),
        published=imagenet.published_with(spec, member),
        notes=file.notes,
    )


def _weights_of_file(
    spec: ModelSpec, source: str, path: Path, overrides: Mapping[str, object]
) -> Weights:
    file, num_classes = check_architecture(spec, read_state(path), path)
    default = WeightsSettings(_standard(spec, spec.fitted(file.tensors)))
    settings = read_settings(path, overrides, default)
    return Weights(
        source,
        file.tensors,
        settings.preprocessing,
        settings.classes,
        num_classes,
        file.sha256,
        transform_input=settings.transform_input,
        notes=file.notes,
    )


def _standard(spec: ModelSpec, fitted: ModelSpec) -> Preprocessing:
    """The preprocessing of an architecture that nothing is said about."""
    _, height, width = fitted.input_size
    if height != width:
        return Preprocessing()
    if fitted.input_size != spec.input_size:
        # Trained on at another size: whoever does that uses the whole side of the picture.
        return Preprocessing(height, height)
    return Preprocessing(round(height * 8 / 7), height)


def _check(spec: ModelSpec, weights: Weights) -> None:
    spec.check_side(weights.preprocessing.crop, f"the crop for the weights {weights.source}")
    if weights.classes is not None and len(weights.classes) != weights.num_classes:
        raise UserError(
            f"{len(weights.classes)} classes are named for {weights.source}, but its classifier "
            f"has {weights.num_classes} outputs. Name every class once, in the order of the "
            "outputs."
        )


def _locate(spec: ModelSpec, source: str) -> Path:
    if source == FIXTURE:
        return _fixture(spec)
    if source == PROBE:
        raise UserError(
            "The weights `probe` are made from images and not read: see "
            "ptqbench.weights.open_weights.open_weights."
        )
    path = user_path(source)
    if is_dir(path):
        raise UserError(f"The weights {source} are a folder. Pass the file in it.")
    if not is_file(path):
        raise UserError(f"There is no weights file {source}. {_hint(spec, path)}")
    return path


def _fixture(spec: ModelSpec) -> Path:
    folder = fixtures_dir() / "weights"
    path = folder / f"{spec.name}.safetensors"
    if not path.is_file() and spec.origin:
        raise UserError(
            f"No weights ship for {spec.name}, a model of your own ({spec.origin}). Pass the file "
            "of its state dict with --weights, or set `weights` in its table of the settings."
        )
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in folder.glob("*.safetensors"))) or "no model"
        raise UserError(
            f"There are no fixture weights for {spec.name}; there are for {names}. Name another "
            f"source with --weights: {ALLOWED}."
        )
    return path


def _hint(spec: ModelSpec, path: Path) -> str:
    siblings = [p.name for p in path.parent.iterdir()] if is_dir(path.parent) else []
    enum_names = imagenet.names(spec)
    known = [*NAMES, *enum_names, *sorted(siblings if len(siblings) < 200 else [])]
    if path.name.upper() in enum_names:
        return f"Did you mean {path.name.upper()}?"
    hint = nearest(path.name, known)
    return hint if hint.startswith("Did") else f"Weights may come from: {ALLOWED}."
