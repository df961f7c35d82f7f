"""Hard-sigmoid and hard-swish that are written out become the functions that torch has for them.

One int8 kernel takes the place of three or four, each of which would round once more.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product, starmap
from typing import Any

import torch
from torch import fx, nn
from torch.fx import Node
from torch.nn import functional as F

from ptqbench.core.step_errors import CALLER

_EXACTNESS = 1e-6
"""Of a factor, relative: a sixth as a user or float32 rounds it."""
_SIGMOID, _SWISH = F.hardsigmoid, F.hardswish
_SUMS, _PRODUCTS = (operator.add, torch.add), (operator.mul, torch.mul)
_RELU6 = (0.0, 6.0)


@dataclass(frozen=True)
class _Term:
    """A value as ``scale · function(source) + shift``.

    Attributes:
        source: What the function is of.
        function: `F.hardsigmoid`, `F.hardswish`, or None for the source itself.
        scale: Factor.
        shift: Summand; 0 beside a function.
    """

    source: Node
    function: Any = None
    scale: float = 1.0
    shift: float = 0.0


Terms = Mapping[Node, Sequence[_Term]]
"""What each earlier node can be read as; each is itself, too."""


def name_hard_functions(model: fx.GraphModule) -> None:
    """Call hard-sigmoid and hard-swish by their names in a lifted model, in place.

    ``relu6(x + 3) / 6`` and ``clamp(x / 6 + 0.5, 0, 1)`` are the former, ``x`` times that the
    latter, wherever the sixth is multiplied in.
    """
    terms: dict[Node, Sequence[_Term]] = {}
    for node in list(model.graph.nodes):
        readings = list(_readings(model, node, terms))
        terms[node] = (*readings, _Term(node))
        whole = next((t for t in readings if t.function and _is(t.scale, 1)), None)
        if whole is None or _calls(model, node, whole.function):
            continue
        with model.graph.inserting_before(node):
            named = model.graph.call_function(whole.function, (whole.source,))
        named.meta[CALLER] = node.meta.get(CALLER)
        node.replace_all_uses_with(named)
        terms[named] = (*readings, _Term(named))
    model.graph.eliminate_dead_code()


def _readings(model: fx.GraphModule, node: Node, terms: Terms) -> Iterator[_Term]:
    """What a node computes, where it is linear in earlier values or a hard function of one."""
    if _calls(model, node, _SIGMOID) and len(node.all_input_nodes) == 1:
        yield _Term(node.all_input_nodes[0], _SIGMOID)
    elif (limits := _limits(model, node)) is not None:
        for term in terms[node.all_input_nodes[0]]:
            if _is_sigmoid(term, *limits):
                yield _Term(term.source, _SIGMOID, limits[1])
    elif node.op == "call_function" and len(node.args) == 2 and not node.kwargs:
        first, second = node.args
        if isinstance(first, int | float) and node.target in (*_SUMS, *_PRODUCTS):
            first, second = second, first
        if not isinstance(first, Node):
            return
        if isinstance(second, Node) and node.target in _PRODUCTS:
            yield from filter(None, starmap(_product, product(terms[first], terms[second])))
        elif isinstance(second, int | float) and not isinstance(second, bool):
            yield from filter(None, (_linear(node, term, second) for term in terms[first]))


def _linear(node: Node, term: _Term, number: float) -> _Term | None:
    """A term with a number added, multiplied or divided by."""
    if node.target in _SUMS:
        return None if term.function else replace(term, shift=term.shift + number)
    if node.target in _PRODUCTS:
        factor = float(number)
    elif node.target is operator.truediv and number:
        factor = 1 / number
    else:
        return None
    return replace(term, scale=term.scale * factor, shift=term.shift * factor)


def _product(first: _Term, second: _Term) -> _Term | None:
    """A hard-sigmoid times what it is of."""
    if first.function is not None:
        first, second = second, first
    fits = first.function is None and not first.shift and second.function is _SIGMOID
    if not fits or first.source is not second.source:
        return None
    return _Term(first.source, _SWISH, first.scale * second.scale)


def _is_sigmoid(term: _Term, low: float, high: float) -> bool:
    """Whether a term between limits has half the height at 0, and all of it at 3."""
    if term.function is not None or low != 0 or high <= 0:
        return False
    return _is(term.scale, high / 6) and _is(term.shift, high / 2)


def _limits(model: fx.GraphModule, node: Node) -> tuple[float, float] | None:
    """Between which numbers a node clamps its input; None if it does something else."""
    layer = _layer(model, node)
    if isinstance(layer, nn.ReLU6) or (node.target is F.relu6 and _plain_arguments(node) == 1):
        return _RELU6
    if isinstance(layer, nn.Hardtanh):
        return float(layer.min_val), float(layer.max_val)
    if node.target in (torch.clamp, F.hardtanh) and _plain_arguments(node) == 3:
        limits = node.args[1:]
        if all(isinstance(each, int | float) for each in limits):
            return limits  # type: ignore[return-value]
    return None


def _plain_arguments(node: Node) -> int:
    """Number of arguments; 0 if some are passed by name."""
    return 0 if node.kwargs else len(node.args)


def _layer(model: fx.GraphModule, node: Node) -> nn.Module | None:
    return model.get_submodule(str(node.target)) if node.op == "call_module" else None


def _calls(model: fx.GraphModule, node: Node, function: object) -> bool:
    """Whether a node is a hard function by name already."""
    kind = nn.Hardsigmoid if function is _SIGMOID else nn.Hardswish
    return node.target is function or isinstance(_layer(model, node), kind)


def _is(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=_EXACTNESS)
