"""Artifacts that the tests of a session share, also those of several files."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import UserCase

from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.gates import Verdict
from ptqbench.settings.requests import CaseRequest
from ptqbench.settings.run_settings import RunSettings
from ptqbench.testing.shared_cache import SharedFolder
from ptqbench.testing.shared_runner import SharedRunner

ANY = next(each.name for each in TORCH_ENGINES if each.availability() is None)


def test_an_artifact_is_built_once_with_all_its_files(tmp_path: Path) -> None:
    builds: list[Path] = []

    def build(path: Path) -> None:
        builds.append(path)
        path.with_suffix(".bin").write_text("weights")
        path.write_text("structure")

    folder = SharedFolder(tmp_path / "shared")
    paths = {folder.built("net.xml", build), folder.built("net.xml", build)}
    assert builds == [tmp_path / "shared" / "net.xml"] and paths == set(builds)
    assert builds[0].with_suffix(".bin").read_text() == "weights"


@pytest.mark.usefixtures("torch_settings")
@pytest.mark.parametrize("backend", [ANY, "onnxruntime", "openvino"])
def test_a_suite_judges_files_of_any_runtime(
    backend: str, user_case: UserCase, tmp_path: Path
) -> None:
    # OpenVINO's artifacts are two files; of those that were shared, one got lost.
    if reason := BACKENDS.get(backend).availability():
        pytest.skip(reason)
    options = {"weights": str(user_case.weights), "data": str(user_case.data), "input_size": 64}
    request = CaseRequest(user_case.model, (backend,), "test", RunSettings(**options, threads=1))
    runner = SharedRunner(tmp_path / "shared", 1)
    (size,) = runner.judge(request, "size").gates
    assert size.verdict in (Verdict.PASS, Verdict.FAIL) and size.observed is not None
    (agreement,) = runner.judge(request, "agreement").gates
    assert agreement.observed is not None and agreement.observed > 0.9
    for gate in ("parity", "saturation"):
        (inside,) = runner.judge(request, gate).gates
        assert inside.verdict is Verdict.PASS, inside.detail
    assert runner.latency(request, "int8")().shape == (1, 16)
