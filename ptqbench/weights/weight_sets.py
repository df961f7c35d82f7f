"""Find the sets of weights in a checkpoint, and choose one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from ptqbench.core.names import nearest
from ptqbench.errors import UserError

WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "module", "params")
"""Keys under which checkpoints store the weights that were trained; the first one is taken."""

_AVERAGED = re.compile(r"(^|_)(ema|swa|avg|average[ds]?|averaging|shadow)(_|$)")
"""Names of averages of weights over the steps of training."""
_OTHERS = re.compile(r"optim|sched|scaler")
"""Names of mappings whose tensors are not weights, although they have such names."""
_SAME_NAMES = 0.9
"""Share of an average's tensors that must have counterparts among the rest of the file."""
_DEEPEST = 5
_HOW = "--weights-key (setting weights_key)"

Belongs = Callable[[str], bool]
"""Whether a name is that of a part of the model, at the top."""


@dataclass(frozen=True)
class WeightSet:
    """The set of weights that was taken from a file.

    Attributes:
        tensors: What it holds.
        key: Where it is, as ``weights_key`` names it; empty: it is the file itself.
        note: Which other sets the file holds; empty if none.
    """

    tensors: Mapping[str, object]
    key: str = ""
    note: str = ""


def choose_weights(
    loaded: Mapping[str, object],
    where: object,
    key: str | None = None,
    belongs: Belongs = lambda name: False,
) -> WeightSet:
    """Choose the set of weights in a checkpoint.

    Args:
        loaded: Content of a file: a state dict, or a mapping that holds some among other data.
        where: The file, for messages.
        key: Key of the set, with dots between those of nested ones; None: what was trained
            rather than an average of it.
        belongs: Tells names in the model from those that training has put beside it.

    Raises:
        UserError: There is none, none of that key, or several and none under a usual key.
    """
    sets = dict(_sets(loaded, (), (), where, belongs))
    if not sets:
        raise UserError(_without_weights(loaded, where))
    if key is not None:
        name = _named(sets, key, where)
        return WeightSet(sets[name], name, _note(where, list(sets), name))
    ranked = sorted(sets, key=_rank)  # stable: the first of equals is the first in the file
    if len(ranked) > 1 and _rank(ranked[0]) == _rank(ranked[1]):
        raise UserError(
            f"The weights {where} hold several sets of weights, {_listed(ranked)}, and none of "
            f"them under {', '.join(WRAPPERS)}. Choose one with {_HOW}."
        )
    return WeightSet(sets[ranked[0]], ranked[0], _note(where, ranked, ranked[0]))


def _note(where: object, names: list[str], taken: str) -> str:
    if len(names) == 1:
        return ""
    return (
        f"The file {where} holds several sets of weights ({', '.join(names)}); {taken} was taken. "
        f"{_HOW} chooses another one."
    )


def _sets(
    content: Mapping[str, object],
    path: tuple[str, ...],
    above: tuple[int, ...],
    where: object,
    belongs: Belongs,
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the sets of weights in a mapping, by their keys with dots between."""
    if id(content) in above:  # a pickle can contain itself
        raise UserError(f"The weights {where} contain themselves. Save model.state_dict().")
    inside: dict[str, Mapping[str, object]] = {}
    if len(path) < _DEEPEST:
        for name, value in content.items():
            if isinstance(name, str) and isinstance(value, Mapping) and not _OTHERS.search(name):
                inside |= _sets(value, (*path, name), (*above, id(content)), where, belongs)
    if inside:
        yield from inside.items()
    elif any(isinstance(value, Tensor) and value.ndim for value in content.values()):
        rest, averages = _separated(content, belongs)
        yield ".".join(path), rest
        for name, average in averages.items():
            yield ".".join((*path, name)), average


def _separated(
    state: Mapping[str, object], belongs: Belongs
) -> tuple[Mapping[str, object], dict[str, Mapping[str, object]]]:
    """Separate averages that are beside the model in one state dict, as Lightning stores them."""
    tops = {str(name).partition(".")[0] for name in state}
    averages: dict[str, Mapping[str, object]] = {}
    for top in sorted(tops):
        if not _AVERAGED.search(top) or belongs(top):
            continue
        prefix = f"{top}."
        average = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
        rest = [name for name in state if not name.startswith(prefix)]
        known = {_bare(name) for name in rest} | {_bare(n.partition(".")[2]) for n in rest}
        arrays = [name for name, value in average.items() if getattr(value, "ndim", 0)]
        if arrays and sum(_bare(name) in known for name in arrays) >= _SAME_NAMES * len(arrays):
            averages[top] = average
    tops = set(averages)
    return {n: v for n, v in state.items() if n.partition(".")[0] not in tops}, averages


def _bare(name: str) -> str:
    """A name without wrappers and dots, which some averages leave out."""
    return re.sub(r"^(module\.|model\.)+", "", name).replace(".", "")


def _rank(key: str) -> tuple[int, ...]:
    """Order of preference: usual keys of trained weights, others, averages."""
    return tuple(
        WRAPPERS.index(name) if name in WRAPPERS else len(WRAPPERS) + bool(_AVERAGED.search(name))
        for name in key.split(".")
    )


def _named(sets: Mapping[str, object], key: str, where: object) -> str:
    if list(sets) == [""]:
        raise UserError(
            f"The weights {where} are one state dict, so there is no {key!r} to choose in it. "
            "Remove weights_key."
        )
    ending = [name for name in sets if name.endswith(f".{key}")]
    if key in sets or len(ending) == 1:
        return key if key in sets else ending[0]
    names = list(sets)
    hint = nearest(key, names)
    listed = "" if hint.startswith("Known") else f" It holds {_listed(names)}."
    raise UserError(f"The weights {where} hold no set of weights {key!r}. {hint}{listed}")


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _without_weights(loaded: Mapping[str, object], where: object) -> str:
    if not loaded:
        return f"The weights {where} hold nothing. Save model.state_dict()."
    shown = ", ".join(f"{name!r} of type {type(v).__name__}" for name, v in loaded.items())
    return f"The weights {where} hold no tensors: {shown[:200]}. Save model.state_dict()."
