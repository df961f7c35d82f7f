"""What is declared, pinned and shipped: pyproject.toml, constraints.txt and the wheel."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYPROJECT = ROOT / "pyproject.toml"


def pins() -> dict[str, str]:
    """Pinned versions by normalised name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {}
    for requirement in requirements:
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{requirement} is not pinned exactly"
        pinned[canonicalize_name(requirement.name)] = specifier.version
    assert len(pinned) == len(requirements), "a package is pinned twice"
    return pinned


def declared() -> list[str]:
    """Every requirement that pyproject.toml states, the build's and the extras' too."""
    document = tomllib.loads(PYPROJECT.read_text())
    project = document["project"]
    extras = [line for group in project["optional-dependencies"].values() for line in group]
    return [*document["build-system"]["requires"], *project["dependencies"], *extras]


@pytest.mark.parametrize("line", sorted(set(declared())))
def test_pin_is_inside_the_declared_range(line: str) -> None:
    requirement = Requirement(line)
    pinned = pins()
    name = canonicalize_name(requirement.name)
    assert name in pinned, f"constraints.txt does not pin {name}"
    assert requirement.specifier.contains(pinned[name]), f"{line}, but {pinned[name]} is pinned"


def test_pins_carry_no_local_version() -> None:
    # ``torch==2.13.0+cpu`` could be installed from one index only.
    assert not [pin for pin in pins().items() if "+" in pin[1]]


def unjustified(text: str) -> list[str]:
    """Requirements in ``text`` that no comment directly precedes."""
    lines = [line.strip() for line in text.splitlines()]
    missing = []
    for before, line in itertools.pairwise(lines):
        if line.startswith('"') and line.endswith('",') and not before.startswith("#"):
            missing.append(line)
    return missing


def test_every_dependency_is_justified() -> None:
    text = PYPROJECT.read_text()
    dependencies = text.split("\ndependencies = [\n")[1].split("\n]\n")[0]
    extras = text.split("\n[project.optional-dependencies]\n")[1].split("\n\n[")[0]
    assert dependencies.count('",') + extras.count('",') == len(declared()) - 1
    assert unjustified("\n" + dependencies) == []
    assert unjustified("\n" + extras) == []


def test_a_missing_justification_is_noticed() -> None:
    assert unjustified('x = [\n# reason\n"rich>=13",\n"numpy",\n]') == ['"numpy",']


def test_wheel_holds_fixtures_and_schema_but_no_scripts(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    weights = {path.name for path in (ROOT / "fixtures" / "weights").glob("*.safetensors")}
    assert weights, "no trained weights lie in fixtures/weights"
    sidecars = {name.removesuffix("safetensors") + "json" for name in weights}
    expected = {f"ptqbench/fixtures/weights/{name}" for name in weights | sidecars}
    expected |= {
        "ptqbench/fixtures/manifest.json",
        "ptqbench/reporting/result.schema.json",
        "ptqbench/settings/ptqbench.schema.json",
        "ptqbench/py.typed",
        "ptqbench/cli/__init__.py",
    }
    assert expected - names == set()
    packaged = {name for name in names if name.startswith("ptqbench/fixtures/")}
    assert not [name for name in packaged if not name.endswith((".safetensors", ".json"))]
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"ptqbench"}


def test_import_loads_no_torch() -> None:
    code = "import sys, ptqbench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
