"""The model card of a recommended artifact, as Markdown."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ptqbench.evaluation.recommendation import INT8, Recommendation
from ptqbench.evaluation.result import Report
from ptqbench.reporting.format import (
    arrow,
    decibel,
    gate_numbers,
    machine_facts,
    number,
    percent,
    significant,
    times,
)
from ptqbench.reporting.markdown import SIGNS, escaped
from ptqbench.reporting.recommendation_view import gates_of, sentence


def model_card(recommendation: Recommendation, report: Report, command: str, file: Path) -> str:
    """Return the card of the file to ship: what it is, what was measured, how to repeat it.

    Args:
        recommendation: Of one model.
        report: Of its cases.
        command: That measured it.
        file: The file as it is shipped.
    """
    choice = recommendation.choice
    lines = [f"# {escaped(recommendation.model)}", "", sentence(recommendation), ""]
    facts: dict[str, str] = {
        "File": f"`{file.name}`, {choice.size_bytes:,} bytes",
        "SHA-256": f"`{sha256(file)}`",
        "Precision": choice.precision,
        "Executed by": _executed_by(recommendation),
        "Latency": f"{significant(choice.ms)} ms at "
        f"{'×'.join(map(str, recommendation.input_shape))} on {recommendation.threads} thread(s)",
        "Machine": escaped(" · ".join(machine_facts(report.machine))),
        **_accuracy(recommendation),
    }
    lines += ["| | |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in facts.items())]
    if choice.case is not None:
        lines += ["", "## Gates", "", "| Gate | Verdict | |", "| --- | --- | --- |"]
        lines += [
            f"| {gate.name} | {SIGNS[gate.verdict]} | {escaped(gate_numbers(gate))} |"
            for gate in choice.case.gates
        ]
    lines += ["", "## Compared with", "", "| Candidate | ms | bytes | Gates |"]
    lines += ["| --- | ---: | ---: | --- |"]
    lines += [
        f"| {each.label} | {significant(each.ms)} | {each.size_bytes:,} | {gates_of(each)} |"
        for each in recommendation.candidates
    ]
    lines += ["", "## Repeat", "", "```", command, "```", ""]
    return "\n".join(lines)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _executed_by(recommendation: Recommendation) -> str:
    choice = recommendation.choice
    runtime = "" if choice.case is None else str(choice.case.facts.get("engine", ""))
    return choice.name if runtime in ("", choice.name) else f"{choice.name} ({runtime})"


def _accuracy(recommendation: Recommendation) -> Mapping[str, str]:
    """Accuracy of an int8 file against float32, with intervals where gates judged them."""
    choice = recommendation.choice
    if choice.precision != INT8 or choice.case is None:
        return {}
    case = choice.case
    metrics = {name: number(value) for name, value in case.metrics.items()}
    images = case.facts.get("evaluation_images", 0)
    top1 = arrow(percent(metrics.get("float32_top1")), percent(metrics.get("int8_top1")))
    return {
        "Top-1 %": f"{top1}, {images:,} images" if isinstance(images, int) else top1,
        "Agreement %": percent(metrics.get("agreement")),
        "SQNR of the logits": decibel(metrics.get("sqnr_db")),
        "Size": f"{times(metrics.get('size_ratio'))} smaller than float32 in the same container",
        "Recipe": f"`{case.recipe}`",
        "Weights": escaped(case.weights),
        "Images": escaped(case.data),
    }
