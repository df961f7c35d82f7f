"""How the images of a source are read: how many of them, by how many, and what may be broken."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ptqbench.settings.run_settings import BROKEN_SHARE


@dataclass(frozen=True)
class Reading:
    """How images are read.

    Attributes:
        limit: Evaluation images that are used at most, chosen evenly over the classes; None:
            all of them.
        broken_share: Share of a set's pictures that may be undecodable.
        workers: Threads that decode beside inference; None: one per usable core.
    """

    limit: int | None = None
    broken_share: float = BROKEN_SHARE
    workers: int | None = None


def usable_cores() -> int:
    """Cores that this process may run on; containers and `taskset` leave it fewer."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
