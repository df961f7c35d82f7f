"""The real suite under pytest-xdist, which spreads gates over workers that share the work."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.gates import gates_in_order

if TYPE_CHECKING:
    from conftest import UserCase

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow

# Writes a line for each piece of work that is to be done once, whichever worker does it.
COUNTING = """
import os
import numpy
from ptqbench.backends.torch_engines.engine import TorchBackend

def counted(owner, name, label):
    original = getattr(owner, name)
    def wrapped(*args, **more):
        with open("work.txt", "a") as file:
            file.write(f"{label}\\n")
        return original(*args, **more)
    setattr(owner, name, wrapped)

counted(TorchBackend, "build", "int8 artifact")
counted(TorchBackend, "build_float", "float32 artifact")
counted(numpy, "savez", "logits")
"""


def test_workers_share_artifacts_and_logits_and_time_nothing(
    pytester: pytest.Pytester, user_case: UserCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xdist")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    backends = [each.name for each in TORCH_ENGINES if each.availability() is None][:2]
    pytester.makeconftest(COUNTING)
    pytester.makepyfile(test_gates="from ptqbench.suite import *")
    result = pytester.runpytest_subprocess(
        "-n2",
        "-v",
        "-p",
        "no:cacheprovider",
        f"--ptqbench-models={user_case.model}",
        f"--ptqbench-weights={user_case.weights}",
        f"--ptqbench-data={user_case.data}",
        f"--ptqbench-backends={','.join(backends)}",
        # Ninety-six images decide nothing about the usual thresholds.
        "--ptqbench-threshold=accuracy=0.5",
        "--ptqbench-threshold=agreement=0.5",
        "--ptqbench-report=json=out.json",
    )
    gates = len([gate.name for gate in gates_in_order()]) - 1
    cases = len(backends)
    assert result.ret == 0
    result.assert_outcomes(passed=gates * cases, skipped=cases)
    assert {line[:5] for line in result.outlines if line.startswith("[gw")} == {"[gw0]", "[gw1]"}
    result.stdout.fnmatch_lines(
        ["speedup of *: unverified. Speed is not measured while 2 pytest-xdist workers run*-n 0*"]
    )
    work = Counter((pytester.path / "work.txt").read_text().splitlines())
    assert work == {"int8 artifact": cases, "float32 artifact": 1, "logits": cases + 1}
    report = json.loads((pytester.path / "out.json").read_text())
    assert report["verdict"] == "unverified"
    assert [len(case["gates"]) for case in report["cases"]] == [gates + 1] * cases
    assert {case["metrics"]["speedup"] for case in report["cases"]} == {None}
