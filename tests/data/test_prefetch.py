"""Decoding beside inference: the same for every number of workers, bounded, and stoppable."""

from __future__ import annotations

import itertools
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ptqbench.data.file_source import FileSource
from ptqbench.data.folder_layout import LabelledFile
from ptqbench.data.image_set import Data, check_disjoint
from ptqbench.data.picture_set import Pictures
from ptqbench.data.picture_source import PictureSource
from ptqbench.data.prefetch import AHEAD, batches_ahead
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError
from ptqbench.settings.run_settings import RunSettings

SMALL = Preprocessing(8, 8)


def decoding_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("ptqbench-decoding")]


def wait_until(true: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.002)
    return true()


# --- the pipeline itself


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("batch_size", [1, 3, 10, 100])
def test_results_come_in_order_whoever_makes_them(workers: int, batch_size: int) -> None:
    def slow_at_first(item: int) -> int:
        time.sleep(0.004 if item % 5 == 0 else 0)  # the first of five comes last
        return item * item

    batches = list(batches_ahead(range(10), slow_at_first, batch_size, workers))
    assert list(itertools.chain(*batches)) == [i * i for i in range(10)]
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)


def test_nothing_to_do() -> None:
    assert list(batches_ahead([], abs, 4, 2)) == []


def test_the_next_batches_are_made_while_the_consumer_works() -> None:
    items: list[int] = []

    def make(item: int) -> int:
        items.append(item)
        return item

    stream = batches_ahead(range(100), make, 5, 2)
    assert next(stream) == [0, 1, 2, 3, 4]
    # The consumer does nothing, and yet: exactly the batches that may be made in advance.
    assert wait_until(lambda: len(items) == 5 * (1 + AHEAD))
    time.sleep(0.05)
    assert sorted(items) == list(range(5 * (1 + AHEAD)))
    assert next(stream) == [5, 6, 7, 8, 9]
    assert wait_until(lambda: len(items) == 5 * (2 + AHEAD))
    stream.close()


def test_results_that_were_handed_over_are_let_go() -> None:
    alive = 0
    most = 0
    lock = threading.Lock()

    class Made:
        def __init__(self) -> None:
            nonlocal alive, most
            with lock:
                alive += 1
                most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            with lock:
                alive -= 1

    for batch in batches_ahead(range(300), lambda _: Made(), 5, 2):
        assert len(batch) == 5
    # The consumer's batch, the one that is being handed over, and those in advance.
    assert most <= 5 * (AHEAD + 2)


def test_closing_early_stops_the_workers() -> None:
    items: list[int] = []

    def make(item: int) -> int:
        time.sleep(0 if item < 10 else 0.5)
        items.append(item)
        return item

    stream = batches_ahead(range(10_000), make, 10, 2)
    next(stream)
    assert decoding_threads()
    began = time.perf_counter()
    stream.close()
    assert time.perf_counter() - began < 2
    assert not decoding_threads()
    assert len(items) <= 10 + 2 * 2


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_what_goes_wrong_in_the_consumer_stops_the_workers(
    interruption: type[BaseException],
) -> None:
    def consume() -> None:
        for _ in batches_ahead(range(10_000), lambda item: time.sleep(0.001), 10, 2):
            raise interruption

    with pytest.raises(interruption):
        consume()
    assert wait_until(lambda: not decoding_threads())


def test_what_goes_wrong_in_a_worker_comes_out_where_its_batch_would() -> None:
    def make(item: int) -> int:
        if item == 7:
            raise MemoryError("the seventh")
        return item

    got: list[list[int]] = []
    with pytest.raises(MemoryError, match="the seventh"):
        for batch in batches_ahead(range(100), make, 3, 2):
            got.append(batch)
    assert got == [[0, 1, 2], [3, 4, 5]]
    assert not decoding_threads()


# --- pictures


def painted(folder: Path, count: int, side: int = 12) -> list[LabelledFile]:
    files = []
    for i in range(count):
        values = np.random.default_rng(i).integers(0, 256, (side, side + 2, 3), dtype=np.uint8)
        path = folder / f"{i:04d}.png"
        Image.fromarray(values).save(path, compress_level=0)
        files.append(LabelledFile(path, i % 3))
    return files


@pytest.fixture
def files(tmp_path: Path) -> list[LabelledFile]:
    files = painted(tmp_path, 60)
    for i in (11, 12, 40):
        files[i].path.write_bytes(b"no picture")
    return files


def opened(files: list[LabelledFile], **reading: object) -> Pictures:
    return Pictures(
        "set",
        FileSource(files[0].path.parent, files),
        ("a", "b", "c"),
        SMALL,
        reading=RunSettings(**reading),  # type: ignore[arg-type]
    )


def test_images_do_not_depend_on_the_number_of_workers(files: list[LabelledFile]) -> None:
    seen = []
    for workers in (1, 2, 5):
        images = opened(files, broken_share=0.1, workers=workers)
        pixels, labels = zip(*images.batches(0, 60, 7), strict=True)
        seen.append((torch.cat(pixels), torch.cat(labels), images.broken))
    for pixels, labels, broken in seen[1:]:
        assert torch.equal(pixels, seen[0][0]) and torch.equal(labels, seen[0][1])
        assert broken == seen[0][2] == tuple(str(files[i].path) for i in (11, 12, 40))
    assert len(seen[0][1]) == 57


@pytest.mark.parametrize("workers", [1, 3])
def test_broken_pictures_are_refused_at_the_same_place(
    files: list[LabelledFile], workers: int
) -> None:
    images = opened(files, broken_share=0.02, workers=workers)
    sizes = []
    with pytest.raises(UserError) as caught:
        for pixels, _ in images.batches(0, 60, 6):
            sizes.append(len(pixels))
    assert sizes == [6, 5]  # eleven good ones before; then a second broken one is too many
    message = str(caught.value)
    assert "2 of the 60 pictures in set cannot be decoded, more than 2 %" in message
    assert "0011.png" in message and "0012.png" in message and "--broken-share" in message
    assert "is not a picture in a format that can be read" in message


@pytest.mark.parametrize(
    ("share", "refused"), [(0.0, True), (0.049, True), (0.05, False), (1.0, False)]
)
def test_the_share_that_may_be_broken_is_what_was_set(
    files: list[LabelledFile], share: float, refused: bool
) -> None:
    images = opened(files, broken_share=share)
    if refused:
        with pytest.raises(UserError, match="cannot be decoded"):
            list(images.batches(0, 60, 10))
    else:
        assert sum(len(pixels) for pixels, _ in images.batches(0, 60, 10)) == 57


def test_exactly_the_share_that_may_be_broken_is_not_too_much(tmp_path: Path) -> None:
    files = painted(tmp_path, 100)
    for file in files[:29]:
        file.path.write_bytes(b"")
    assert 0.29 * 100 < 29  # in binary fractions
    images = opened(files, broken_share=0.29)
    assert sum(len(pixels) for pixels, _ in images.batches(0, 100, 50)) == 71


def test_no_picture_at_all_is_no_empty_set(tmp_path: Path) -> None:
    files = painted(tmp_path, 3)
    for file in files:
        file.path.write_bytes(b"")
    with pytest.raises(UserError, match=r"None of the pictures in set .*0000\.png"):
        list(opened(files, broken_share=1.0).batches(0, 3, 2))


class Endless(PictureSource):
    """Pictures that are drawn when they are needed."""

    place = "nowhere"

    def __init__(self, count: int, side: int) -> None:
        self.labels = (0,) * count
        self.side = side

    def key(self, position: int) -> str:
        return str(position)

    title = key

    def image(self, position: int) -> Image.Image:
        return Image.new("RGB", (self.side, self.side), (position % 256, 0, 0))

    def size(self, position: int) -> int:
        return self.side**2

    def digest(self, position: int) -> str:
        return f"{position:064x}"

    def subset(self, positions: Sequence[int]) -> Endless:
        return Endless(len(positions), self.side)


def endless(count: int) -> Pictures:
    return Pictures("endless", Endless(count, 64), ("a",), Preprocessing(64, 64))


def peak(images: Pictures) -> int:
    tracemalloc.start()
    for pixels, _ in images.batches(0, images.count, 10):
        assert pixels.shape[1:] == (3, 64, 64)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    # NumPy's arrays are traced, and each image passes through one of 12 kB.
    peak(endless(50))
    few, many = peak(endless(60)), peak(endless(1200))
    assert many < few + 1_000_000 < 1200 * 64 * 64 * 3


def test_the_check_for_copies_streams(tmp_path: Path) -> None:
    """Five files of 4 MB each are hashed without holding one of them."""
    files = []
    for i in range(5):
        path = tmp_path / f"{i}.png"
        path.write_bytes(bytes([i]) * 4_000_000)
        files.append(LabelledFile(path, 0))
    data = Data("set", opened(files[:1]), opened(files[1:]))
    tracemalloc.start()
    check_disjoint(data)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2_000_000
