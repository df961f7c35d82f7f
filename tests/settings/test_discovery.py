"""Which file with settings applies, and whom it must belong to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ptqbench.cli import main
from ptqbench.errors import UserError
from ptqbench.recipes.recipe_catalog import CATALOG
from ptqbench.settings import discovery
from ptqbench.settings.discovery import check_owner, load

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files have owners on POSIX only")


@pytest.fixture
def inner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, two levels below one with settings."""
    (tmp_path / "ptqbench.toml").write_text("seed = 7\n", "utf-8")
    folder = tmp_path / "project" / "inner"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def seed(folder: Path) -> object:
    return load(folder, CATALOG).value("seed").value


def test_settings_apply_below_their_folder(inner: Path) -> None:
    assert seed(inner) == 7


@pytest.mark.parametrize("marker", [".git", ".hg", ".svn", ".jj"])
def test_the_search_ends_at_the_root_of_the_repository(inner: Path, marker: str) -> None:
    (inner.parent / marker).mkdir()
    assert load(inner, CATALOG).file is None
    # A file in the root itself counts.
    (inner.parent / "ptqbench.toml").write_text("seed = 8\n", "utf-8")
    assert seed(inner) == 8


def test_the_root_of_a_worktree_has_a_file_instead_of_a_folder(inner: Path) -> None:
    (inner / ".git").write_text("gitdir: elsewhere\n", "utf-8")
    assert load(inner, CATALOG).file is None


def test_the_search_ends_at_the_home_folder(inner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(inner.parent))
    assert load(inner, CATALOG).file is None
    (inner.parent / "ptqbench.toml").write_text("seed = 8\n", "utf-8")
    assert seed(inner) == 8


PLUGIN = "Path('executed').touch()"


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Another user, who owns everything in the folder above the working folder."""
    other = os.geteuid() + 4321
    real = os.stat

    def stat(path: object, *args: object, **options: object) -> os.stat_result:
        result = real(path, *args, **options)  # type: ignore[arg-type]
        if Path(str(path)) not in (tmp_path, tmp_path / "ptqbench.toml"):
            return result
        fields = list(result)
        fields[4] = other
        return os.stat_result(fields)

    monkeypatch.setattr(discovery.os, "stat", stat)
    return other


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('plugins = ["evil"]', "plugins"),
        ('recipes = ["evil.toml"]', "recipes"),
        ('report.json = "victim"', "report.json"),
        ('baselines = "victim"', "baselines"),
        ('models = ["evil:net"]', "models"),
        ('model."evil:net".seed = 1', 'model."evil:net"'),
    ],
)
def test_a_file_of_another_user_does_not_run_code_or_write_files(
    inner: Path,
    tmp_path: Path,
    foreign: int,
    text: str,
    key: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "ptqbench.toml"
    file.write_text(f"{text}\n", "utf-8")
    (tmp_path / "evil.py").write_text(f"from pathlib import Path\n{PLUGIN}\n", "utf-8")
    assert main(["list"]) == 2
    error = capsys.readouterr().err
    assert f"{file} belong to another user (number {foreign}) and set {key}, which" in error
    assert f"name it: --config {file}" in error
    assert not (inner / "executed").exists()


def test_a_file_of_another_user_is_used_if_it_is_named(
    inner: Path, tmp_path: Path, foreign: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ptqbench.toml"
    file.write_text('plugins = ["friendly"]\n', "utf-8")
    (tmp_path / "friendly.py").write_text(f"from pathlib import Path\n{PLUGIN}\n", "utf-8")
    assert main(["show-config", "resnet18", "--config", str(file)]) == 0
    assert (inner / "executed").exists()


def test_a_file_of_another_user_may_set_what_runs_nothing(
    inner: Path, tmp_path: Path, foreign: int
) -> None:
    (tmp_path / "ptqbench.toml").write_text("seed = 9\n", "utf-8")
    assert seed(inner) == 9
    check_owner(load(inner, CATALOG))


def test_files_of_the_user_are_used(
    inner: Path, tmp_path: Path, foreign: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ptqbench.toml").write_text('plugins = ["mine"]\n', "utf-8")
    settings = load(inner, CATALOG)
    with pytest.raises(UserError, match="belong to another user"):
        check_owner(settings)
    monkeypatch.setattr(discovery.os, "geteuid", lambda: 0)
    with pytest.raises(UserError, match="belong to another user"):
        check_owner(settings)
    monkeypatch.setenv("SUDO_UID", str(foreign))
    check_owner(settings)
    monkeypatch.setattr(discovery.os, "geteuid", lambda: foreign)
    check_owner(settings)


def test_a_link_of_another_user_to_a_file_of_the_user_is_refused(
    inner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its relative paths would start where the link is."""
    file, target = tmp_path / "ptqbench.toml", inner / "settings.toml"
    target.write_text('plugins = ["quant"]\n', "utf-8")
    file.unlink()
    file.symlink_to(target)
    check_owner(load(inner, CATALOG))
    real = os.lstat

    def lstat(path: object, *args: object, **options: object) -> os.stat_result:
        fields = list(real(path, *args, **options))  # type: ignore[arg-type]
        if path == file:
            fields[4] = os.geteuid() + 4321
        return os.stat_result(fields)

    monkeypatch.setattr(discovery.os, "lstat", lstat)
    with pytest.raises(UserError, match="belong to another user"):
        check_owner(load(inner, CATALOG))


def test_folders_above_that_may_not_be_searched_are_passed_over(
    inner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def stat(path: object, *args: object, **options: object) -> os.stat_result:
        if Path(str(path)).parent == inner.parent:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(discovery.os, "stat", stat)
    assert seed(inner) == 7


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_was_given_away_is_refused(inner: Path, tmp_path: Path) -> None:
    file = tmp_path / "ptqbench.toml"
    file.write_text('plugins = ["evil"]\n', "utf-8")
    os.chown(file, 4321, 4321)
    with pytest.raises(UserError, match=r"another user \(number 4321\)"):
        check_owner(load(inner, CATALOG))


def test_the_named_file_replaces_the_nearest(
    inner: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.toml"
    other.write_text('seed = 3\nbaselines = "refs"\n', "utf-8")
    settings = load(inner, CATALOG, file=other)
    assert (settings.value("seed").value, settings.file) == (3, other)
    assert settings.value("baselines").value == tmp_path / "refs"
    assert main(["list", "--config", "missing.toml"]) == 2
    assert "--config missing.toml: there is no such file" in capsys.readouterr().err
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n", "utf-8")
    with pytest.raises(UserError, match=r"it has no table \[tool\.ptqbench\]"):
        load(inner, CATALOG, file=tmp_path / "pyproject.toml")


@pytest.mark.parametrize("name", ["recipe", "default"])
def test_a_file_that_is_called_like_an_origin_counts(inner: Path, name: str) -> None:
    (inner / name).write_text("thresholds.accuracy = 0.5\n", "utf-8")
    case, origins = load(inner, CATALOG, file=Path(name)).case("resnet18")
    assert case.thresholds == {"accuracy": 0.5}
    assert origins["accuracy"] == str(inner / name)


def test_settings_that_are_nested_too_deeply_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "ptqbench.toml").write_text(f"models = {'[' * 5000}{']' * 5000}\n", "utf-8")
    with pytest.raises(UserError, match="nested too deeply"):
        load(tmp_path, CATALOG)
