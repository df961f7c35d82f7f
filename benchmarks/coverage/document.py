"""docs/coverage.md, from the committed record."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from benchmarks.blocks import table
from benchmarks.coverage import thresholds as rules
from benchmarks.coverage.plan import CALIBRATION, EVALUATION, GIANT, PAIRS, TRAINED_IMAGES
from benchmarks.coverage.records import accuracy_of
from ptqbench.recipes.family import FAMILIES, OTHER
from ptqbench.reporting.format import MISSING, decibel, percent, significant, span, times

COMMAND = "python -m benchmarks.coverage"
CASES = (
    "Model",
    "Backend",
    "Weights",
    "Fused groups",
    "int8 MACs %",
    "Agreement %",
    "SQNR",
    "Size",
    "Speedup (95 %)",
    "Verdict",
)
MODELS = (
    "Model",
    "Parameters",
    "GMACs",
    "Latency at",
    "int8 layers",
    "Images",
    "Calibrated with",
    "float32 top-1 %",
)
SUMMARY = ("Family", "Models", "Cases", "pass", "fail", "inconclusive", "unverified", "Recommended")
_WORST_FIRST = ("fail", "inconclusive", "unverified")

Json = Mapping[str, Any]


def document(content: Json, recommended: Mapping[str, str]) -> str:
    """The whole text.

    Args:
        content: Of ``fixtures/coverage.json``.
        recommended: The backend that each recipe recommends.
    """
    parts = [_HEAD, _overall(content, recommended)]
    for cpu, run in content["runs"].items():
        parts.append(f"## {_title(run)}\n\n{_machine(cpu, run)}")
        parts.append(_summary(run, recommended))
        parts += [_family(name, run, recommended) for name in _families(run)]
        parts.append(_reasons(run))
    parts.append(_METHOD)
    return "\n\n".join(part for part in parts if part).rstrip() + "\n"


def _overall(content: Json, recommended: Mapping[str, str]) -> str:
    """How many models pass somewhere: a later run may have what an earlier one lacks."""
    runs = content["runs"].values()
    models = {case["model"] for run in runs for case in run["cases"]}
    passed = set().union(*(_passed(run["cases"], recommended) for run in runs))
    cpus = " or ".join(_title(run) for run in runs)
    lines = [
        f"**{len(passed)} of {len(models)} models pass every gate on their recommended backend** "
        f"({cpus})."
    ]
    if others := sorted(models - passed):
        lines[0] += " What keeps the others from it, there:\n"
    for model in others:
        found = [
            f"{verdict(case) if case['status'] == 'measured' else _status(case)} "
            f"({run['machine'].get('instruction_set', '')})"
            for run in runs
            for case in run["cases"]
            if case["model"] == model and _recommended(case, recommended)
        ]
        lines.append(f"- `{model}` on {recommended.get(model)}: {', '.join(found)}")
    return "\n".join(lines)


_HEAD = f"""\
# Coverage

Every classifier that torchvision lists, on every backend. This page is written by `{COMMAND}
--write-docs` from `fixtures/coverage.json`, the record of a sweep; nothing in it is typed by
hand. `ptqbench list --json` gives the same matrix to programs.

How to read the tables:

- **Weights**: `fixture` is trained on the fixture images; `probe` is a seeded random network with
  a head that was solved for. What a probe keeps says that a recipe, its kernels and its numerics
  work. It says nothing about the accuracy of trained weights, and random networks suffer more
  from seven-bit weights than trained ones do ([recipes.md](recipes.md#by-family)).
- **Fused groups**: convolutions and linear layers that became one operator with the BatchNorm and
  ReLU behind them, of those that could. **int8 MACs**: share of the model's multiply-adds that
  the artifact does in int8; attention between activations counts as float32.
- **Agreement**: share of images for which float32 and int8 predict the same class. **SQNR**:
  power of the logits over that of their error. **Size**: float32 file over int8 file.
  **Speedup**: time of the fastest float32 TorchScript over that of int8, on the very same
  machine, in alternating pairs.
- **Verdict**: of all gates together, with those that did not pass. In bold: the recommended
  backend, the fastest that passes everything else on the first CPU where one does; where none
  does, one that at least fails nothing. Its speedup is what the threshold was made of,
  and so a slower backend of the same model fails the gate `speedup`: that is a result, not a
  mistake.
- `eager` after a backend: the same recipe carried out in eager mode, for the models that have a
  quantizable variant in torchvision.

Thresholds were set from this very measurement, with the margin that the last section states. So
this page is the reference that later measurements are held against; it is no independent proof
that the thresholds are right. What collapsed got no threshold that it could pass."""


def _method() -> str:
    pairs = ", ".join(f"{count} up to {most} GMACs" for most, count in PAIRS)
    return f"""\
## How it was measured

`{COMMAND}` starts two processes for each model. The first builds the artifacts on one thread,
compares them with float32 on the fixture images and looks inside them; the second times the
artifacts alone, on all cores of a machine that does nothing else. A process that dies or takes
too long takes one case with it, which is then recorded as such.

- Sample sizes follow the cost of a model: at most {EVALUATION[0]} evaluation images and
  {CALIBRATION[0]} for calibration, at least {EVALUATION[1]} and {CALIBRATION[1]}, above {GIANT}
  GMACs {EVALUATION[2]} and {CALIBRATION[2]}; {TRAINED_IMAGES:,} images where the weights are
  trained. Pairs: {pairs}. So few images make wide intervals, and the thresholds follow their
  lower limits; the tables give the sizes.
- Speedup thresholds: {rules.SPEED_SHARE:.0%} of the lower limit of the interval on the
  recommended backend, widened by the noise floor where that is off by more than 5 %, by
  instruction set, rounded down. A value below 1 says that int8 is slower there.
- Size thresholds: {rules.SIZE_SHARE:.0%} of the worst backend's ratio.
- Under probe weights the general thresholds (99 % of top-1 kept, agreement of 95 %) hold where
  all backends reach them. Where one does not, the lowest limit of the intervals less {
        100 * rules.SHARE_MARGIN:.0f} point is asked for, and with it the lowest SQNR less
  {rules.SQNR_MARGIN_DB:.0f} dB.
- A collapse gets no threshold: an SQNR below {rules.LEAST_SQNR_DB:.0f} dB, an agreement surely
  below {rules.LEAST_AGREEMENT:.0%}, or surely less than {rules.LEAST_KEPT:.0%} of top-1 kept. No
  threshold is below {rules.LOWEST["accuracy"]:.0%} of top-1 kept or an agreement of
  {rules.LOWEST["agreement"]:.0%}: where the images are too few for that, the verdict is
  inconclusive.
- Backends without a verdict: the reason is what torch said when it was tried."""


_METHOD = _method()


def _title(run: Json) -> str:
    return (
        f"{run['machine'].get('cpu', 'Unknown CPU')}, {run['machine'].get('instruction_set', '')}"
    )


def _machine(cpu: str, run: Json) -> str:
    facts = run["machine"]
    text = (
        f"{facts.get('physical_cores')} cores, {facts.get('system')}, Python "
        f"{facts.get('python')}, torch {facts.get('torch')}."
    )
    if run["environment"]:
        told = " ".join(f"{name}={value}" for name, value in run["environment"].items())
        text += (
            f" The CPU knows newer instructions, which its libraries were told to leave alone "
            f"(`--cpu {cpu}`: `{told}`). That makes no older CPU of it: the engine x86 chooses its "
            "kernels by what the CPU could do."
        )
    return text


def _families(run: Json) -> Iterator[str]:
    there = {model["family"] for model in run["models"].values()}
    yield from (name for name in (*FAMILIES, OTHER) if name in there)


def _cases(run: Json, family: str) -> list[Json]:
    return [case for case in run["cases"] if run["models"][case["model"]]["family"] == family]


def _summary(run: Json, recommended: Mapping[str, str]) -> str:
    rows = []
    for family in (*_families(run), ""):
        cases = _cases(run, family) if family else run["cases"]
        models = {case["model"] for case in cases}
        verdicts = Counter(case["verdict"] for case in cases)
        passed = _passed(cases, recommended)
        there = {case["model"] for case in cases if _recommended(case, recommended)}
        amounts = [str(verdicts[name]) for name in ("pass", *_WORST_FIRST)]
        rows.append(
            (
                family or "**all**",
                str(len(models)),
                str(len(cases)),
                *amounts,
                f"{len(passed)} of {len(there)} pass" if there else MISSING,
            )
        )
    return table(SUMMARY, rows, right=range(1, 7))


def _passed(cases: Iterable[Json], recommended: Mapping[str, str]) -> set[str]:
    return {
        case["model"]
        for case in cases
        if case["verdict"] == "pass" and _recommended(case, recommended)
    }


def _recommended(case: Json, recommended: Mapping[str, str]) -> bool:
    return case["case"] == recommended.get(case["model"])


def _family(family: str, run: Json, recommended: Mapping[str, str]) -> str:
    cases = _cases(run, family)
    names = list(dict.fromkeys(case["model"] for case in cases))
    models = [_model_row(name, run["models"][name], cases) for name in names]
    rows = [_case_row(case, run["models"][case["model"]], recommended) for case in cases]
    return "\n\n".join(
        (
            f"### {family}",
            table(CASES, rows, right=range(3, 9)),
            table(MODELS, models, right=(1, 2, 4, 5, 6, 7)),
        )
    )


def _model_row(name: str, model: Json, cases: Iterable[Json]) -> tuple[str, ...]:
    measured = [case for case in cases if case["model"] == name and case["status"] == "measured"]
    if not measured:
        return (name, *[MISSING] * (len(MODELS) - 1))
    first = measured[0]
    accuracy = accuracy_of(first)
    side = model["evaluation_side"]
    return (
        name,
        f"{model['parameters'] / 1e6:.1f} M",
        significant(model["macs"] / 1e9),
        "×".join(map(str, model["input_shape"])),
        str(model["int8_modules"]),
        f"{accuracy.n} of {side}×{side}",
        str(first["calibration_images"]),
        percent(accuracy.float32_top1, 1),
    )


def _case_row(case: Json, model: Json, recommended: Mapping[str, str]) -> tuple[str, ...]:
    backend = f"{case['backend']} eager" if case["case"] == "eager" else case["backend"]
    name = f"**{backend}**" if _recommended(case, recommended) else backend
    head = (case["model"], name, model.get("weights", MISSING))
    if case["status"] != "measured":
        return (*head, *[MISSING] * 6, f"unverified: {_status(case)}")
    accuracy = accuracy_of(case)
    fused = case["fused"]
    agreement = accuracy.agreement
    speed = case.get("speed")
    sqnr = accuracy.sqnr_db
    return (
        *head,
        MISSING if fused is None else f"{fused[0]}/{fused[1]}",
        percent(case["int8_share_of_macs"], 1),
        f"{percent(agreement.value, 1)} ({span((100 * agreement.low, 100 * agreement.high), 0)})",
        "lost" if sqnr == -math.inf else decibel(sqnr),
        times(case["size"][0] / case["size"][1]),
        MISSING
        if speed is None
        else f"{times(speed['speedup'][0])} ({span(tuple(speed['speedup'][1:]))})",
        verdict(case),
    )


def _status(case: Json) -> str:
    said = {"refused": "torch refuses", "died": "not finished", "missing": "not measured yet"}
    return said.get(case["status"], case["status"])


def verdict(case: Json) -> str:
    """The worst verdict, with the gates that did not pass."""
    parts = [
        f"{kind}: {', '.join(names)}"
        for kind in _WORST_FIRST
        if (names := [name for name, found in case["gates"].items() if found == kind])
    ]
    return "; ".join(parts) or "pass"


def _reasons(run: Json) -> str:
    """What torch said, and which cases it said it of."""
    said: dict[tuple[str, str], list[str]] = {}
    for case in run["cases"]:
        if case["status"] not in ("measured", "missing"):
            place = (_status(case), case["reason"])
            said.setdefault(place, []).append(f"{case['model']} on {case['backend']}")
    if not said:
        return ""
    lines = [
        f"- {', '.join(names)}: {status}: `{reason}`" for (status, reason), names in said.items()
    ]
    return "### Not quantized\n\n" + "\n".join(lines)
