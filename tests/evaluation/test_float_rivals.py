"""What int8 has to beat: float32 in the fastest installed runtime."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.errors import UserError
from ptqbench.evaluation.float_rivals import FloatRivals, available_runtimes
from ptqbench.evaluation.subject import LatencyInput
from ptqbench.gates import GATES, Evidence, Verdict
from ptqbench.measurement.intervals import Estimate
from ptqbench.measurement.speed import Speed
from ptqbench.settings.run_settings import FASTEST, SAME_RUNTIME
from ptqbench.settings.thresholds import Thresholds

OWN = TORCH_ENGINES[0]


@dataclass(frozen=True)
class OtherRuntime:
    """A backend of another runtime, as far as the comparison asks."""

    name: str
    runtime: str
    missing: str | None = None
    on_request: bool = False

    def availability(self) -> str | None:
        return self.missing


@dataclass
class Reference:
    """A float32 reference that takes some ms for a call."""

    ms: float
    latency: LatencyInput = field(default_factory=lambda: LatencyInput((1, 3, 8, 8), 1))

    @property
    def fastest(self) -> Any:
        def run(images: Tensor) -> Tensor:
            time.sleep(self.ms / 1e3)
            return images

        return run


@pytest.fixture
def others() -> Iterator[None]:
    backends = (
        OtherRuntime("quick", "quick"),
        OtherRuntime("quick-too", "quick"),
        OtherRuntime("absent", "absent", "it is not installed"),
        OtherRuntime("failing", "failing"),
    )
    entries = dict(BACKENDS._entries)
    for name in [each.name for each in BACKENDS if each.runtime != "torch"]:
        del BACKENDS._entries[name]
    for backend in backends:
        BACKENDS.add(backend.name, backend)  # type: ignore[arg-type]
    yield
    BACKENDS._entries.clear()
    BACKENDS._entries.update(entries)


def rivals(**ms: float) -> tuple[FloatRivals, list[str]]:
    built: list[str] = []

    def create(backend: Any) -> Any:
        built.append(backend.name)
        if backend.runtime not in ms:
            raise UserError("this model cannot be exported")
        return Reference(ms[backend.runtime])

    return FloatRivals(create), built


@pytest.mark.usefixtures("others")
def test_the_fastest_runtime_is_the_opponent_and_each_is_built_once() -> None:
    assert [backend.runtime for backend in available_runtimes()] == ["torch", "quick", "failing"]
    all_of_them, built = rivals(torch=6.0, quick=2.0)
    opponent = all_of_them.opponent(OWN, FASTEST)
    assert opponent.runtime == "quick" and opponent.reference.ms == 2.0
    assert set(opponent.times_ms) == {"torch", "quick"}
    assert opponent.times_ms["quick"] < opponent.times_ms["torch"]
    assert opponent.skipped == {"failing": "this model cannot be exported"}
    all_of_them.opponent(OWN, FASTEST)
    assert built == [OWN.name, "quick", "failing"]
    # Of another engine of the same runtime it is the same.
    assert all_of_them.of(TORCH_ENGINES[1]) is all_of_them.of(OWN)


@pytest.mark.usefixtures("others")
def test_a_runtime_on_request_takes_part_once_a_case_of_it_has_asked() -> None:
    slow: Any = OtherRuntime("slow", "slow", on_request=True)
    BACKENDS.add(slow.name, slow)
    all_of_them, built = rivals(torch=6.0, quick=2.0, slow=0.1)
    assert all_of_them.opponent(OWN, FASTEST).runtime == "quick"
    assert "slow" not in built
    assert all_of_them.opponent(slow, FASTEST).runtime == "slow"


@pytest.mark.usefixtures("others")
def test_within_the_runtime_nothing_else_is_built() -> None:
    all_of_them, built = rivals(torch=1.0, quick=0.1)
    opponent = all_of_them.opponent(OWN, SAME_RUNTIME)
    assert opponent.runtime == "torch" and built == [OWN.name]


@pytest.mark.usefixtures("others")
def test_the_own_runtime_can_be_the_fastest() -> None:
    all_of_them, _ = rivals(torch=1.0, quick=4.0)
    assert all_of_them.opponent(OWN, FASTEST).reference is all_of_them.of(OWN)


# The gate


def speed(ratio: float, within: float | None) -> Speed:
    same = None if within is None else Estimate(within, within * 0.98, within * 1.02, 20)
    return Speed(
        speedup=Estimate(ratio, ratio * 0.98, ratio * 1.02, 20),
        float32_ms=10.0,
        int8_ms=10.0 / ratio,
        noise=Estimate(1.0, 0.99, 1.01, 20),
        pairs=20,
        threads=2,
        input_shape=(1, 3, 224, 224),
        opponent="" if within is None else "onnxruntime",
        same_runtime=same,
        same_runtime_ms=None if within is None else 10.0 / ratio * within,
    )


def verdict(measured: Speed, threshold: float | None) -> tuple[Verdict, str]:
    speedups = {} if threshold is None else {"avx2": threshold}
    evidence = Evidence(Thresholds(speedup=speedups), "avx2", {"speed": measured})
    result = GATES.get("speedup")(evidence)
    return result.verdict, result.detail


def test_int8_must_not_be_slower_than_float32_in_another_runtime() -> None:
    result, detail = verdict(speed(0.8, within=2.5), 2.0)
    assert result is Verdict.FAIL
    assert "float32 in onnxruntime is faster than this int8 file: ship that" in detail
    assert "Within its own runtime int8 is 2.50 times as fast" in detail
    # Whatever the threshold of the CPU: none is needed to see that.
    assert verdict(speed(0.8, within=2.5), None)[0] is Verdict.FAIL
    assert verdict(speed(1.0, within=2.5), 2.0)[0] is Verdict.INCONCLUSIVE


def test_the_promise_is_about_the_own_runtime() -> None:
    assert verdict(speed(1.3, within=2.5), 2.0)[0] is Verdict.PASS
    assert verdict(speed(1.3, within=1.5), 2.0)[0] is Verdict.FAIL
    result, detail = verdict(speed(1.3, within=1.5), None)
    assert result is Verdict.UNVERIFIED and "no speedup threshold" in detail
    assert verdict(speed(2.5, within=None), 2.0)[0] is Verdict.PASS


@pytest.mark.slow
def test_a_run_names_the_runtimes_that_it_compared(workshop: Any) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (ptqbench[onnx])")
    from ptqbench import RunSettings, validate

    settings = RunSettings(threads=1, input_size=64, limit=60)
    report = validate("squeezenet1_1", OWN.name, settings=settings)
    (case,) = report.cases
    times = case.facts["float32_runtimes_ms"]
    assert isinstance(times, dict) and {"torch", "onnxruntime"} <= set(times)
    fastest = min(times, key=times.__getitem__)
    assert case.facts.get("float32_runtime", "torch") == fastest
    within = validate("squeezenet1_1", OWN.name, settings=replace(settings, baseline=SAME_RUNTIME))
    assert "float32_runtimes_ms" not in within.cases[0].facts
    assert torch.get_num_threads() >= 1
