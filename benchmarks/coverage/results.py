"""The committed record of the whole matrix, ``fixtures/coverage.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.coverage import keys
from benchmarks.coverage.records import accuracy_of, judge_again, verdicts
from benchmarks.coverage.sweep import RESTRICTED
from ptqbench.evaluation.result import worst
from ptqbench.gates.accuracy import retained_share
from ptqbench.gates.gate import Verdict
from ptqbench.gates.soundness import is_guessing
from ptqbench.recipes import Recipe
from ptqbench.recipes.family import family

SCHEMA_VERSION = 1
_OF_MODEL = (
    "weights",
    "weights_facts",
    "parameters",
    "macs",
    "input_shape",
    "evaluation_side",
    "evaluation_images",
    "fused_groups",
    "int8_modules",
)
_OF_CASE = (
    "accuracy",
    "size",
    "speed",
    "speed_reason",
    "instruction_set",
    "kernels_for",
    "fused",
    "int8_share_of_macs",
    "calibration_images",
    "float32_lowering",
)

Json = Mapping[str, Any]


def case_record(recipe: Recipe, name: str, result: Json) -> dict[str, Any]:
    """A stored case, judged by what its recipe asks for now."""
    case = result["cases"][name]
    carried_out = keys.eager(recipe) if name == keys.EAGER else recipe
    backend = case.get("backend", recipe.backend if name == keys.EAGER else name)
    record = {
        "model": recipe.model,
        "case": name,
        "backend": backend,
        "flow": carried_out.flow,
        "recipe": carried_out.hash,
        "method": keys.method(carried_out, backend, instructions_of(case, result)),
        "status": case["status"],
    }
    if case["status"] != "measured":
        return {**record, "reason": case["reason"], "verdict": Verdict.UNVERIFIED.value}
    asked = recipe.thresholds_for(result["weights"])
    gates = judge_again(case, asked, result["input_shape"])
    return {
        **record,
        "verdict": worst(gate.verdict for gate in gates).value,
        **{field: case[field] for field in _OF_CASE if field in case},
        **numbers(case),
        **verdicts(gates),
    }


def instructions_of(case: Json, result: Json) -> str | None:
    """The instruction set that a case was carried out on, whatever came of it."""
    found: str | None = case.get("instruction_set") or result.get("machine", {}).get(
        "instruction_set"
    )
    return found


def numbers(case: Json) -> dict[str, Any]:
    """Metrics of a measured case with their intervals and sample sizes, as reports name them."""
    accuracy = accuracy_of(case)
    assert accuracy.top1 is not None
    metrics = {
        "float32_top1": accuracy.float32_top1,
        "int8_top1": accuracy.int8_top1,
        "agreement": accuracy.agreement.value,
        "sqnr_db": accuracy.sqnr_db,
        "size_ratio": case["size"][0] / case["size"][1],
    }
    intervals = {
        "agreement": [accuracy.agreement.low, accuracy.agreement.high],
        "sqnr_db": [accuracy.sqnr.low, accuracy.sqnr.high],
    }
    if not is_guessing(accuracy):
        kept = retained_share(accuracy.top1)
        metrics["accuracy"] = kept.value
        intervals["accuracy"] = [kept.low, kept.high]
    sizes = {"evaluation_images": accuracy.n}
    if "speed" in case:
        metrics["speedup"], *intervals["speedup"] = case["speed"]["speedup"]
        sizes["pairs"] = case["speed"]["pairs"]
    return {"metrics": _rounded(metrics), "intervals": _rounded(intervals), **sizes}


def _rounded(value: Any) -> Any:
    """Five digits; what is no number is None, as JSON has it."""
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if math.isfinite(value) else None


def record(
    recipes: Mapping[str, Recipe],
    results: Mapping[str, Mapping[str, Json]],
    expected: Mapping[str, Sequence[str]],
) -> Json:
    """Everything that is committed.

    Args:
        recipes: By model.
        results: Of each model, by how the CPU was restricted.
        expected: The cases of every model; the first run has an entry for each, measured or not.
    """
    runs = {}
    for cpu, by_model in results.items():
        machines = [result["machine"] for result in by_model.values() if "machine" in result]
        machine = machines[0] if machines else {}
        newer = set(machine.get("flags", [])) - {cpu, "fma"}  # else nothing was left alone
        wanted = expected if not runs else {model: () for model in by_model}
        models = {model: by_model.get(model, {}) for model in wanted}
        runs[cpu] = {
            "machine": machine,
            "environment": RESTRICTED[cpu] if newer else {},
            "models": {model: _model(model, result) for model, result in models.items()},
            "cases": [
                case_record(recipes[model], name, _with(result, name))
                for model, result in models.items()
                for name in dict.fromkeys((*wanted[model], *result.get("cases", ())))
            ],
        }
    return {"schema_version": SCHEMA_VERSION, "runs": runs}


def _model(model: str, result: Json) -> dict[str, Any]:
    known = {field: result[field] for field in _OF_MODEL if field in result}
    return {"family": family(model), "weights": keys.weights_of(model), **known}


def _with(result: Json, name: str) -> Json:
    """The result, with a case that says so where there is none."""
    cases = result.get("cases", {})
    return result if name in cases else {**result, "cases": {**cases, name: UNMEASURED}}


UNMEASURED = {"status": "missing", "reason": "it has not been measured yet"}


def results_of(content: Json) -> dict[str, dict[str, dict[str, Any]]]:
    """The results that a record was made of, by how the CPU was restricted and by model."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for cpu, run in content["runs"].items():
        for case in run["cases"]:
            if case["status"] == UNMEASURED["status"]:
                continue
            model = case["model"]
            if model not in found.setdefault(cpu, {}):
                shared = {**run["models"][model], "machine": run["machine"], "cases": {}}
                found[cpu][model] = shared
            found[cpu][model]["cases"][case["case"]] = case
    return found


def of_today(recipe: Recipe, result: Json) -> dict[str, Any]:
    """The result with those cases of a record that the recipe would still make like that."""

    def holds(name: str, case: Json) -> bool:
        carried_out = keys.eager(recipe) if name == keys.EAGER else recipe
        now = keys.method(carried_out, case["backend"], instructions_of(case, result))
        return bool(case["method"] == now)

    return {**result, "cases": {n: c for n, c in result["cases"].items() if holds(n, c)}}


def render(content: Json) -> str:
    """The text of the file, a model or a case in each line."""
    runs = []
    for cpu, run in content["runs"].items():
        models = ",\n".join(f"{json.dumps(k)}: {_line(v)}" for k, v in run["models"].items())
        cases = ",\n".join(_line(case) for case in run["cases"])
        head = f'"machine": {_line(run["machine"])},\n"environment": {_line(run["environment"])}'
        body = f'{head},\n"models": {{\n{models}\n}},\n"cases": [\n{cases}\n]'
        runs.append(f"{json.dumps(cpu)}: {{\n{body}\n}}")
    body = ",\n".join(runs)
    return f'{{\n"schema_version": {content["schema_version"]},\n"runs": {{\n{body}\n}}\n}}\n'


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
