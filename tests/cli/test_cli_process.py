"""The command line in a process of its own: what it imports, how it ends, what it leaves."""

from __future__ import annotations

import json
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


def fresh(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        **options,
    )


def test_help_and_import_bring_no_torch_along() -> None:
    process = fresh(
        """
        import sys
        import ptqbench, ptqbench.cli
        try:
            ptqbench.cli.main(["--help"])
        except SystemExit as left:
            assert left.code == 0
        assert ptqbench.cli.main(["run", "--weights", "missing"]) == 2
        heavy = {"torch", "torchvision", "numpy", "scipy", "rich"} & set(sys.modules)
        assert not heavy, heavy
        """
    )
    assert process.returncode == 0, process.stderr
    assert "exit codes:" in process.stdout


@pytest.mark.skipif(os.name != "posix", reason="needs the processor time of child processes")
def test_help_is_there_at_once() -> None:
    def seconds(*argv: str) -> float:
        # Processor time: what else runs on this machine must not decide.
        before = os.times()
        subprocess.run([sys.executable, *argv], check=True, capture_output=True, env=ENVIRONMENT)
        after = os.times()
        used = after.children_user + after.children_system
        return used - before.children_user - before.children_system

    pairs = [(seconds("-c", "pass"), seconds("-m", "ptqbench", "--help")) for _ in range(5)]
    bare, shown = (min(side) for side in zip(*pairs, strict=True))
    # A bare interpreter takes 0.02 to 0.05 s; importing torch takes 30 times as long.
    assert shown < max(0.2, 6 * bare)


_SLEEPER = """
import os, signal, sys, types
import ptqbench.evaluation
module = types.ModuleType("ptqbench.evaluation.run")
# A shell starts background jobs with interrupts ignored, and that is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)
def run_requests(*_):
    os.kill(os.getpid(), signal.SIGINT)
    raise SystemExit("not interrupted")
module.run_requests = run_requests
sys.modules["ptqbench.evaluation.run"] = ptqbench.evaluation.run = module
from ptqbench.cli import main
sys.exit(main(["run"]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals work otherwise on Windows")
def test_a_real_interrupt_ends_with_130_and_a_sentence() -> None:
    process = fresh(_SLEEPER)
    assert process.returncode == 130
    assert "Traceback" not in process.stderr
    assert "interrupted" in process.stderr


@pytest.mark.skipif(os.name != "posix", reason="pipes close otherwise on Windows")
def test_a_pipe_that_closes_early_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = """
        import sys
        from ptqbench.reporting import console
        console.write("text " * 100_000, sys.stdout)
        """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (0, "")


def test_the_process_ends_with_the_code_and_all_of_its_output() -> None:
    """It leaves without taking the interpreter down: nothing that was printed may be lost."""
    ends = {}
    for arguments in (["--version"], ["run", "nosuch"], ["frobnicate"], ["list", "--json"]):
        command = [sys.executable, "-m", "ptqbench", *arguments]
        ends[arguments[0]] = subprocess.run(
            command, capture_output=True, text=True, env=ENVIRONMENT
        )
    assert [process.returncode for process in ends.values()] == [0, 2, 2, 0]
    assert ends["--version"].stdout.startswith("ptqbench ")
    assert "Unknown model 'nosuch'" in ends["run"].stderr
    assert "invalid choice: 'frobnicate'" in ends["frobnicate"].stderr
    assert "resnet18" in str(json.loads(ends["list"].stdout))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals and process groups are POSIX")
def test_a_cancelled_run_leaves_nothing_behind(tmp_path: Path) -> None:
    temporary, folder = tmp_path / "tmp", tmp_path / "work"
    for path in (temporary, folder):
        path.mkdir()
    argv = ["run", "squeezenet1_1", "--limit", "100", "--json", "result.json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ptqbench", *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={**ENVIRONMENT, "TMPDIR": str(temporary)},
        start_new_session=True,
    )
    try:
        while process.poll() is None and not list(temporary.glob("ptqbench-*")):
            time.sleep(0.05)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
        assert os.listdir(temporary) == os.listdir(folder) == []
        with pytest.raises(ProcessLookupError):
            for _ in range(100):  # children end a moment later
                os.killpg(process.pid, 0)
                time.sleep(0.05)
    finally:
        process.kill()
