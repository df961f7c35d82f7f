"""Unwrap state dicts from what training scripts put around them, and update old names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from ptqbench.errors import UserError

WRAPPERS = ("state_dict", "model_state_dict", "model", "model_ema")
"""Keys under which checkpoints store the state dict; the first one present is used."""

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


def unwrapped(loaded: Mapping[str, object], where: object) -> tuple[Mapping[str, object], str]:
    """Find the state dict inside a checkpoint.

    Args:
        loaded: Content of a file: a state dict, or a mapping that holds one among other data.
        where: The file, for messages.

    Returns:
        The state dict, and a note if the file holds several, otherwise an empty text.

    Raises:
        UserError: There is none under a known key.
    """
    note = ""
    visited: set[int] = set()
    while not any(isinstance(value, Tensor) for value in loaded.values()):
        if id(loaded) in visited:  # a pickle can contain itself
            raise UserError(f"The weights {where} contain themselves. Save model.state_dict().")
        visited.add(id(loaded))
        inside = [name for name, value in loaded.items() if isinstance(value, Mapping)]
        known = [name for name in WRAPPERS if name in inside]
        if not known:
            raise UserError(_without_state(loaded, [n for n in inside if loaded[n]], where))
        if len(known) > 1:
            note = (
                f"The file {where} holds several sets of weights ({', '.join(known)}); "
                f"{known[0]} was taken."
            )
        inner = loaded[known[0]]
        assert isinstance(inner, Mapping)
        loaded = inner
    return loaded, note


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


def _without_state(loaded: Mapping[str, object], inside: list[str], where: object) -> str:
    if not loaded:
        return f"The weights {where} hold nothing. Save model.state_dict()."
    if inside:
        return (
            f"The weights {where} hold no tensors, but {', '.join(map(repr, inside[:5]))}. A state "
            f"dict is looked for under {', '.join(WRAPPERS)}. Save model.state_dict() alone."
        )
    shown = ", ".join(f"{name!r} of type {type(v).__name__}" for name, v in loaded.items())
    return f"The weights {where} hold no tensors: {shown[:200]}. Save model.state_dict()."


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
