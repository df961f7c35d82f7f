"""What each choice in quantization is worth: ``python -m benchmarks.choices [MODEL ...]``.

Takes the options of ``ptqbench run``; ``--limit`` is the number of evaluation images. Each network
is calibrated once, converted with one choice after another, and executed on onednn. The numbers
are kept in ``build/choices/``, where an interrupted run goes on; ``--again '*'`` measures all anew.
``--write`` adds them to the record, fixtures/choices.json, and writes the table of docs/recipes.md
from it.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shlex
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.blocks import BUILD, ROOT, rewrite
from benchmarks.choices import choice_record
from benchmarks.choices.calibrated_network import (
    CalibratedNetwork,
    calibrated_network,
    convert,
    logits_of,
)
from benchmarks.choices.choice_list import CHOICES, Choice
from benchmarks.peers import plans_of
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.torch_engines.torchscript import engine_set
from ptqbench.cli.exit_codes import USAGE_ERROR
from ptqbench.cli.parser import build_parser
from ptqbench.cli.report_output import print_error
from ptqbench.core.atomic import write_text
from ptqbench.core.names import safe_file_name
from ptqbench.core.package_data import SHIPPED as NETWORKS
from ptqbench.core.phases import Phases
from ptqbench.core.process import end_with
from ptqbench.errors import UserError
from ptqbench.evaluation.case_plan import ModelPlan
from ptqbench.evaluation.machine import machine_facts
from ptqbench.evaluation.open_subject import open_subject
from ptqbench.evaluation.subject import BATCH_SIZE, Subject
from ptqbench.measurement.sqnr import LogitNoise
from ptqbench.reporting.progress_display import progress_display
from ptqbench.settings.weights_specifier import FIXTURE

STORED = BUILD / "choices"
COMMAND = "python -m benchmarks.choices"
BACKEND = "onednn"


def network_name(plan: ModelPlan) -> str:
    """Return what a network is called in the table."""
    tuned = plan.model in NETWORKS and plan.settings.weights != FIXTURE
    return f"{plan.model}, fine-tuned" if tuned else plan.model.rpartition(":")[2]


class Measurement:
    """One network, with everything that its choices share.

    Args:
        subject: The network and its images.
        entry: What has been measured of it.
        path: Where that is kept.
    """

    def __init__(self, subject: Subject, entry: choice_record.Entry, path: Path) -> None:
        self._subject, self._entry, self._path = subject, entry, path
        self._model = subject.quantizable()
        self._calibration = list(subject.calibration_batches())
        images = subject.data.evaluation
        self._images = [pixels for pixels, _ in images.batches(0, images.count, BATCH_SIZE)]
        self._logits = logits_of(self._model, self._images)
        self._shared: CalibratedNetwork | None = None

    def run(self, choices: Sequence[Choice]) -> None:
        """Measure choices, and write each down at once."""
        for choice in choices:
            started = time.perf_counter()
            row = self._row(choice)
            self._entry["rows"][choice.name] = row
            choice_record.write_entry(self._path, self._entry)
            seconds = time.perf_counter() - started
            print(self._entry["name"], choice.name, row, f"{seconds:.0f} s", sep=" | ", flush=True)

    def _row(self, choice: Choice) -> dict[str, Any]:
        row: dict[str, Any] = {}
        if choice.change is None:
            network = self._shared = self._shared or self._calibrated(self._model)
        else:
            changed = choice.change(self._model, self._calibration)
            if changed is None:
                return {"same": True}
            row["float_sqnr_db"] = self._numbers(logits_of(changed, self._images))["sqnr_db"]
            network = self._calibrated(changed)
        engine = BACKENDS.get(choice.conversion.engine)
        if engine.availability() is not None:
            return {}
        pairing = engine.pairing if engine.saturates() else None
        int8 = convert(network, choice.conversion, pairing)
        return self._numbers(logits_of(int8, self._images)) | row

    def _calibrated(self, model: torch.nn.Module) -> CalibratedNetwork:
        count = sum(map(len, self._calibration))
        example = self._calibration[0][:1]
        with engine_set(BACKENDS.get(BACKEND).engine):
            return calibrated_network(
                model, self._subject.complete(), self._calibration, images=count, example=example
            )

    def _numbers(self, logits: Tensor) -> dict[str, Any]:
        sqnr = LogitNoise.of(self._logits, logits).sqnr()
        agreement = (self._logits.argmax(1) == logits.argmax(1)).double().mean()
        return {"sqnr_db": round(sqnr.value, 2), "agreement": round(float(agreement), 4)}


def matches(choice: Choice, patterns: Sequence[str]) -> bool:
    """Whether one of several wildcards matches the name of a choice."""
    return any(fnmatch.fnmatchcase(choice.name, pattern) for pattern in patterns)


def measure(plan: ModelPlan, rows: Sequence[str], again: Sequence[str], command: str) -> None:
    """Measure what is missing of a network.

    Args:
        plan: Model, weights and images.
        rows: Wildcards for the choices that are measured.
        again: Wildcards for choices that are measured even if they have been.
        command: How the numbers are obtained.

    Raises:
        UserError: Weights or images cannot be read or do not fit.
    """
    name = network_name(plan)
    path = STORED / f"{safe_file_name(name)}.json"
    with ExitStack() as stack, progress_display() as progress:
        settings = replace(plan.settings, threads=1, artifacts=None)
        subject = open_subject(plan.recipe, settings, stack, progress, Phases())
        torch.set_num_threads(1)
        facts = machine_facts()
        identity = {
            **{key: facts[key] for key in ("cpu", "instruction_set", "torch")},
            "weights": Path(subject.weights).name,
            "images": subject.data.evaluation.count,
            "calibration_images": subject.calibration_count,
        }
        entry = choice_record.read_entry(path, name, identity, command)

        def is_missing(choice: Choice) -> bool:
            stored = choice.name in entry["rows"]
            return matches(choice, again if stored else [*again, *rows])

        missing = list(filter(is_missing, CHOICES))
        if missing:
            Measurement(subject, entry, path).run(missing)


def write() -> None:
    """Add what has been measured to the record, and write the table from it."""
    stored = [json.loads(path.read_text("utf-8")) for path in sorted(STORED.glob("*.json"))]
    stored = [entry for entry in stored if len(entry["rows"]) > 1]  # nothing to compare yet
    before = choice_record.read_record(choice_record.RECORD)
    entries = choice_record.merged(before, stored, NETWORKS)
    write_text(choice_record.render(entries), choice_record.RECORD)
    rewrite(ROOT / "docs" / "recipes.md", "choices", choice_record.body(entries))


def smaller_cpu() -> list[str]:
    """Return the variables by which a CPU without VNNI is simulated, as a shell takes them."""
    names = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
    return [f"{name}={os.environ[name]}" for name in names if name in os.environ]


def main() -> int:
    """Measure or write, as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog=COMMAND, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rows", action="append", metavar="CHOICE", help="only these; wildcards; repeat")
    add("--again", action="append", default=[], metavar="CHOICE", help="wildcards; repeat")
    add("--write", action="store_true", help="measure nothing; write record and document")
    args, options = parser.parse_known_args()
    if args.write:
        write()
        return 0
    try:
        models = build_parser().parse_args(["run", *options]).models
        rest = [option for option in options if option not in models]
        for plan in plans_of(options):
            command = shlex.join([*smaller_cpu(), *COMMAND.split(), plan.model, *rest])
            measure(plan, args.rows or ["*"], args.again, command)
    except UserError as error:
        print_error(str(error))
        return USAGE_ERROR
    return 0


if __name__ == "__main__":
    end_with(main)
