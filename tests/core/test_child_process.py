"""Other interpreters import from where this process does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import ptqbench
from ptqbench.core.child_process import import_path, start_python

ROOT = Path(ptqbench.__file__).resolve().parents[1]


def decoy(folder: Path) -> Path:
    """A folder that holds another ``ptqbench``, which cannot be imported."""
    (folder / "ptqbench").mkdir(parents=True)
    (folder / "ptqbench" / "__init__.py").write_text("raise ImportError('the wrong one')\n")
    return folder


def output(capture: Path) -> str:
    with capture.open("wb") as file:
        process = start_python("ptqbench.core.child_process", "import_path", stderr=file)
        process.communicate()
    return f"{process.returncode} {capture.read_text()}"


def test_a_working_folder_with_another_ptqbench_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(decoy(tmp_path / "work"))
    assert output(tmp_path / "errors") == "0 "


def test_neither_is_a_folder_that_joined_the_path_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(decoy(tmp_path / "late"))
    assert import_path().split(os.pathsep)[0] == str(ROOT)
    assert output(tmp_path / "errors") == "0 "


def test_a_path_that_only_this_process_has_is_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    assert str(tmp_path) in import_path().split(os.pathsep)


def test_entries_that_python_ignores_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    real = os.stat

    def stat(path: object, *args: object, **options: object) -> os.stat_result:
        if str(path).startswith(str(closed)):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(sys, "path", [tmp_path / "no text", str(closed), *sys.path])
    folders = import_path().split(os.pathsep)
    assert str(tmp_path / "no text") not in folders
    assert str(ROOT) in folders


def test_ptqbench_is_on_the_path_however_it_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [folder for folder in sys.path if folder and Path(folder).resolve() != ROOT]
    monkeypatch.setattr(sys, "path", ["", *others])
    assert str(ROOT) in import_path().split(os.pathsep)
