"""The committed record of the matrix, ``fixtures/coverage.json``: the numbers of each case."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from benchmarks.coverage import plan
from ptqbench.evaluation.coverage_record import SCHEMA_VERSION
from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.gates import Evidence, Verdict, evaluate, worst
from ptqbench.gates.accuracy import retained_share
from ptqbench.gates.gate import decide
from ptqbench.gates.soundness import is_guessing
from ptqbench.measurement.intervals import Estimate
from ptqbench.measurement.size import Size
from ptqbench.measurement.speed import Speed
from ptqbench.recipes import RECIPES
from ptqbench.recipes.family import family
from ptqbench.settings.thresholds import Thresholds

JUDGED_AGAIN = ("accuracy", "agreement", "size", "speedup")
"""Gates that thresholds decide; the others say the same whatever the thresholds are."""
_PROCESS = ("It did not end", "Its process")
"""Beginnings of the reasons of cases whose process is to blame, and not torch."""
UNMEASURED = {"status": "missing", "reason": "it has not been measured yet"}

_FACTS = ["evaluation_images", "calibration_images", "int8_share_of_macs", "float32_lowering"]
_FACTS += ["threads", "pairs"]

_json = partial(json.dumps, ensure_ascii=False)
Json = Mapping[str, Any]
Runs = dict[str, dict[str, Any]]
"""By name: ``machine``, ``models``, and ``cases`` by model and name."""


def case_record(case: CaseResult, evidence: Evidence) -> dict[str, Any]:
    """Return what the record has of a case, judged by what its recipe requires now."""
    if evidence.unavailable is not None:
        died = evidence.unavailable.startswith(_PROCESS)
        status, reason = "died" if died else "refused", evidence.unavailable
        return {"backend": case.backend, "status": status, "reason": reason}
    case = case.judged_by(RECIPES.get(case.model).thresholds_for(case.weights))
    accuracy, speed, fusion = (evidence.measurements[n] for n in ("accuracy", "speed", "fusion"))
    estimates = {"agreement": accuracy.agreement, "sqnr_db": accuracy.sqnr}
    estimates |= {"speedup": speed.speedup, "noise": speed.noise}
    metrics = dict(case.metrics)
    if not is_guessing(accuracy):
        estimates["accuracy"] = retained_share(accuracy.top1)
        metrics["accuracy"] = estimates["accuracy"].value
    return {
        "backend": case.backend,
        "status": "measured",
        "instruction_set": evidence.instruction_set,
        "kernels_for": list(evidence.kernels_for),
        **{name: case.facts[name] for name in _FACTS},
        "fused": [fusion.fused, fusion.groups],
        "metrics": {name: rounded(value) for name, value in metrics.items()},
        "intervals": {n: [rounded(each.low), rounded(each.high)] for n, each in estimates.items()},
        "gates": {gate.name: gate.verdict.value for gate in case.gates},
        "details": {g.name: g.detail for g in case.gates if g.verdict is not Verdict.PASS},
    }


def model_record(case: CaseResult, evidence: Evidence) -> dict[str, Any]:
    """Return what the cases of a model share."""
    facts = case.facts
    return {
        "family": family(case.model),
        "weights": case.weights,
        "weights_facts": {n: v for n, v in facts.items() if n.startswith(("weights_", "probe_"))},
        **{name: facts[name] for name in ("macs", "input_shape", "evaluation_images")},
        "int8_modules": evidence.measurements["conversion"].promised,
    }


def rounded(value: float | None) -> float | None:
    """Return seven significant digits, None for what is not a finite number; integers stay."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.7g}") if math.isfinite(value) else None


def estimate(case: Json, name: str) -> Estimate:
    """Return a recorded estimate; what is not a number is minus infinity."""
    low, high = (-math.inf if x is None else x for x in case["intervals"][name])
    n = case["pairs"] if name in ("speedup", "noise") else case["evaluation_images"]
    value = case["metrics"].get(name, 1.0)
    return Estimate(-math.inf if value is None else value, low, high, n)


def judged(case: Json, thresholds: Thresholds) -> dict[str, Verdict]:
    """Return the verdicts of all gates on a recorded case under thresholds."""
    verdicts = {name: Verdict(verdict) for name, verdict in case["gates"].items()}
    for gate, names in (("accuracy", ("accuracy",)), ("agreement", ("agreement", "sqnr_db"))):
        required = {name: getattr(thresholds, name) for name in names}
        if verdicts[gate] is not Verdict.UNVERIFIED:
            decided = [decide(estimate(case, n), x) for n, x in required.items() if x is not None]
            verdicts[gate] = worst(decided)
    metrics = case["metrics"]
    measurements: dict[str, Any] = {"size": Size(metrics["float32_bytes"], metrics["int8_bytes"])}
    if "speedup" in case["intervals"]:
        speedup, noise = estimate(case, "speedup"), estimate(case, "noise")
        times = (metrics["float32_latency_ms"], metrics["int8_latency_ms"])
        measurements["speed"] = Speed(speedup, *times, noise, case["pairs"], case["threads"], ())
    kernels = tuple(case["kernels_for"])
    evidence = Evidence(thresholds, case["instruction_set"], measurements, kernels_for=kernels)
    return verdicts | {g.name: g.verdict for g in evaluate(evidence, ("size", "speedup"))}


def stored_runs(content: Json) -> Runs:
    """Return the runs of a record, their cases by model and name, without unmeasured ones."""
    runs: Runs = {cpu: {**run, "cases": {}} for cpu, run in content["runs"].items()}
    for cpu, run in content["runs"].items():
        for case in (each for each in run["cases"] if each["status"] != UNMEASURED["status"]):
            runs[cpu]["cases"].setdefault(case["model"], {})[case["case"]] = case
    return runs


def add_report(runs: Runs, cpu: str, report: Report, name: str) -> None:
    """Add a measured case to the runs, in place of an earlier one."""
    (case,) = report.cases
    machine, evidence, model = dict(report.machine), case.evidence, case.model
    assert evidence is not None
    run = runs.setdefault(cpu, {"machine": machine, "models": {}, "cases": {}})
    if (before := run["machine"]["instruction_set"]) != machine["instruction_set"]:
        raise ValueError(f"The run {cpu} would mix {before} and {machine['instruction_set']}.")
    if evidence.unavailable is None:
        shared = run["models"].get(model, {})
        groups = shared.get("fused_groups", evidence.measurements["fusion"].groups)
        run["models"][model] = {**shared, **model_record(case, evidence), "fused_groups": groups}
    run["cases"].setdefault(model, {})[name] = case_record(case, evidence)


def entries(run: Json, model: str, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Return the lines of a model's cases, judged by what its recipe requires now."""
    recipe = RECIPES.get(model)
    shared = run["models"].get(model, {})
    for name in names:
        variant = plan.eager(recipe) if name == plan.EAGER else recipe
        case = run["cases"].get(model, {}).get(name, UNMEASURED)
        backend = case.get("backend", recipe.backend if name == plan.EAGER else name)
        now = plan.method(variant, backend, run["machine"].get("instruction_set"))
        if case.get("method", now) != now:
            case = UNMEASURED
        head = {"model": model, "case": name, "backend": backend, "flow": variant.flow}
        line = {**head, "method": now, **case, "recipe": variant.hash}
        if case["status"] != "measured":
            yield {**line, "verdict": Verdict.UNVERIFIED.value}
            continue
        verdicts = judged(case, recipe.thresholds_for(shared["weights"]))
        failures = [gate for gate, verdict in verdicts.items() if verdict is not Verdict.PASS]
        yield {
            **line,
            "verdict": worst(verdicts.values()).value,
            "gates": {gate: verdict.value for gate, verdict in verdicts.items()},
            "details": {n: case["details"].get(n, "By thresholds set since.") for n in failures},
        }


def render(runs: Runs) -> str:
    """Return the text of the file; only the first run has cases that were not measured."""
    parts = []
    for cpu, run in runs.items():
        names = RECIPES.names() if not parts else [n for n in RECIPES.names() if n in run["cases"]]
        models = {name: run["models"].get(name, {"family": family(name)}) for name in names}
        lines = [
            _json(entry)
            for name in names
            for entry in entries(run, name, plan.cases_of(name))
            if not parts or entry["status"] != UNMEASURED["status"]
        ]
        shared = ",\n".join(f"{_json(name)}: {_json(each)}" for name, each in models.items())
        cases = ",\n".join(lines)
        head = f'{_json(cpu)}: {{\n"machine": {_json(run["machine"])},\n'
        parts.append(f'{head}"models": {{\n{shared}\n}},\n"cases": [\n{cases}\n]\n}}')
    joined = ",\n".join(parts)
    return f'{{\n"schema_version": {SCHEMA_VERSION},\n"runs": {{\n{joined}\n}}\n}}\n'
