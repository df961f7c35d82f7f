"""Write a model's roundings out, so that OpenVINO computes them and makes nothing int8."""

from __future__ import annotations

from typing import Any

from ptqbench.backends.openvino.ov_import import import_openvino

_ROUNDING = "FakeQuantize"


def written_out(model: Any) -> Any:
    """Replace each ``FakeQuantize`` by its definition in elementary operators.

    OpenVINO turns layers between ``FakeQuantize`` operators into int8 layers. Without any, all
    layers stay float32, and integer weights become the numbers that they stand for.

    Args:
        model: As read; it is changed.

    Returns:
        The same model.
    """
    for operator in model.get_ordered_ops():
        if operator.get_type_name() == _ROUNDING:
            _replace(operator)
    model.validate_nodes_and_infer_types()
    return model


def _replace(operator: Any) -> None:
    ops = import_openvino().opset13
    source, low, high, least, most = (operator.input_value(place) for place in range(5))
    steps = ops.constant(float(operator.get_attributes()["levels"] - 1), dtype="float32")
    inside = ops.maximum(ops.minimum(source, high), low)
    position = ops.multiply(ops.divide(ops.subtract(inside, low), ops.subtract(high, low)), steps)
    share = ops.divide(ops.round(position, "half_to_even"), steps)
    result = ops.add(ops.multiply(share, ops.subtract(most, least)), least)
    result.set_friendly_name(operator.get_friendly_name())
    for reader in operator.output(0).get_target_inputs():
        reader.replace_source_output(result.output(0))
