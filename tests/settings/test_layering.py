"""The settings lie below everything but the core: they import no room above, and no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ptqbench

ROOM = Path(ptqbench.__file__).parent / "settings"
BELOW = ("ptqbench.core", "ptqbench.errors", "ptqbench.settings")


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.stem)
def test_settings_import_nothing_above(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            assert not name.startswith("ptqbench") or name.startswith(BELOW), name


def test_neither_settings_nor_the_parser_import_torch_or_recipes() -> None:
    code = (
        "import sys, pkgutil, importlib, ptqbench.settings\n"
        "for module in pkgutil.iter_modules(ptqbench.settings.__path__):\n"
        "    importlib.import_module(f'ptqbench.settings.{module.name}')\n"
        "from ptqbench.cli.parser import build_parser\n"
        "build_parser()\n"
        "unwanted = ('torch', 'numpy', 'rich', 'ptqbench.recipes', 'ptqbench.models')\n"
        "sys.exit([name for name in unwanted if name in sys.modules] or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
