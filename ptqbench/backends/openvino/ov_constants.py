"""Constants in graphs of OpenVINO: what is computed from them, and what reads a value."""

from __future__ import annotations

from typing import Any

import numpy as np


def source(node: Any, place: int) -> Any:
    """The node that computes an input."""
    return node.input_value(place).get_node()


def readers(node: Any) -> list[Any]:
    """The inputs of other nodes that read a node's outputs."""
    return [target for output in node.outputs() for target in output.get_target_inputs()]


def only_reader(node: Any) -> Any:
    """The only node that reads a node's output; None if several or none do."""
    nodes = readers(node)
    return nodes[0].get_node() if len(nodes) == 1 else None


def constant(node: Any) -> np.ndarray | None:
    """The value of a node that is constant but for its type and shape; None if it is not."""
    kind = node.get_type_name()
    if kind == "Constant":
        return np.array(node.data)
    if kind == "Convert":
        value = constant(source(node, 0))
        return None if value is None else value.astype(node.get_element_type().to_dtype())
    if kind in ("Reshape", "Unsqueeze"):
        value, target = constant(source(node, 0)), constant(source(node, 1))
        if value is None or target is None:
            return None
        if kind == "Unsqueeze":
            return np.expand_dims(value, tuple(int(axis) for axis in target.reshape(-1)))
        return value.reshape(node.get_output_shape(0))
    return None


def scalar(node: Any) -> float | None:
    """The value of a constant with one element."""
    value = constant(node)
    return float(value.reshape(())) if value is not None and value.size == 1 else None
