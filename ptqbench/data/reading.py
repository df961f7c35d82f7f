"""How the images of a source are read: how many of them, by how many, and what may be broken."""

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
        workers: Threads that decode beside inference; None: one per usable core.
    """

    limit: int | None = None
    broken_share: float = BROKEN_SHARE
    workers: int | None = None
