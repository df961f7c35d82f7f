"""ExecuTorch files as its documentation makes them, by people who never heard of ptqbench."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ptqbench.backends.executorch.et_import import exporter


def lowered(model: nn.Module, example: Tensor, path: Path, *, delegate: bool = True) -> Path:
    """Lower a module and write it; ``delegate=False`` leaves all to portable operators."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    if not delegate:
        import executorch.kernels.quantized  # noqa: F401  registers what portable programs need

    program = to_edge_transform_and_lower(
        torch.export.export(model, (example,)),
        partitioner=[XnnpackPartitioner()] if delegate else [],
        compile_config=EdgeCompileConfig(_check_ir_validity=delegate),
    ).to_executorch()
    path.write_bytes(program.buffer)
    return path


def quantized(
    model: nn.Module,
    images: Tensor,
    path: Path,
    *,
    without: str = "",
    calibrate: bool = True,
    delegate: bool = True,
    **config: bool,
) -> Path:
    """Quantize a model with XNNPACKQuantizer and write it.

    Args:
        model: Float32, evaluation mode.
        images: Calibration images ``N×C×H×W``.
        path: The file.
        without: Name of a module that is left float.
        calibrate: Whether it sees the images.
        delegate: Whether XNNPACK executes it.
        config: Of ``get_symmetric_quantization_config``.
    """
    with exporter():
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        scheme = get_symmetric_quantization_config(**({"is_per_channel": True} | config))

        class Quantizer(XNNPACKQuantizer):
            """Forgets one module."""

            def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
                annotated = super().annotate(model)
                for node in annotated.graph.nodes:
                    modules = [name for name, _ in node.meta.get("nn_module_stack", {}).values()]
                    if without and without in modules:
                        node.meta.pop("quantization_annotation", None)
                return annotated

        quantizer = Quantizer().set_global(scheme)
        example = images[:1]
        prepared = prepare_pt2e(torch.export.export(model, (example,)).module(), quantizer)
        if calibrate:
            for image in images.split(1):
                prepared(image)
        return lowered(convert_pt2e(prepared), example, path, delegate=delegate)
