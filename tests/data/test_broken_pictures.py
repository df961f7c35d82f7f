"""One undecodable picture of ninety-six, through every door: refused, or counted and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ptqbench import RunSettings, UserError, quantize, validate
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.cli import main
from ptqbench.measurement.artifact_inspection import ArtifactInspection
from ptqbench.measurement.fidelity import Fidelity
from ptqbench.settings.requests import CaseRequest
from ptqbench.testing.shared_runner import SharedRunner

if TYPE_CHECKING:
    from conftest import UserCase

BACKEND = next((b.name for b in TORCH_ENGINES if b.availability() is None), "onednn")
ENOUGH = 0.05

pytestmark = pytest.mark.usefixtures("torch_settings")


@pytest.fixture(scope="module")
def photos(user_case: UserCase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's pictures; one to evaluate on and one to calibrate with end too early."""
    folder = tmp_path_factory.mktemp("broken") / "photos"
    shutil.copytree(user_case.data, folder)
    for part in ("val", "train"):
        path = broken(folder, part)
        path.write_bytes(path.read_bytes()[:900])  # beyond what the headers of all share
    return folder


def broken(photos: Path, part: str) -> Path:
    return min((photos / part).glob("*/*.jpg"))


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes time and has nothing to do with pictures: the fresh process."""
    same = Fidelity(4, 4, 0.0, BACKEND, BACKEND, BACKEND)
    monkeypatch.setattr(ArtifactInspection, "fidelity", same)


def test_at_the_command_line(
    user_case: UserCase,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    settings = f'report = {{json = "r.json", markdown = "r.md"}}\nbackends = ["{BACKEND}"]\n'
    Path("ptqbench.toml").write_text(settings, "utf-8")
    argv = ["run", user_case.model, "--weights", str(user_case.weights), "--data", str(photos)]
    argv += ["--input-size", "64", "--threads", "1"]
    assert main(argv) == 2
    message = capsys.readouterr().err
    assert "1 of the 48 pictures" in message and "more than 1 %" in message
    assert str(broken(photos, "train")) in message and "--broken-share" in message
    assert not Path("r.json").exists()

    Path("ptqbench.toml").write_text(f"broken_share = {ENOUGH}\n{settings}", "utf-8")
    assert main(argv) in (0, 1)
    (case,) = json.loads(Path("r.json").read_text("utf-8"))["cases"]
    assert case["facts"]["evaluation_images"] == 95
    assert case["facts"]["calibration_images"] == 47
    assert case["facts"]["broken_evaluation_files"] == [str(broken(photos, "val"))]
    assert case["facts"]["broken_calibration_files"] == [str(broken(photos, "train"))]
    shown = capsys.readouterr().out
    written = Path("r.md").read_text("utf-8").replace("\\", "")
    for report in ("".join(shown.split()), "".join(written.split())):
        for part, kind in (("val", "evaluation"), ("train", "calibration")):
            assert f"1{kind}picturecouldnotbedecodedandtooknopart:" in report
            assert str(broken(photos, part)) in report


@pytest.mark.slow
def test_from_python(user_case: UserCase, photos: Path) -> None:
    def judged(**reading: float) -> object:
        settings = RunSettings(input_size=64, threads=1, **reading)  # type: ignore[arg-type]
        weights = str(user_case.weights)
        report = validate(user_case.model, BACKEND, photos, weights=weights, settings=settings)
        return report.cases[0].facts["broken_evaluation_files"]

    refused(lambda: judged(), photos, "train")
    assert judged(broken_share=ENOUGH) == (str(broken(photos, "val")),)


def test_quantize(user_case: UserCase, photos: Path, tmp_path: Path) -> None:
    options = {"weights": str(user_case.weights), "path": tmp_path / "int8.pt"}
    options["backend"] = BACKEND
    refused(lambda: quantize(user_case.model, str(photos), **options), photos, "train")  # type: ignore[arg-type]
    assert not (tmp_path / "int8.pt").exists()
    artifact = quantize(user_case.model, str(photos), broken_share=ENOUGH, **options)  # type: ignore[arg-type]
    assert artifact.info.calibration_images == 47


def test_in_pytest(user_case: UserCase, photos: Path, tmp_path: Path) -> None:
    def judged(share: float) -> object:
        settings = RunSettings(
            weights=str(user_case.weights),
            data=str(photos),
            broken_share=share,
            input_size=64,
            threads=1,
        )
        case = CaseRequest(user_case.model, (BACKEND,), "a test", settings)
        return SharedRunner(tmp_path, workers=1).judge(case, "accuracy").facts

    refused(lambda: judged(0.01), photos, "train")
    facts = judged(ENOUGH)
    assert isinstance(facts, dict)
    assert facts["broken_evaluation_images"] == facts["broken_calibration_images"] == 1
    assert facts["broken_evaluation_files"] == (str(broken(photos, "val")),)


def refused(call: Callable[[], object], photos: Path, part: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert str(broken(photos, part)) in str(caught.value)
    assert "broken_share" in str(caught.value)
