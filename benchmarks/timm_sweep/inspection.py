"""One architecture in a process of its own: quantize it, and ask the gates that look inside."""

from __future__ import annotations

import json
import time
import traceback
import warnings
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.timm_sweep.network import create
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.core.phases import Phases
from ptqbench.core.user_code import first_line
from ptqbench.data.image_set import Data
from ptqbench.data.random_images import RandomImages
from ptqbench.errors import UserError
from ptqbench.evaluation.case import CaseEvaluation
from ptqbench.evaluation.float_reference import FloatReference
from ptqbench.evaluation.int8_artifact import build_int8
from ptqbench.evaluation.machine import machine_facts
from ptqbench.evaluation.open_subject import open_module_subject
from ptqbench.gates import Verdict
from ptqbench.measurement.artifact_inspection import INSPECTIONS
from ptqbench.measurement.replay import ReplayProcess
from ptqbench.models.custom.registration import open_recipe
from ptqbench.settings.run_settings import RunSettings

BACKEND = "onednn"
_IMAGES = 8
"""For calibration; every layer sees them."""


def inspect(name: str, file: Path) -> None:
    """Write what becomes of an architecture: gates and their sentences, or why it is refused.

    Args:
        name: As timm has it.
        file: JSON; without a ``status`` if the process ends before there is one.
    """
    start = time.perf_counter()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    record: dict[str, Any] = {}
    phases = Phases()
    try:
        model, side = create(name)
        record = {"family": type(model).__module__.rpartition(".")[2], "side": side}
        file.write_text(json.dumps(record), "utf-8")
        record |= _judged(name, model, side, phases)
    except UserError as error:
        record |= {"status": "refused", "reason": str(error)}
    except Exception as error:
        traceback.print_exc()
        record |= {"status": "died", "reason": first_line(error)}
    record["seconds"] = round(time.perf_counter() - start, 1)
    record["phases"] = {phase.name: round(phase.seconds, 1) for phase in phases.records()}
    record["machine"] = {**machine_facts(), "timm": version("timm")}
    file.write_text(json.dumps(record), "utf-8")


def _judged(name: str, model: nn.Module, side: int, phases: Phases) -> dict[str, Any]:
    backend = BACKENDS.get(BACKEND)
    recipe = replace(open_recipe(name), backend=BACKEND, calibration_images=_IMAGES)
    data = Data("random images", RandomImages(side, 0), RandomImages(side, 1))
    with ExitStack() as stack:
        process = stack.enter_context(ReplayProcess())
        subject = open_module_subject(
            model, recipe, RunSettings(threads=1), stack, phases=phases, data=data
        )
        artifact = build_int8(subject, backend, phases)
        reference = FloatReference(subject, backend, phases)
        case = CaseEvaluation(subject, backend, artifact, reference, process=process, phases=phases)
        result = case.judge(INSPECTIONS)
    right = all(gate.verdict is Verdict.PASS for gate in result.gates)
    return {
        "status": "right" if right else "wrong",
        "int8": subject.complete().int8_modules,
        "gates": {gate.name: gate.verdict for gate in result.gates},
        "details": {g.name: g.detail for g in result.gates if g.verdict is not Verdict.PASS},
    }
