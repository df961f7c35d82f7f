"""The choices, by name: how a network is changed before it is calibrated, and how it is converted.

Choices that change the float network need a calibration of their own; all others share one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from benchmarks.choices import channel_order, equalization
from benchmarks.choices.calibrated_network import Conversion
from benchmarks.choices.graph_spaces import traced_with_shapes

Change = Callable[[nn.Module, Sequence[Tensor]], nn.Module | None]
"""From a canonical model and calibration images: a copy of it that computes the same; None: there
is nothing to change in it."""


@dataclass(frozen=True)
class Choice:
    """One row of the table.

    Attributes:
        name: In the record and in the document.
        conversion: How the calibrated network is converted.
        change: What is done to the float network before; None: nothing.
    """

    name: str
    conversion: Conversion = field(default_factory=Conversion)
    change: Change | None = None


def equalized(factors: equalization.Factors) -> Change:
    """Return the change that scales channels between layers."""

    def change(model: nn.Module, batches: Sequence[Tensor]) -> nn.Module | None:
        result = copy.deepcopy(model)
        traced = traced_with_shapes(result, batches[0][:1])
        links = equalization.links_of(traced)
        maxima = equalization.channel_maxima(traced, links, batches)
        return result if equalization.equalize(result, links, maxima, factors) else None

    return change


def ordered(model: nn.Module, batches: Sequence[Tensor]) -> nn.Module | None:
    """Order channels for small pairs; see `channel_order`."""
    result = copy.deepcopy(model)
    traced = traced_with_shapes(result, batches[0][:1])
    return result if channel_order.order_channels(result, traced) else None


SHIPPED = "shipped: pairs, histogram, biases corrected"
CHOICES = (
    Choice(SHIPPED),
    Choice("weights in 7 bits, −64…64", Conversion(spare_bit="weights")),
    Choice("weights in 8 bits, saturating", Conversion(spare_bit="none")),
    Choice("scales by the two largest weights", Conversion(spare_bit="two largest")),
    Choice("weights in 8 bits, added in 32 (qnnpack)", Conversion(engine="qnnpack")),
    Choice("scales by the error of the output", Conversion(least_error=True)),
    Choice("activations by min and max", Conversion(ranges="whole")),
    Choice("activations by the error of the output", Conversion(ranges="output")),
    Choice("biases as they are", Conversion(bias_correction=False)),
    Choice("weights equalized", change=equalized(equalization.by_weights)),
    Choice("activations equalized", change=equalized(equalization.by_activations)),
    Choice("channels ordered for small pairs", change=ordered),
)
