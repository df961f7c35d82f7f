"""How the package is built: imports go one way, and every module is found by its name."""

from __future__ import annotations

import ast
import importlib
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ptqbench"
MODULES = sorted(PACKAGE.rglob("*.py"))
DOORS = {"__init__", "__main__", "api", "suite", "pytest_plugin", "errors"}


def imported_names(path: Path) -> Iterator[str]:
    """Every module, or name in one, that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_contract_of_imports_knows_every_room() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    doors = {path.stem for path in PACKAGE.glob("*.py")}
    assert doors == DOORS
    assert {name for layer in layers for name in layer.split(" : ")} == rooms | doors - {"__init__"}
    assert all(contract.get("ignore_imports") is None for contract in contracts)


def test_torch_ao_is_imported_only_where_models_are_quantized_or_executed() -> None:
    allowed = (PACKAGE / "quantization", PACKAGE / "backends" / "torch_engines")
    importing = {
        path
        for path in MODULES
        for name in imported_names(path)
        if name == "torch.ao" or name.startswith("torch.ao.")
    }
    assert importing
    assert [path for path in importing if not path.is_relative_to(allowed[0])
            and not path.is_relative_to(allowed[1])] == []  # fmt: skip


def test_a_module_name_occurs_once_but_for_a_measurement_and_its_gate() -> None:
    places = defaultdict(set)
    for path in MODULES:
        if path.stem not in ("__init__", "__main__"):
            places[path.stem].add(str(path.relative_to(PACKAGE).parent))
    repeated = {name: rooms for name, rooms in places.items() if len(rooms) > 1}
    assert {name: rooms for name, rooms in repeated.items()
            if rooms != {"measurement", "gates"}} == {}  # fmt: skip


@pytest.mark.parametrize("folder", ["ptqbench", "benchmarks", "examples", "fixtures", "tests"])
def test_no_script_imports_a_name_that_is_gone(folder: str) -> None:
    names = {
        (name, str(path.relative_to(ROOT)))
        for path in (ROOT / folder).rglob("*.py")
        for name in imported_names(path)
        if name.startswith("ptqbench.") and not name.endswith(".*")
    }
    assert [(name, path) for name, path in sorted(names) if not exists(name)] == []


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    try:
        parent, _, attribute = name.rpartition(".")
        return hasattr(importlib.import_module(parent), attribute) or bool(find_spec(name))
    except ModuleNotFoundError:
        return False


def test_no_module_is_too_long_to_read_in_one_go() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert {path.name: length for path, length in lengths.items() if length > 320} == {}
