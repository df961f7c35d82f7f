"""Quantize architectures of timm with seeded weights, and write down what came of it.

``python -m benchmarks.timm_sweep`` quantizes each for onednn on a few random images, in a process
of its own, and asks the four gates that look inside the file: it says whether what ptqbench builds
is right, and nothing about accuracy. Results are kept in ``build/timm/``; what is there or in the
record is not measured again unless it is named. The other options write files from them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.context
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.blocks import BUILD, ROOT, rewrite
from benchmarks.timm_sweep import inspection
from benchmarks.timm_sweep.architectures import in_turn
from benchmarks.timm_sweep.sweep_document import body
from benchmarks.timm_sweep.sweep_record import collected, render
from ptqbench.core.atomic import write_text

STORED = BUILD / "timm"
RECORD = ROOT / "fixtures" / "timm.json"
DOCUMENT = ROOT / "docs" / "timm.md"
TIME_LIMIT_S = 600.0


def measure(name: str, time_limit: float) -> None:
    """Inspect an architecture in a process of its own, and keep what came of it."""
    file = STORED / f"{name}.json"
    file.unlink(missing_ok=True)
    started = time.perf_counter()
    process = _processes().Process(target=inspection.inspect, args=(name, file))
    process.start()
    process.join(time_limit)
    ending = f"its process ended with code {process.exitcode}"
    if process.is_alive():
        process.kill()
        process.join()
        ending = f"it did not end within {time_limit:g} s"
    content = json.loads(file.read_text("utf-8")) if file.exists() else {}
    if "status" not in content:
        write_text(json.dumps({**content, "status": "died", "reason": ending}) + "\n", file)
    seconds = time.perf_counter() - started
    print(f"{name}: {_status(file)} after {seconds:.0f} s", file=sys.stderr, flush=True)


@cache
def _processes() -> multiprocessing.context.ForkServerContext:
    """Processes that are forked from one which has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.timm_sweep.preloaded"])
    return context


def _is_stored(name: str) -> bool:
    return (STORED / f"{name}.json").exists()


def _status(file: Path) -> str:
    content: Mapping[str, Any] = json.loads(file.read_text("utf-8"))
    return " ".join(str(content[key])[:300] for key in ("status", "reason") if key in content)


def main() -> int:
    """Measure or write, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.timm_sweep")
    parser.add_argument("names", nargs="*", metavar="ARCHITECTURE", help="measured in any case")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT_S, metavar="SECONDS")
    parser.add_argument("--write-results", action="store_true", help="write fixtures/timm.json")
    parser.add_argument("--write-docs", action="store_true", help="write docs/timm.md from it")
    args = parser.parse_args()
    STORED.mkdir(parents=True, exist_ok=True)
    record = json.loads(RECORD.read_text("utf-8"))
    if not (args.write_results or args.write_docs):
        for name in args.names or in_turn():
            if args.names or not (name in record["architectures"] or _is_stored(name)):
                measure(name, args.time_limit)
    if args.write_results:
        write_text(render(collected(STORED, record)), RECORD)
    if args.write_docs:
        rewrite(DOCUMENT, "timm", body(json.loads(RECORD.read_text("utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
