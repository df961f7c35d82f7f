"""Ignore torch's deprecation warnings about eager and FX quantization and TorchScript.

ptqbench is about exactly these APIs, and users cannot act on the warnings. Only the known messages
are ignored, and only while ptqbench itself makes the calls.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_KNOWN = (
    (r"torch\.ao\.quantization is deprecated", DeprecationWarning),
    (r"torch\.quantize_per_tensor, torch\.quantize_per_channel and other", UserWarning),
    (r"Please use quant_min and quant_max to specify the range", UserWarning),
    (r"`torch\.jit\.\w+` is deprecated", DeprecationWarning),
)


@functools.cache
def warn_of_quantized_tensors_once() -> None:
    """Have torch warn where the warning is ignored; it does so once for a process.

    While it loads TorchScript it would print the warning, whatever Python's filters say.
    """
    import torch

    with known_deprecations_ignored():
        torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)


@contextmanager
def known_deprecations_ignored() -> Iterator[None]:
    """Ignore torch's deprecation warnings about the APIs that ptqbench is built on."""
    with warnings.catch_warnings():
        for message, category in _KNOWN:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield
