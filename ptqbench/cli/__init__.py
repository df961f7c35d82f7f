"""The command line: ``run``, ``gate``, ``predict``, ``recipe``, ``list``, ``show-config``.

Nothing is imported at the top that takes time or brings torch along, so that ``--help``
and every mistake that can be seen from the arguments alone are answered at once.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ptqbench.cli.parser import Command, build_parser
from ptqbench.cli.report_output import conclude, report_outputs
from ptqbench.core.paths import is_dir, is_file, user_path
from ptqbench.core.process import exempt_imports_from_collection
from ptqbench.errors import UserError
from ptqbench.settings.data_specifier import check_source
from ptqbench.settings.weights_specifier import check_weights

if TYPE_CHECKING:
    from ptqbench.settings.layers import Settings
    from ptqbench.settings.requests import CaseRequest

_STARTED = time.perf_counter()

_FOREGONE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP),
)
"""What the operating system refuses and the user can change."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ptqbench from the command line.

    Args:
        argv: Arguments; by default those of the process.

    Returns:
        The exit code.
    """
    try:
        commands = {
            "run": _run,
            "gate": _gate,
            "predict": _predict,
            "recipe": _recipe,
            "list": _list,
            "show-config": _show_config,
        }
        args = build_parser(commands).parse_args(argv)
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
    _check_sources(args)
    from ptqbench.settings import requests

    settings = requests.settings_of(args, args.models)
    chosen = requests.case_requests(settings, _overrides(args), args.artifacts)
    outputs = report_outputs(args, settings)
    strict = settings.value("profile").value == "ci" if args.strict is None else args.strict
    from ptqbench.measurement.replay import ReplayProcess

    with ReplayProcess() as fresh:  # it imports torch beside this process
        from ptqbench.core.phases import Phases
        from ptqbench.evaluation import run as validation
        from ptqbench.reporting.progress_display import progress_display

        exempt_imports_from_collection()
        phases = Phases()
        phases.add("start and imports", time.perf_counter() - _STARTED)
        with progress_display(lines=not args.quiet) as progress:
            report = validation.run_requests(chosen, progress, phases, fresh)
    report = replace(report, phases=phases.records(), wall_seconds=time.perf_counter() - _STARTED)
    return conclude(report, outputs, timings=args.timings, strict=strict)


def _gate(args: argparse.Namespace) -> int:
    from ptqbench.backends.registry import recognize

    artifact = user_path(args.artifact)
    recognize(artifact)
    _check_sources(args)
    from ptqbench.settings import requests

    settings = requests.settings_of(args, [args.model])
    request = _one_request(args, settings)
    outputs = report_outputs(args, settings)
    strict = settings.value("profile").value == "ci" if args.strict is None else args.strict
    from ptqbench.core.phases import Phases
    from ptqbench.evaluation import foreign as gating
    from ptqbench.reporting.progress_display import progress_display

    phases = Phases()
    phases.add("start and imports", time.perf_counter() - _STARTED)
    with progress_display(lines=not args.quiet) as progress:
        report = gating.gate(
            request.model,
            artifact,
            requests.one_backend(request),
            request.settings,
            keep_float=args.keep_float,
            progress=progress,
            phases=phases,
        )
    report = replace(report, phases=phases.records(), wall_seconds=time.perf_counter() - _STARTED)
    return conclude(report, outputs, timings=args.timings, strict=strict)


def _predict(args: argparse.Namespace) -> int:
    image = user_path(args.image)
    if not is_file(image):
        missing = "is a folder" if is_dir(image) else "does not exist"
        raise UserError(f"Cannot read the image {image}: it {missing}. Name an image file.")
    _check_sources(args)
    from ptqbench.settings import requests

    request = _one_request(args, requests.settings_of(args, [args.model]))
    from ptqbench.evaluation import run as validation
    from ptqbench.reporting import console
    from ptqbench.reporting import prediction_table as prediction
    from ptqbench.reporting.progress_display import progress_display

    with progress_display(lines=False) as progress:
        found = validation.predict(image, request, progress)
    console.show(prediction.prediction_view(found, image.name))
    return 0


def _one_request(
    args: argparse.Namespace, settings: Settings, option: str = "--model"
) -> CaseRequest:
    """What is asked for the one model of a command that takes one.

    Raises:
        UserError: The name is a wildcard for several, or there is no such model.
    """
    from ptqbench.settings import requests

    chosen = requests.case_requests(settings, _overrides(args), None)
    if len(chosen) > 1:
        raise UserError(f"{option} takes one name, but {args.model} is several. Name one.")
    return chosen[0]


def _recipe(args: argparse.Namespace) -> int:
    _check_sources(args)
    from ptqbench.settings import requests
    from ptqbench.settings.layers import DEFAULT

    settings = requests.settings_of(args, [args.model])
    request = _one_request(args, settings, "MODEL")
    given = {n: settings.value(n, request.model).origin != DEFAULT for n in ("weights", "data")}
    from ptqbench.evaluation import recipe_proposal as proposing
    from ptqbench.reporting import console
    from ptqbench.reporting.progress_display import progress_display

    with progress_display() as progress:
        text = proposing.propose(
            request,
            weights=given["weights"],
            images=given["weights"] and given["data"],
            keep_float=args.keep_float,
            progress=progress,
        )
    console.write(text, sys.stdout)
    return 0


def _list(args: argparse.Namespace) -> int:
    from ptqbench.reporting import console, inventory
    from ptqbench.reporting import inventory_table as listing
    from ptqbench.settings import requests

    requests.settings_of(args)  # registers models of the user's own
    found = inventory.inventory()
    if args.json:
        console.write(found.to_json(), sys.stdout)
    else:
        console.show(listing.inventory_view(found))
    return 0


def _show_config(args: argparse.Namespace) -> int:
    from ptqbench.reporting import console
    from ptqbench.reporting import settings_table as settings_view
    from ptqbench.settings import requests

    settings = requests.settings_of(args, args.models)
    console.show(settings_view.settings_view(settings, settings.chosen_models()))
    return 0


def _check_sources(args: argparse.Namespace) -> None:
    """Say what can be said about weights, data and cache without reading them.

    Raises:
        UserError: A path does not exist, or is not what it should be.
    """
    if args.weights is not None:
        check_weights(args.weights)
    if args.data is not None:
        check_source(args.data)
    if args.cache_dir is not None:
        # Through the environment it also reaches processes that generate images.
        os.environ["PTQBENCH_CACHE"] = args.cache_dir


def _overrides(args: argparse.Namespace) -> dict[str, object]:
    """What the options say about preprocessing and classes, by the sidecar's names."""
    names = ("resize", "crop", "mean", "std", "interpolation", "classes")
    given = {name: getattr(args, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}
