"""The sweep over timm: its plan, its record, its causes, and the document."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks.timm_sweep import architectures, network, sweep_document, sweep_record  # noqa: E402

CONTENT = json.loads((ROOT / "fixtures" / "timm.json").read_text("utf-8"))


def test_the_document_is_what_the_record_says() -> None:
    text = (ROOT / "docs" / "timm.md").read_text("utf-8")
    assert sweep_document.body(CONTENT) in text
    assert sweep_record.render(CONTENT) == (ROOT / "fixtures" / "timm.json").read_text("utf-8")


def test_the_record_is_of_the_plan_and_every_entry_says_what_became_of_it() -> None:
    plan = architectures.in_turn()
    assert len(set(plan)) == len(plan) == len(architectures.CONVOLUTIONAL + architectures.OTHER)
    entries = CONTENT["architectures"]
    assert list(entries) == [name for name in plan if name in entries]
    for name, entry in entries.items():
        passing = set(entry.get("gates", {}).values()) == {"pass"}
        assert (entry["status"] == "right") == passing, name
        assert entry["status"] in ("right", "wrong") or entry["reason"], name


def refusal(reason: str) -> dict[str, str]:
    return {"status": "refused", "reason": reason}


def test_what_two_models_are_refused_for_is_one_cause() -> None:
    first = refusal("A BatchNorm in the module 'a.b' at /x/net.py, line 12: y = bn(x) uses it. Do.")
    second = refusal("A BatchNorm in the module 'c' at /x/other.py, line 7: z = norm(q) uses it.")
    assert sweep_document.cause(first) == sweep_document.cause(second)
    wrong = {"status": "wrong", "gates": {"fusion": "fail", "conversion": "pass"}}
    assert sweep_document.cause(wrong) == "fail: fusion"


def test_results_are_collected_from_a_folder(tmp_path: Path) -> None:
    name, other = architectures.CONVOLUTIONAL[0], architectures.OTHER[0]
    machine = {"cpu": "C", "instruction_set": "avx2", "system": "S", "python": "3", "torch": "2",
               "timm": "1", "flags": ["avx2"]}  # fmt: skip
    right = {"family": "resnet", "side": 64, "status": "right", "int8": 21, "seconds": 9.0}
    gates = {"gates": {"fusion": "pass"}, "details": {}, "machine": machine}
    (tmp_path / f"{name}.json").write_text(json.dumps({**right, **gates}))
    (tmp_path / f"{other}.json").write_text(json.dumps({**refusal("No."), "machine": machine}))
    (tmp_path / f"{architectures.OTHER[1]}.json").write_text('{"side": 64}')  # not finished
    before = {"machines": [], "architectures": {name: refusal("Never.")}}
    content = sweep_record.collected(tmp_path, before)
    assert [entry["kind"] for entry in content["architectures"].values()] == [
        "convolutional",
        "other",
    ]
    assert len(content["machines"]) == 1 and "flags" not in content["machines"][0]
    text = sweep_document.body(content)
    assert "**1 of 2 architectures, of 2 families" in text
    assert "| convolutional | 1 | 1 | 1 (100%) | 0 | 0 | 0 |" in text
    assert f"| refused: No | 1 | `{other}` |" in text
    # What the folder does not have stays.
    for path in tmp_path.iterdir():
        path.unlink()
    assert sweep_record.collected(tmp_path, content) == content


class Idle(nn.Module):
    """A block that training would wake: its last factor starts as nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.gamma = nn.Parameter(torch.full((4, 1, 1), 1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gamma * self.norm(self.conv(x))


def test_seeded_networks_have_no_idle_blocks_and_statistics_of_their_own() -> None:
    torch.manual_seed(0)
    model = Idle().eval()
    images = 3 + 2 * torch.randn(8, 3, 12, 12)
    network.settle(model, images)
    assert float(model.gamma.detach().min()) >= 0.1 and not model.norm.training
    with torch.inference_mode():
        normed = (model(images) / model.gamma).transpose(0, 1).flatten(1)
    assert normed.mean(1) == pytest.approx(model.norm.bias.tolist(), abs=1e-4)
    assert normed.std(1) == pytest.approx([1] * 4, abs=0.01)
