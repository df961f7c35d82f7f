"""The comparison of one network's candidates: each is built, held against float32 and timed."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ptqbench
from benchmarks.peer_runtimes import peer_record
from benchmarks.peer_runtimes.candidates import PEERS, Candidate, calibration_images
from ptqbench.backends.backend import Model
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.core.phases import Phases
from ptqbench.core.progress import Progress, prefixed
from ptqbench.errors import UserError
from ptqbench.evaluation.backend_choice import choose_backend
from ptqbench.evaluation.float_reference import FloatReference
from ptqbench.evaluation.int8_artifact import build_int8
from ptqbench.evaluation.machine import machine_facts
from ptqbench.evaluation.subject import BATCH_SIZE, Subject
from ptqbench.measurement.accuracy import measure_accuracy
from ptqbench.measurement.accuracy_record import Accuracy
from ptqbench.measurement.fastest import pick_fastest
from ptqbench.recipes.recipe import MEASURED

PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf")
ROUNDS = 31
"""Timed calls of each candidate, in turn."""
PREPARATION = ("make the canonical graph", "complete the recipe")
"""Phases of opening a subject that belong to quantizing it."""
FLOAT, PTQBENCH = "torch float32", "ptqbench"


class StoredLogits:
    """A model that computes the logits of each batch once.

    Args:
        model: Called with batches that it has not seen.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._logits: dict[bytes, Tensor] = {}

    def __call__(self, images: Tensor) -> Tensor:
        key = hashlib.sha256(images.numpy().tobytes()).digest()
        if key not in self._logits:
            self._logits[key] = self._model(images).clone()
        return self._logits[key]


def in_batches(model: Model, size: int) -> Model:
    """Return a model that is called with at most ``size`` images at a time."""

    def run(images: Tensor) -> Tensor:
        return torch.cat([model(part) for part in images.split(size)])

    return run


class Comparison:
    """One network in all runtimes.

    Args:
        subject: The network, its weights and its images.
        backends: Of ptqbench; `MEASURED` stands for the fastest here.
        folder: Where the files are kept.
        phases: Where ptqbench counted time so far.
        progress: Progress callback.
    """

    def __init__(
        self,
        subject: Subject,
        backends: tuple[str, ...],
        folder: Path,
        phases: Phases,
        progress: Progress,
    ) -> None:
        self._subject, self._folder, self._phases = subject, folder, phases
        self._progress = progress
        self._preparation = sum(p.seconds for p in phases.records() if p.name in PREPARATION)
        self._path = folder.with_name(f"{folder.name}.json")
        self._backends = backends
        first = BACKENDS.names()[0] if MEASURED in backends else backends[0]
        self._reference = FloatReference(subject, BACKENDS.get(first), phases)
        self._logits = StoredLogits(lambda images: self._reference.predictor(images))
        self._entry = peer_record.read_entry(
            self._path, peer_record.RECORD, subject.recipe.model, self._identity()
        )
        if not peer_record.has_files_of(self._path, self._entry):
            for path in folder.iterdir():  # of other images, weights or versions
                path.unlink()

    def _candidates(self, chosen: Callable[[str], bool]) -> list[Candidate]:
        """Return all that can be measured; a backend is chosen only if its row is."""
        names = list(self._backends)
        if MEASURED in names:
            names = [self._choice()] if chosen(f"{PTQBENCH} {MEASURED}") else []
        first = Candidate(FLOAT, "", lambda *_: None, self._load_float, BATCH_SIZE)
        return [first, *map(self._ptqbench, names), *PEERS]

    def _choice(self) -> str:
        """Return the backend that is the fastest here, chosen once for the code as it is."""
        code = code_hash()
        if self._entry.get("choice", {}).get("code") != code:
            backend = choose_backend(self._subject, self._phases).backend
            self._entry["choice"] = {"code": code, "backend": backend}
        name: str = self._entry["choice"]["backend"]
        return name

    def _identity(self) -> dict[str, Any]:
        """Return whatever the numbers depend on, except ptqbench's code."""
        subject = self._subject
        facts = machine_facts()
        keys = ("cpu", "instruction_set", "physical_cores", "python")
        return {
            "machine": {key: facts[key] for key in keys},
            "packages": {name: version(name) for name in PACKAGES},
            "weights": subject.weights,
            "data": subject.settings.data,
            "seed": subject.settings.seed,
            "calibration_images": calibration_images(subject).count,
            "evaluation_images": subject.data.evaluation.count,
            "image": list(subject.inspection_images().shape[1:]),
        }

    def _example(self) -> Tensor:
        return self._subject.latency.example()[:1]

    def _load_float(self, path: Path, threads: int, shape: tuple[int, ...]) -> Model:
        return self._reference.fastest

    def _ptqbench(self, name: str) -> Candidate:
        def build(subject: Subject, path: Path) -> None:
            build_int8(subject, BACKENDS.get(name), self._phases, path)

        def load(path: Path, threads: int, shape: tuple[int, ...]) -> Model:
            return BACKENDS.get(name).load(path)

        file = f"ptqbench-{name}-{self._subject.recipe.hash[:8]}-{code_hash()[:8]}.int8.pt"
        return Candidate(f"{PTQBENCH} {name}", file, build, load, BATCH_SIZE)

    def run(
        self, chosen: Callable[[str], bool], command: str, *, again: bool = False
    ) -> peer_record.Entry:
        """Measure what is missing, and write it down at once.

        Args:
            chosen: Whether a candidate is measured, by its name.
            command: How the numbers are obtained.
            again: Whether all are timed even if they have been.
        """
        entry = self._entry
        entry["command"] = command
        candidates = self._candidates(chosen)
        rows: dict[str, Any] = entry["rows"]
        for candidate in filter(lambda candidate: chosen(candidate.name), candidates):
            row = rows.get(candidate.name, {})
            if row.get("file") != candidate.file or "error" in row:
                rows[candidate.name] = self._row(candidate)
                peer_record.write_entry(self._path, entry)
        current = [each for each in candidates if rows.get(each.name, {}).get("n")]
        entry["rows"] = {each.name: rows[each.name] for each in candidates if each.name in rows}
        self._time([each for each in current if rows[each.name]["file"] == each.file], again)
        peer_record.write_entry(self._path, entry)
        return entry

    def _row(self, candidate: Candidate) -> dict[str, Any]:
        """Return the numbers of a candidate, or why there are none."""
        progress = prefixed(self._progress, f"{self._subject.recipe.model} {candidate.name}")
        progress("build", 0, 0)
        row: dict[str, Any] = {"file": candidate.file}
        if candidate.name.startswith(PTQBENCH):
            row["backend"] = candidate.name.split()[1]
        try:
            self._build(candidate)
            shape = tuple(self._subject.inspection_images()[:1].shape)
            is_reference = candidate.name == FLOAT
            model = self._logits if is_reference else self._load(candidate, shape)
            accuracy = measure_accuracy(
                self._logits,
                in_batches(model, candidate.batch_size),
                self._subject.data.evaluation,
                batch_size=BATCH_SIZE,
                progress=progress,
            )
        except UserError as error:
            return row | {"error": str(error)}
        except Exception as error:
            # Other tools raise whatever they like; the row says so, and the rest goes on.
            first = str(error).partition("\n")[0]
            return row | {"error": f"{type(error).__name__}: {first[:200]}"}
        return row | numbers(accuracy)

    def _build(self, candidate: Candidate) -> None:
        path = self._folder / candidate.file
        if candidate.file and not path.is_file():
            started = time.perf_counter()
            candidate.build(self._subject, path)
            seconds = time.perf_counter() - started
            if candidate.name.startswith(PTQBENCH):
                seconds += self._preparation
            self._entry["seconds"][candidate.file] = round(seconds, 1)

    def _load(self, candidate: Candidate, shape: tuple[int, ...]) -> Model:
        path = self._folder / candidate.file
        return candidate.load(path, self._subject.latency.threads, shape)

    def _time(self, candidates: Sequence[Candidate], again: bool) -> None:
        """Call the candidates in turn, unless the same ones have been timed."""
        example, threads = self._example(), self._subject.latency.threads
        conditions: dict[str, Any] = {
            "files": {candidate.name: candidate.file for candidate in candidates},
            "threads": threads,
            "input": list(example.shape),
            # With one thread both are the same on an idle machine, and only this one on a busy one.
            "clock": "CPU" if threads == 1 else "wall",
        }
        before = self._entry["latency"]
        if not again and conditions.items() <= before.items():
            return
        for candidate in candidates:
            self._build(candidate)  # rows that come from the record have no files yet
        self._progress("latency", 0, 0)
        # Loaded anew: oneDNN keeps the primitives of the first shape that it sees.
        models = {each.name: self._load(each, tuple(example.shape)) for each in candidates}
        clock = time.process_time if threads == 1 else time.perf_counter
        _, times = pick_fastest(models, example, threads=threads, rounds=ROUNDS, clock=clock)
        ms = {name: round(time_ms, 3) for name, time_ms in times.items()}
        self._entry["latency"] = conditions | {"ms": ms}


def numbers(accuracy: Accuracy) -> dict[str, Any]:
    """Return what the record has of a comparison with float32; None for what is infinite."""
    sqnr = accuracy.sqnr
    finite = (round(x, 2) if math.isfinite(x) else None for x in (sqnr.value, sqnr.low, sqnr.high))
    return {
        "n": accuracy.n,
        "float32_top1": accuracy.float32_top1,
        "top1": accuracy.int8_top1,
        "agreement": accuracy.agreement.value,
        "sqnr_db": list(finite),
    }


def code_hash() -> str:
    """Return the hash of ptqbench's modules: when they change, its rows are measured again."""
    folder = Path(ptqbench.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
