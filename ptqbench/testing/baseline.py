"""Committed references: machine-independent numbers that must not change unnoticed.

One JSON file per model holds, for each case, counts, bytes, shares and decibels. Latency is
not among them: it belongs to one machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ptqbench.core.atomic import atomic_path
from ptqbench.core.paths import exists
from ptqbench.errors import UserError
from ptqbench.gates.verdict import Verdict

SCHEMA_VERSION = 1
"""Version of the files; it changes when a number changes its meaning."""

Kind = Literal["new", "missing", "unused", "worse", "better", "changed"]


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be from its reference, and in which direction it is better.

    Attributes:
        absolute: In the unit of the number.
        relative: As a fraction of the reference.
        better: 1 if more is better, -1 if less is, 0 if it should just stay.
    """

    absolute: float = 0.0
    relative: float = 0.0
    better: int = 0


TOLERANCES: Mapping[str, Tolerance] = {
    # Other CPUs, and other numbers of threads, sum in another order, which moves a few images
    # of thousands. Ranges found by a search may move further: one thread instead of two
    # changed 11 predictions of 2,000 in efficientnet_b0.
    "float32_top1": Tolerance(absolute=0.003, better=1),
    "int8_top1": Tolerance(absolute=0.005, better=1),
    "float32_top5": Tolerance(absolute=0.003, better=1),
    "int8_top5": Tolerance(absolute=0.005, better=1),
    "agreement": Tolerance(absolute=0.01, better=1),
    "sqnr_db": Tolerance(absolute=0.5, better=1),
    # Torch releases write a little more or less around the same weights.
    "float32_bytes": Tolerance(relative=0.01, better=-1),
    "int8_bytes": Tolerance(relative=0.01, better=-1),
    "size_ratio": Tolerance(relative=0.01, better=1),
    "int8_operations": Tolerance(better=1),
    "float32_operations": Tolerance(better=-1),
}
"""What is not listed must be the same."""


@dataclass(frozen=True)
class CaseReference:
    """The reference of one case: hash of the recipe, and numbers by name."""

    recipe: str
    numbers: Mapping[str, float | None]


@dataclass(frozen=True)
class ModelReference:
    """The references of a model's cases, by key."""

    model: str
    cases: Mapping[str, CaseReference] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """Something in which a case and its reference differ.

    Attributes:
        kind: ``new``: not in the reference; ``missing``: in the reference, not measured;
            ``unused``: a reference that nothing can be compared with; ``worse``,
            ``better``, ``changed``: another number.
        name: Of the number or of the case.
        expected: According to the reference.
        observed: Now.
    """

    kind: Kind
    name: str
    expected: float | str | None = None
    observed: float | str | None = None


def compare(
    reference: CaseReference | None, recipe: str, numbers: Mapping[str, float | None]
) -> list[Difference]:
    """List the differences between a case and its reference.

    Args:
        reference: Committed, or None if there is none.
        recipe: Hash of the recipe now.
        numbers: As measured now.
    """
    if reference is None:
        return [Difference("new", "the case")]
    differences = []
    if reference.recipe != recipe:
        differences.append(Difference("changed", "recipe", reference.recipe, recipe))
    for name, observed in numbers.items():
        if name not in reference.numbers:
            differences.append(Difference("new", name, None, observed))
        elif (kind := _kind(name, reference.numbers[name], observed)) is not None:
            differences.append(Difference(kind, name, reference.numbers[name], observed))
    differences += [
        Difference("missing", name, expected)
        for name, expected in reference.numbers.items()
        if name not in numbers
    ]
    return differences


def _kind(name: str, expected: float | None, observed: float | None) -> Kind | None:
    expected, observed = _finite(expected), _finite(observed)
    if expected is None or observed is None:
        return None if expected is observed else "changed"
    tolerance = TOLERANCES.get(name, Tolerance())
    room = tolerance.absolute + tolerance.relative * abs(expected)
    # Slack for rounding only, far below what any number is worth.
    if abs(observed - expected) <= room + 1e-12 * abs(expected):
        return None
    if tolerance.better == 0:
        return "changed"
    return "better" if (observed - expected) * tolerance.better > 0 else "worse"


def _finite(value: float | None) -> float | None:
    """Replace infinity, which JSON cannot represent, by None."""
    return value if value is not None and math.isfinite(value) else None


def unused_cases(reference: ModelReference, backends: Sequence[str]) -> list[Difference]:
    """References of cases that no run can produce: their backend is not registered."""
    return [
        Difference("unused", key)
        for key in reference.cases
        if key.partition("/")[0] not in backends
    ]


def verdict(differences: Sequence[Difference]) -> Verdict:
    """Return unverified if there was nothing to compare with, else fail.

    A change for the better fails too: without an update the gain could be lost unnoticed.
    """
    if not differences:
        return Verdict.PASS
    if all(d.kind == "new" and d.name == "the case" for d in differences):
        return Verdict.UNVERIFIED
    return Verdict.FAIL


def explain(model: str, key: str, differences: Sequence[Difference]) -> str:
    """Say in a few lines what differs and what to do."""
    lines = [f"reference of {model} on {key}:"]
    for difference in differences:
        line = f"  {difference.kind}: {difference.name}"
        if difference.kind in ("worse", "better", "changed"):
            line += f" {_number(difference.expected)} -> {_number(difference.observed)}"
        elif difference.kind == "missing":
            line += " is in the reference, but was not measured"
        elif difference.kind == "unused":
            line += " is a reference for a backend that does not exist"
        else:
            line += " is not in the reference"
        lines.append(line)
    if any(difference.kind == "worse" for difference in differences):
        lines.append("  Something became worse. If that is intended, run with --ptqbench-update.")
    else:
        lines.append("  Run with --ptqbench-update and commit the file, to record this.")
    return "\n".join(lines)


def _number(value: float | str | None) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def updated(
    reference: ModelReference, key: str, recipe: str, numbers: Mapping[str, float | None]
) -> ModelReference:
    """Return the references of a model with one case replaced."""
    rounded = {name: _rounded(value) for name, value in numbers.items()}
    cases = {**reference.cases, key: CaseReference(recipe, rounded)}
    return ModelReference(reference.model, dict(sorted(cases.items())))


def _rounded(value: float | None) -> float | None:
    value = _finite(value)
    # Digits beyond the tolerances would only make noise in the history of the file.
    return round(value, 4) if isinstance(value, float) else value


def read(path: Path, model: str) -> ModelReference:
    """Read the references of a model; a missing file contains none.

    Raises:
        UserError: The file cannot be read, is for another model, or of another version.
    """
    if not exists(path):
        return ModelReference(model)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, owner = content["schema_version"], content["model"]
        cases = {
            str(key): CaseReference(str(case["recipe"]), _numbers(case["numbers"]))
            for key, case in content["cases"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"The reference {path} cannot be read ({type(error).__name__}: {error}). Restore it, "
            "or delete it and run with --ptqbench-update."
        ) from None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"The reference {path} has schema version {version}, but this ptqbench reads "
            f"{SCHEMA_VERSION}. Delete it and run with --ptqbench-update."
        )
    if owner != model:
        raise UserError(f"The reference {path} is for {owner}, not for {model}. Rename it.")
    return ModelReference(model, cases)


def _numbers(content: Mapping[str, object]) -> dict[str, float | None]:
    numbers: dict[str, float | None] = {}
    for name, value in content.items():
        if not (value is None or isinstance(value, int | float)):
            raise TypeError(f"{name} is {value!r}, which is not a number")
        numbers[name] = value
    return numbers


def write(path: Path, reference: ModelReference) -> None:
    """Write the references of a model, whole or not at all.

    Raises:
        UserError: The file cannot be written.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "model": reference.model,
        "cases": {
            key: {"recipe": case.recipe, "numbers": dict(case.numbers)}
            for key, case in reference.cases.items()
        },
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"The reference {path} cannot be written: {error.strerror}.") from None
