"""Options for reading images: limit, workers, tolerated failures."""

from __future__ import annotations

from dataclasses import dataclass

from ptqbench.settings.run_settings import BROKEN_SHARE


@dataclass(frozen=True)
class Reading:
    """How images are read.

    Attributes:
        limit: Maximum number of evaluation images; each class keeps its share. None:
            all of them.
        broken_share: Share of a set's pictures that may be undecodable.
        workers: Decoding threads; None: one per usable core.
    """

    limit: int | None = None
    broken_share: float = BROKEN_SHARE
    workers: int | None = None
