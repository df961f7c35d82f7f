"""A runtime in a process of its own: what it computes, and how it may end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runs import run_models

from ptqbench import RunSettings, Verdict
from ptqbench.backends import lone_run
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.lone_run import RuntimeDiesError, run_alone
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES

IMAGES = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)


def alone(name: str) -> list[np.ndarray]:
    function = f"helpers.deadly_runtimes:{name}"
    return run_alone(function, Path("m.onnx"), [IMAGES, IMAGES[:, :1]], 1)


def test_outputs_come_back_and_torch_is_not_imported() -> None:
    first, second = alone("torch_is_there")
    np.testing.assert_array_equal(first, IMAGES * 2)
    np.testing.assert_array_equal(second, IMAGES[:, :1] * 2)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("kill", RuntimeDiesError, "its process was killed by SIGSEGV"),
        ("hang", RuntimeDiesError, "it did not finish within 1 s"),
        ("leave", RuntimeDiesError, "the last words"),
        ("fail", RuntimeError, "no m.onnx with 1 threads"),
    ],
)
def test_whatever_happens_to_it_is_an_error_here(
    name: str, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "hang":
        monkeypatch.setattr(lone_run, "TIMEOUT_S", 1.0)
    with pytest.raises(error, match=message):
        alone(name)


@pytest.mark.slow
@pytest.mark.usefixtures("torch_settings")
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_a_runtime_that_crashes_on_its_own_file_leaves_the_others_their_verdicts(
    precision: str, user_case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := BACKENDS.get("onnxruntime").availability():
        pytest.skip(reason)
    from ptqbench.backends.onnxruntime import ort_build

    reader = ort_build.reader

    def deadly(backend: Any) -> Any:
        return replace(reader(backend), shipped=f"helpers.deadly_runtimes:kill_{precision}")

    monkeypatch.setattr(ort_build, "reader", deadly)
    engine = next(each.name for each in TORCH_ENGINES if each.availability() is None)
    settings = RunSettings(
        data=str(user_case.data), weights=str(user_case.weights), input_size=64, threads=1
    )
    report = run_models([user_case.model], ["onnxruntime", engine], settings)
    crashed, other = report.cases
    assert {gate.verdict for gate in crashed.gates} == {Verdict.UNVERIFIED}
    for gate in crashed.gates:
        assert f"ONNX Runtime cannot run the {precision} file" in gate.detail
        assert "its process was killed by SIGSEGV" in gate.detail
    assert {gate.verdict for gate in other.gates} - {Verdict.UNVERIFIED}
