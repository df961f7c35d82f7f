"""The fixture image set: what the cache does when all goes well, and when it does not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ptqbench.data.fixture import images as fixture
from ptqbench.data.fixture import renderer as rendering
from ptqbench.data.fixture import shard_cache as cache_module
from ptqbench.data.fixture.images import FixtureImages, open_fixture
from ptqbench.data.fixture.manifest import (
    SPLITS,
    Manifest,
    Split,
    image_digests,
    load_manifest,
    shard_hash,
)
from ptqbench.data.fixture.renderer import Renderer, render_job
from ptqbench.data.fixture.scenes import SIZE, render
from ptqbench.data.fixture.shapes import CLASSES
from ptqbench.data.fixture.shard_cache import ShardCache, default_cache_dir
from ptqbench.data.image_set import Data, check_classes, check_disjoint
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.errors import UserError

ROOT = Path(fixture.__file__).parents[3]
PLAIN = Preprocessing(SIZE, SIZE)
SHARD = 6


def expected(split: str, start: int, stop: int) -> np.ndarray:
    images = [render(0, SPLITS[split], i, i % 16) for i in range(start, stop)]
    return np.stack(images).transpose(0, 3, 1, 2)


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """The shipped set in small: 8 calibration and 20 evaluation images in shards of 6."""
    splits = {}
    for name, images in (("calibration", 8), ("evaluation", 20)):
        split = Split(name, SPLITS[name], images, SHARD, ())
        bounds = [split.bounds(shard) for shard in split.shards(0, images)]
        hashes = [shard_hash(image_digests(expected(name, *bound))) for bound in bounds]
        splits[name] = replace(split, sha256=tuple(hashes))
    return Manifest(0, splits)


@pytest.fixture
def data(tmp_path: Path, manifest: Manifest) -> Data:
    return open_fixture(PLAIN, cache_dir=tmp_path, evaluation_images=12, manifest=manifest)


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def all_pixels(images: FixtureImages, manifest: Manifest) -> np.ndarray:
    return images.pixels(0, images.limit).numpy()


def test_the_sets_are_what_was_asked_for(data: Data, tmp_path: Path) -> None:
    assert data.calibration.count == data.calibration.limit == 8
    assert (data.evaluation.count, data.evaluation.limit) == (12, 20)
    assert data.evaluation.classes == CLASSES
    assert len(files(tmp_path)) == 2 + 2  # nothing beyond the first 12 images yet


@pytest.mark.parametrize("batch_size", [1, 4, 5, 6, 7, 100])
def test_batches_are_the_rendered_images(data: Data, batch_size: int) -> None:
    batches = list(data.evaluation.batches(2, 17, batch_size))
    assert {len(images) for images, _ in batches[:-1]} <= {batch_size}
    images = torch.cat([images for images, _ in batches])
    reference = PLAIN.normalise(torch.from_numpy(expected("evaluation", 2, 17)))
    assert images.dtype == torch.float32
    assert torch.equal(images, reference)
    labels = torch.cat([labels for _, labels in batches])
    assert labels.dtype == torch.int64
    assert labels.tolist() == [i % 16 for i in range(2, 17)]


def test_a_top_up_renders_more(data: Data, tmp_path: Path) -> None:
    before = len(files(tmp_path))
    assert sum(len(images) for images, _ in data.evaluation.batches(12, 20, 8)) == 8
    assert len(files(tmp_path)) == before + 2


def test_there_are_no_images_beyond_the_limit(data: Data) -> None:
    with pytest.raises(ValueError, match="0 … 19"):
        next(data.evaluation.batches(0, 21, 4))
    assert list(data.evaluation.batches(5, 5, 4)) == []


def test_other_preprocessing_is_applied_to_every_image(tmp_path: Path, manifest: Manifest) -> None:
    preprocessing = Preprocessing(40, 32)
    data = open_fixture(preprocessing, cache_dir=tmp_path, manifest=manifest)
    images, _ = next(data.evaluation.batches(0, 7, 7))
    pictures = [Image.fromarray(render(0, 2, i, i)) for i in range(7)]
    pixels = torch.stack([preprocessing.pixels(picture) for picture in pictures])
    assert torch.equal(images, preprocessing.normalise(pixels))


def test_content_hashes_identify_the_images(data: Data) -> None:
    hashes = list(data.evaluation.content_hashes(4, 15))
    assert hashes == [digest.hex() for digest in image_digests(expected("evaluation", 4, 15))]


def test_a_second_run_renders_nothing(
    data: Data, tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nothing is to be rendered")

    monkeypatch.setattr(cache_module, "rendering", refuse)
    again = open_fixture(PLAIN, cache_dir=tmp_path, evaluation_images=12, manifest=manifest)
    first, second = (list(d.evaluation.batches(0, 12, 12)) for d in (data, again))
    assert torch.equal(first[0][0], second[0][0])


def test_progress_is_told_from_start_to_end(tmp_path: Path, manifest: Manifest) -> None:
    steps: list[tuple[str, int, int]] = []
    open_fixture(
        PLAIN, cache_dir=tmp_path, manifest=manifest, progress=lambda *step: steps.append(step)
    )
    evaluation = [step for step in steps if "evaluation" in step[0]]
    assert evaluation[0] == ("rendering evaluation images", 0, 20)
    assert evaluation[-1] == ("rendering evaluation images", 20, 20)
    done = [step[1] for step in evaluation]
    assert done == sorted(done)


def shards_of(directory: Path, split: str) -> list[Path]:
    return sorted((directory / "fixture").glob(f"{split}-*.npy"))


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def damage_pickle(path: Path) -> None:
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


def damage_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"}", b" ", 1))


def damage_remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "damage",
    [damage_truncate, damage_empty, damage_flip, damage_pickle, damage_header, damage_remove],
)
def test_a_damaged_shard_is_rendered_again(
    data: Data, tmp_path: Path, manifest: Manifest, damage: object
) -> None:
    path = shards_of(tmp_path, "evaluation")[1]
    whole = path.read_bytes()
    damage(path)  # type: ignore[operator]
    again = open_fixture(PLAIN, cache_dir=tmp_path, evaluation_images=12, manifest=manifest)
    images, _ = next(again.evaluation.batches(0, 12, 12))
    assert torch.equal(images, PLAIN.normalise(torch.from_numpy(expected("evaluation", 0, 12))))
    assert path.read_bytes() == whole


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_whole_shards_only(
    tmp_path: Path,
    manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    real, calls = Renderer.chunks, []

    def interrupted(self: Renderer, *job: int) -> Iterator[np.ndarray]:
        calls.append(job)
        if len(calls) == 4:
            raise error
        yield from real(self, *job)

    monkeypatch.setattr(Renderer, "chunks", interrupted)
    with pytest.raises(error):
        open_fixture(PLAIN, cache_dir=tmp_path, manifest=manifest)
    assert len(files(tmp_path)) == 3
    monkeypatch.undo()
    again = open_fixture(PLAIN, cache_dir=tmp_path, manifest=manifest)
    check_disjoint(again)
    assert len(files(tmp_path)) == 2 + 4


def test_an_interruption_while_writing_leaves_no_half_file(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(path: Path, pixels: np.ndarray) -> None:
        Path(path).write_bytes(pixels.tobytes()[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", half)
    with pytest.raises(KeyboardInterrupt):
        open_fixture(PLAIN, cache_dir=tmp_path, manifest=manifest)
    assert files(tmp_path) == []


def test_a_full_disk_is_explained_and_leaves_nothing(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, pixels: np.ndarray) -> None:
        Path(path).write_bytes(pixels.tobytes()[:1000])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match=r"no room .* Free about .* PTQBENCH_CACHE"):
        open_fixture(PLAIN, cache_dir=tmp_path, manifest=manifest)
    assert files(tmp_path) == []


def test_a_cache_directory_that_cannot_be_made_is_explained(
    tmp_path: Path, manifest: Manifest
) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(UserError, match=r"cannot be written to .*file.* --cache-dir"):
        open_fixture(PLAIN, cache_dir=tmp_path / "file" / "cache", manifest=manifest)


def test_a_complete_cache_needs_no_writing(
    data: Data, tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    again = open_fixture(PLAIN, cache_dir=tmp_path, evaluation_images=12, manifest=manifest)
    assert len(list(again.evaluation.batches(0, 12, 4))) == 3


def test_images_that_come_out_otherwise_are_refused(tmp_path: Path, manifest: Manifest) -> None:
    wrong = replace(manifest.splits["calibration"], sha256=("0" * 64,) * 2)
    other = Manifest(0, {**manifest.splits, "calibration": wrong})
    with pytest.raises(UserError, match=r"calibration images 0 to 5 render differently.*Pillow"):
        open_fixture(PLAIN, cache_dir=tmp_path, manifest=other)
    assert files(tmp_path) == []


def test_files_of_a_killed_run_are_removed_and_those_of_a_running_one_kept(
    tmp_path: Path, manifest: Manifest
) -> None:
    directory = tmp_path / "fixture"
    directory.mkdir()
    old, new = directory / ".evaluation-000-x.npy", directory / ".evaluation-001-y.npy"
    old.write_bytes(b"")
    new.write_bytes(b"")
    os.utime(old, (0, 0))
    open_fixture(PLAIN, cache_dir=tmp_path, manifest=manifest)
    assert not old.exists()
    assert new.exists()


def test_two_runs_at_once_do_not_break_each_other(tmp_path: Path, manifest: Manifest) -> None:
    results: list[Data | BaseException] = []
    barrier = threading.Barrier(2)

    def work() -> None:
        barrier.wait()
        try:
            results.append(open_fixture(PLAIN, cache_dir=tmp_path, manifest=manifest))
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        assert isinstance(result, Data)
        images, _ = next(result.evaluation.batches(0, 20, 20))
        assert torch.equal(images, PLAIN.normalise(torch.from_numpy(expected("evaluation", 0, 20))))
    assert len(files(tmp_path)) == 6


def test_helper_processes_render_the_same_in_order() -> None:
    renderer = Renderer(2)
    try:
        pieces = list(renderer.chunks(0, 2, 10, 90))
    finally:
        renderer.close()
    assert [len(piece) for piece in pieces] == [25, 25, 25, 5]
    assert np.array_equal(np.concatenate(pieces), render_job((0, 2, 10, 90)))


def test_a_helper_that_dies_is_replaced_by_this_process() -> None:
    renderer = Renderer(1)
    try:
        renderer._processes[0].kill()
        renderer._processes[0].wait()
        pieces = list(renderer.chunks(0, 2, 0, 3))
    finally:
        renderer.close()
    assert np.array_equal(pieces[0], render_job((0, 2, 0, 3)))


def test_helpers_that_cannot_start_are_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    renderer = Renderer(2)
    try:
        assert len(next(renderer.chunks(0, 2, 0, 2))) == 2
    finally:
        renderer.close()


def test_rendering_needs_no_torch() -> None:
    script = "import sys, ptqbench.data.fixture.renderer as r; assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=60)


def test_the_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTQBENCH_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert default_cache_dir() == Path("/one")
    monkeypatch.delenv("PTQBENCH_CACHE")
    assert default_cache_dir() == Path("/two/ptqbench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "ptqbench"


def test_shared_images_are_noticed(data: Data) -> None:
    check_disjoint(data)
    with pytest.raises(UserError, match="8 of the 12 evaluation images"):
        mixed = FixtureImages(data.calibration._cache, PLAIN, 8)  # type: ignore[attr-defined]
        check_disjoint(replace(data, evaluation=_Counted(mixed, 12)))


class _Counted:
    """The images of another set under another count."""

    def __init__(self, images: FixtureImages, count: int) -> None:
        self.content_hashes = lambda start, stop: images.content_hashes(0, images.count)
        self.count = self.limit = count
        self.name, self.classes, self.batches = images.name, images.classes, images.batches


def test_weights_of_other_classes_are_noticed(data: Data) -> None:
    check_classes(data, CLASSES, 16)
    check_classes(data, None, 16)
    with pytest.raises(UserError, match=r"has 16 classes .* 10 outputs"):
        check_classes(data, None, 10)
    with pytest.raises(UserError, match="Their order differs"):
        check_classes(data, CLASSES[::-1], 16)
    with pytest.raises(UserError, match="are not those of the weights"):
        check_classes(data, ("cat", "dog"), 2)


def test_the_shipped_manifest_describes_the_whole_set() -> None:
    splits = load_manifest().splits
    assert {name: split.images for name, split in splits.items()} == {
        "train": 20_000,
        "calibration": 512,
        "evaluation": 10_000,
    }
    for name, split in splits.items():
        assert split.number == SPLITS[name]
        assert len(split.sha256) == len(split.shards(0, split.images))


def test_this_machine_renders_the_shipped_set(tmp_path: Path) -> None:
    shards = ShardCache(load_manifest(), "calibration", tmp_path)
    assert len(shards.load(0)) == 256


@pytest.mark.parametrize("content", ["", "{}", '{"format": 99}', '{"format": 1, "seed": 0}'])
def test_a_damaged_manifest_is_explained(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match="manifest"):
        load_manifest(tmp_path / "manifest.json")
    with pytest.raises(UserError, match="manifest"):
        load_manifest(tmp_path / "nowhere.json")


def test_few_images_are_rendered_without_helpers() -> None:
    with rendering.rendering(50) as renderer:
        assert renderer._processes == []
