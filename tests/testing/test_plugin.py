"""The pytest plugin from outside: outcomes, exit codes, reports, workers."""

from __future__ import annotations

import json
import os
from importlib import metadata
from xml.etree import ElementTree

import jsonschema
import pytest

from ptqbench.reporting.json_report import schema
from ptqbench.testing.session_state import case_names

pytest_plugins = ["pytester"]

INSTALLED = any(
    entry.value == "ptqbench.pytest_plugin" for entry in metadata.entry_points(group="pytest11")
)

CONFTEST = '''
import os
from ptqbench.gates.gate import GateResult
from ptqbench.gates.verdict import Verdict
from ptqbench.evaluation.result import CaseResult
from ptqbench.testing.runner_protocol import Reference

VERDICTS = {"size": Verdict.FAIL, "agreement": Verdict.INCONCLUSIVE}


class Runner:
    """Measures nothing: accuracy is 0.985, the other gates say what the table says."""

    def __init__(self, workers):
        self.workers = workers

    def backends(self):
        return {"x86": None, "onednn": None, "qnnpack": "no such engine"}

    def machine(self):
        return {"cpu": "a CPU", "instruction_set": "avx2", "physical_cores": 2,
                "python": "3.11", "torch": "2.13"}

    def judge(self, case, gate):
        threshold = case.settings.thresholds.get("accuracy", 0.99)
        verdict = VERDICTS.get(gate, Verdict.PASS)
        if gate == "accuracy" and threshold > 0.985:
            verdict = Verdict.FAIL
        if gate == "fusion":
            raise ValueError("a defect")
        if gate == "speedup":
            verdict = Verdict.UNVERIFIED
        detail = f"{gate} detail from {os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
        result = GateResult(gate, verdict, 0.985, threshold, (0.98, 0.99), 2000, detail)
        return CaseResult(case.model, case.settings.weights, case.backend, case.settings.data, "ab",
                          {"float32_top1": 0.8, "int8_top1": 0.79}, (result,))

    def reference(self, case):
        return Reference(case.backend, "ab", {"int8_operations": 21, "sqnr_db": 30.0})

    def latency(self, case, precision):
        return lambda: sum(range(1000))


def pytest_ptqbench_runner(config):
    return Runner(int(getattr(config, "workerinput", {}).get("workercount", 1)))
'''


@pytest.fixture
def suite(pytester, monkeypatch):
    """Run pytest with the plugin in a fresh process; returns its result."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeconftest(CONFTEST)

    def run(*args):
        plugin = () if INSTALLED else ("-p", "ptqbench.pytest_plugin")
        if not any("xdist" in arg or arg.startswith("-n") for arg in args):
            plugin += ("-p", "no:xdist")
        return pytester.runpytest_subprocess(*plugin, "-p", "no:cacheprovider", *args)

    return run


def test_unused_it_is_silent_and_does_not_import_torch(pytester, suite):
    pytester.makeconftest(
        "import sys\n"
        "def pytest_unconfigure(config):\n"
        "    print('torch', 'torch' in sys.modules, 'numpy', 'numpy' in sys.modules)\n"
    )
    pytester.makepyfile("def test_a(): pass")
    result = suite("-s")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["torch False numpy False"])
    # An installation is named in the head, like that of any other plugin.
    lines = [line for line in result.outlines if not line.startswith(("plugins:", "rootdir:"))]
    assert "ptqbench" not in "\n".join(lines)


def test_verdicts_become_outcomes_and_reports(pytester, suite):
    result = suite(
        "--pyargs",
        "ptqbench.suite",
        "--ptqbench-models=resnet18,mobilenet_v2",
        "--ptqbench-report=json=out.json",
        "--ptqbench-report=markdown=out.md",
        "--junitxml=junit.xml",
        "-k",
        "accuracy or agreement or size or speedup",
        "-v",
    )
    assert result.ret == 1
    result.assert_outcomes(failed=4, skipped=4)
    result.stdout.fnmatch_lines(
        [
            "*::test_accuracy?resnet18-onednn? FAILED*",
            "*::test_size?mobilenet_v2-x86? FAILED*",
            "*= ptqbench =*",
            "8 verdicts on 2 cases: 4 fail, 2 inconclusive, 2 unverified.",
            "Inconclusive and unverified under the profile local: they are skipped, not passed.",
            "accuracy of resnet18 on onednn: fail. Observed 98.50 % (95 % interval 98.00–99.00), "
            "needs 99.00 %. accuracy detail from main",
            "speedup of resnet18 on onednn: unverified.*",
        ]
    )
    assert "needs 99.00 % (set by recipe)" in result.stdout.str()
    cases = json.loads((pytester.path / "out.json").read_text())["cases"]
    assert [case["model"] for case in cases] == ["resnet18", "mobilenet_v2"]
    assert len(cases[0]["gates"]) == 4 and cases[0]["metrics"]["int8_top1"] == 0.79
    assert "❌ fail: **accuracy** of resnet18 on onednn" in (pytester.path / "out.md").read_text()
    junit = ElementTree.parse(pytester.path / "junit.xml").getroot()
    failed = {
        case.get("name") for case in junit.iter("testcase") if case.find("failure") is not None
    }
    assert "test_accuracy[resnet18-onednn]" in failed


def read_report(folder):
    report = json.loads((folder / "out.json").read_text())
    jsonschema.Draft202012Validator(schema()).validate(report)
    return report


def test_a_report_is_written_when_nothing_was_judged_and_says_so(pytester, suite):
    pytester.makepyfile(test_gates="from ptqbench.suite import *", test_own="def test_own(): pass")
    reports = ("--ptqbench-report=json=out.json", "--ptqbench-report=markdown=out.md")
    result = suite(*reports, "-k", "own")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*= ptqbench =*", "Nothing was judged:*"])
    report = read_report(pytester.path)
    assert (report["verdict"], report["cases"]) == ("unverified", [])
    assert "Nothing was judged" in report["notes"][0]
    text = (pytester.path / "out.md").read_text()
    assert "unverified" in text and "Nothing was judged" in text and "pass" not in text
    assert suite(*reports, "-k", "nothing").ret == 5
    assert read_report(pytester.path)["cases"] == []


def test_a_report_that_a_file_asks_for_is_for_sessions_with_gates(pytester, suite):
    pytester.makepyprojecttoml('[tool.ptqbench]\nreport.json = "out.json"\n')
    pytester.makepyfile(test_gates="from ptqbench.suite import *", test_own="def test_own(): pass")
    result = suite("test_own.py")
    assert result.ret == 0 and not (pytester.path / "out.json").exists()
    assert "Nothing was judged" not in result.stdout.str()
    suite("-k", "own")
    assert read_report(pytester.path)["verdict"] == "unverified"


def test_what_was_not_asked_or_ended_in_an_error_is_in_the_report(pytester, suite):
    pytester.makepyfile("from ptqbench.suite import *")
    chosen = ("--ptqbench-models=resnet18", "--ptqbench-report=json=out.json")
    result = suite(*chosen, "-k", "conversion")
    assert result.ret == 0
    report = read_report(pytester.path)
    assert report["verdict"] == "pass"
    assert report["notes"] == [
        "Not tested: fusion, accuracy, agreement, size, speedup, fidelity, saturation, parity of "
        "resnet18 on onednn."
    ]
    result = suite(*chosen, "-k", "fusion or conversion")
    assert result.ret == 1
    report = read_report(pytester.path)
    assert report["verdict"] == "unverified"
    fusion = report["cases"][0]["gates"][0]
    assert fusion["detail"] == "It could not be judged: ValueError: a defect"


def test_a_wrong_folder_of_a_report_is_said_before_anything_runs(pytester, suite):
    pytester.makepyfile("from ptqbench.suite import *")
    result = suite("--ptqbench-report=json=nowhere/out.json")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*there is no folder*nowhere*"])


def test_options_marker_and_fixtures_are_documented(pytester, suite):
    shown = suite("--help").stdout.str()
    assert "release gates for quantized models" in shown
    for name in ("models", "backends", "weights", "data", "profile", "threshold", "report"):
        assert f"--ptqbench-{name}" in shown
    assert "@pytest.mark.ptqbench(accuracy=..." in suite("--markers").stdout.str()
    fixtures = suite("--fixtures").stdout.str()
    for name in ("case", "settings", "gate", "reference", "latency"):
        _, _, after = fixtures.partition(f"ptqbench_{name}")
        assert after and "no docstring" not in after.splitlines()[1]


def test_the_ci_profile_fails_what_is_undecided_and_the_command_line_beats_the_marker(
    pytester, suite
):
    pytester.makepyprojecttoml(
        '[tool.ptqbench]\nprofile = "ci"\nmodels = ["resnet18"]\nbackends = ["*"]\n'
    )
    pytester.makepyfile(
        "import pytest\nfrom ptqbench.suite import *\n"
        "pytestmark = pytest.mark.ptqbench(accuracy=0.98)\n"
    )
    chosen = ("-k", "accuracy or agreement", "-v")
    result = suite(*chosen)
    # The wildcard takes the two backends that can run here.
    assert result.ret == 1
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["*under the profile ci: they fail."])
    result = suite(*chosen, "--ptqbench-threshold=accuracy=0.999", "--ptqbench-profile=local")
    result.assert_outcomes(failed=2, skipped=2)
    result.stdout.fnmatch_lines(["*needs 99.90 % (set by --ptqbench-threshold)*"])


@pytest.mark.parametrize(
    ("files", "args", "code", "message"),
    [
        (
            {"test_a.py": "import pytest\n@pytest.mark.ptqbench(acuracy=1)\ndef test_a(): pass\n"},
            (),
            2,
            "*Unknown threshold 'acuracy' in the marker*Did you mean accuracy*",
        ),
        (
            {"test_a.py": "from ptqbench.suite import *\n"},
            ("--ptqbench-models=resnet81",),
            2,
            "*--ptqbench-models: Unknown model 'resnet81'. Did you mean resnet18*",
        ),
        (
            {"pyproject.toml": "[tool.ptqbench]\nprofil = 'ci'\n"},
            (),
            4,
            "*Unknown setting 'profil' in pyproject.toml*Did you mean profile*",
        ),
        ({}, ("--ptqbench-report=html=a.html",), 4, "*Unknown setting 'report.html'*"),
        ({}, ("--ptqbench-update",), 4, "*Set `baselines`*"),
    ],
    ids=["marker", "model", "setting", "report", "update"],
)
def test_wrong_use_is_said_before_anything_runs(pytester, suite, files, args, code, message):
    for name, text in files.items():
        (pytester.path / name).write_text(text)
    result = suite(*args)
    assert result.ret == code
    (result.stderr if code == 4 else result.stdout).fnmatch_lines([message])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ('data = "/gpu-box/photos"', "*There are no images at /gpu-box/photos*pyproject.toml*"),
        ('weights = "/gpu-box/w.safetensors"', "*There are no weights at /gpu-box/w.safetensors*"),
        ('model.resnet18.data = "/gpu-box/photos"', "*There are no images at /gpu-box/photos*"),
        ('report.json = "nowhere/gates.json"', "*there is no folder*nowhere*"),
        ('baselines = "pyproject.toml"', "*pyproject.toml is not a folder*"),
    ],
    ids=["data", "weights", "model", "report", "baselines"],
)
def test_paths_of_the_file_matter_only_to_a_session_with_a_case(pytester, suite, setting, message):
    pytester.makepyprojecttoml(f'[tool.ptqbench]\nmodels = ["resnet18"]\n{setting}\n')
    pytester.makepyfile(
        test_unit="def test_unit(): pass", test_gates="from ptqbench.suite import *"
    )
    alone = suite("test_unit.py")
    assert alone.ret == 0
    assert "ptqbench: " not in alone.stdout.str() + alone.stderr.str()
    refused = suite("test_gates.py")
    assert refused.ret == pytest.ExitCode.INTERRUPTED
    refused.stdout.fnmatch_lines([message])
    assert "Traceback" not in refused.stdout.str() + refused.stderr.str()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_matters_only_to_a_session_with_a_case(pytester, suite):
    file = pytester.path / "ptqbench.toml"
    file.write_text('models = ["resnet18"]\nplugins = ["evil"]\n')
    os.chown(file, 4321, 4321)
    inner = pytester.mkdir("inner")
    (inner / "pytest.ini").write_text("[pytest]\n")
    (inner / "conftest.py").write_text(CONFTEST)
    (inner / "test_unit.py").write_text("def test_unit(): pass\n")
    (inner / "test_gates.py").write_text("from ptqbench.suite import *\n")
    assert suite("inner/test_unit.py").ret == 0
    refused = suite("inner/test_gates.py")
    assert refused.ret == pytest.ExitCode.INTERRUPTED
    refused.stdout.fnmatch_lines(["*belong to another user*plugins*--ptqbench-config*"])


def test_a_wrong_path_in_an_option_is_refused_at_once(pytester, suite):
    pytester.makepyfile("def test_unit(): pass")
    result = suite("--ptqbench-data=missing")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*There are no images at *missing (--ptqbench-data)*"])


def test_the_file_with_the_settings_can_be_named(pytester, suite):
    pytester.makepyfile("from ptqbench.suite import *")
    (pytester.path / "nightly.toml").write_text('models = ["mobilenet_v2"]\nbackends = ["x86"]\n')
    result = suite("--ptqbench-config=nightly.toml", "-k", "conversion", "-v")
    result.stdout.fnmatch_lines(["*test_conversion?mobilenet_v2-x86?*"])
    missing = suite("--ptqbench-config=none.toml")
    assert missing.ret == pytest.ExitCode.USAGE_ERROR
    missing.stderr.fnmatch_lines(["*--ptqbench-config*none.toml: there is no such file*"])
    assert suite("--ptqbench-config=").ret == pytest.ExitCode.USAGE_ERROR


def test_cases_whose_models_differ_in_odd_characters_only_have_names_of_their_own():
    pairs = [("a:b", "x86"), ("a_b", "x86"), ("a/b", "x86"), ("nets:net", "x86")]
    names = case_names(pairs)
    assert len(set(names)) == 4
    # Names that need no telling apart stay as they are, whatever else is chosen.
    assert names[1] == "a_b-x86" and names[3] == "nets_net-x86"
    assert case_names(pairs[:1]) == ["a_b-x86"]
    assert case_names(pairs[:2])[0] == names[0] and names[0].startswith("a_b~")


def test_no_case_vanishes_behind_another_of_the_same_name(pytester, suite):
    pytester.makepyfile(
        a="import ptqbench\nfrom torch import nn\n"
        "def b(num_classes=2): return nn.Linear(2, num_classes)\n"
        "ptqbench.register_model('a_b')(b)\n",
        test_gates="def test_size(ptqbench_gate): ptqbench_gate('size')",
    )
    pytester.makepyprojecttoml(
        '[tool.ptqbench]\nplugins = ["a"]\nmodels = ["a:b", "a_b"]\nbackends = ["x86"]\n'
    )
    result = suite("test_gates.py", "--collect-only", "-q")
    assert "2 tests collected" in result.stdout.str(), result.stdout.str()


def test_references_are_written_compared_and_asked_for(pytester, suite):
    pytester.makepyprojecttoml('[tool.ptqbench]\nmodels = ["resnet18"]\nbaselines = "refs"\n')
    pytester.makepyfile(test_gates="from ptqbench.suite import *")
    chosen = ("-k", "test_reference", "-rs")
    first = suite(*chosen)
    assert first.ret == 0 and first.parseoutcomes()["skipped"] == 1
    first.stdout.fnmatch_lines(
        ["reference of resnet18 on onednn: unverified. the case is new.", "*--ptqbench-update*"]
    )
    written = suite(*chosen, "--ptqbench-update")
    assert written.ret == 0
    path = pytester.path / "refs" / "resnet18.json"
    content = json.loads(path.read_text())
    content["cases"]["onednn"]["numbers"]["sqnr_db"] = 20.0
    path.write_text(json.dumps(content))
    result = suite(*chosen)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*better: sqnr_db 20 -> 30*", "*--ptqbench-update*"])


def test_a_reference_without_a_folder_of_references_is_a_failure_in_a_sentence(pytester, suite):
    pytester.makepyfile("def test_own(ptqbench_reference): ptqbench_reference()")
    result = suite("--ptqbench-models=resnet18")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*there is no folder of references. Set `baselines` in*"])
    assert "TypeError" not in result.stdout.str()


def test_workers_of_xdist_report_to_one_session(pytester, suite):
    pytest.importorskip("xdist")
    pytester.makepyfile("from ptqbench.suite import *")
    result = suite(
        "-n2", "-k", "accuracy or size", "--ptqbench-models=resnet18,mobilenet_v2",
        "--ptqbench-report=json=out.json",
    )  # fmt: skip
    assert result.ret == 1
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(["4 verdicts on 2 cases: 4 fail."])
    report = json.loads((pytester.path / "out.json").read_text())
    details = {gate["detail"] for case in report["cases"] for gate in case["gates"]}
    assert {detail.split()[-1] for detail in details} == {"gw0", "gw1"}
    assert report["machine"]["cpu"] == "a CPU"
