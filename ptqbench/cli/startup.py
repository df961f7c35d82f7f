"""When the command started; imported before anything else of the command line."""

from __future__ import annotations

import time

STARTED = time.perf_counter()
