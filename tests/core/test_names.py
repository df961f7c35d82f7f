"""Names in messages, file names, and paths of modules."""

from __future__ import annotations

import os

import pytest

from ptqbench.core.names import first_few, is_within, nearest, printable, safe_file_name


def test_nearest_suggests_or_lists() -> None:
    assert nearest("appel", ["pear", "apple"]) == "Did you mean apple?"
    assert nearest("x", ("alpha", "beta")) == "Known: alpha, beta."


@pytest.mark.parametrize(
    ("names", "most", "expected"),
    [
        ([], 5, ""),
        (["a", "b"], 2, "a, b"),
        (list("abcdef"), 5, "a, b, c, d, e and 1 more"),
        (["n"] * 2003, 3, "n, n, n and 2,000 more"),
    ],
)
def test_first_names_and_how_many_more(names: list[str], most: int, expected: str) -> None:
    assert first_few(names, most) == expected


def test_only_some_names_are_known() -> None:
    assert first_few(["a", "b", "c"], 2, total=20) == "a, b and 18 more"
    assert first_few(["a"], 2, total=20) == "a and 19 more"


def test_another_separator() -> None:
    assert first_few(["a, b", "c"], separator="; ") == "a, b; c"


def test_a_file_name_has_no_separators() -> None:
    assert safe_file_name("my.nets:net") == "my.nets_net"
    assert safe_file_name("../a b") == "_a_b"


@pytest.mark.parametrize(
    ("path", "parent", "inside"),
    [
        ("layer1", "layer1", True),
        ("layer1.0.conv1", "layer1", True),
        ("layer10", "layer1", False),
        ("layer1", "layer1.0", False),
    ],
)
def test_a_module_is_within_itself_and_its_parents(path: str, parent: str, inside: bool) -> None:
    assert is_within(path, parent) is inside


def test_what_no_encoding_can_write_is_escaped() -> None:
    assert printable("Übung → ✓.jpg") == "Übung → ✓.jpg"
    assert printable(os.fsdecode(b"caf\xe9.jpg")) == r"caf\xe9.jpg"
    assert printable("\ud83d cut") == r"\ud83d cut"
