"""Gate: is everything int8 that should be, with nothing left over from the conversion?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ptqbench.core.names import first_few
from ptqbench.gates.gate import Evidence, GateResult, gate
from ptqbench.gates.verdict import Verdict

if TYPE_CHECKING:
    from ptqbench.measurement.conversion import Conversion

NAME = "conversion"
_ADVICE = {
    "missing": "look at what the tool was told to quantize, and at keep_float",
    "stray": "look at what the tool was told to quantize",
    "batch_norms": "fold it before quantizing",
}
"""What to do where a backend says nothing more precise."""


@gate(
    NAME,
    summary="Is everything int8 that should be, with nothing left over from the conversion?",
    order=20,
    measurement="conversion",
    units={"conversion": "count"},
)
def conversion_gate(evidence: Evidence, conversion: Conversion) -> GateResult:
    """Judge the int8 layers of the artifact by count and by name."""
    problems = list(_problems(conversion))
    count = len(conversion.int8)
    detail = f"{count} of {conversion.promised} promised layers are int8"
    if not conversion.int8 and not conversion.foreign:
        detail = f"Nothing was quantized: {detail}"
    verdict = Verdict.PASS
    if problems:
        verdict = Verdict.FAIL
        detail += f"; {'; '.join(problems)}."
    elif not conversion.int8:
        verdict = Verdict.UNVERIFIED
        detail += ", so there is nothing to judge."
    else:
        detail += ", no float layer, BatchNorm or observer is left" + _observers(conversion)
    return GateResult(NAME, verdict, count, conversion.promised, None, conversion.promised, detail)


def _observers(conversion: Conversion) -> str:
    if conversion.unseen is None:
        return " (the file does not record what its observers saw)."
    if conversion.unreached:
        return f"; observers on paths never taken: {first_few(conversion.unreached)}."
    return "; every observer saw data."


def _problems(conversion: Conversion) -> Iterator[str]:
    def advice(kind: str) -> str:
        return conversion.advice.get(kind, _ADVICE[kind])

    texts = (
        (conversion.missing, f"not int8: {{}} ({advice('missing')})"),
        (conversion.stray, f"float layers left: {{}} ({advice('stray')})"),
        (conversion.not_kept, "int8 although keep_float names them: {}"),
        (
            conversion.foreign,
            "weights of no layer of the float model: {} (other weights or model?)",
        ),
        (conversion.batch_norms, f"BatchNorm left: {{}} ({advice('batch_norms')})"),
        (conversion.observers, "observers left: {} (the model was prepared, but not converted)"),
        (conversion.unseen or (), "observers that saw no data: {} (calibrate before converting)"),
        (conversion.defaults, "default scale 1 and zero point 0: {} (never calibrated)"),
        (conversion.per_tensor, "one weight scale for all channels: {} (per-channel is promised)"),
    )
    for names, text in texts:
        if names:
            yield text.format(first_few(names))
    if len(conversion.int8) != conversion.promised and not (
        conversion.missing or conversion.not_kept
    ):
        yield (
            f"the float model's graph has {len(conversion.int8)} such layers: the count that the "
            "recipe promises belongs to another architecture"
        )
