"""Committed references: what counts as a difference, and what an update writes."""

from __future__ import annotations

import json
import math

import pytest

from ptqbench.errors import UserError
from ptqbench.gates.verdict import Verdict
from ptqbench.testing.baseline import (
    CaseReference,
    ModelReference,
    compare,
    explain,
    read,
    unused_cases,
    updated,
    verdict,
    write,
)

NUMBERS = {"int8_top1": 0.8, "int8_bytes": 1000, "int8_operations": 21, "sqnr_db": 30.0}
REFERENCE = CaseReference("abc", NUMBERS)


def kinds(numbers, recipe="abc"):
    return {d.name: d.kind for d in compare(REFERENCE, recipe, numbers)}


def test_the_same_numbers_pass():
    assert compare(REFERENCE, "abc", NUMBERS) == []
    assert verdict([]) is Verdict.PASS


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("int8_top1", 0.7951, None),
        ("int8_top1", 0.7949, "worse"),
        ("int8_top1", 0.8051, "better"),
        ("int8_bytes", 1010, None),
        ("int8_bytes", 1011, "worse"),
        ("int8_bytes", 989, "better"),
        ("int8_operations", 20, "worse"),
        ("int8_operations", 22, "better"),
        ("sqnr_db", 29.4, "worse"),
        ("sqnr_db", None, "changed"),
        ("sqnr_db", math.inf, "changed"),
    ],
)
def test_tolerances_and_directions(name, value, kind):
    assert kinds({**NUMBERS, name: value}) == ({} if kind is None else {name: kind})


def test_new_missing_and_unused_are_named():
    assert kinds({**NUMBERS, "agreement": 0.9}) == {"agreement": "new"}
    assert kinds({k: v for k, v in NUMBERS.items() if k != "sqnr_db"}) == {"sqnr_db": "missing"}
    reference = ModelReference("resnet18", {"x86/16-bit sums": REFERENCE, "gone/32": REFERENCE})
    assert [d.name for d in unused_cases(reference, ["x86"])] == ["gone/32"]


def test_another_recipe_asks_for_an_update_even_with_the_same_numbers():
    assert kinds(NUMBERS, recipe="def") == {"recipe": "changed"}


def test_better_is_a_failure_that_asks_for_an_update():
    differences = compare(REFERENCE, "abc", {**NUMBERS, "int8_top1": 0.9})
    assert verdict(differences) is Verdict.FAIL
    text = explain("resnet18", "x86", differences)
    assert "better: int8_top1 0.8 -> 0.9" in text and "--ptqbench-update" in text


def test_nothing_to_compare_with_is_unverified():
    assert verdict(compare(None, "abc", NUMBERS)) is Verdict.UNVERIFIED


def test_an_update_keeps_other_cases_and_reads_back_equal(tmp_path):
    path = tmp_path / "new" / "resnet18.json"
    first = updated(read(path, "resnet18"), "x86", "abc", NUMBERS)
    second = updated(first, "onednn", "abc", {**NUMBERS, "sqnr_db": math.inf})
    write(path, second)
    assert list(read(path, "resnet18").cases) == ["onednn", "x86"]
    assert read(path, "resnet18") == second
    assert compare(second.cases["onednn"], "abc", {**NUMBERS, "sqnr_db": math.inf}) == []
    assert json.loads(path.read_text())["schema_version"] == 1
    assert [p.name for p in path.parent.iterdir()] == ["resnet18.json"]


def test_files_that_are_not_references_are_refused(tmp_path):
    path = tmp_path / "resnet18.json"
    path.write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        read(path, "resnet18")
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match="cannot be read"):
        read(path, "resnet18")
    numbers = {"int8_top1": "0.8"}
    case = {"recipe": "abc", "numbers": numbers}
    content = {"schema_version": 1, "model": "resnet18", "cases": {"x86": case}}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"int8_top1 is '0\.8', which"):
        read(path, "resnet18")
    write(path, ModelReference("resnet18"))
    with pytest.raises(UserError, match="is for resnet18, not for vgg"):
        read(path, "vgg")
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    with pytest.raises(UserError, match="schema version 9"):
        read(path, "resnet18")
