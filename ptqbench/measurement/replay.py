"""Run a file in another process: a fresh one, which a bad file cannot take this one down with.

:class:`ReplayProcess` is this end of the pipes; ``measurement.replay_worker`` is the other.
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Timer
from typing import TYPE_CHECKING, Any, Literal

from ptqbench.core.child_process import start_python
from ptqbench.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ptqbench.backends.backend import Backend
    from ptqbench.backends.foreign_artifact import Behaviour

TIMEOUT_S = 600.0
"""How long a job may take."""
_WORKER = "ptqbench.measurement.replay_worker"
READY = "ready"
"""What the other process writes first."""


class NotStartedError(Exception):
    """No other process could be started, so that nothing can be said about the file."""


class FileKillsProcessError(Exception):
    """The process that ran a file died or hung, which loading the file here would repeat."""


class FileHangsError(FileKillsProcessError):
    """The process that ran a file did not finish, and was killed."""


@dataclass(frozen=True)
class Job:
    """What the other process shall do.

    Attributes:
        task: ``replay``: compute logits; ``try``: see what the file takes and returns.
        backend: Name of the backend to load and run it on.
        module: Module that registers the backend.
        artifact: Path of the file.
        folder: Holds ``images.npy`` and, to try a file, ``latency.npy``: ``N×C×H×W`` float32;
            ``logits.npy`` is written there, ``N×K`` float32.
        threads: Number of threads to run with.
        classes: Number of logits that the float32 model has.
    """

    task: Literal["replay", "try"]
    backend: str
    module: str
    artifact: str
    folder: str
    threads: int
    classes: int = 0


@dataclass(frozen=True)
class Replayed:
    """What another process made of a file.

    Attributes:
        logits: ``N×K`` float32; None if the file did not run.
        engine: Engine that computed them; empty if the file did not run.
        error: Why the file did not run; empty if it did.
        hung: Whether it did not finish.
    """

    logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None
    engine: str = ""
    error: str = ""
    hung: bool = False


class ReplayProcess:
    """An interpreter that waits for artifacts to run.

    Importing torch takes as long as all gates of a small model that look inside its file.
    Started while this process imports torch itself, the other one costs no time. It has seen
    nothing when it gets its first job, and ends without one. If a file kills it, the next job
    gets a new one.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ptqbench-")
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._problem = ""
        self._start()

    def __enter__(self) -> ReplayProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._end()
        self._folder.cleanup()

    def ready(self) -> None:
        """Wait until it has imported torch, so that it takes no time from what is timed.

        A process that cannot start is reported when it gets a job.
        """
        if self._process is None or self._ready or self._problem:
            return
        try:
            # What it imports may print something before that.
            while (line := self._read(TIMEOUT_S)) not in {READY, ""}:
                pass
            self._ready = line == READY
        except FileKillsProcessError as error:
            self._problem = str(error)
        else:
            self._problem = "" if self._ready else self._ending()

    def start(self, backend: Backend, artifact: Path, images: Tensor) -> None:
        """Have a file run while this process does something else; :meth:`result` waits.

        Args:
            backend: What to load and run it on.
            artifact: The file.
            images: ``N×C×H×W`` float32.
        """
        self._save("images", images)
        self._file("logits").unlink(missing_ok=True)
        self._send(self._job("replay", backend, artifact))

    def result(self) -> Replayed:
        """Wait for the job that :meth:`start` gave it.

        Raises:
            NotStartedError: No process could be started.
        """
        import numpy as np

        try:
            answer = self._answer()
        except FileKillsProcessError as error:
            hung = isinstance(error, FileHangsError)
            return Replayed(None, error=str(error), hung=hung)
        if "error" in answer:
            return Replayed(None, error=str(answer["error"]))
        return Replayed(np.load(self._file("logits")), str(answer["engine"]))

    def replay(self, backend: Backend, artifact: Path, images: Tensor) -> Replayed:
        """Run a file and wait for it; see :meth:`start` and :meth:`result`."""
        self.start(backend, artifact, images)
        return self.result()

    def try_out(
        self, backend: Backend, artifact: Path, images: Tensor, latency: Tensor, classes: int
    ) -> Behaviour:
        """See what a foreign file takes and returns; see ``foreign_artifact.try_out``.

        Raises:
            NotStartedError: No process could be started.
            FileKillsProcessError: The file kills the process that loads or runs it, or hangs.
            NotRunningError: It cannot be loaded, or runs on no input.
            UserError: It runs, but on other inputs or with other outputs than it should.
        """
        from ptqbench.backends.foreign_artifact import Behaviour, NotRunningError

        self._save("images", images)
        self._save("latency", latency)
        self._send(self._job("try", backend, artifact, classes))
        answer = self._answer()
        if "refusal" in answer:
            raise UserError(str(answer["refusal"]))
        if "error" in answer:
            raise NotRunningError(str(answer["error"]), loads=bool(answer["loads"]))
        return Behaviour(bool(answer["one_at_a_time"]), bool(answer["probabilities"]))

    def _job(
        self, task: Literal["replay", "try"], backend: Backend, artifact: Path, classes: int = 0
    ) -> Job:
        import torch

        module, path = type(backend).__module__, str(artifact.resolve())
        threads = torch.get_num_threads()
        return Job(task, backend.name, module, path, self._folder.name, threads, classes)

    def _start(self) -> None:
        self._process, self._ready, self._problem = None, False, ""
        # Not a pipe, which would fill up: it is read when the process has ended.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in _end)
        try:
            self._process = start_python(_WORKER, "serve", stderr=self._errors)
        except OSError as error:
            self._problem = error.strerror or str(error)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._errors.close()

    def _send(self, job: Job) -> None:
        if self._ready and self._process is not None and self._process.poll() is not None:
            self._end()
            self._start()
        self.ready()
        if self._problem or self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(f"{json.dumps(asdict(job))}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            self._problem = self._ending()

    def _answer(self) -> Mapping[str, Any]:
        if self._problem:
            raise NotStartedError(
                "The artifact could not be run in another process, which did not start: "
                f"{self._problem}."
            )
        line = self._read(TIMEOUT_S)
        if not line:
            raise FileKillsProcessError(self._ending())
        answer: Mapping[str, Any] = json.loads(line)
        if "unavailable" in answer:
            raise NotStartedError(
                "The artifact's backend cannot be used in another process: "
                f"{answer['unavailable']}."
            )
        return answer

    def _read(self, timeout: float) -> str:
        """The next line that the process writes and that is not blank; empty if it ends instead.

        Raises:
            FileHangsError: It did not write one in time, and was killed.
        """
        process = self._process
        assert process is not None and process.stdout is not None
        expired = Event()

        def end() -> None:
            expired.set()  # first: once the process is killed, the other thread goes on
            process.kill()

        timer = Timer(timeout, end)
        timer.start()
        try:
            lines = (raw.decode("utf-8", "replace").strip() for raw in process.stdout)
            line = next(filter(None, lines), "")
        finally:
            timer.cancel()
        if not line and expired.is_set():
            process.wait()
            raise FileHangsError(f"it did not finish within {timeout:g} s")
        return line

    def _ending(self) -> str:
        """How the process ended: its signal, its last words or its exit code."""
        assert self._process is not None
        code = self._process.wait()
        if code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        self._errors.seek(0)
        words = self._errors.read().decode("utf-8", "replace").splitlines()
        words = [line.strip() for line in words if line.strip()]
        return words[-1] if words else f"its process ended with code {code}"

    def _save(self, name: str, images: Tensor) -> None:
        import numpy as np

        np.save(self._file(name), images.numpy())

    def _file(self, name: str) -> Path:
        return Path(self._folder.name) / f"{name}.npy"
