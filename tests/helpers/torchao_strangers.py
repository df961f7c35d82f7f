"""Programs that torchao quantizes as its documentation shows, for Inductor on x86."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ptqbench.core.silence import silence


def quantized(
    model: nn.Module,
    images: Tensor,
    path: Path,
    *,
    bits: int = 7,
    per_channel: bool = True,
    calibrated: bool = True,
    float_layers: tuple[str, ...] = (),
    open_batch: bool = True,
) -> Path:
    """Quantize a float32 model with ``X86InductorQuantizer`` and save its program.

    Args:
        model: Evaluation mode.
        images: For calibration, ``N×C×H×W``.
        path: The file.
        bits: Of the weights; 8 is torchao's default.
        per_channel: Whether every output channel has a scale of its own.
        calibrated: Whether images are shown to the observers.
        float_layers: Module paths that stay float32.
        open_batch: Whether the program takes any number of images; else one.
    """
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as xiq

    example = (images[:2] if open_batch else images[:1],)
    shapes: Any = ({0: torch.export.Dim.DYNAMIC},) if open_batch else None
    with silence():
        exported = torch.export.export(model, example, dynamic_shapes=shapes, strict=True).module()
        quantizer = xiq.X86InductorQuantizer()
        quantizer.set_global(_configuration(xiq, bits, per_channel))
        for name in float_layers:
            quantizer.set_module_name_qconfig(name, None)
        prepared = prepare_pt2e(exported, quantizer)
        if calibrated:
            with torch.no_grad():
                prepared(images if open_batch else images[:1])
        converted = convert_pt2e(prepared)
        move_exported_model_to_eval(converted)
        torch.export.save(torch.export.export(converted, example, dynamic_shapes=shapes), path)
    return path


def _configuration(xiq: Any, bits: int, per_channel: bool) -> Any:
    """The default configuration, with other weights if they have fewer bits or scales."""
    from torchao.quantization.pt2e import MinMaxObserver

    default = xiq.get_default_x86_inductor_quantization_config()
    most = 2 ** (bits - 1)
    weights = dataclasses.replace(default.weight, quant_min=-most, quant_max=most - 1)
    if not per_channel:
        weights = dataclasses.replace(
            weights,
            qscheme=torch.per_tensor_symmetric,
            ch_axis=None,
            observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=2**-12),
        )
    return dataclasses.replace(default, weight=weights)
