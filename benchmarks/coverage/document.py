"""The generated block of docs/coverage.md, from the committed record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.blocks import table
from benchmarks.coverage.plan import EAGER
from ptqbench.core.names import first_few
from ptqbench.recipes.family import FAMILIES, OTHER
from ptqbench.reporting.format import MISSING

HEADING = ("Family", "Models", "Cases", "pass", "fail", "inconclusive", "unverified", "Recommended")
_WORST_FIRST = ("fail", "inconclusive", "unverified")
_MACHINE = "{physical_cores} cores, {system}, Python {python}, torch {torch}."
_STATUS = {"refused": "torch refuses", "died": "did not finish", "missing": "not measured yet"}

Json = Mapping[str, Any]


def body(content: Json, recommended: Mapping[str, str]) -> str:
    """Return the generated block, from the record and the backends that recipes recommend."""
    runs = content["runs"].values()
    chosen = [(case, run) for run in runs for case in run["cases"] if _is_chosen(case, recommended)]
    models = {case["model"] for run in runs for case in run["cases"]}
    passed = {case["model"] for case, _ in chosen if case["verdict"] == "pass"}
    parts = [
        f"**{len(passed)} of {len(models)} models pass every gate on their recommended backend** "
        f"({' or '.join(map(_title, runs))}). What keeps the others from it, there:"
    ]
    lines: dict[str, list[str]] = {}
    for case, run in chosen:
        if case["model"] not in passed:
            text = f"{outcome(case)} ({run['machine']['instruction_set']})"
            lines.setdefault(f"- `{case['model']}` on {case['backend']}: ", []).append(text)
    parts.append("\n".join(start + ", ".join(ends) for start, ends in sorted(lines.items())))
    for run in runs:
        parts += [f"## {_title(run)}", _MACHINE.format(**run["machine"])]
        parts += [_summary(run, recommended), "What does not pass:", "\n".join(_failures(run))]
    return "\n\n".join(parts)


def _title(run: Json) -> str:
    return "{cpu}, {instruction_set}".format(**run["machine"])


def _summary(run: Json, recommended: Mapping[str, str]) -> str:
    families = {name: model["family"] for name, model in run["models"].items()}
    rows = []
    for family in (*(name for name in (*FAMILIES, OTHER) if name in families.values()), ""):
        cases = [c for c in run["cases"] if not family or families[c["model"]] == family]
        verdicts = Counter(case["verdict"] for case in cases)
        chosen = [case["verdict"] for case in cases if _is_chosen(case, recommended)]
        passed = f"{chosen.count('pass')} of {len(chosen)} pass" if chosen else MISSING
        counts = [len({case["model"] for case in cases}), len(cases)]
        counts += [verdicts[name] for name in ("pass", *_WORST_FIRST)]
        rows.append((family or "**all**", *map(str, counts), passed))
    return table(HEADING, rows, right=range(1, 7))


def _failures(run: Json) -> Iterator[str]:
    """A line for each way not to pass, with the cases by backend."""
    groups: dict[str, dict[str, list[str]]] = {}
    for case in run["cases"]:
        if case["verdict"] != "pass":
            name = f"{case['backend']} {EAGER}" if case["case"] == EAGER else case["backend"]
            groups.setdefault(outcome(case), {}).setdefault(name, []).append(case["model"])
    order = (*_WORST_FIRST, *_STATUS.values())
    for reason in sorted(groups, key=lambda text: (order.index(text.partition(":")[0]), text)):
        places = [f"{name}: {_models(models, run)}" for name, models in groups[reason].items()]
        yield f"- **{reason}**: {'; '.join(places)}"


def _models(models: list[str], run: Json) -> str:
    everything = len(run["models"])
    if len(models) > everything / 2:
        rest = [name for name in run["models"] if name not in models]
        return f"all but {first_few(rest, everything)}" if rest else "every model"
    return ", ".join(models)


def outcome(case: Json) -> str:
    """Return the gates that did not pass by verdict, or why there is no verdict."""
    if case["status"] != "measured":
        return f"{_STATUS[case['status']]}: {case['reason']}"
    parts = [
        f"{kind}: {', '.join(names)}"
        for kind in _WORST_FIRST
        if (names := [name for name, verdict in case["gates"].items() if verdict == kind])
    ]
    return "; ".join(parts) or "pass"


def _is_chosen(case: Json, recommended: Mapping[str, str]) -> bool:
    return bool(case["case"] == recommended.get(case["model"]))
