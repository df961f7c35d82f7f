"""The wheel in somebody else's hands: three lines gate two models, from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
GATES = """import pytest
from ptqbench.suite import *
pytestmark = pytest.mark.ptqbench(size_ratio={size_ratio})
"""
STRUCTURE = "fusion or conversion or size"


class Elsewhere:
    """An empty folder, and an interpreter that sees the unpacked wheel and no checkout."""

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder = folder
        # The other variables stay: where the fixture images are cached, how many threads.
        strange = ("PYTEST_", "PYTHON", "CI", "COV_")
        usual = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
        self.environment = {**usual, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def pytest(self, *options: str) -> tuple[subprocess.CompletedProcess[str], ElementTree.Element]:
        """The process, and what it wrote as JUnit XML."""
        report = self.folder / "junit.xml"
        report.unlink(missing_ok=True)
        # Nothing that happens to be installed, only what is under test.
        process = self.run("-m", "pytest", "-p", "no:xdist", f"--junitxml={report}", *options)
        return process, ElementTree.parse(report).getroot()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what an installation of the built wheel puts into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def elsewhere(site: Path, tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path, site)


def test_the_wheel_is_what_runs(elsewhere: Elsewhere, site: Path) -> None:
    code = (
        "import ptqbench, importlib.metadata as m; print(ptqbench.__file__);"
        "print(*(e.value for e in m.entry_points(group='pytest11') if e.name == 'ptqbench'))"
    )
    file, entry = elsewhere.run("-c", code).stdout.splitlines()
    assert Path(file).is_relative_to(site)
    assert entry.split()[0] == "ptqbench.pytest_plugin"


def test_three_lines_gate_two_models_and_a_raised_threshold_turns_red(
    elsewhere: Elsewhere,
) -> None:
    gates = elsewhere.folder / "test_gates.py"
    gates.write_text(GATES.format(size_ratio=3.0))
    process, junit = elsewhere.pytest(
        "--ptqbench-models=resnet18,squeezenet1_1",
        "-k",
        f"(resnet18 and not speedup) or (squeezenet1_1 and ({STRUCTURE}))",
    )
    assert process.returncode == 0, process.stdout
    assert "11 verdicts on 2 cases: 11 pass." in process.stdout
    suite = junit.find("testsuite")
    assert suite is not None
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "11", "failures": "0", "errors": "0", "skipped": "0"}

    # The same file, asking for more than int8 can give.
    gates.write_text(GATES.format(size_ratio=9.5))
    process, junit = elsewhere.pytest("--ptqbench-models=squeezenet1_1", "-k", STRUCTURE)
    assert process.returncode == 1, process.stdout
    assert "3 verdicts on 1 case: 1 fail, 2 pass." in process.stdout
    assert "Traceback" not in process.stdout + process.stderr
    failed = [case for case in junit.iter("testcase") if case.find("failure") is not None]
    assert [case.get("name") for case in failed] == ["test_size[squeezenet1_1-onednn]"]
    (failure,) = junit.iter("failure")
    message = failure.get("message") or ""
    assert "size of squeezenet1_1 on onednn: fail. Observed 3." in message
    assert "9.50" in message and "(set by marker)" in message
