"""Names in the code are nouns and verbs that say what they stand for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("ptqbench", "tests", "benchmarks", "fixtures", "examples")
MODULES = [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path != Path(__file__)  # it has an example of each
]
VAGUE = frozenset(
    "given told found meant said asked kept whose wanted settled noted own made".split()  # noqa: SIM905
)


def defined_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of everything that a module defines, assigns or passes by keyword."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.arg(arg=str(name)) | ast.keyword(arg=str(name)):
                yield node.lineno, name
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
                yield node.lineno, name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name


def vague(name: str) -> bool:
    return name.strip("_") in VAGUE


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_name_is_a_participle_or_a_pronoun(path: Path) -> None:
    parts = [*path.relative_to(ROOT).parent.parts, path.stem]
    assert not any(map(vague, parts))
    tree = ast.parse(path.read_text("utf-8"))
    names = [f"line {line}: {name}" for line, name in defined_names(tree) if vague(name)]
    assert names == []


def test_every_kind_of_definition_is_seen() -> None:
    source = """
def made(given, *told, found=1, **said):
    asked = kept = 1
    self._own_ = asked
    for whose in f(wanted=2):
        pass
    try:
        import settled as noted
    except ValueError as own:
        [found for found in x if (meant := found)]
    if (given := 1): pass
    match x:
        case [kept, *made]: pass
class settled: pass
"""
    names = {name.strip("_") for _, name in defined_names(ast.parse(source))}
    assert names >= VAGUE
