"""Decode pictures in threads, ahead of the work that needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2
"""Batches decoded in advance, while the consumer works on another one."""


def batches_ahead(
    items: Sequence[Item],
    function: Callable[[Item], Result],
    batch_size: int,
    workers: int,
    ahead: int = AHEAD,
) -> Iterator[list[Result]]:
    """Apply a function to items in threads, and yield the results batch by batch.

    While the consumer works on a batch, the next ones are computed; memory holds ``ahead`` + 1
    of them, however many items there are. Order and results do not depend on the number of
    workers. Threads, because Pillow decodes without Python's lock, and because each process
    would import torch before it decodes anything (measured in docs/data.md).

    A consumer that stops early, by an exception, Ctrl-C or ``close``, waits for the items
    in progress and for nothing else.

    Args:
        items: The items.
        function: Called with each item once, in any thread.
        batch_size: Items of a batch; the last batch may have fewer.
        workers: Number of threads.
        ahead: Batches computed in advance.

    Yields:
        The results, in the order of the items. What ``function`` raises is raised in place
        of its batch.
    """
    waiting: deque[list[Future[Result]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ptqbench-decoding")
    try:
        for first in range(0, len(items), batch_size):
            waiting.append([pool.submit(function, i) for i in items[first : first + batch_size]])
            if len(waiting) > ahead:
                yield _results(waiting.popleft())
        while waiting:
            yield _results(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _results(batch: list[Future[Result]]) -> list[Result]:
    """Wait for a batch, releasing its futures one by one so that results are not held twice."""
    batch.reverse()
    return [batch.pop().result() for _ in range(len(batch))]
