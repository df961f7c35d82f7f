"""The traps of pytest-benchmark each end in an early result that is not green."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ptqbench.testing.benchmark_tracking import Baseline, problem

pytest_plugins = ["pytester"]

MACHINE = {"cpu": "a", "instruction_set": "avx2", "physical_cores": 2, "threads": [2]}
LATENCY = Path(__file__).parents[2] / "benchmarks" / "test_latency.py"


def ask(names=("a", "b"), saved=("a", "b"), machine=MACHINE, compare=True, **more):
    baselines = [] if saved is None else [Baseline(machine, {name: {} for name in saved})]
    return problem(names, MACHINE, baselines, compare=compare, **{"compare_fail": False, **more})


def test_what_can_be_compared_is():
    assert ask() is None
    assert ask(names=("a",)) is None
    assert ask(saved=None, compare=False) is None


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"saved": None}, "no saved run to compare with.* --benchmark-autosave"),
        ({"saved": ("a",)}, "1 benchmarks are not in the saved run.*: b"),
        ({"machine": {**MACHINE, "cpu": "b"}}, r"another machine: cpu b \(now a\)"),
        ({"machine": {**MACHINE, "threads": [1]}}, r"threads \[1\] \(now \[2\]\)"),
        ({"machine": {}}, "does not say on which machine"),
        ({"compare": False, "compare_fail": True}, "compares with nothing"),
        ({"measuring": False}, "leaves nothing to compare"),
    ],
)
def test_a_comparison_that_means_nothing_is_refused(case, message):
    reason = ask(**case)
    assert reason is not None
    assert re.search(message, reason)


@pytest.fixture
def bench(pytester, monkeypatch):
    """Run the shipped benchmarks on a case that costs nothing, in a fresh process."""
    pytest.importorskip("pytest_benchmark")
    from test_plugin import CONFTEST, INSTALLED

    monkeypatch.delenv("CI", raising=False)
    pytester.makeconftest(CONFTEST)
    (pytester.path / "test_latency.py").write_text(
        LATENCY.read_text().replace("**BENCHMARK", "**{**BENCHMARK, 'max_time': 0.01}")
    )

    def run(*args):
        plugin = () if INSTALLED else ("-p", "ptqbench.pytest_plugin")
        if not any(arg.startswith("-n") for arg in args):
            plugin += ("-p", "no:xdist")
        models = "--ptqbench-models=resnet18"
        return pytester.runpytest_subprocess(*plugin, "-p", "no:cacheprovider", models, *args)

    return run


@pytest.mark.slow
def test_a_run_is_saved_with_facts_and_numbers_and_compares(pytester, bench):
    assert bench("--benchmark-autosave").ret == 0
    (saved,) = (pytester.path / ".benchmarks").rglob("*.json")
    content = json.loads(saved.read_text())
    assert content["machine_info"]["ptqbench"]["instruction_set"] == "avx2"
    assert [b["params"]["precision"] for b in content["benchmarks"]] == ["float32", "int8"]
    assert {b["group"] for b in content["benchmarks"]} == {"resnet18"}
    assert content["benchmarks"][0]["extra_info"]["sqnr_db"] == 30.0
    result = bench("--benchmark-compare", "--benchmark-compare-fail=median:10000%")
    assert result.ret == 0
    result.assert_outcomes(passed=2)

    # Whatever has become slower is a failure of its test, and not only a line at the end.
    for saved_one in content["benchmarks"][:1]:
        saved_one["stats"] |= {name: 1e-9 for name in ("min", "max", "mean", "median")}
    saved.write_text(json.dumps(content))
    slower = bench(
        "--benchmark-compare", "--benchmark-compare-fail=median:300%", "--junitxml=junit.xml"
    )
    assert slower.ret == 1
    slower.assert_outcomes(failed=1, passed=1)
    assert "Traceback" not in slower.stdout.str() + slower.stderr.str()
    (failure,) = ElementTree.parse(pytester.path / "junit.xml").iter("failure")
    message = failure.get("message")
    assert "latency of resnet18-onednn, float32: median 1e-06 ms before and" in message
    assert "(300 % allowed)" in message
    slower.stdout.fnmatch_lines(["*benchmark 'resnet18': *"])

    # A benchmark that the baseline does not have would be left out of the comparison.
    absent = bench("--benchmark-compare", "--ptqbench-models=mobilenet_v2")
    assert absent.ret == 4
    absent.stderr.fnmatch_lines(["*2 benchmarks are not in the saved run*mobilenet_v2-x86*"])

    content["machine_info"]["ptqbench"]["cpu"] = "another CPU"
    saved.write_text(json.dumps(content))
    other = bench("--benchmark-compare")
    assert other.ret == 4
    other.stderr.fnmatch_lines(["*another machine: cpu another CPU (now a CPU)*"])


def test_an_unknown_precision_is_refused_and_not_measured_as_float32(pytester, bench):
    path = pytester.path / "test_latency.py"
    path.write_text(path.read_text().replace('["float32", "int8"]', '["fp32"]'))
    result = bench("--benchmark-only")
    assert result.ret == 1
    result.assert_outcomes(failed=1)
    refused = "*latency of resnet18-onednn: Unknown precision 'fp32'. Did you mean float32?*"
    result.stdout.fnmatch_lines([refused])


@pytest.mark.slow
def test_what_is_not_measured_is_not_green(bench):
    result = bench("--benchmark-disable", "--ptqbench-profile=ci")
    assert result.ret == 1
    result.assert_outcomes(failed=2)
    assert bench("--benchmark-disable").parseoutcomes() == {"skipped": 2}
    result = bench("--benchmark-disable", "--benchmark-compare")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*leaves nothing to compare*"])


@pytest.mark.slow
def test_a_missing_baseline_is_said_before_anything_is_measured(bench):
    result = bench("--benchmark-compare")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*ptqbench: --benchmark-compare finds no saved run*"])
    assert "passed" not in result.stdout.str()


@pytest.mark.slow
def test_beside_other_workers_nothing_is_measured_and_nothing_is_green(bench):
    pytest.importorskip("xdist")
    result = bench("-n2")
    assert result.ret == 1
    result.assert_outcomes(failed=0, errors=2)
    result.stdout.fnmatch_lines(["*Latency is not measured under pytest-xdist*"])


def tracked(text):
    spec = importlib.util.spec_from_file_location("track", LATENCY.parent / "track_latency.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pytest_arguments(text.split())


def test_what_was_judged_is_tracked():
    always = ["benchmarks/test_latency.py", "--benchmark-autosave"]
    assert tracked("") == always
    assert tracked("--strict --json - --threshold accuracy=0.9") == always
    assert tracked("resnet18 squeeze* --backend x86 --data photos") == [
        *always,
        "--ptqbench-models=resnet18",
        "--ptqbench-models=squeeze*",
        "--ptqbench-backends=x86",
        "--ptqbench-data=photos",
    ]


@pytest.mark.parametrize("option", ["--threads 1", "--input-size 64", "--seed 3", "--resize 64"])
def test_another_measurement_is_not_tracked_as_if_it_were_the_same(option):
    assert tracked(f"resnet18 {option}") is None
