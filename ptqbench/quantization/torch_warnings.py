"""Ignore torch's deprecation warnings about eager and FX quantization and TorchScript.

ptqbench is about exactly these APIs, and users cannot act on the warnings. Only the known messages
are ignored, and only while ptqbench itself makes the calls.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_KNOWN = (
    (r"torch\.ao\.quantization is deprecated", DeprecationWarning),
    (r"torch\.quantize_per_tensor, torch\.quantize_per_channel and other", UserWarning),
    (r"Please use quant_min and quant_max to specify the range", UserWarning),
    (r"`torch\.jit\.\w+` is deprecated", DeprecationWarning),
)


@contextmanager
def known_deprecations_ignored() -> Iterator[None]:
    """Ignore torch's deprecation warnings about the APIs that ptqbench is built on."""
    with warnings.catch_warnings():
        for message, category in _KNOWN:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield
