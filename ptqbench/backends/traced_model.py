"""The float32 model's own graph, with module paths: what artifacts are compared with."""

from __future__ import annotations

from functools import cached_property

import torch
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
        self.model = model.eval()
        self._example = example

    @cached_property
    def module(self) -> nn.Module:
        """The traced module."""
        return trace(self.model, self._example)

    @cached_property
    def graph(self) -> Graph:
        """The graph, in which every layer has its module path."""
        assert isinstance(self.module, torch.jit.ScriptModule)
        return read_script(self.module)


def read_float_graph(model: nn.Module, example: Tensor) -> Graph:
    """Trace a float32 model and read its graph, in which every layer has its module path.

    Args:
        model: Evaluation mode.
        example: One input, ``N×C×H×W`` float32.
    """
    return TracedModel(model, example).graph
