"""How the command's process ends, and what ptqbench leaves alone in any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import ptqbench

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(ptqbench.__file__).parents[1])}
posix = pytest.mark.skipif(os.name != "posix", reason="signals and process groups are POSIX")

COMMAND = """
import signal, sys, tempfile, time
from pathlib import Path

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored

import ptqbench.cli
from ptqbench.__main__ import script
from ptqbench.core.atomic import atomic_path
from ptqbench.data.fixture.renderer import Renderer


def main():
    forgotten = tempfile.TemporaryDirectory(prefix="ptqbench-")
    renderer = Renderer(2)
    try:
        with tempfile.TemporaryDirectory(prefix="ptqbench-") as folder:
            Path(folder, "artifact.pt").touch()
            with atomic_path(Path("result.json")) as temporary:
                temporary.write_text("half")
                print("ready", flush=True)
                time.sleep(60)
    finally:
        renderer.close()
    return 0


ptqbench.cli.main = main
script()
"""

LIBRARY = """
import gc, signal, sys
import torch
before = dict(sys.modules)
handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

import ptqbench
from ptqbench.models.catalog import MODELS
ptqbench.validate

replaced = [name for name, module in before.items() if sys.modules.get(name) is not module]
assert not replaced, replaced
for name, module in sys.modules.items():
    assert not type(module).__module__.startswith("ptqbench"), name
    if name.startswith(("torch._dynamo", "torchvision")):
        assert module.__spec__ is not None and module.__spec__.origin, name
assert gc.isenabled() and gc.get_freeze_count() == 0
assert handlers == {number: signal.getsignal(number) for number in handlers}
"""


def group_is_gone(leader: int) -> bool:
    for _ in range(100):
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_process_takes_its_children_and_files_along(
    tmp_path: Path, number: signal.Signals
) -> None:
    temporary, folder = tmp_path / "tmp", tmp_path / "work"
    for path in (temporary, folder):
        path.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**ENVIRONMENT, "TMPDIR": str(temporary)},
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert os.listdir(temporary) and os.listdir(folder)
        process.send_signal(number)
        process.send_signal(number)  # impatience must not interrupt cleaning up
        _, err = process.communicate(timeout=30)
        assert process.returncode == 128 + number
        assert err == f"\nptqbench: terminated by {number.name}.\n"
        assert os.listdir(temporary) == os.listdir(folder) == []
        assert group_is_gone(process.pid)
    finally:
        process.kill()


@posix
def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As under `nohup`."""
    code = """
        import signal
        from ptqbench.core.process import raise_on_termination
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        raise_on_termination()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=ENVIRONMENT)


@pytest.mark.slow
def test_a_library_leaves_modules_signals_and_collector_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
