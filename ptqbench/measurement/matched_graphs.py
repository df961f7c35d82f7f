"""Everything that the gates which look inside an artifact share, read once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ptqbench.backends.torch_engines.artifact import load_script
from ptqbench.backends.torch_engines.graph import Graph, read_script
from ptqbench.measurement.layer_matching import Match, match_layers


@dataclass(frozen=True)
class Inspection:
    """An artifact's graph beside that of the float model.

    Attributes:
        script: The artifact as it was loaded.
        graph: Of the artifact, as its file has it.
        reference: Of the float model, with module paths.
        matches: Which layer of the float model each layer of the artifact is.
    """

    script: torch.jit.ScriptModule
    graph: Graph
    reference: Graph
    matches: tuple[Match, ...]


def inspect(path: Path, engine: str, reference: Graph) -> Inspection:
    """Read an int8 TorchScript file, whoever made it.

    Args:
        path: The file.
        engine: torch quantized engine to load it under.
        reference: ``backends.torch_engines.graph.read_module`` of the float model; the same for all
            backends.
    """
    return inspect_script(load_script(path, engine), reference)


def inspect_script(script: torch.jit.ScriptModule, reference: Graph) -> Inspection:
    """Read a loaded module; see :func:`inspect`."""
    graph = read_script(script)
    return Inspection(script, graph, reference, match_layers(graph, reference))
