"""Remove what training scripts put around the names of a state dict, and update old names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

PREFIXES = ("module.", "model.")
"""Prefixes added by DataParallel, DistributedDataParallel, averaged models and Lightning."""

_COMPILED = "_orig_mod."
"""Prefix that ``torch.compile`` adds to the names of a module it wraps, at any depth."""

_AVERAGED = "n_averaged"
"""Counter that ``torch.optim.swa_utils.AveragedModel`` stores next to its module."""

_OLD_NAMES = (
    # torchvision's DenseNet files are older than its module names.
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    # So are those of its vision transformers, from before ops.MLP.
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)


def plain_names(state: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """Remove the prefixes of wrappers, and update old names.

    Args:
        state: The tensors of a file.
        expected: Names in the architecture; a prefix that these have is not a wrapper's.

    Returns:
        The same tensors. Where two would get the same name, names stay as they are.
    """
    expected = list(expected)
    named = _renamed(state, {key: key.replace(_COMPILED, "") for key in state})
    while prefix := _prefix(named, expected):
        shorter = _renamed(named, {key: key.removeprefix(prefix) for key in named})
        if shorter.keys() == named.keys():
            break
        named = shorter
    if _AVERAGED not in expected:
        named.pop(_AVERAGED, None)
    return _renamed(named, {key: key if key in expected else _new_name(key) for key in named})


def _prefix(state: Mapping[str, Tensor], expected: list[str]) -> str | None:
    """The wrapper's prefix of most names; None if there is none."""
    for prefix in PREFIXES:
        count = sum(key.startswith(prefix) for key in state)
        if count > len(state) / 2 and not any(key.startswith(prefix) for key in expected):
            return prefix
    return None


def _new_name(key: str) -> str:
    for pattern, replacement in _OLD_NAMES:
        key = pattern.sub(replacement, key)
    return key


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    if len(set(names.values())) < len(names):
        return dict(state)
    return {names[key]: value for key, value in state.items()}
