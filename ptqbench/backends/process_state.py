"""What executing models sets for the whole process, and how it is put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def process_unchanged() -> Iterator[None]:
    """Put back what measuring sets for the whole process: thread count and engine."""
    threads, engine = torch.get_num_threads(), torch.backends.quantized.engine
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.quantized.engine = engine
