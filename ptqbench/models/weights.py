"""Where the parameters of a model come from, and the models built from them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ptqbench.errors import UserError
from ptqbench.models.preprocessing import Preprocessing
from ptqbench.models.sidecar import read_settings
from ptqbench.models.skeleton import without_memory
from ptqbench.models.state import check_architecture, read_state
from ptqbench.models.zoo import ModelSpec
from ptqbench.registry import nearest
from ptqbench.resources import fixtures_dir

_FIXTURE = "fixture"


@dataclass(frozen=True)
class Weights:
    """Parameters of a classifier with what is needed to use them.

    Attributes:
        source: ``fixture`` or the path they were read from.
        state: State dict; floating point values are float32.
        preprocessing: How pictures are prepared for them.
        classes: Class names in output order, or None if they are not known.
        num_classes: Number of outputs.
        sha256: Hash of the file, in hexadecimal.
    """

    source: str
    state: Mapping[str, Tensor]
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    num_classes: int
    sha256: str


def load_weights(
    spec: ModelSpec, source: str = _FIXTURE, overrides: Mapping[str, object] | None = None
) -> Weights:
    """Read weights and their sidecar.

    A sidecar is ``FILE.json`` (``weights.safetensors.json`` or ``weights.json``) with any of
    ``resize``, ``crop``, ``mean``, ``std``, ``interpolation`` and ``classes``. What neither it
    nor ``overrides`` gives is ImageNet's: Resize(256), CenterCrop(224), its mean and deviation.

    Args:
        spec: The architecture.
        source: ``fixture``, or the path of a safetensors file or of a plain state dict saved
            by ``torch.save``, which is read with ``weights_only=True``.
        overrides: Values that win over the sidecar's; None counts as not given.

    Returns:
        The weights; the number of classes follows the file.

    Raises:
        UserError: There is no such file, it holds something else than plain tensors, the
            tensors are of another architecture, or a setting is wrong.
    """
    path = _locate(spec, source)
    state, sha256 = read_state(path)
    state, num_classes = check_architecture(spec, state, path)
    preprocessing, classes = read_settings(path, overrides or {})
    if classes is not None and len(classes) != num_classes:
        raise UserError(
            f"{len(classes)} classes are named for {path}, but its classifier has {num_classes} "
            "outputs. Name every class once, in the order of the outputs."
        )
    return Weights(source, state, preprocessing, classes, num_classes, sha256)


def build_model(spec: ModelSpec, weights: Weights) -> nn.Module:
    """The float32 model with these weights, in evaluation mode.

    Raises:
        UserError: The weights are of another architecture.
    """
    with without_memory():
        model = spec.factory(weights.num_classes)
    return _filled(model, spec, weights)


def build_quantizable(spec: ModelSpec, weights: Weights) -> nn.Module:
    """The variant prepared for eager quantization (stubs, ``FloatFunctional``), evaluation mode.

    Raises:
        UserError: The architecture has none, or the weights are of another architecture.
    """
    if spec.quantizable is None:
        raise UserError(
            f"{spec.name} has no variant for eager quantization. Use the FX flow for it."
        )
    with without_memory():
        model = spec.quantizable(weights.num_classes)
    return _filled(model, spec, weights)


def _filled(model: nn.Module, spec: ModelSpec, weights: Weights) -> nn.Module:
    # Built without memory and then assigned: random initialisation would take longer than
    # everything else. Copies, so that models made from one record share nothing.
    try:
        model.load_state_dict(copy.deepcopy(dict(weights.state)), strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"The weights {weights.source} do not fit {spec.name}: {reason}") from None
    return model.eval()


def _locate(spec: ModelSpec, source: str) -> Path:
    if source == _FIXTURE:
        folder = fixtures_dir() / "weights"
        path = folder / f"{spec.name}.safetensors"
        if not path.is_file():
            names = ", ".join(sorted(p.stem for p in folder.glob("*.safetensors"))) or "no model"
            raise UserError(
                f"There are no fixture weights for {spec.name}; there are for {names}. "
                "Pass a weights file with --weights FILE."
            )
        return path
    path = Path(source).expanduser()
    if path.is_dir():
        raise UserError(f"The weights {source} are a folder. Pass the file in it.")
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, [_FIXTURE, *sorted(siblings)]) if len(siblings) < 200 else ""
        hint = hint if hint.startswith("Did") else f"Pass {_FIXTURE!r} or the path of a file."
        raise UserError(f"There is no weights file {source}. {hint}")
    return path
