"""A network, calibrated once, and converted with one choice or another."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.choices.activation_ranges import (
    ranges_by_output,
    replace_observers,
    whole_ranges,
)
from benchmarks.choices.output_error import FittedWeights, InputRows, input_rows, least_error
from ptqbench.backends.torch_engines.torchscript import EngineBound, engine_set, trace_and_freeze
from ptqbench.core.phases import Phases
from ptqbench.quantization import eager, fx
from ptqbench.quantization.bias_correction import (
    MeanInput,
    correct_biases,
    mean_inputs,
    quantized_layers,
)
from ptqbench.quantization.calibration import calibrate
from ptqbench.quantization.pairing import Pairing, weight_scales
from ptqbench.quantization.qconfig import set_weight_grids
from ptqbench.quantization.weight_observer import WeightObserver
from ptqbench.recipes import CompletedRecipe, Recipe

_FLOWS: Mapping[str, Any] = {"fx": fx, "eager": eager}


class TwoLargest(WeightObserver):
    """Scales that leave room for the two largest weights of one sign, whichever are paired."""

    def calculate_qparams(self, **kwargs: Any) -> tuple[Tensor, Tensor]:
        assert self.weights is not None, "forward was not called"
        flat = self.weights.flatten(1)
        count = min(2, flat.shape[1])
        # Two columns side by side are a pair of channels; weights of the other sign are zero.
        sides = [side.clamp(min=0).topk(count).values for side in (flat, -flat)]
        scales = torch.stack([weight_scales(side, "channels") for side in sides]).amax(0)
        return scales, torch.zeros(len(scales), dtype=torch.int64)


class FittedObserver(WeightObserver):
    """Gives weights the grid that was fitted to one layer."""

    def __init__(self, fitted: FittedWeights, factory_kwargs: Any = None) -> None:
        super().__init__()
        self.fitted = fitted

    def calculate_qparams(self, **kwargs: Any) -> tuple[Tensor, Tensor]:
        scales = self.fitted.scales
        return scales, torch.zeros(len(scales), dtype=torch.int64)

    def rounded(self, weights: Tensor) -> Tensor:
        return self.fitted.values


@dataclass(frozen=True)
class CalibratedNetwork:
    """A network whose observers have seen the calibration images.

    Attributes:
        recipe: Completed.
        prepared: With observers.
        means: Mean inputs of its layers.
        rows: Samples of these inputs.
        example: One input, ``1×C×H×W`` float32.
    """

    recipe: CompletedRecipe
    prepared: nn.Module
    means: Mapping[str, MeanInput]
    rows: Mapping[str, InputRows]
    example: Tensor


def calibrated_network(
    model: nn.Module,
    recipe: CompletedRecipe,
    batches: Iterable[Tensor],
    *,
    images: int,
    example: Tensor,
) -> CalibratedNetwork:
    """Fuse, observe and calibrate a network.

    Args:
        model: Float32, canonical.
        recipe: Completed; activations keep eight bits.
        batches: Calibration images, ``N×C×H×W`` float32.
        images: Their number.
        example: One of them.
    """
    prepared = _FLOWS[recipe.flow].prepare(model, recipe, example, saturates=True)
    with mean_inputs(prepared) as means, input_rows(prepared, images) as rows:
        calibrate(prepared, batches, Phases())
    return CalibratedNetwork(recipe, prepared, means, rows, example)


@dataclass(frozen=True)
class Conversion:
    """What of a calibrated network's recipe is chosen otherwise.

    Attributes:
        spare_bit: As in recipes, or ``two largest``.
        bias_correction: As in recipes.
        ranges: Of activations: with the least error of the ``histogram`` or of the ``output`` of
            the layers behind them, or the ``whole`` one.
        least_error: Whether scales of weights have the least error of the output.
        engine: torch's quantized engine; qnnpack adds in 32 bits.
    """

    spare_bit: str = "pairs"
    bias_correction: bool = True
    ranges: Literal["histogram", "output", "whole"] = "histogram"
    least_error: bool = False
    engine: str = "onednn"


def convert(network: CalibratedNetwork, choice: Conversion, pairing: Pairing | None) -> EngineBound:
    """Return the int8 network as it is executed.

    Args:
        network: It is not changed.
        choice: How it is converted.
        pairing: Which products the engine's kernels add in 16 bits here; None: none.
    """
    prepared = copy.deepcopy(network.prepared)
    recipe: Recipe = network.recipe.recipe
    if choice.spare_bit != "two largest":
        recipe = replace(recipe, spare_bit=choice.spare_bit)  # type: ignore[arg-type]
    with engine_set(choice.engine), torch.no_grad():
        set_weight_grids(prepared, recipe, pairing)
        if choice.spare_bit == "two largest":
            for name, _, _ in list(quantized_layers(prepared)):
                _set_observer(prepared.get_submodule(name), TwoLargest.with_args())
        fitted: dict[str, FittedWeights] = {}
        if choice.least_error:
            fitted = fit(prepared, network.rows, pairing, centred=choice.bias_correction)
        if choice.ranges == "whole":
            replace_observers(prepared, whole_ranges(prepared))
        elif choice.ranges == "output":
            rows = {name: sample.rows() for name, sample in network.rows.items()}
            ranges = ranges_by_output(prepared, rows, network.example)
            replace_observers(prepared, ranges)
        if choice.bias_correction:
            correct_biases(prepared, network.means)
        for name, layer, _ in list(quantized_layers(prepared)):
            if name in fitted:
                layer.weight.copy_(fitted[name].values)  # type: ignore[operator]
        converted = _FLOWS[network.recipe.flow].convert(prepared)
        script = trace_and_freeze(converted, network.example)
    return EngineBound(script, choice.engine)


def _set_observer(module: nn.Module, weight: Any) -> None:
    module.qconfig = module.qconfig._replace(weight=weight)  # type: ignore[union-attr, assignment]


def fit(
    prepared: nn.Module,
    rows: Mapping[str, InputRows],
    pairing: Pairing | None,
    *,
    centred: bool,
) -> dict[str, FittedWeights]:
    """Let layers quantize their weights with the least error of their outputs, in place.

    Args:
        prepared: Calibrated.
        rows: Samples of its layers' inputs.
        pairing: Which products the kernels add in 16 bits; None: none.
        centred: Whether biases are corrected afterwards.

    Returns:
        The weights that the layers are to have before conversion, by path.
    """
    fitted = {}
    for name, layer, _ in list(quantized_layers(prepared)):
        weight: Tensor = layer.weight  # type: ignore[assignment]
        fitted[name] = least_error(weight, rows[name].rows(), pairing, centred=centred)
        observer = FittedObserver.with_args(fitted=fitted[name])
        _set_observer(prepared.get_submodule(name), observer)
    return fitted


@torch.inference_mode()
def logits_of(model: Any, batches: Sequence[Tensor]) -> Tensor:
    """Return the logits of all images, ``N×K`` float32."""
    return torch.cat([model(batch) for batch in batches])
