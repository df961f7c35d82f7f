"""What training scripts put around a state dict, and older names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from ptqbench.errors import UserError

WRAPPERS = ("state_dict", "model_state_dict", "model", "model_ema")
"""Names under which checkpoints keep the state dict; the first that is there is taken."""

PREFIXES = ("module.", "model.")
"""What DataParallel, DistributedDataParallel, averaged models and Lightning put before names."""

_COMPILED = "_orig_mod."
"""What ``torch.compile`` puts before the names of the module that it wraps, wherever it is."""

_AVERAGED = "n_averaged"
"""The counter that ``torch.optim.swa_utils.AveragedModel`` keeps beside its module."""

_OLD_NAMES = (
    # torchvision's DenseNet files are older than its module names.
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    # So are those of its vision transformers, from before ops.MLP.
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)


def unwrapped(loaded: Mapping[str, object], where: object) -> tuple[Mapping[str, object], str]:
    """The state dict inside a checkpoint.

    Args:
        loaded: What a file holds: a state dict, or a mapping that holds one beside other data.
        where: The file, for messages.

    Returns:
        The state dict, and a note on what else could have been meant, or nothing.

    Raises:
        UserError: There is none under a name that is known for it.
    """
    note = ""
    while not any(isinstance(value, Tensor) for value in loaded.values()):
        inside = [name for name, value in loaded.items() if isinstance(value, Mapping)]
        known = [name for name in WRAPPERS if name in inside]
        if not known:
            raise UserError(_without_state(loaded, [n for n in inside if loaded[n]], where))
        if len(known) > 1:
            note = (
                f"The file {where} holds several sets of weights ({', '.join(known)}); "
                f"{known[0]} was taken."
            )
        taken = loaded[known[0]]
        assert isinstance(taken, Mapping)
        loaded = taken
    return loaded, note


def plain_names(state: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """Take off the prefixes of wrappers, and bring old names up to date.

    Args:
        state: The tensors of a file.
        expected: Names in the architecture: what they begin with is no wrapper's prefix.

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
    """The prefix that most names have and no tensor of the architecture."""
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
