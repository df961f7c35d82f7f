"""Let reshapes of an export at a fixed size keep whatever sizes their inputs have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

_SAME, _REST = 0, -1
"""What the operator understands: the size of the input at that place, and whatever is left."""


def open_reshapes(graph: onnx.GraphProto, shapes: dict[str, list[int]]) -> None:
    """Replace what fixes the number of images, and their size, in reshapes, in place.

    Args:
        graph: Of a model that was exported at a fixed size.
        shapes: Of its values at that size.
    """
    initializers = {each.name for each in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Reshape"]:
        before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
        if node.input[1] not in initializers or not before or not after or before[0] != after[0]:
            continue
        node.input[1] = _target(graph, node, _plan(before, after))
        del node.attribute[:]  # allowzero: 0 stands for the size of the input


def _plan(before: Sequence[int], after: Sequence[int]) -> list[tuple[bool, int]]:
    """Where each size of the result comes from.

    Returns:
        Whether it is a place of the input whose size it has, and that place; or the number that
        the operator is given.
    """
    groups = _groups(before, after)
    shifted = [a for (a, b), (c, d) in groups if b - a == d - c == 1 and a != c]
    plan: list[tuple[bool, int]] = []
    for group, (first, last) in enumerate(groups):
        sources, targets = range(*first), range(*last)
        if len(sources) == len(targets) == 1:
            same = sources[0] == targets[0]
            plan.append((False, _SAME) if same else (True, sources[0]))
        # Rows and columns behind it: what is merged are channels, whose number runtimes want.
        elif sources and len(targets) == 1 and not (len(shifted) > 1 and group + 1 < len(groups)):
            plan.append((False, _REST if (False, _REST) not in plan else after[targets[0]]))
        else:
            plan += [(False, after[place]) for place in targets]
    if len(shifted) == 1 and (False, _REST) not in plan:
        plan[plan.index((True, shifted[0]))] = (False, _REST)
    return plan


def _groups(
    before: Sequence[int], after: Sequence[int]
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Split both shapes into the shortest runs of dimensions that have as many elements."""
    groups: list[tuple[tuple[int, int], tuple[int, int]]] = []
    i = j = 0
    while j < len(after):
        start, begin = i, j
        left, right = before[i] if i < len(before) else 1, after[j]
        i, j = min(i + 1, len(before)), j + 1
        while left != right:
            if left < right or j == len(after):
                left, i = left * before[i], i + 1
            else:
                right, j = right * after[j], j + 1
        groups.append(((start, i), (begin, j)))
    # What is left has one element here, and perhaps more at another size.
    (start, _), target = groups[-1]
    return [*groups[:-1], ((start, len(before)), target)]


def _target(graph: onnx.GraphProto, node: onnx.NodeProto, plan: list[tuple[bool, int]]) -> str:
    """The value that a reshape reads its sizes from, with the nodes that compute it."""
    from onnx import helper

    name = f"{node.output[0]}_shape"
    if not any(is_place for is_place, _ in plan):
        return _store(graph, name, [number for _, number in plan])
    nodes = [helper.make_node("Shape", [node.input[0]], [f"{name}_read"], f"{name}_read")]
    parts: list[str] = []
    for is_place, numbers in _runs(plan):
        part = _store(graph, f"{name}_{len(parts)}", numbers)
        if is_place:
            nodes.append(helper.make_node("Gather", [f"{name}_read", part], [f"{part}_sizes"]))
            part = f"{part}_sizes"
        parts.append(part)
    nodes.append(helper.make_node("Concat", parts, [name], axis=0))
    place = list(graph.node).index(node)
    for each in reversed(nodes):
        graph.node.insert(place, each)
    return name


def _runs(plan: Sequence[tuple[bool, int]]) -> Iterator[tuple[bool, list[int]]]:
    """Neighbours of one kind together."""
    run: list[int] = []
    for place, (is_place, number) in enumerate(plan):
        run.append(number)
        if place + 1 == len(plan) or plan[place + 1][0] != is_place:
            yield is_place, run
            run = []


def _store(graph: onnx.GraphProto, name: str, numbers: Sequence[int]) -> str:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
    return name
