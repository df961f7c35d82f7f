"""Pretrained weights of timm's models, through timm."""

from __future__ import annotations

import importlib
import logging
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from typing import Any

from torch import nn

from ptqbench.core.names import first_few
from ptqbench.core.progress import Progress, silent
from ptqbench.core.user_code import first_line
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError
from ptqbench.models.catalog import ModelSpec
from ptqbench.models.custom.timm_models import PREFIX, import_timm, is_timm
from ptqbench.models.import_torchvision import import_torchvision
from ptqbench.settings.weights_specifier import IMAGENET, PRETRAINED
from ptqbench.weights.load import Weights, check_settings
from ptqbench.weights.probe.probe_cache import state_hash
from ptqbench.weights.sidecar import WeightsSettings, override_settings

_TIMEOUT_S = 10
"""How long the host of the weights may take to answer that it is there."""
_IMAGENET_CLASSES = 1000


def pretrained_weights(
    spec: ModelSpec,
    overrides: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Weights:
    """Read timm's pretrained weights of a model, which are downloaded if necessary.

    Args:
        spec: A model of timm.
        overrides: Values that take precedence over those of timm; None counts as unset.
        progress: Progress callback of a download.

    Raises:
        UserError: The model is not one of timm's, timm has no weights for it, or they cannot be
            downloaded.
    """
    model = pretrained_model(spec, progress)
    state = {name: value.detach() for name, value in model.state_dict().items()}
    outputs = int(model.num_classes)  # type: ignore[arg-type]
    configuration: Any = model.pretrained_cfg
    default = WeightsSettings(Preprocessing(**spec.preprocessing), _classes(outputs))
    settings = override_settings(default, {}, overrides or {}, "the given options")
    weights = Weights(
        PRETRAINED,
        state,
        settings.preprocessing,
        settings.classes,
        outputs,
        state_hash(state),
        name=_source(configuration),
        notes=(spec.note,) if spec.note else (),
    )
    check_settings(spec, weights)
    return weights


def names(spec: ModelSpec) -> list[str]:
    """Return `PRETRAINED` if timm has weights for a model."""
    if not is_timm(spec.name):
        return []
    name = spec.name.removeprefix(PREFIX)
    has_weights = import_timm(spec.name).get_pretrained_cfg(name).has_weights
    return [PRETRAINED] if has_weights else []


def pretrained_model(spec: ModelSpec, progress: Progress = silent) -> nn.Module:
    """Have timm build a model with its pretrained weights; see `pretrained_weights`."""
    if not is_timm(spec.name):
        other = "its state dict" if spec.origin else f"`{IMAGENET}` for torchvision's weights"
        raise UserError(
            f"The weights `{PRETRAINED}` exist for models of timm, which are named {PREFIX}NAME, "
            f"and {spec.name} is none. Pass {other} with --weights."
        )
    timm = import_timm(spec.name)
    name = spec.name.removeprefix(PREFIX)
    configuration = timm.get_pretrained_cfg(name)
    if not configuration.has_weights:
        tagged = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        hint = f"There are weights for {first_few(tagged)}." if tagged else "Pass a file."
        raise UserError(f"timm {timm.__version__} has no pretrained weights for {name}. {hint}")
    timm.models.set_pretrained_download_progress(False)
    with suppress(Exception), _offline():  # what is there needs no network
        return _create(timm, name)
    _check_reachable(spec, configuration.to_dict())
    progress(f"download {name}", 0, 0)
    try:
        return _create(timm, name)
    except Exception as error:  # whatever the network, the hub and the file may raise
        raise UserError(_absent(spec, configuration.to_dict(), first_line(error))) from error


def _create(timm: Any, name: str) -> nn.Module:
    model: nn.Module = timm.create_model(name, pretrained=True)
    return model


@contextmanager
def _offline() -> Iterator[None]:
    """Let the hub of timm's weights look into its folder only, and silently."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    before, level = constants.HF_HUB_OFFLINE, logging.root.manager.disable
    constants.HF_HUB_OFFLINE = True
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        logging.disable(level)


def _check_reachable(spec: ModelSpec, configuration: Mapping[str, Any]) -> None:
    """Check that the host of the weights answers: the hub tries for a minute before it gives up."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    if constants.HF_HUB_OFFLINE:
        raise UserError(_absent(spec, configuration, "HF_HUB_OFFLINE is set"))
    address = constants.ENDPOINT
    if not configuration.get("hf_hub_id"):
        parts = urllib.parse.urlsplit(configuration.get("url") or address)
        address = f"{parts.scheme}://{parts.netloc}"
    request = urllib.request.Request(address, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return  # there is somebody
    except (OSError, HTTPException, ValueError) as error:
        reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        raise UserError(_absent(spec, configuration, reason)) from None


def _absent(spec: ModelSpec, configuration: Mapping[str, Any], reason: str) -> str:
    constants: Any = importlib.import_module("huggingface_hub.constants")
    name = spec.name.removeprefix(PREFIX)
    return (
        f"timm's weights of {name} ({_source(configuration)}) are not in {constants.HF_HUB_CACHE} "
        f"and cannot be downloaded ({reason}). On a machine with a network, run "
        f"`python -c \"import timm; timm.create_model('{name}', pretrained=True)\"` and copy that "
        "folder, which the environment variable HF_HOME chooses; or pass a file with --weights."
    )


def _source(configuration: Mapping[str, Any]) -> str:
    """Where weights come from: their name on the hub, or their address."""
    names = (configuration.get(key) for key in ("hf_hub_id", "url", "file"))
    return str(next((name for name in names if name), "timm"))


def _classes(outputs: int) -> tuple[str, ...] | None:
    """ImageNet's classes, in timm's order as in torchvision's, if there are a thousand outputs."""
    if outputs != _IMAGENET_CLASSES:
        return None
    weights = import_torchvision().models.ResNet18_Weights.DEFAULT
    return tuple(weights.meta["categories"])
