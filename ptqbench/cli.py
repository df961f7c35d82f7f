"""The command line: ``run``, ``predict`` and ``list``.

Nothing is imported at the top that takes time or brings torch along, so that ``--help``
and every mistake that can be seen from the arguments alone are answered at once.
"""

from __future__ import annotations

import argparse
import errno
import gc
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.arguments import Command, build_parser
from ptqbench.errors import UserError

if TYPE_CHECKING:
    from ptqbench.reporting.result import Report

_STARTED = time.perf_counter()

_FOREGONE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""What the operating system refuses and the user can change."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ptqbench from the command line.

    Args:
        argv: Arguments; by default those of the process.

    Returns:
        The exit code.
    """
    try:
        args = build_parser({"run": _run, "predict": _predict, "list": _list}).parse_args(argv)
        command: Command = args.command
        return command(args)
    except UserError as error:
        return _refuse(str(error))
    except OSError as error:
        if error.errno not in _FOREGONE:
            raise
        where = "" if error.filename is None else f": {error.filename}"
        return _refuse(f"{error.strerror}{where}. Nothing was left half-written there.")
    except KeyboardInterrupt:
        print("\nptqbench: interrupted; no result was written.", file=sys.stderr)
        return 130


def _refuse(sentence: str) -> int:
    print(f"ptqbench: error: {sentence}", file=sys.stderr)
    return 2


def _run(args: argparse.Namespace) -> int:
    to_stdout = args.json == "-"
    if args.json is not None and not to_stdout:
        from ptqbench.reporting.json_report import check_writable

        check_writable(Path(args.json))
    _check_sources(args)
    from ptqbench import validation
    from ptqbench.phases import Phases
    from ptqbench.reporting.progress import progress_display

    # What has been imported is no garbage: the collections before timing need not look at it.
    gc.freeze()
    phases = Phases()
    phases.add("start and imports", time.perf_counter() - _STARTED)
    settings = validation.RunSettings(
        data=args.data,
        weights=args.weights,
        overrides=_overrides(args),
        input_size=args.input_size,
        batch_size=args.batch_size,
        threads=args.threads,
        seed=args.seed,
        artifacts=args.artifacts,
    )
    models, backends = (tuple(dict.fromkeys(names or ())) for names in (args.models, args.backend))
    with progress_display() as progress:
        report = validation.run(models, backends or None, settings, progress, phases)
    report = replace(report, phases=phases.records(), wall_seconds=time.perf_counter() - _STARTED)
    _present(report, args)
    return report.exit_code(args.strict)


def _present(report: Report, args: argparse.Namespace) -> None:
    """Write the result first: a terminal that goes away must not take it along."""
    from ptqbench.reporting import console, json_report, terminal, timings

    readable = sys.stdout
    if args.json == "-":
        readable = sys.stderr
        console.write(json_report.to_json(report), sys.stdout)
    elif args.json is not None:
        json_report.write_json(report, Path(args.json))
    console.show(terminal.report_view(report, console.width_of(readable)), readable)
    if args.timings:
        assert report.wall_seconds is not None
        console.show(timings.timings_view(report.phases, report.wall_seconds), readable)


def _predict(args: argparse.Namespace) -> int:
    image = Path(args.image)
    if not image.is_file():
        missing = "is a folder" if image.is_dir() else "does not exist"
        raise UserError(f"Cannot read the image {image}: it {missing}. Name an image file.")
    _check_sources(args)
    from ptqbench import validation
    from ptqbench.reporting import console, prediction
    from ptqbench.reporting.progress import progress_display

    with progress_display() as progress:
        found = validation.predict(
            image,
            model=args.model,
            backend=args.backend,
            weights=args.weights,
            data=args.data,
            overrides=_overrides(args),
            seed=args.seed,
            progress=progress,
        )
    console.show(prediction.prediction_view(found, image.name))
    return 0


def _list(args: argparse.Namespace) -> int:
    from ptqbench.reporting import console, inventory, listing

    found = inventory.inventory()
    if args.json:
        console.write(found.to_json(), sys.stdout)
    else:
        console.show(listing.inventory_view(found))
    return 0


def _check_sources(args: argparse.Namespace) -> None:
    """Say what can be said about weights, data and cache without reading them.

    Raises:
        UserError: A path does not exist, or is not what it should be.
    """
    if args.weights != "fixture" and not Path(args.weights).is_file():
        raise UserError(
            f"There are no weights at {args.weights}: it is neither a file nor `fixture`. "
            "Name a safetensors file or a plain state dict."
        )
    if args.data != "fixture" and not Path(args.data).is_dir():
        raise UserError(
            f"There are no images at {args.data}: it is neither a folder nor `fixture`. "
            "Name a folder that holds one folder of images per class."
        )
    if args.cache_dir is not None:
        # Through the environment it also reaches processes that generate images.
        os.environ["PTQBENCH_CACHE"] = args.cache_dir


def _overrides(args: argparse.Namespace) -> dict[str, object]:
    """What the options say about preprocessing and classes, by the sidecar's names."""
    names = ("resize", "crop", "mean", "std", "interpolation", "classes")
    given = {name: getattr(args, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}
