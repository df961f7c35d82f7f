"""From torch.ao to other runtimes: pairs of files, the backends that are compared, the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.cli import main
from ptqbench.evaluation.migration import Destination, Migration, backends_to_compare
from ptqbench.evaluation.recommendation import FLOAT32, INT8, Candidate, Recommendation
from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.gates import Evidence
from ptqbench.measurement.conversion import Conversion
from ptqbench.measurement.file_pair import IMAGES, FilePair, measure_pairs
from ptqbench.recipes import RECIPES
from ptqbench.reporting.console import render
from ptqbench.reporting.migration_view import migration_view
from ptqbench.settings.thresholds import Thresholds


class Rows:
    """Images that are rows of logits."""

    name, labelled, classes = "rows", False, ()

    def __init__(self, count: int) -> None:
        self.count = self.limit = count
        self.rows = torch.randn(count, 10, generator=torch.Generator().manual_seed(0))

    def batches(self, start: int, stop: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(start, stop, size):
            part = self.rows[first : min(first + size, stop)]
            yield part, torch.zeros(len(part))


def test_files_are_compared_on_the_same_images() -> None:
    images = Rows(120)
    shifted = images.rows.roll(1, 1)
    pairs = measure_pairs(
        lambda x: x, {"same": lambda x: x + 0.5, "other": lambda x: x.roll(1, 1)}, images
    )
    assert (pairs["same"].agreed, pairs["same"].noise.n) == (120, 120)
    assert pairs["other"].agreed == int((images.rows.argmax(1) == shifted.argmax(1)).sum())
    # By hand: the noise of a constant half in ten logits is 2.5 for each image.
    power = float(images.rows.double().square().sum())
    expected = 10 * torch.log10(torch.tensor(power / (2.5 * 120)))
    assert pairs["same"].noise.sqnr().value == pytest.approx(float(expected), abs=1e-4)
    assert measure_pairs(lambda x: x, {"a": lambda x: x}, Rows(900))["a"].noise.n == IMAGES


def test_one_engine_of_torch_is_compared_with_every_other_runtime() -> None:
    recipe = replace(RECIPES.get("resnet18"), backend="qnnpack")
    first, *others = backends_to_compare(recipe)
    assert first == "qnnpack"
    assert others == [each.name for each in BACKENDS if each.runtime != "torch"]
    for backend in ("onnxruntime", "measured"):
        first, *_ = backends_to_compare(replace(recipe, backend=backend))
        assert BACKENDS.get(first).runtime == "torch"


def candidate(name: str, ms: float, *layers: str) -> Candidate:
    conversion = Conversion(len(layers), layers, (), (), (), (), (), (), (), (), None, ())
    evidence = Evidence(Thresholds(), "avx2", {"conversion": conversion})
    metrics = {"int8_top1": 0.79, "agreement": 0.98, "sqnr_db": 25.0}
    case = CaseResult("net", "fixture", name, "fixture", "abc", metrics, (), evidence=evidence)
    artifact = Artifact(Path(f"{name}.bin"), ArtifactInfo(INT8, name, name, "net"))
    return Candidate(INT8, name, artifact, 2_500_000, ms, case)


def test_the_table_tells_what_changes_and_what_could_not_be_tried() -> None:
    origin, new = candidate("x86", 4.0, "stem", "head"), candidate("onnxruntime", 3.0, "head", "se")
    info = ArtifactInfo(FLOAT32, "torch", "torch", "net")
    float32 = Candidate(FLOAT32, "torch", Artifact(Path("a.pt"), info), 9_000_000, 5.0)
    recommendation = Recommendation("net", (new, origin, float32), new, {}, (1, 3, 8, 8), 1)
    pair = FilePair.of(torch.eye(4), torch.eye(4).roll(1, 0))
    migration = Migration(
        origin, (Destination(new, pair, gains=("se",), losses=("stem",)),), recommendation
    )
    absent = Evidence(Thresholds(), "avx2", unavailable="it is not installed.")
    case = CaseResult("net", "fixture", "openvino", "fixture", "abc", {}, (), evidence=absent)
    shown = render(migration_view(migration, Report({}, (case,), {})), 120)
    assert "net: from int8 in x86" in shown
    assert "int8 only in onnxruntime: se." in shown
    assert "int8 only in x86: stem (float32 in onnxruntime)." in shown
    assert "Not compared: openvino: it is not installed." in shown
    assert "Ship int8 in onnxruntime" in shown
    (row,) = [line for line in shown.splitlines() if line.startswith("onnxruntime")]
    assert row.split()[1:8] == ["79.00", "98.00", "25.0", "dB", "0.00", "3.00", "2.5"]


@pytest.mark.slow
@pytest.mark.usefixtures("torch_settings")
def test_the_command_compares_whatever_is_installed(
    user_case: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["migrate", *user_case.argv()[1:], "--json", str(tmp_path / "all.json")]
    assert main(argv) == 0
    screen = capsys.readouterr().out
    cases = json.loads((tmp_path / "all.json").read_text("utf-8"))["cases"]
    by_name = {case["backend"]: case for case in cases}
    assert len(by_name) == 1 + sum(each.runtime != "torch" for each in BACKENDS)
    for name, case in by_name.items():
        line = next(line for line in screen.splitlines() if name in line)
        assert line.startswith("Not compared") == (not any(case["metrics"].values())), line


def test_without_a_file_of_torch_there_is_nothing_to_migrate_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["none"])
    assert main(["migrate", "squeezenet1_1", "--backend", "x86", "--limit", "20"]) == 2
    assert "No backend can run squeezenet1_1 here" in capsys.readouterr().err
