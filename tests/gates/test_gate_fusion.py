"""The fusion gate on clean models and on planted defects."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.small_artifacts import (
    CLEAN,
    GROUPS,
    SMALL,
    Built,
    Small,
    SmallEager,
    build,
    judge,
    shipped,
    small,
)
from torch import nn

from ptqbench.gates import GateResult, Verdict
from ptqbench.measurement.fusion import measure_fusion
from ptqbench.quantization.build_record import BuildRecord
from ptqbench.quantization.fusion_search import fusable
from ptqbench.recipes import Recipe

EAGER = replace(SMALL, flow="eager")


def gate(built: Built, record: bool = True) -> GateResult:
    fusion = measure_fusion(built.matched, built.record if record else None)
    return judge("fusion", fusion=fusion)


def with_groups(*groups: tuple[str, ...]) -> Recipe:
    return replace(EAGER, fusion=groups)


@pytest.mark.parametrize(("name", "backend", "flow"), CLEAN)
def test_passes_clean_models(name: str, backend: str, flow: str) -> None:
    built = shipped(name, backend, flow)
    result = gate(built)
    assert result.verdict is Verdict.PASS, result.detail
    assert result.observed == result.threshold == built.record.groups
    assert built.record.error < 1e-4
    assert not built.record.untraceable


def test_a_file_without_record_is_judged_by_its_graph() -> None:
    result = gate(shipped(*CLEAN[1]), record=False)
    assert result.verdict is Verdict.PASS
    assert "no record of its build" in result.detail


@pytest.mark.parametrize(("kind", "recipe"), [(Small, SMALL), (SmallEager, EAGER)])
def test_passes_a_residual_block(kind: type[Small], recipe: Recipe, tmp_path: Path) -> None:
    result = gate(build(small(kind), tmp_path / "a.pt", recipe))
    assert result.verdict is Verdict.PASS, result.detail
    assert result.observed == 4


def test_names_a_relu_that_was_not_fused(tmp_path: Path) -> None:
    recipe = with_groups(GROUPS[0], ("conv1", "bn1"), *GROUPS[2:])
    built = build(small(SmallEager), tmp_path / "a.pt", recipe)
    result = gate(built)
    assert result.verdict is Verdict.FAIL
    assert result.observed == 3
    assert "conv1: the ReLU that follows is not fused" in result.detail
    assert built.record.undeclared == ("conv1 + bn1 + relu1",)
    assert built.record.left == ("conv1 + relu1",)
    # The artifact alone shows it too.
    assert "conv1" in gate(built, record=False).detail


def test_names_a_batch_norm_left_behind(tmp_path: Path) -> None:
    built = build(small(SmallEager), tmp_path / "a.pt", with_groups(*GROUPS[:3]))
    result = gate(built)
    assert result.verdict is Verdict.FAIL
    assert "depthwise: the BatchNorm that follows is not fused" in result.detail
    assert built.record.undeclared == ("depthwise + bn3",)
    assert built.record.training_only == ("bn3",)


def test_names_a_relu_folded_in_front_of_the_addition(tmp_path: Path) -> None:
    recipe = with_groups(*GROUPS[:2], ("conv2", "bn2", "relu2"), GROUPS[3])
    built = build(small(SmallEager), tmp_path / "a.pt", recipe)
    result = gate(built)
    assert result.verdict is Verdict.FAIL
    assert "conv2: a ReLU is folded into it" in result.detail
    assert built.record.wrong == ("conv2 + bn2 + relu2",)
    assert built.record.error > 1e-2
    assert "conv2: a ReLU is folded into it" in gate(built, record=False).detail


def test_numbers_show_a_batch_norm_folded_with_other_statistics(tmp_path: Path) -> None:
    def spoil(prepared: nn.Module) -> None:
        prepared.get_submodule("conv2").bias.data.add_(1.0)  # type: ignore[union-attr, operator]

    result = gate(build(small(), tmp_path / "a.pt", spoil=spoil))
    assert result.verdict is Verdict.FAIL
    assert "differs from the unfused one" in result.detail


def test_names_a_fusion_that_nobody_declared(tmp_path: Path) -> None:
    # FX fuses by itself what it finds, whatever the recipe says.
    recipe = replace(SMALL, fusion=(GROUPS[0], *GROUPS[2:]))
    built = build(small(), tmp_path / "a.pt", recipe)
    assert built.record.extra == ("conv1",)
    assert built.record.undeclared == ("conv1 + bn1 + relu1",)
    assert gate(built).verdict is Verdict.FAIL


@pytest.mark.parametrize("kind", [Small, SmallEager])
def test_search_finds_the_groups_by_itself(kind: type[Small]) -> None:
    assert tuple(p.modules for p in fusable(small(kind))) == GROUPS


def test_search_follows_functions_and_stops_where_a_value_is_used_twice() -> None:
    class Functional(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.stem[0](x))
            y = self.conv1(x)
            return self.bn1(y) + y + nn.functional.relu6(self.bn2(self.conv2(x)))

    patterns = fusable(Functional().eval())
    assert [str(p) for p in patterns] == ["stem.0 + <relu>", "conv2 + bn2 + <relu6>"]
    assert not patterns[0].is_nameable
    assert ("conv2", "bn2") in patterns[1].allowed


def test_record_survives_json(tmp_path: Path) -> None:
    record = build(small(), tmp_path / "a.pt").record
    assert BuildRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
