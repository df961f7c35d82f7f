"""Recipes and their registry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ptqbench.core.registry import Registry
from ptqbench.recipes.published_accuracy import PUBLISHED_ACCURACIES, PublishedAccuracy
from ptqbench.settings.thresholds import Thresholds
from ptqbench.settings.weights_specifier import PROBE

Group = tuple[str, ...]
"""Module names that become one fused module: convolution, BatchNorm, ReLU."""

Flow = Literal["fx", "eager"]

MEASURED = "measured"
"""Backend of a recipe that recommends none: the fastest on the current machine is selected."""


@dataclass(frozen=True)
class Recipe:
    """How an architecture is quantized after training, and what the result must achieve.

    Attributes:
        model: Name of the architecture.
        backend: Recommended backend, or `MEASURED`.
        fusion: All fusion groups, by module name; None: those in the model's graph
            (``quantization.completion``).
        int8_modules: How many convolutions and linear layers become int8; None: all in the
            model's graph that ``keep_float`` does not name.
        thresholds: Thresholds of the gates.
        flow: ``fx`` (graph mode) or ``eager`` (needs a quantizable variant).
        observer: How activation ranges are determined: ``histogram`` (minimal squared error,
            torch.ao ``HistogramObserver``) or ``minmax``.
        per_channel: Weight scales per output channel, on qnnpack too: its per-tensor
            default collapses MobileNets.
        spare_bit: What gives up range where kernels add two 8 by 8 bit products in 16 bits,
            which saturates (AVX2 without VNNI): ``pairs`` of weights whose products they add,
            as much as each channel needs; 7-bit ``weights``; 7-bit ``activations``; or
            ``none``, which saturates there and exists to demonstrate it.
        bias_correction: Whether biases take back the mean error of rounded weights.
        calibration_images: How many images the ranges are determined from.
        keep_float: Module names that stay float32, with all below them; wildcards allowed. Also
            functions, ``<add>``, ``<mul>`` or ``<cat>``: all calls of them.
        fused_groups: How many groups must be found if ``fusion`` is None; None: unknown.
        probe: Thresholds that replace the others under ``probe`` weights, by field of
            `Thresholds`: a random network with a fitted head is not a trained classifier.
        unsupported: Why the model cannot be quantized for a backend, by its name, as observed
            when running it.
    """

    model: str
    backend: str
    fusion: tuple[Group, ...] | None
    int8_modules: int | None
    thresholds: Thresholds
    flow: Flow = "fx"
    observer: Literal["histogram", "minmax"] = "histogram"
    per_channel: bool = True
    spare_bit: Literal["pairs", "weights", "activations", "none"] = "pairs"
    bias_correction: bool = True
    calibration_images: int = 256
    keep_float: tuple[str, ...] = ()
    fused_groups: int | None = None
    probe: Mapping[str, Any] = field(default_factory=dict)
    unsupported: Mapping[str, str] = field(default_factory=dict)

    def thresholds_for(self, weights: str) -> Thresholds:
        """Return the thresholds under weights from a source, unless settings replace them.

        Args:
            weights: Source of the weights; under ``probe`` other thresholds may apply.
        """
        return self.thresholds.replaced(self.probe) if weights == PROBE else self.thresholds

    @property
    def published(self) -> Mapping[str, PublishedAccuracy]:
        """Accuracies that torchvision published in float32 and int8, by the name of the weights.

        They are not part of the recipe's hash: no gate uses them.
        """
        return {
            w: record for (model, w), record in PUBLISHED_ACCURACIES.items() if model == self.model
        }

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that change with any field."""
        content = asdict(self)
        for name in _ADDED:
            if not content[name]:  # unset; hashes from before the field existed stay valid
                del content[name]
        if self.thresholds.parity_db == Thresholds.parity_db:  # likewise
            del content["thresholds"]["parity_db"]
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


_ADDED = ("bias_correction", "fused_groups", "probe", "unsupported")
"""Fields that are not part of the hash while they are unset."""


@dataclass(frozen=True)
class CompletedRecipe:
    """A recipe together with what its model's graph determines.

    Attributes:
        recipe: The recipe as declared.
        groups: All fusion groups.
        int8_modules: How many convolutions and linear layers become int8.
        keep_float: Paths of the modules that stay float32, and functions; no wildcards.
        flow: ``fx`` or ``eager``.
    """

    recipe: Recipe
    groups: tuple[Group, ...]
    int8_modules: int
    keep_float: tuple[str, ...]
    flow: Flow

    @property
    def model(self) -> str:
        """Name of the architecture."""
        return self.recipe.model

    @property
    def hash(self) -> str:
        """Hash of the recipe as declared, which identifies artifacts."""
        return self.recipe.hash

    def written_out(self) -> Recipe:
        """Return a recipe that declares all of this by name, to be saved and edited."""
        return replace(
            self.recipe,
            fusion=self.groups,
            int8_modules=self.int8_modules,
            keep_float=self.keep_float,
            flow=self.flow,
            fused_groups=None,
        )


RECIPES: Registry[Recipe] = Registry("recipe")
