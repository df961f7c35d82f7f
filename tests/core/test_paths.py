"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path

import pytest

import ptqbench
from ptqbench.core.paths import is_dir, is_file, user_path
from ptqbench.errors import UserError

IMPOSSIBLE = ["cat dog " * 100, "nul\0", "x/" * 3000, ""]


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/photos") == tmp_path / "photos"
    assert user_path("photos/~old") == Path("photos/~old")


@pytest.mark.parametrize("text", ["~backup.pth", "~nosuchuser/photos"])
def test_a_home_folder_that_is_not_known_is_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"begins with ~.* is not known\. .*\./~") as error:
        user_path(text)
    assert text in str(error.value)


@pytest.mark.parametrize("text", IMPOSSIBLE)
def test_text_that_cannot_be_a_path_is_neither_file_nor_folder(text: str) -> None:
    assert not is_file(text)
    assert not is_dir(text)


def test_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert is_file(tmp_path / "file") and not is_dir(tmp_path / "file")
    assert is_dir(str(tmp_path)) and not is_file(str(tmp_path))


def test_no_other_module_expands_home_folders() -> None:
    """Only `user_path` turns an unknown home folder into a sentence."""
    package = Path(ptqbench.__file__).parent
    files = {file for file in package.rglob("*.py") if "expanduser(" in file.read_text("utf-8")}
    assert files == {package / "core" / "paths.py"}
