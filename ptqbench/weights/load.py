"""Load weights, and build models with them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
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
from ptqbench.models.meta_init import initialised, shapes_of, skeleton, unfilled
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
from ptqbench.weights.checkpoint import COUNTER, check_architecture, read_state
from ptqbench.weights.download import fetch, hash_prefix
from ptqbench.weights.sidecar import WeightsSettings, override_settings, read_key, read_settings

_ANY_CLASSES = 10
"""Number of outputs where only names matter."""


@dataclass(frozen=True)
class Weights:
    """Parameters of a classifier, and what is needed to use them.

    Attributes:
        source: ``fixture``, ``probe``, ``imagenet``, ``pretrained``, a name in torchvision's
            enums, or the path of the file.
        state: State dict; floating-point values are float32.
        preprocessing: How pictures are prepared for them.
        classes: Class names in output order, or None if they are not known.
        num_classes: Number of outputs.
        sha256: Hash of the file, in hexadecimal.
        transform_input: Whether the model itself changes the normalisation of its input
            (GoogLeNet and Inception with torchvision's own weights).
        name: Full name in torchvision's enums, or None.
        published: Accuracies that torchvision published, or None.
        probe_facts: How probe weights were computed, and how well they classify.
        notes: Remarks for readers of a report.
        key: Which set of weights of the file it is; empty if the file is one.
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
    probe_facts: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    key: str = ""

    @property
    def facts(self) -> dict[str, object]:
        """Facts for the report."""
        names = {
            "weights_sha256": self.sha256,
            "weights_key": self.key,
            "weights_name": self.name,
        }
        facts: dict[str, object] = {key: value for key, value in names.items() if value}
        published = self.published.facts() if self.published else {}
        return facts | dict(self.probe_facts) | published


def load_weights(
    spec: ModelSpec,
    source: str = FIXTURE,
    overrides: Mapping[str, object] | None = None,
    progress: Progress = silent,
    key: str | None = None,
) -> Weights:
    """Read weights and their settings.

    Next to a file there may be a sidecar, ``FILE.json`` (``weights.safetensors.json`` or
    ``weights.json``), with any of ``resize``, ``crop``, ``mean``, ``std``, ``interpolation``,
    ``classes``, ``transform_input`` and ``weights_key``. The defaults are ImageNet's mean and
    deviation, and a crop to the model's standard side from a picture whose shorter side is 8/7 of
    it (256 for 224).

    Args:
        spec: The architecture.
        source: ``fixture``; ``imagenet`` or the name of torchvision's weights, which are
            downloaded if necessary; or the path of a safetensors file, or of a state dict or
            checkpoint saved by ``torch.save``, read with ``weights_only=True``.
        overrides: Values that take precedence over the sidecar's; None counts as unset.
        progress: Progress callback of a download.
        key: Which set of weights to take from a checkpoint that holds several, such as
            ``state_dict_ema``; None: what the sidecar says, else what was trained.

    Returns:
        The weights, with the number of classes of the file.

    Raises:
        UserError: There is no such file or name, the file holds anything but plain tensors, the
            tensors are of another architecture, or a setting is wrong.
    """
    member = _torchvision_member(spec, source)
    path = fetch(member.url, progress) if member else _locate(spec, source)
    content = read_state(
        path,
        hash_prefix(member.url) if member else "",
        key or (None if member else read_key(path)),
        lambda name: name in _parts(spec),
    )
    file, num_classes = check_architecture(spec, content, path)
    fitted = spec.fitted(file.tensors)
    overrides = overrides or {}
    if member:
        default = imagenet.settings_of(member, spec)
        settings = override_settings(default, {}, overrides, "the given options")
    else:
        settings = read_settings(path, overrides, WeightsSettings(_standard(spec, fitted)))
    weights = Weights(
        source,
        file.tensors,
        settings.preprocessing,
        settings.classes,
        num_classes,
        file.sha256,
        transform_input=settings.transform_input,
        name=str(member) if member else None,
        published=imagenet.published_with(spec, member) if member else None,
        notes=(*file.notes, *([spec.note] if spec.note else [])),
        key=file.key,
    )
    check_settings(fitted, weights)
    return weights


def check_published(spec: ModelSpec, source: str, progress: Progress = silent) -> None:
    """Download torchvision's weights if ``source`` names some; see `open_weights.provide`."""
    if member := _torchvision_member(spec, source):
        fetch(member.url, progress)


def build_model(spec: ModelSpec, weights: Weights) -> nn.Module:
    """Build the float32 model with these weights, in evaluation mode.

    A vision transformer is built for the input size of the weights.

    Raises:
        UserError: The weights are of another architecture.
    """
    spec = spec.fitted(weights.state)
    # Built without memory and then assigned: random initialisation would take longer than
    # everything else.
    model = skeleton(spec.factory, weights.num_classes)
    _assign(model, spec, weights)
    if unfilled(model):
        # Tensors outside of the state dict, which the constructor fills.
        model = initialised(spec.factory, weights.num_classes)
        _assign(model, spec, weights)
    if weights.transform_input:
        _transform_input(model, spec)
    return model.eval()


def _assign(model: nn.Module, spec: ModelSpec, weights: Weights) -> None:
    # Copies, so that models built from one record share nothing.
    state: OrderedDict[str, Any] = OrderedDict(copy.deepcopy(dict(weights.state)))
    # The versions of the modules, without which MNASNet refuses a state dict; old names were
    # updated when the file was read.
    expected = model.state_dict()
    state._metadata = expected._metadata  # type: ignore[attr-defined]
    _check_kinds(expected, state, weights.source)
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"The weights {weights.source} do not fit {spec.name}: {reason}") from None


def _check_kinds(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Check that indices are integers and all other values are not."""
    for name, value in state.items():
        if name not in expected or name.endswith(COUNTER):  # inference uses no counters
            continue
        kinds = [each.is_floating_point() for each in (value, expected[name])]
        if kinds[0] != kinds[1]:
            raise UserError(
                f"The tensor {name!r} of the weights {source} is of type {value.dtype} instead of "
                f"{expected[name].dtype}. Save model.state_dict() as it is."
            )


def _parts(spec: ModelSpec) -> set[str]:
    """Return the names of an architecture's modules and parameters at the top."""
    shapes = shapes_of(spec.factory, spec.num_classes or _ANY_CLASSES)
    return {name.partition(".")[0] for name in shapes}


def _transform_input(model: nn.Module, spec: ModelSpec) -> None:
    if not hasattr(model, "transform_input"):
        raise UserError(
            f"transform_input is set, but {spec.name} has no such option: only GoogLeNet and "
            "Inception do. Remove it from the sidecar."
        )
    model.transform_input = True  # type: ignore[assignment]


def _torchvision_member(spec: ModelSpec, source: str) -> Any:
    """The member of a torchvision weights enum that a source names; None for other sources."""
    is_member = source == IMAGENET or is_enum_name(source)
    return imagenet.choose(spec, source) if is_member else None


def _standard(spec: ModelSpec, fitted: ModelSpec) -> Preprocessing:
    """Default preprocessing of an architecture."""
    if spec.preprocessing:
        return Preprocessing(**spec.preprocessing)
    _, height, width = fitted.input_size
    if height != width:
        return Preprocessing()
    if fitted.input_size != spec.input_size:
        # Fine-tuned at another size, which is usually done on uncropped pictures.
        return Preprocessing(height, height)
    return Preprocessing(round(height * 8 / 7), height)


def check_settings(spec: ModelSpec, weights: Weights) -> None:
    """Check that crop and classes of weights fit the architecture.

    Raises:
        UserError: They do not.
    """
    spec.check_side(weights.preprocessing.crop, f"the crop for the weights {weights.source}")
    if weights.classes is not None and len(weights.classes) != weights.num_classes:
        raise UserError(
            f"There are {len(weights.classes)} class names for {weights.source}, but its "
            f"classifier has {weights.num_classes} outputs. Name every class once, in the "
            "order of the outputs."
        )


def _locate(spec: ModelSpec, source: str) -> Path:
    if source == FIXTURE:
        return _fixture(spec)
    if source == PROBE:
        raise UserError(
            "The weights `probe` are computed from images, not read: see "
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
            f"No weights ship for {spec.name}, a custom model ({spec.origin}). Pass the file "
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
    siblings = (
        # Unlike iterdir, glob yields nothing if the folder cannot be read.
        [p.name for p in path.parent.glob("*")] if is_dir(path.parent) else []
    )
    enum_names = imagenet.names(spec)
    known = [*NAMES, *enum_names, *sorted(siblings if len(siblings) < 200 else [])]
    if path.name.upper() in enum_names:
        return f"Did you mean {path.name.upper()}?"
    hint = nearest(path.name, known)
    return hint if hint.startswith("Did") else f"Weights may come from: {ALLOWED}."
