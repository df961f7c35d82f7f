"""The settings record: everything that is set for the cases of one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ptqbench.settings.weights_specifier import default_weights

BROKEN_SHARE = 0.01
"""Default share of the pictures that may be undecodable."""
FASTEST, SAME_RUNTIME = "fastest", "runtime"
BASELINES = (FASTEST, SAME_RUNTIME)
"""What the speedup is measured against: float32 in the fastest installed runtime, or in the one
that executes int8."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of a run besides model and backends.

    Attributes:
        weights: ``fixture``, ``probe``, ``imagenet``, a name in torchvision's weights enums
            such as ``IMAGENET1K_V2``, or a file; None: ``fixture`` where they ship, else
            ``probe``.
        weights_key: Which set of weights to take from a checkpoint that holds several, such as
            ``state_dict_ema``; None: that of the sidecar, else what was trained.
        data: ``fixture``, ``cifar10[:ROOT]``, ``imagenet:ROOT`` or an image folder.
        limit: Maximum number of evaluation images; None: all of them.
        broken_share: Share of the pictures that may be undecodable.
        workers: Decoding threads; None: one per usable core.
        overrides: Preprocessing and classes that take precedence over the weights' sidecar.
        input_size: Height and width for latency; None: the model's standard size.
        batch_size: Batch size for latency.
        threads: Inference threads; None: all physical cores.
        baseline: What the speedup is measured against, one of `BASELINES`.
        seed: Seed of every random choice.
        artifacts: Folder that the artifacts are written to; None: a temporary one.
        thresholds: Replacements for the recipe's thresholds, by field of `Thresholds`.
    """

    weights: str | None = None
    weights_key: str | None = None
    data: str = "fixture"
    limit: int | None = None
    broken_share: float = BROKEN_SHARE
    workers: int | None = None
    overrides: Mapping[str, object] = field(default_factory=dict)
    input_size: int | None = None
    batch_size: int = 1
    threads: int | None = None
    baseline: str = FASTEST
    seed: int = 0
    artifacts: str | None = None
    thresholds: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return the settings by name."""
        return asdict(self)

    def of(self, model: str) -> RunSettings:
        """Return these settings with the model's default weights if none are set."""
        return replace(self, weights=self.weights or default_weights(model))
