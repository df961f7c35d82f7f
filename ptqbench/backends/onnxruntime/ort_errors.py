"""The reason in an error of ONNX Runtime."""

from __future__ import annotations

import re

from ptqbench.core.step_errors import reason_of as first_reason

_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE = re.compile(r"\S*/\S+\.(?:cc|h):\d+ (?:onnxruntime::)?\S.*?(?=\s[A-Z]|$)")


def reason_of(error: Exception) -> str:
    """Return the reason, without codes and source lines of the runtime."""
    reason = _CODE.sub("", first_reason(error))
    return _SOURCE.sub("", reason).strip() or first_reason(error)
