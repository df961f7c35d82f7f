"""A user's architecture from file to verdict, in a folder of its own, without touching ptqbench."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.custom_models import EXAMPLE, example, write_photos

from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.gates import gates_in_order
from ptqbench.recipes.toml_format import from_toml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ANY = next(backend.name for backend in TORCH_ENGINES if backend.availability() is None)
SETTINGS = """\
plugins = ["my_package.quant"]
models = ["my_net"]
input_size = 32
threads = 1

[model.my_net]
weights = "my.safetensors"
data = "photos"

[thresholds]  # what a minute of training and 48 pictures can promise
accuracy = 0.5
agreement = 0.5
size_ratio = 2
"""


@dataclass(frozen=True)
class Project:
    """A folder with somebody's package, weights, photographs and settings."""

    folder: Path

    def run(self, *argv: str, code: int = 0) -> str:
        """What a command prints there, as if ptqbench were installed."""
        unwanted = ("CI", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER")
        environment = {k: v for k, v in os.environ.items() if k not in unwanted}
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(path)
        result = subprocess.run(
            [sys.executable, "-m", *argv],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout

    def verdicts(self, *argv: str) -> tuple[dict[str, object], dict[str, str]]:
        """The one case of a run, and its verdicts by gate."""
        self.run("ptqbench", "run", *argv, "--json", "result.json")
        (case,) = json.loads((self.folder / "result.json").read_text())["cases"]
        verdicts = {gate["name"]: gate["verdict"] for gate in case["gates"]}
        assert list(verdicts) == [gate.name for gate in gates_in_order()]
        return case, verdicts


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").touch()
    shutil.copy(EXAMPLE, folder / "my_package" / "quant.py")
    (folder / "ptqbench.toml").write_text(SETTINGS)
    write_photos(folder / "photos" / "train", 4, 96, 0)
    write_photos(folder / "photos" / "val", 4, 48, 2)
    right = example().train(folder / "photos" / "train", folder / "my.safetensors", 5, 32)
    assert right > 0.4
    return Project(folder)


def check_passed(verdicts: dict[str, str]) -> None:
    # Nobody has promised a speedup on this CPU.
    assert verdicts.pop("speedup") == "unverified"
    assert set(verdicts.values()) == {"pass"}


def test_a_name_in_the_settings(project):
    case, verdicts = project.verdicts("my_net", "--weights", "my.safetensors", "--data", "photos")
    check_passed(verdicts)
    assert (case["model"], case["weights"], case["data"]) == ("my_net", "my.safetensors", "photos")
    assert "my_net: its recipe recommends no backend" in " ".join(case["facts"]["notes"])


def test_a_function_in_place_of_a_name(project):
    name = "my_package/quant.py:my_net"
    argv = ["--weights", "my.safetensors", "--data", "photos", "--backend", ANY]
    case, verdicts = project.verdicts(name, *argv, "--artifacts", "files")
    check_passed(verdicts)
    assert case["model"] == name
    files = {path.name for path in (project.folder / "files").iterdir()}
    assert files == {
        f"my_package_quant.py_my_net-{ANY}.int8.pt",
        "my_package_quant.py_my_net.float32.pt",
    }


def test_a_recipe_is_saved_edited_and_used(project):
    path = project.folder / "my_net.recipe.toml"
    path.write_text(project.run("ptqbench", "recipe", "my_net", "--backend", ANY))
    printed = from_toml(path.read_text(), "printed")
    assert (printed.int8_modules, len(printed.fusion)) == (12, 11)
    path.write_text(path.read_text().replace("keep_float = []", 'keep_float = ["head"]'))
    result = subprocess.run(
        [sys.executable, "-m", "ptqbench", "run", "my_net", "--recipe", path.name],
        cwd=project.folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert result.returncode == 2
    assert "promises 12 int8 layers, but the model has 11 with keep_float = [head]" in result.stderr
    path.write_text(path.read_text().replace("int8_modules = 12", "int8_modules = 11"))
    edited = from_toml(path.read_text(), "edited")
    case, verdicts = project.verdicts("my_net", "--recipe", path.name)
    assert (case["recipe"], case["backend"]) == (edited.hash, ANY)
    assert edited.hash != printed.hash
    assert {verdicts[name] for name in ("fusion", "conversion", "fidelity")} == {"pass"}


def test_the_suite_judges_it_beside_its_workers(project):
    pytest.importorskip("xdist")
    (project.folder / "test_gates.py").write_text("from ptqbench.suite import *\n")
    out = project.run("pytest", "-n2", "-v", "-p", "no:cacheprovider", "test_gates.py")
    gates = len([gate.name for gate in gates_in_order()])
    assert f"{gates - 1} passed, 1 skipped" in out
    assert "test_gates.py::test_fusion[my_net-" in out
