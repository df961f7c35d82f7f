"""ptqbench beside other runtimes: ``python -m benchmarks.peers [MODEL ...]``.

Takes the options of ``ptqbench run``. Each network, with the same calibration and evaluation
images, goes through ptqbench, ONNX Runtime, and OpenVINO with NNCF; the numbers are kept in
``build/peers/``, where an interrupted run goes on. ``--write`` adds them to the record,
fixtures/peers.json, and writes docs/peers.md from it.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch

from benchmarks.blocks import BUILD, ROOT, rewrite
from benchmarks.peer_runtimes import peer_document, peer_record
from ptqbench.cli.exit_codes import USAGE_ERROR
from ptqbench.cli.parser import build_parser
from ptqbench.cli.report_output import print_error
from ptqbench.cli.setting_options import load_settings
from ptqbench.core.atomic import write_text
from ptqbench.core.names import safe_file_name
from ptqbench.core.package_data import SHIPPED
from ptqbench.core.process import end_with
from ptqbench.errors import UserError
from ptqbench.evaluation.case_plan import ModelPlan, plan_requests
from ptqbench.reporting.progress_display import progress_display
from ptqbench.settings.requests import case_requests

STORED = BUILD / "peers"
DOCUMENT = ROOT / "docs" / "peers.md"
COMMAND = "python -m benchmarks.peers"


def plans_of(options: Sequence[str]) -> list[ModelPlan]:
    """Return the networks that options of ``ptqbench run`` choose.

    Raises:
        UserError: An unknown name, or files that do not exist.
    """
    args = build_parser().parse_args(["run", *options])
    return plan_requests(case_requests(load_settings(args, args.models)))


def measure(
    plan: ModelPlan, patterns: Sequence[str], command: str, *, again: bool
) -> peer_record.Entry:
    """Measure what is missing of a network, and return all that is known of it.

    Args:
        plan: Model, weights, images and ptqbench's backends.
        patterns: Wildcards that choose candidates by name.
        command: How the numbers are obtained.
        again: Whether all are timed even if they have been.

    Raises:
        UserError: Weights or images cannot be read or do not fit.
    """
    from benchmarks.peer_runtimes.comparison import Comparison
    from ptqbench.core.phases import Phases
    from ptqbench.evaluation.open_subject import open_subject

    folder = STORED / safe_file_name(plan.model)
    folder.mkdir(parents=True, exist_ok=True)
    settings = replace(plan.settings, artifacts=str(folder))
    with ExitStack() as stack, progress_display() as progress:
        phases = Phases()
        subject = open_subject(plan.recipe, settings, stack, progress, phases)
        torch.set_num_threads(subject.latency.threads)
        comparison = Comparison(subject, plan.backends, folder, phases, progress)
        entry = comparison.run(
            lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns),
            command,
            again=again,
        )
    return entry


def stored_entries(models: Sequence[str]) -> list[peer_record.Entry]:
    """Return what has been measured of models, or of all if none are named."""
    entries = [json.loads(path.read_text("utf-8")) for path in sorted(STORED.glob("*.json"))]
    return [entry for entry in entries if not models or entry["model"] in models]


def write(models: Sequence[str]) -> None:
    """Add what has been measured to the record, and write the document from it."""
    before = peer_record.read_record(peer_record.RECORD)
    entries = peer_record.merged(before, stored_entries(models), SHIPPED)
    write_text(peer_record.render(entries), peer_record.RECORD)
    rewrite(DOCUMENT, "peers", peer_document.body(entries))


def main() -> int:
    """Measure or write, as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog=COMMAND, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rows", action="append", metavar="NAME", help="measure only these; wildcards; repeat")
    add("--time-again", action="store_true", help="time all candidates, even if they have been")
    add("--write", action="store_true", help="measure nothing; write record and document")
    args, options = parser.parse_known_args()
    if args.write:
        write(options)
        return 0
    command = shlex.join([*COMMAND.split(), *options])
    try:
        for plan in plans_of(options):
            entry = measure(plan, args.rows or ["*"], command, again=args.time_again)
            print(peer_document.summary(entry), flush=True)
    except UserError as error:
        print_error(str(error))
        return USAGE_ERROR
    return 0


if __name__ == "__main__":
    end_with(main)
