"""Everything that the gates which look inside an artifact share, read once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ptqbench.backends.graph import Graph, read_file
from ptqbench.measurement.layers import Match, match_layers


@dataclass(frozen=True)
class Inspection:
    """An artifact's graph beside that of the float model.

    Attributes:
        graph: Of the artifact, as its file has it.
        reference: Of the float model, with module paths.
        matches: Which layer of the float model each layer of the artifact is.
    """

    graph: Graph
    reference: Graph
    matches: tuple[Match, ...]


def inspect(path: Path, engine: str, reference: Graph) -> Inspection:
    """Read an int8 TorchScript file, whoever made it.

    Args:
        path: The file.
        engine: torch quantized engine to load it under.
        reference: ``backends.graph.read_module`` of the float model; the same for all
            backends.
    """
    graph = read_file(path, engine)
    return Inspection(graph, reference, match_layers(graph, reference))
