"""Import OpenVINO without its telemetry."""

from __future__ import annotations

import sys
from typing import Any

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """Return the module ``openvino``.

    Importing it sends an event to its makers, with an identifier of this user that is written to
    the home folder, unless the package that sends is missing. So it is missing, for as long as
    the import takes; what OpenVINO took instead of it then stays with it.
    """
    if "openvino" not in sys.modules:
        before = sys.modules.get(_TELEMETRY)
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # an import of it now fails
        try:
            import openvino
        finally:
            del sys.modules[_TELEMETRY]
            if before is not None:
                sys.modules[_TELEMETRY] = before
        return openvino
    return sys.modules["openvino"]
