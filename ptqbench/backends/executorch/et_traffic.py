"""Run what ExecuTorch executes and record what its int8 layers read and write."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ptqbench.backends.executorch.et_errors import reason_of
from ptqbench.backends.executorch.et_graph import Executed, read_executed
from ptqbench.backends.executorch.et_import import exporter
from ptqbench.backends.executorch.et_program import Delegate, read_program
from ptqbench.backends.executorch.et_save import parsed, serialized
from ptqbench.backends.executorch.et_session import Method
from ptqbench.backends.executorch.xnnpack_graph import NOTHING, XnnGraph, read_graph
from ptqbench.backends.integer_reference import ExactRun, LayerTraffic, QuantizedTensor
from ptqbench.core.phases import INSPECTION, Phases

_INFINITE = re.compile(r":\s*(-?)inf\b")
_OUTPUT = 2
"""Flag of a value that a delegate returns."""


def record_traffic(path: Path, images: Tensor, phases: Phases | None = None) -> ExactRun:
    """Run a file and record the inputs and outputs of its int8 layers.

    The graphs of the file run with their own kernels; they only return more than before.

    Args:
        path: The file.
        images: ``N×C×H×W`` float32; all inputs and outputs are held in memory.
        phases: Where the forward pass is counted.
    """
    content = path.read_bytes()
    program = read_program(content)
    executed = read_executed(program)
    recordable = [
        layer for layer in executed.graph.int8_layers if executed.layers[layer.value].is_recordable
    ]
    places: dict[tuple[int, int], int] = {}
    for layer in recordable:
        delegate, *numbers = executed.places[layer.value]
        for number in numbers:
            places.setdefault((delegate, number), len(places))
    try:
        method = Method(_with_all_outputs(content, places), 1)
        with (phases or Phases()).measure(INSPECTION, forward=True):
            runs = [method(image, 1) for image in images.split(1)]
    except (RuntimeError, ValueError, KeyError) as error:
        return ExactRun(executed.graph, (), reason_of(error))
    first = len(program.outputs)
    values = [torch.cat(parts) for parts in list(zip(*runs, strict=True))[first:]]
    return ExactRun(
        executed.graph,
        tuple(_traffic(executed, layer.value, places, values) for layer in recordable),
    )


def _with_all_outputs(content: bytes, places: Iterable[tuple[int, int]]) -> bytes:
    """The same program, which also returns values of its delegates, in an order.

    Args:
        content: The program.
        places: Numbers of delegates and of values of their graphs, in that order.
    """
    program = read_program(content)
    graphs = [read_graph(each.payload, program.data) for each in program.delegates]
    with exporter():
        from executorch.exir.schema import DataLocation, EValue, Tensor, TensorShapeDynamism

        file = parsed(content)
        plan = file.program.execution_plan[0]
        calls = {
            each.instr_args.delegate_index: each.instr_args
            for each in plan.chains[0].instructions
            if hasattr(each.instr_args, "delegate_index")
        }
        more: dict[int, list[int]] = {}
        for delegate, number in places:
            more.setdefault(delegate, []).append(number)
            shape = list(graphs[delegate].values[number].shape)
            plan.values.append(
                EValue(
                    Tensor(
                        scalar_type=_int8(),
                        storage_offset=0,
                        sizes=shape,
                        dim_order=list(range(len(shape))),
                        requires_grad=False,
                        layout=0,
                        data_buffer_idx=0,
                        allocation_info=None,
                        shape_dynamism=TensorShapeDynamism.STATIC,
                    )
                )
            )
            plan.outputs.append(len(plan.values) - 1)
            calls[delegate].args.append(len(plan.values) - 1)
        for delegate, numbers in more.items():
            place = plan.delegates[delegate].processed
            assert place.location is DataLocation.INLINE
            payload = _with_outputs(program.delegates[delegate], graphs[delegate], numbers)
            file.program.backend_delegate_data[place.index].data = payload
        return serialized(file)


def _int8() -> Any:
    from executorch.exir.schema import ScalarType

    return ScalarType.CHAR


def _with_outputs(delegate: Delegate, exact: XnnGraph, numbers: list[int]) -> bytes:
    """What is written for XNNPACK, with further values among its outputs.

    Args:
        delegate: That executes it.
        exact: The same graph as it was read.
        numbers: Of the values.
    """
    from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as writer
    from executorch.exir._serialize._flatbuffer import _flatc_compile, _flatc_decompile

    payload = bytes(delegate.payload)
    header = writer.XNNHeader.from_bytes(payload[: writer.XNNHeader.EXPECTED_LENGTH])
    with tempfile.TemporaryDirectory(prefix="ptqbench-") as name:
        folder = Path(name)
        schema, binary = folder / "schema.fbs", folder / "schema.bin"
        schema.write_bytes(writer._get_schema_bytes())
        binary.write_bytes(payload[header.flatbuffer_offset :][: header.flatbuffer_size])
        _flatc_decompile(name, str(schema), str(binary), ["--raw-binary"])
        text = folder / "schema.json"
        graph = json.loads(_INFINITE.sub(r': "\1inf"', text.read_text()))
        _restore_numbers(graph, exact)
        _add_outputs(graph, numbers)
        text.write_text(json.dumps(graph))
        _flatc_compile(name, str(schema), str(text))
        content = binary.read_bytes()
    start = -(-len(content) // 16) * 16
    constants = payload[header.constant_data_offset :]
    head: bytes = writer.XNNHeader(
        32, len(content), 32 + start, header.constant_data_size
    ).to_bytes()
    return head.ljust(32, b"\0") + content.ljust(start, b"\0") + constants


def _restore_numbers(graph: dict[str, Any], exact: XnnGraph) -> None:
    """Put back the scales and limits, of which the text has only six digits, in place."""
    for entry in graph["xvalues"]:
        quantization = entry["xvalue_union"].get("quant_params", {})
        if isinstance(quantization.get("scale"), float | int):
            value = exact.values[entry["xvalue_union"]["tensor_value"].get("id_out", 0)]
            quantization["scale"] = float(value.scales[0])
    for entry, node in zip(graph["xnodes"], exact.nodes, strict=True):
        if entry.get("output_min_max"):
            entry["output_min_max"] = dict(
                zip(("output_min", "output_max"), node.limits, strict=True)
            )


def _add_outputs(graph: dict[str, Any], numbers: list[int]) -> None:
    """Let a graph return further values, in place."""
    for entry in graph["xvalues"]:
        value = entry["xvalue_union"]
        value = value.get("tensor_value", value)
        number = value.get("id_out", 0)
        if number in numbers:
            if value.get("external_id", 0) != NOTHING:
                raise ValueError("a layer's values are those of the whole graph")
            value["external_id"] = graph["num_externs"] + numbers.index(number)
            value["flags"] = value.get("flags", 0) | _OUTPUT
    graph["num_externs"] += len(numbers)
    graph["output_ids"] += numbers


def _traffic(
    executed: Executed, name: str, places: dict[tuple[int, int], int], values: list[Tensor]
) -> LayerTraffic:
    delegate, source, output = executed.places[name]
    layer = next(each for each in executed.graph.int8_layers if each.value == name)
    read, written = (values[places[delegate, number]] for number in (source, output))
    assert layer.integers is not None and layer.scale is not None and layer.zero_point is not None
    scale, zero = executed.sources[name]
    if layer.integers.stride:
        read, written = read.permute(0, 3, 1, 2), written.permute(0, 3, 1, 2)
    ends = [size for pair in reversed(executed.layers[name].uneven) for size in pair]
    if any(ends):
        read = F.pad(read.int(), ends, value=zero).to(read.dtype)
    return LayerTraffic(
        layer,
        QuantizedTensor(read.contiguous(), scale, zero),
        QuantizedTensor(written.contiguous(), layer.scale, layer.zero_point),
    )
