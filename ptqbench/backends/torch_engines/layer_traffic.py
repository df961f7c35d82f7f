"""Run a TorchScript graph once and record what its int8 layers read and write."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from ptqbench.backends.graph import Graph
from ptqbench.backends.integer_reference import ExactRun, LayerTraffic, QuantizedTensor
from ptqbench.backends.torch_engines.script_graph import read_script
from ptqbench.backends.torch_engines.torchscript import engine_set
from ptqbench.core.phases import INSPECTION, Phases

_CHECKED = frozenset(
    f"quantized::{name}{activation}"
    for name in ("conv1d", "conv2d", "conv3d", "linear")
    for activation in ("", "_relu")
)


def record_traffic(
    script: torch.jit.ScriptModule, images: Tensor, engine: str, phases: Phases | None = None
) -> ExactRun:
    """Run a module and record the inputs and outputs of its int8 layers.

    The graph itself runs, with its own kernels; it only returns more than before. Layers
    inside branches cannot be seen from outside and are left out.

    Args:
        script: As loaded.
        images: ``N×C×H×W`` float32; all inputs and outputs are held in memory.
        engine: torch quantized engine.
        phases: Where the forward pass is counted.
    """
    script = _frozen(script)
    graph = read_script(script)
    try:
        return ExactRun(graph, _traffic(script, graph, images, engine, phases))
    except RuntimeError as failure:
        return ExactRun(graph, (), str(failure).strip().splitlines()[-1])


def _frozen(script: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The module with its parameters inside the graph; itself if it is frozen already."""
    if not next(script.inlined_graph.inputs()).uses():
        return script
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        frozen: torch.jit.ScriptModule = torch.jit.freeze(script.eval())
    return frozen


def _traffic(
    script: torch.jit.ScriptModule,
    graph: Graph,
    images: Tensor,
    engine: str,
    phases: Phases | None,
) -> tuple[LayerTraffic, ...]:
    original = script.inlined_graph
    layers = {layer.value: layer for layer in graph.int8_layers}
    names = [node.output().debugName() for node in original.nodes() if node.kind() in _CHECKED]
    wider: Any = original.copy()
    for node in list(wider.nodes()):
        if node.kind() in _CHECKED:
            source, output = _copy(wider, node.inputsAt(0)), _copy(wider, node.output())
            source.insertBefore(node)
            output.insertAfter(node)
            wider.registerOutput(source.output())
            wider.registerOutput(output.output())
    wider.makeMultiOutputIntoTuple()
    wider.eraseInput(0)
    with engine_set(engine), torch.inference_mode():
        run = torch._C._create_function_from_graph("traffic", wider)
        with (phases or Phases()).measure(INSPECTION, forward=True):
            values = [_quantized(value) for value in run(images)[1:]]
    return tuple(
        LayerTraffic(layers[name], values[2 * i], values[2 * i + 1]) for i, name in enumerate(names)
    )


def _copy(graph: Any, value: Any) -> Any:
    """A node that copies a value: activations that work in place would change it later."""
    with graph.insert_point_guard(next(graph.nodes())):
        nothing = graph.insertConstant(None)
    return graph.create("aten::clone", [value, nothing], 1)


def _quantized(value: Tensor) -> QuantizedTensor:
    return QuantizedTensor(value.int_repr(), value.q_scale(), value.q_zero_point())
