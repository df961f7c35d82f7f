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
        status = "died" if evidence.unavailable.startswith(_PROCESS) else "refused"
        return {"backend": case.backend, "status": status, "reason": evidence.unavailable}
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
        "gates": {gate.name: gate.verdict for gate in case.gates},
        "details": {g.name: g.detail for g in case.gates if g.verdict is not Verdict.PASS},
    }


def rounded(value: float | None) -> float | None:
    """Return seven significant digits, None for what is not a finite number; integers stay."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.7g}") if math.isfinite(value) else None


def estimate(case: Json, name: str) -> Estimate:
    """Return a recorded estimate; a missing number is minus infinity, a missing end infinity."""
    value, (low, high) = case["metrics"].get(name, 1.0), case["intervals"][name]
    if high is None and low is not None:
        high = math.inf
    n = case["pairs"] if name in ("speedup", "noise") else case["evaluation_images"]
    value, low, high = (-math.inf if x is None else x for x in (value, low, high))
    return Estimate(value, low, high, n)


def judged(case: Json, thresholds: Thresholds) -> dict[str, Verdict]:
    """Return the verdicts of all gates on a recorded case under thresholds."""
    verdicts = {name: Verdict(verdict) for name, verdict in case["gates"].items()}
    for gate, names in (("accuracy", ["accuracy"]), ("agreement", ["agreement", "sqnr_db"])):
        if verdicts[gate] is not Verdict.UNVERIFIED:
            required = {n: x for n in names if (x := getattr(thresholds, n)) is not None}
            verdicts[gate] = worst(decide(estimate(case, n), x) for n, x in required.items())
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
        facts, shared = case.facts, run["models"].get(model, {})
        origin = {n: v for n, v in facts.items() if n.startswith(("weights_", "probe_"))}
        run["models"][model] = {
            **shared,
            **{"family": family(model), "weights": case.weights, "weights_facts": origin},
            **{name: facts[name] for name in ("macs", "input_shape", "evaluation_images")},
            "fused_groups": shared.get("fused_groups", evidence.measurements["fusion"].groups),
            "int8_modules": evidence.measurements["conversion"].promised,
        }
    run["cases"].setdefault(model, {})[name] = case_record(case, evidence)


def entries(run: Json, model: str) -> Iterator[dict[str, Any]]:
    """Return the lines of a model's cases, judged by what its recipe requires now."""
    for name, (recipe, planned) in plan.cases_of(model).items():
        case = run["cases"].get(model, {}).get(name, UNMEASURED)
        backend = case.get("backend", planned)
        method = plan.method(recipe, backend, run["machine"]["instruction_set"])
        if case.get("method", method) != method:
            case = UNMEASURED
        line = {"model": model, "case": name, "backend": backend, "flow": recipe.flow}
        line |= {"method": method, **case, "recipe": recipe.hash, "verdict": Verdict.UNVERIFIED}
        if case["status"] == "measured":
            weights = run["models"][model]["weights"]
            line["gates"] = verdicts = judged(case, recipe.thresholds_for(weights))
            line["verdict"] = worst(verdicts.values())
            details = {**dict.fromkeys(verdicts, "By thresholds set since."), **case["details"]}
            line["details"] = {g: details[g] for g, v in verdicts.items() if v is not Verdict.PASS}
        yield line


def render(runs: Runs) -> str:
    """Return the text of the file; only the first run has cases that were not measured."""
    texts: dict[str, str] = {}
    for cpu, run in runs.items():
        first = not texts
        names = [name for name in RECIPES.names() if first or name in run["cases"]]
        models = {n: _json(run["models"].get(n, {"family": family(n)})) for n in names}
        lines = [line for name in names for line in entries(run, name)]
        cases = [_json(x) for x in lines if first or x["status"] != UNMEASURED["status"]]
        parts = {"machine": _json(run["machine"]), "models": _object(models)}
        texts[cpu] = _object(parts | {"cases": "[\n" + ",\n".join(cases) + "\n]"})
    return _object({"schema_version": _json(SCHEMA_VERSION), "runs": _object(texts)}) + "\n"


def _object(texts: Mapping[str, str]) -> str:
    """Return a JSON object with a member on each line, from the JSON of its members."""
    return "{\n" + ",\n".join(f"{_json(name)}: {text}" for name, text in texts.items()) + "\n}"
