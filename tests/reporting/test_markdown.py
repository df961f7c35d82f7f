"""The Markdown report: what matters first, nothing green that did not pass, nothing unescaped."""

from __future__ import annotations

from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.gates.gate import GateResult
from ptqbench.gates.verdict import Verdict
from ptqbench.reporting.markdown import SIGNS, escaped, to_markdown
from ptqbench.reporting.report_files import write_reports
from ptqbench.testing.records import merge


def case(model, *verdicts, **metrics):
    gates = tuple(
        GateResult(name, verdict, 0.985, 0.99, (0.98, 0.99), 2000, f"why {name} | <b>")
        for name, verdict in zip(("accuracy", "size", "speedup"), verdicts, strict=False)
    )
    return CaseResult(model, "fixture", "x86", "fixture", "ab", metrics, gates)


GOOD = case("good", Verdict.PASS, int8_top1=0.79, float32_top1=0.8, size_ratio=3.9)
BAD = case("bad_one", Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.UNVERIFIED)
MACHINE = {"cpu": "a CPU", "instruction_set": "avx2", "physical_cores": 2, "torch": "2.13"}


def test_failures_come_first_and_only_a_pass_is_green():
    text = to_markdown(Report(MACHINE, (GOOD, BAD), ptqbench_version="1"))
    lines = text.splitlines()
    assert lines[0] == "## ptqbench: ❌ fail"
    assert lines[4].startswith("| bad\\_one | x86 | ❌ fail |")
    assert lines[5].startswith("| good | x86 | ✅ pass | 80.00 → 79.00 |")
    details = [line for line in lines if line.startswith("- ")]
    assert [line.split()[1] for line in details] == ["❌", "❓", "⚪"]
    assert "**accuracy** of bad\\_one on x86. 98.50 % (98.00–99.00), needs 99.00 %." in details[1]
    assert "2 cores" in lines[-1] and text.count("✅") == 1
    assert {SIGNS[v][0] for v in Verdict if v is not Verdict.PASS}.isdisjoint("✅")


def test_a_table_survives_any_text():
    assert escaped("a|b\n<i>*c*") == "a\\|b \\<i\\>\\*c\\*"
    widths = {
        line.replace("\\|", "").count("|")
        for line in to_markdown(Report({}, (GOOD, BAD))).splitlines()
        if line.startswith("|")
    }
    assert len(widths) == 1


def test_nothing_measured_is_not_a_pass(tmp_path):
    path = tmp_path / "report.md"
    assert write_reports(Report({}, ()), {"markdown": path}) == []
    assert "unverified" in path.read_text() and "Nothing was measured" in path.read_text()
    (failure,) = write_reports(Report({}, ()), {"markdown": tmp_path / "none" / "report.md"})
    assert "there is no folder" in failure


def test_records_merge_to_cases_with_the_worst_verdict():
    first, second = case("m", Verdict.PASS, int8_top1=0.7), case("m", Verdict.FAIL, sqnr_db=30.0)
    (merged,) = merge([first, second, first])
    assert merged.verdict is Verdict.FAIL and len(merged.gates) == 1
    assert merged.metrics == {"int8_top1": 0.7, "sqnr_db": 30.0}


def test_a_record_survives_the_way_from_a_worker():
    assert CaseResult.from_dict(GOOD.to_dict()) == GOOD
    assert CaseResult.from_dict(BAD.to_dict()) == BAD


def test_a_container_s_quota_is_named():
    report = Report({**MACHINE, "cpu_quota": 1.5}, (GOOD,))
    assert "2 cores · quota of 1.5 CPUs · torch 2.13" in to_markdown(report)
