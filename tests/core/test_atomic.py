"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import ptqbench
from ptqbench.core.atomic import atomic_path, check_writable, write_text
from ptqbench.errors import UserError

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(ptqbench.__file__).parents[1])}
posix = pytest.mark.skipif(os.name != "posix", reason="devices and FIFOs are POSIX")


def test_the_file_appears_when_the_body_ends(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with atomic_path(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".json"
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "no" / "file"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    before = os.umask(0o027)
    try:
        with atomic_path(path) as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_long_name_leaves_room_for_the_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / f"{'n' * 240}.json"
    check_writable(path)
    write_text("new", path)
    assert path.read_text() == "new"


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "disk" / "result.json", tmp_path / "build" / "latest.json"
    for folder in (target.parent, link.parent):
        folder.mkdir()
    link.symlink_to("../disk/result.json")
    (tmp_path / "chain.json").symlink_to(link)
    for text, path in (("missing", link), ("new", link), ("newer", tmp_path / "chain.json")):
        check_writable(path)
        with atomic_path(path) as temporary:
            assert temporary.parent == target.parent.resolve()
            temporary.write_text(text)
        assert link.is_symlink() and target.read_text() == text
        assert os.listdir(target.parent) == ["result.json"]
        assert os.listdir(link.parent) == ["latest.json"]


def test_a_failure_leaves_the_target_of_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with pytest.raises(KeyboardInterrupt), atomic_path(link) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["link", "target"]


def test_links_in_a_circle_and_to_nowhere_are_refused(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a"), ("lost", "none/file"), ("folder", ".")):
        (tmp_path / name).symlink_to(other)
    for name, words in (("a", "symbolic links"), ("lost", "no folder"), ("folder", "is a folder")):
        with pytest.raises(UserError, match=words):
            check_writable(tmp_path / name)
        with pytest.raises(UserError, match=words):
            write_text("x", tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "folder", "lost"]


@posix
def test_a_device_receives_the_text_and_stays_a_device(tmp_path: Path) -> None:
    before = os.stat(os.devnull)
    (tmp_path / "link").symlink_to(os.devnull)
    for path in (Path(os.devnull), tmp_path / "link"):
        check_writable(path)
        write_text("text", path)
    after = os.stat(os.devnull)
    assert stat.S_ISCHR(after.st_mode) and after.st_ino == before.st_ino
    assert (tmp_path / "link").is_symlink()


@posix
def test_a_fifo_receives_the_text_and_stays_a_fifo(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    check_writable(path)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()), daemon=True)
    reader.start()
    write_text("text", path)
    reader.join(10)
    assert read == ["text"]
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert os.listdir(tmp_path) == ["fifo"]


@posix
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_continued_whatever_it_is(tmp_path: Path, name: str) -> None:
    if not os.path.exists(name):
        pytest.skip(f"there is no {name} here")
    code = (
        "from pathlib import Path\n"
        "from ptqbench.core.atomic import check_writable, write_text\n"
        "print('before')\n"
        f"path = Path({name!r}); check_writable(path); write_text('text\\n', path)\n"
        "print('after')\n"
    )
    command = [sys.executable, "-c", code]
    piped = subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT)
    assert piped.stdout == "before\ntext\nafter\n"
    with (tmp_path / "log").open("wb") as log:
        subprocess.run(command, check=True, stdout=log, env=ENVIRONMENT)
    assert (tmp_path / "log").read_text() == piped.stdout
    assert os.listdir(tmp_path) == ["log"]


@posix
def test_a_descriptor_that_is_closed_or_only_read_is_refused(tmp_path: Path) -> None:
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("descriptors have no names here")
    (tmp_path / "input").write_text("x")
    with (
        (tmp_path / "input").open() as file,
        pytest.raises(UserError, match="not open for writing"),
    ):
        check_writable(Path(f"/proc/self/fd/{file.fileno()}"))
    with pytest.raises(UserError, match="not an open file"):
        check_writable(Path("/proc/self/fd/987654"))


@posix
def test_a_file_that_cannot_be_replaced_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single file that is mounted into a container."""

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    path = tmp_path / "mounted.json"
    path.write_text("something longer than the new text")
    monkeypatch.setattr(Path, "replace", busy)
    write_text("new", path)
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["mounted.json"]


def test_what_can_be_said_before_is_what_the_writer_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    impossible = (
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "file", "there is no folder"),
        (tmp_path / "file" / "below", "Not a directory"),
        (tmp_path / ("n" * 300), "too long"),
        (tmp_path / "nul\0", "null"),
    )
    for path, words in impossible:
        with pytest.raises(UserError, match=words) as early:
            check_writable(path)
        with pytest.raises(UserError) as late:
            write_text("x", path)
        assert str(early.value) == str(late.value)
    assert os.listdir(tmp_path) == ["file"]


def test_checking_leaves_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    for name in ("old", "new"):
        check_writable(tmp_path / name)
    assert os.listdir(tmp_path) == ["old"]
    assert (tmp_path / "old").read_text() == "old"
