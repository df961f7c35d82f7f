"""Start a child for each model, and collect what it wrote, however it ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.blocks import BUILD, ROOT
from benchmarks.coverage.keys import EAGER
from ptqbench.core.atomic import atomic_path

RESULTS = BUILD / "coverage"
LIMIT_S = 1800
"""How long the cases of one model may take together."""

RESTRICTED: dict[str, dict[str, str]] = {
    "native": {},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
}
"""What tells torch and the libraries below it to leave newer instructions alone.

It makes no older CPU of this one: the engine x86 chooses between FBGEMM and oneDNN by what the
CPU can do, whatever the libraries are told.
"""

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """What is to be measured of a model.

    Attributes:
        model: Registered name.
        weights: Name of their source.
        cases: Backends, and ``eager``.
        key: What the result belongs to.
        cpu: A name in `RESTRICTED`.
        method: Hash of how the recipe quantizes.
        recommended: The backend that eager mode is measured on.
    """

    model: str
    weights: str
    cases: tuple[str, ...]
    key: str
    cpu: str
    method: str = ""
    recommended: str = ""


@dataclass(frozen=True)
class Starting:
    """How children are started.

    Attributes:
        build: A command that is put in front of the step ``build``.
        time: The same for the step ``time``: one that waits until the machine is quiet.
        limit_s: How long a step may take.
        images: Evaluation images; None: as the plan says.
    """

    build: tuple[str, ...] = ()
    time: tuple[str, ...] = ()
    limit_s: float = LIMIT_S
    images: int | None = None


DIRECTLY = Starting()


def stored(folder: Path, model: str) -> dict[str, Any]:
    """The result of a model; an empty one if there is none."""
    path = folder / f"{model}.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def artifacts_of(folder: Path, model: str) -> Path:
    """Where the artifacts of a model wait until they are timed."""
    return folder / "artifacts" / model


def untimed(result: Json) -> tuple[str, ...]:
    """The cases of a result whose artifacts were made, but not timed."""
    return tuple(
        name
        for name, case in result.get("cases", {}).items()
        if case["status"] == "measured" and "speed" not in case and "speed_reason" not in case
    )


def missing(job: Job, result: Json, folder: Path, again: bool = False) -> tuple[str, ...]:
    """The cases of a job that have to be built.

    All of them if the result belongs to something else; else those that it lacks, those
    that were not timed and whose artifacts are gone, and eager mode if it was on a backend that is
    not the recommended one any more.
    """
    if again or result.get("key") != job.key:
        return job.cases
    artifacts = artifacts_of(folder, job.model)
    gone = {name for name in untimed(result) if not (artifacts / f"{name}.pt").is_file()}
    if result["cases"].get(EAGER, {}).get("backend", job.recommended) != job.recommended:
        gone.add(EAGER)
    return tuple(name for name in job.cases if name not in result["cases"] or name in gone)


def build(job: Job, folder: Path, again: bool = False, how: Starting = DIRECTLY) -> dict[str, Any]:
    """Build and measure what is missing of a model, all but its speed.

    A child that dies takes one case with it; another child measures the rest.
    """
    result = stored(folder, job.model)
    todo = missing(job, result, folder, again)
    if result.get("key") != job.key:
        shutil.rmtree(artifacts_of(folder, job.model), ignore_errors=True)
        result = {}
    result = {"cases": {}, **result, "key": job.key, "method": job.method, "model": job.model}
    return _store(folder, _steps("build", job, result, todo, folder, how))


def time(job: Job, folder: Path, how: Starting = DIRECTLY) -> dict[str, Any]:
    """Time the artifacts of a model that wait for it, and remove them."""
    result = stored(folder, job.model)
    result = _store(folder, _steps("time", job, result, untimed(result), folder, how))
    shutil.rmtree(artifacts_of(folder, job.model), ignore_errors=True)
    return result


def _store(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    with atomic_path(folder / f"{result['model']}.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return result


def _steps(
    step: str, job: Job, result: dict[str, Any], todo: Sequence[str], folder: Path, how: Starting
) -> dict[str, Any]:
    """Start children until each case is settled."""
    artifacts = artifacts_of(folder, job.model)
    artifacts.mkdir(parents=True, exist_ok=True)
    while todo:
        journal = artifacts / "journal.jsonl"
        journal.unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.coverage.child", step, job.model]
        command += ["--journal", str(journal), "--folder", str(artifacts), "--cases", *todo]
        if step == "build":
            command += ["--weights", job.weights]
            command += ["--images", str(how.images)] if how.images else []
        else:
            command += ["--shape", *map(str, result["input_shape"]), "--macs", str(result["macs"])]
        prefix = how.build if step == "build" else how.time
        log = folder / "logs" / f"{job.model}-{step}.log"
        log.parent.mkdir(exist_ok=True)
        ended = child([*prefix, *command], RESTRICTED[job.cpu], log, how.limit_s)
        result, settled = merged(result, records(journal), todo, ended)
        todo = [name for name in todo if name not in settled]
    return result


def child(command: Sequence[str], environment: Mapping[str, str], log: Path, limit_s: float) -> str:
    """Run a child to its end; how it ended, empty if it ended well."""
    with log.open("a") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return f"did not end within {limit_s:g} s"
    # A shell in front of it says 128 more than the signal.
    code = 128 - code if code < 0 else code
    if code == 128 + signal.SIGKILL:
        return "was killed, as the system does where memory runs out"
    if code > 128:
        return f"died of {signal.Signals(code - 128).name}"
    return f"ended with code {code}" if code else ""


def records(journal: Path) -> list[dict[str, Any]]:
    """What a child wrote; a line that was cut off is left out."""
    found = []
    for line in journal.read_text("utf-8").splitlines() if journal.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def merged(
    result: Json, found: Iterable[Json], asked: Sequence[str], ended: str
) -> tuple[dict[str, Any], list[str]]:
    """A result with what a child found, and what became of the case that it died at.

    Args:
        result: What was known.
        found: The child's records.
        asked: The cases that it should settle.
        ended: How it ended, if not well.

    Returns:
        The result, and the cases that are settled now.
    """
    cases = {name: dict(case) for name, case in result["cases"].items()}
    settled: list[str] = []
    whole: dict[str, Any] = {}
    begun = reason = None
    for record in found:
        content = {k: v for k, v in record.items() if k not in ("kind", "case")}
        if record["kind"] == "begin":
            begun = record["case"]
        elif record["kind"] in ("case", "speed"):
            name, begun = record["case"], None
            before = cases.get(name, {}) if record["kind"] == "speed" else {}
            cases[name] = {**before, **content}
            settled.append(name)
        elif record["kind"] == "failed":
            reason = record["reason"]
        else:
            whole |= content
    left = [name for name in asked if name not in settled]
    if left:
        # Where it died before a case, another one can only die there too: all are lost.
        for name in [begun] if begun else left:
            why = reason or f"the process {ended or 'ended early'}"
            measured = cases.get(name, {}).get("status") == "measured"
            dead = {**cases[name], "speed_reason": why} if measured else _dead(why)
            cases[name] = dead
            settled.append(name)
    return {**result, **whole, "cases": cases}, settled


def _dead(reason: str) -> dict[str, Any]:
    return {"status": "died", "reason": reason}
