"""The reason in an error of ExecuTorch."""

from __future__ import annotations

import re

from ptqbench.core.step_errors import reason_of as first_reason

_PLACE = re.compile(r"^\[\w+\.cpp:\d+\] ")
_IDLE = ("cpuinfo_utils", "threadpool.cpp")
_CODE = re.compile(r",? ?(?:failed )?with error:? 0x:?\w+|, error: 0x:?\w+")


def reason_of(error: Exception) -> str:
    """Return the reason, without the numbers that the runtime has for errors."""
    return _CODE.sub("", first_reason(error)).strip() or first_reason(error)


def logged_reason(error: Exception, log: str) -> str:
    """Return the reason as the runtime logged it, which says more than its errors do.

    Args:
        error: What it raised.
        log: What it wrote to the standard error meanwhile.
    """
    lines = [line for line in log.splitlines() if not any(idle in line for idle in _IDLE)]
    first = next((_PLACE.sub("", line).strip() for line in lines if line.strip()), "")
    return first or reason_of(error)
