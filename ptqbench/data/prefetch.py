"""Decode pictures beside the work that is done with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

AHEAD = 2
"""Batches that are decoded, or being decoded, while their consumer works on another one."""


def batches_ahead(
    items: Sequence[Item],
    make: Callable[[Item], Made],
    batch_size: int,
    workers: int,
    ahead: int = AHEAD,
) -> Iterator[list[Made]]:
    """Apply a function to items in threads, and hand the results over batch by batch.

    While the consumer works on a batch, the next ones are made; memory holds ``ahead`` + 1
    of them, however many items there are. Order and results do not depend on the number of
    workers. Threads, because Pillow decodes without Python's lock, and because each process
    would import torch before it decodes anything (docs/data.md has what it is worth).

    A consumer that stops early, by an exception, Ctrl-C or ``close``, waits for the items
    that are being worked on and for nothing else.

    Args:
        items: What there is to do.
        make: Is called with each item once, in any thread.
        batch_size: Items of a batch; the last batch may have fewer.
        workers: Number of threads.
        ahead: Batches that are made in advance.

    Yields:
        What ``make`` returned, in the order of the items. What it raises comes out where
        its batch would.
    """
    waiting: deque[list[Future[Made]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ptqbench-decoding")
    try:
        for first in range(0, len(items), batch_size):
            waiting.append([pool.submit(make, i) for i in items[first : first + batch_size]])
            if len(waiting) > ahead:
                yield _results(waiting.popleft())
        while waiting:
            yield _results(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _results(batch: list[Future[Made]]) -> list[Made]:
    """Wait for a batch; its futures are let go one by one, so that results live once."""
    batch.reverse()
    return [batch.pop().result() for _ in range(len(batch))]
