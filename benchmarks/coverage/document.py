"""The generated block of docs/coverage.md, from the committed record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from benchmarks.blocks import table
from benchmarks.coverage.plan import EAGER
from benchmarks.coverage.record import Json
from ptqbench.recipes.family import FAMILIES, OTHER
from ptqbench.reporting.format import MISSING

HEADING = ("Family", "Models", "Cases", "pass", "fail", "inconclusive", "unverified", "Recommended")
_WORST_FIRST = ("fail", "inconclusive", "unverified")
_TITLE = "{cpu}, {instruction_set}"
_MACHINE = "{physical_cores} cores, {system}, Python {python}, torch {torch}."
_STATUS = {"refused": "torch refuses", "died": "did not finish", "missing": "not measured yet"}


def body(content: Json, recommended: Mapping[str, str]) -> str:
    """Return the generated block, from the record and the backends that recipes recommend."""
    runs = content["runs"].values()
    titles = [_TITLE.format(**run["machine"]) for run in runs]
    cases = [(case, run["machine"]["instruction_set"]) for run in runs for case in run["cases"]]
    chosen = [(case, cpu) for case, cpu in cases if case["case"] == recommended.get(case["model"])]
    models = {case["model"] for case, _ in cases}
    passed = {case["model"] for case, _ in chosen if case["verdict"] == "pass"}
    parts = [
        f"**{len(passed)} of {len(models)} models pass every gate on their recommended backend** "
        f"({' or '.join(titles)}). What keeps the others from it, there:"
    ]
    lines: dict[str, list[str]] = {}
    for case, cpu in chosen:
        if case["model"] not in passed:
            start = f"- `{case['model']}` on {case['backend']}: "
            lines.setdefault(start, []).append(f"{outcome(case)} ({cpu})")
    parts.append("\n".join(start + ", ".join(ends) for start, ends in sorted(lines.items())))
    for title, run in zip(titles, runs, strict=True):
        parts += [f"## {title}", _MACHINE.format(**run["machine"]), _summary(run, recommended)]
        parts += ["What does not pass:", "\n".join(_failures(run))]
    return "\n\n".join(parts)


def _summary(run: Json, recommended: Mapping[str, str]) -> str:
    families = {name: model["family"] for name, model in run["models"].items()}
    rows = []
    for family in (*(name for name in (*FAMILIES, OTHER) if name in families.values()), ""):
        cases = [c for c in run["cases"] if not family or families[c["model"]] == family]
        verdicts = Counter(case["verdict"] for case in cases)
        chosen = [c["verdict"] for c in cases if c["case"] == recommended.get(c["model"])]
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
    others = [name for name in run["models"] if name not in models]
    if len(models) <= len(others):
        return ", ".join(models)
    return f"all but {', '.join(others)}" if others else "every model"


def outcome(case: Json) -> str:
    """Return the gates that did not pass by verdict, or why there is no verdict."""
    if case["status"] != "measured":
        return f"{_STATUS[case['status']]}: {case['reason']}"
    texts = []
    for kind in _WORST_FIRST:
        if names := [name for name, verdict in case["gates"].items() if verdict == kind]:
            texts.append(f"{kind}: {', '.join(names)}")
    return "; ".join(texts)
