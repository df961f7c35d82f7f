"""The float32 model's own graph, with module paths: what artifacts are compared with."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor, nn

from ptqbench.backends.graph import Graph
from ptqbench.backends.torch_engines.script_graph import read_script
from ptqbench.backends.torch_engines.torchscript import trace


class TracedModel:
    """A float32 model, traced once: its file is built from the trace, and its graph read in it.

    Args:
        model: Evaluation mode.
        example: One input, ``N×C×H×W`` float32.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self._script = trace(model.eval(), example)

    @property
    def module(self) -> nn.Module:
        """The traced module, for ``Backend.build_float``."""
        return self._script

    @cached_property
    def graph(self) -> Graph:
        """The graph, in which every layer has its module path."""
        return read_script(self._script)


def read_float_graph(model: nn.Module, example: Tensor) -> Graph:
    """Trace a float32 model and read its graph, in which every layer has its module path.

    Args:
        model: Evaluation mode.
        example: One input, ``N×C×H×W`` float32.
    """
    return TracedModel(model, example).graph
