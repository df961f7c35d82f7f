"""A second interpreter that is started early and asked late."""

from __future__ import annotations

import contextlib
import subprocess
import sys


class FreshProcess:
    """An interpreter that imports torch and then waits for one artifact to run.

    Importing torch takes as long as all gates of a small model that look inside its file.
    Started while this process imports torch itself, the other one costs no time. It has seen
    nothing when it gets its job (``ptqbench.measurement.replay``), and ends without one.
    """

    def __init__(self) -> None:
        command = [sys.executable, "-m", "ptqbench.measurement.replay"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self._ready = False
        self._ended = False

    def __enter__(self) -> FreshProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._ended:
            self._process.kill()
            self._process.communicate()
        self._ended = True

    def ready(self) -> None:
        """Wait until it has imported torch, so that it takes no time from what is timed."""
        if not self._ready and self._process.stdout is not None:
            self._process.stdout.readline()
        self._ready = True

    def give(self, job: str) -> None:
        """Give it its only job, which it does while this process does something else.

        Args:
            job: A line of JSON.
        """
        self.ready()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and its answer says why
            self._process.stdin.write(f"{job}\n")
            self._process.stdin.flush()

    def answer(self, timeout: float) -> tuple[int, str, str]:
        """Wait for the end of the job.

        Args:
            timeout: In s.

        Returns:
            Exit code, stdout and stderr.

        Raises:
            TimeoutError: It did not end in time.
        """
        try:
            stdout, stderr = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"it did not end within {timeout:g} s") from None
        self._ended = True
        return self._process.returncode, stdout, stderr
