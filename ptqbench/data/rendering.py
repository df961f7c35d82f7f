"""Render many scenes on all cores.

The helpers are plain processes that read jobs from a pipe and write pixels to another.
``multiprocessing`` would either fork a process that has torch's threads, or run the user's
script once more in every child. Needs no torch, here and in the helpers.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO

import numpy as np

from ptqbench.data.manifest import Shard
from ptqbench.data.scenes import SIZE, render
from ptqbench.data.shapes import CLASSES

Job = tuple[int, int, int, int]
"""Seed, split number, position of the first image, position after the last."""

CHUNK = 25
"""Images in a job: about a tenth of a second."""

_WORTH_A_HELPER = 100
"""Images below which starting a helper takes longer than it saves."""


def render_job(job: Job) -> Shard:
    """Render consecutive images; the label of an image is its position modulo the classes.

    Returns:
        ``N×3×H×W`` uint8.
    """
    seed, split, start, stop = job
    images = [render(seed, split, i, i % len(CLASSES)) for i in range(start, stop)]
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))


@contextmanager
def rendering(images: int) -> Iterator[Renderer]:
    """Helpers for about as many images as given; they end with the block."""
    helpers = min(_cores(), images // _WORTH_A_HELPER)
    renderer = Renderer(helpers if helpers > 1 else 0)
    try:
        yield renderer
    finally:
        renderer.close()


class Renderer:
    """Renders jobs in helper processes, or in this one where there are none.

    Args:
        helpers: How many processes to start.
    """

    def __init__(self, helpers: int) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(max(helpers, 1))
        for _ in range(helpers):
            try:
                process = _start()
            except OSError:  # no interpreter to start, too many processes: do it here
                break
            self._processes.append(process)
            self._idle.put(process)

    def chunks(self, seed: int, split: int, start: int, stop: int) -> Iterator[Shard]:
        """Render the images ``start`` … ``stop`` - 1 and yield them in order, in pieces."""
        starts = range(start, stop, CHUNK)
        jobs = [(seed, split, first, min(first + CHUNK, stop)) for first in starts]
        if self._processes:
            yield from self._threads.map(self._ask, jobs)
        else:
            yield from map(render_job, jobs)

    def close(self) -> None:
        """End the helpers; what they are rendering is thrown away."""
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.communicate()

    def _ask(self, job: Job) -> Shard:
        process = self._idle.get()
        try:
            pixels = _request(process, job)
        except OSError:  # the helper died (killed, out of memory): do its work here
            pixels = None
        finally:
            self._idle.put(process)
        return render_job(job) if pixels is None else pixels


def _start() -> subprocess.Popen[bytes]:
    # The helper must find the same ptqbench as this process, wherever that came from.
    path = os.pathsep.join(p for p in sys.path if p)
    environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", "from ptqbench.data.rendering import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


def _request(process: subprocess.Popen[bytes], job: Job) -> Shard | None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write((" ".join(map(str, job)) + "\n").encode())
    process.stdin.flush()
    shape = (job[3] - job[2], 3, SIZE, SIZE)
    raw = process.stdout.read(int(np.prod(shape)))
    if len(raw) != np.prod(shape):
        return None
    return np.frombuffer(raw, np.uint8).reshape(shape)


def serve(jobs: IO[bytes] | None = None, pixels: IO[bytes] | None = None) -> None:
    """Be a helper: answer every line ``seed split start stop`` with the pixels."""
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs, pixels = jobs or sys.stdin.buffer, pixels or sys.stdout.buffer
    for line in jobs:
        seed, split, start, stop = map(int, line.split())
        pixels.write(render_job((seed, split, start, stop)).tobytes())
        pixels.flush()


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
