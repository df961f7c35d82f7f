"""Capture a model as an ATen graph with ``torch.export``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from ptqbench.core.silence import silence
from ptqbench.quantization.canonical.inlining import inline


class Logits(nn.Module):
    """A model as a function of one tensor: all other arguments of its forward have defaults."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        """Run the model on ``N×C×H×W`` float32."""
        return self.model(images)


PREFIX = "model."
"""What `Logits` puts in front of every module path."""


@dataclass(frozen=True)
class Capture:
    """An ATen graph, and the values that do not depend on the images.

    Attributes:
        graph: Operators of ATen on the placeholders' values.
        constants: Parameters, buffers and constant tensors, by the name of their placeholder.
        images: Name of the placeholder of the images.
    """

    graph: torch.fx.Graph
    constants: dict[str, Tensor]
    images: str


def capture(
    model: nn.Module, example: Tensor, *, any_size: bool = False, functional: bool = False
) -> Capture:
    """Export a model for batches of any number of images.

    Args:
        model: Float32, evaluation mode; it is not changed.
        example: Images, ``N×C×H×W`` float32.
        any_size: Whether height and width stay open, as far as the model allows; else the graph
            holds for those of ``example``.
        functional: Whether in-place operators are replaced by torch, which takes long but
            resolves those that write into a view.

    Raises:
        Exception: Whatever ``torch.export`` and the user's code raise.
    """
    # A batch of one would be taken for a constant.
    images = example[:1].expand(2, *example.shape[1:]).contiguous()
    size = Dim.AUTO if any_size else Dim.STATIC
    shapes = ({0: Dim.DYNAMIC, 1: Dim.STATIC, **dict.fromkeys((2, 3), size)},)
    with torch.no_grad(), silence():
        program = torch.export.export(Logits(model), (images,), dynamic_shapes=shapes, strict=False)
        if functional:
            program = program.run_decompositions({})
    return _read(program)


def _read(program: ExportedProgram) -> Capture:
    tensors = {**program.state_dict, **program.constants}
    constants: dict[str, Tensor] = {}
    images = ""
    for spec in program.graph_signature.input_specs:
        name = getattr(spec.arg, "name", "")
        if spec.kind is InputKind.USER_INPUT:
            images = name
        elif spec.target in tensors:
            constants[name] = tensors[spec.target].detach()
    return Capture(inline(program.graph_module), constants, images)
