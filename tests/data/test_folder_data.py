"""Image folders: layouts, classes, held-out calibration, and files that are no pictures."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image

from ptqbench.data.decode import load_image
from ptqbench.data.file_source import FileSource
from ptqbench.data.folder import open_folder
from ptqbench.data.folder_layout import LabelledFile, find_files
from ptqbench.data.image_set import UNLABELLED, Data, check_classes, check_disjoint, example_image
from ptqbench.data.picture_set import Pictures
from ptqbench.data.picture_source import without_copies
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.data.sampling import held_out
from ptqbench.data.split import DataOptions
from ptqbench.errors import UserError
from ptqbench.settings.run_settings import RunSettings

SMALL = Preprocessing(8, 8)
CLASSES = ("ant", "bee", "cat")


def paint(path: Path, seed: int, size: tuple[int, int] = (9, 11)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def fill(top: Path, each: int, first: int = 0, classes: tuple[str, ...] = CLASSES) -> Path:
    for label, name in enumerate(classes):
        for i in range(each):
            paint(top / name / f"{i:03d}.png", first + label * each + i)
    return top


def opened(path: Path, **options: object) -> Data:
    settings: dict[str, object] = {"classes": None, "num_classes": 3, **options}
    return open_folder(path, DataOptions(SMALL, **settings))  # type: ignore[arg-type]


def labels_of(images: object, batch_size: int = 4) -> list[int]:
    batches = images.batches(0, images.count, batch_size)  # type: ignore[attr-defined]
    return torch.cat([labels for _, labels in batches]).tolist()


def paths_of(images: object) -> set[Path]:
    return {file.path for file in images.source.files}  # type: ignore[attr-defined]


def test_one_folder_per_class_holds_calibration_out(tmp_path: Path) -> None:
    data = opened(fill(tmp_path, 20), calibration_images=6)
    assert (data.calibration.count, data.evaluation.count) == (6, 54)
    assert data.evaluation.limit == 54
    assert sorted(labels_of(data.calibration)) == [0, 0, 1, 1, 2, 2]
    assert sorted(labels_of(data.evaluation)) == [0] * 18 + [1] * 18 + [2] * 18
    assert not paths_of(data.calibration) & paths_of(data.evaluation)
    check_disjoint(data)
    assert any("held out" in note for note in data.notes)


def test_at_most_a_fifth_is_held_out(tmp_path: Path) -> None:
    data = opened(fill(tmp_path, 10))
    assert (data.calibration.count, data.evaluation.count) == (6, 24)


@pytest.mark.parametrize("evaluation", ["val", "validation", "test"])
def test_calibration_comes_from_train(tmp_path: Path, evaluation: str) -> None:
    fill(tmp_path / "train", 8)
    fill(tmp_path / evaluation, 4, first=100)
    data = opened(tmp_path, calibration_images=9)
    assert (data.calibration.count, data.evaluation.count) == (9, 12)
    assert all((tmp_path / "train") in path.parents for path in paths_of(data.calibration))
    assert data.notes == (
        "Calibration images come from train/. By content hash, none of them is evaluated.",
    )


def test_the_choice_depends_on_the_seed_alone(tmp_path: Path) -> None:
    fill(tmp_path / "a", 20)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    chosen = [
        {
            p.relative_to(tmp_path / top)
            for p in paths_of(opened(tmp_path / top, seed=s).calibration)
        }
        for top, s in (("a", 0), ("b", 0), ("a", 1))
    ]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]


def test_one_more_picture_moves_at_most_one(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(101)]
    before = set(held_out([0] * 100, names[:-1], 20, 0))
    after = set(held_out([0] * 101, names, 20, 0))
    assert len(before) == len(after) == 20
    assert len(before - after) <= 1


def test_copies_of_calibration_images_are_left_out_and_said(tmp_path: Path) -> None:
    fill(tmp_path / "train", 4)
    fill(tmp_path / "val", 4, first=100)
    shutil.copy(tmp_path / "train/ant/000.png", tmp_path / "val/bee/copy.png")
    data = opened(tmp_path)
    assert data.evaluation.count == 12
    assert any(note.endswith("left out of evaluation: 1.") for note in data.notes)
    check_disjoint(data)


def test_copies_are_found_by_content_not_by_length(tmp_path: Path) -> None:
    names = {"a": b"same", "b": b"same", "c": b"diff"}
    for name, content in names.items():
        (tmp_path / name).write_bytes(content)
    a, b, c = (LabelledFile(tmp_path / name, 0) for name in names)
    assert without_copies(FileSource(tmp_path, [b, c]), FileSource(tmp_path, [a])) == [1]


def test_batches_are_the_preprocessed_pictures_in_order_of_paths(tmp_path: Path) -> None:
    fill(tmp_path / "train", 2)
    fill(tmp_path / "val", 3, first=50)
    data = opened(tmp_path)
    paths = sorted((tmp_path / "val").rglob("*.png"))
    reference = torch.stack([SMALL.pixels(load_image(path)) for path in paths])
    for size in (1, 4, 9, 20):
        images = torch.cat([images for images, _ in data.evaluation.batches(0, 9, size)])
        assert torch.equal(images, SMALL.normalise(reference))
    assert labels_of(data.evaluation) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert list(data.evaluation.content_hashes(2, 7)) == hashes[2:7]


def test_folders_are_matched_to_the_classes_of_the_weights_by_name(tmp_path: Path) -> None:
    fill(tmp_path / "train", 2)
    fill(tmp_path / "val", 1, first=50)
    data = opened(tmp_path, classes=("cat", "dog", "bee", "ant"), num_classes=4)
    assert labels_of(data.evaluation) == [3, 2, 0]
    assert data.evaluation.classes == ("cat", "dog", "bee", "ant")
    assert any("dog" in note for note in data.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"classes": ("ants", "bee", "cat")},
            "1 of 3 folders .* do not match any .*: ant. Did you mean ants",
        ),
        ({"num_classes": 4}, r"has 3 classes \(ant, bee, cat\), but the weights have 4 outputs"),
    ],
)
def test_other_classes_are_named(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        opened(fill(tmp_path, 2), **options)


def test_folders_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        opened(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no folders and no pictures .* without labels"):
        opened(tmp_path)
    for name in CLASSES:
        (tmp_path / "empty" / name).mkdir(parents=True)
    with pytest.raises(UserError, match="too few pictures"):
        opened(tmp_path / "empty")
    with pytest.raises(UserError, match="is not a folder"):
        opened(paint(tmp_path / "picture.png", 0))


def test_train_without_anything_to_evaluate_on(tmp_path: Path) -> None:
    fill(tmp_path / "train", 2)
    with pytest.raises(UserError, match="has train/ but none of val"):
        opened(tmp_path)


def test_a_folder_around_the_splits_is_seen_through(tmp_path: Path) -> None:
    fill(tmp_path / "photos" / "train", 2)
    fill(tmp_path / "photos" / "val", 2)
    with pytest.raises(UserError, match=r"Pass .*photos, which has splits"):
        opened(tmp_path)


def test_train_and_test_can_be_classes(tmp_path: Path) -> None:
    fill(tmp_path, 5, classes=("bus", "test", "train"))
    assert opened(tmp_path).evaluation.classes == ("bus", "test", "train")


# --- pictures without labels


def loose(folder: Path, count: int, first: int = 0) -> Path:
    for i in range(count):
        paint(folder / f"{i:03d}.png", first + i)
    return folder


def test_pictures_without_folders_have_no_labels(tmp_path: Path) -> None:
    data = opened(loose(tmp_path, 30), calibration_images=4)
    assert (data.calibration.count, data.evaluation.count) == (4, 26)
    assert not data.calibration.labelled and not data.evaluation.labelled
    assert set(labels_of(data.calibration)) | set(labels_of(data.evaluation)) == {UNLABELLED}
    assert paths_of(data.calibration) | paths_of(data.evaluation) == set(tmp_path.iterdir())
    assert not paths_of(data.calibration) & paths_of(data.evaluation)
    check_disjoint(data)
    check_classes(data, None, 3)
    assert data.evaluation.classes == ("0", "1", "2")
    assert any("no labels" in note for note in data.notes)
    assert any("held out" in note for note in data.notes)
    assert not any("classes" in note for note in data.notes)


def test_pictures_without_labels_are_held_out_like_others(tmp_path: Path) -> None:
    loose(tmp_path / "a", 40)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    chosen = [
        {path.name for path in paths_of(opened(tmp_path / top, seed=seed).calibration)}
        for top, seed in (("a", 0), ("b", 0), ("a", 1))
    ]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(chosen[0]) == 8  # a fifth
    before = chosen[0]
    paint(tmp_path / "a" / "another.png", 999)
    after = {path.name for path in paths_of(opened(tmp_path / "a").calibration)}
    assert len(before - after) <= 1


def test_copies_without_labels_are_left_out_too(tmp_path: Path) -> None:
    loose(tmp_path, 20)
    calibrated = next(iter(paths_of(opened(tmp_path, calibration_images=2).calibration)))
    for name in ("z1.png", "z2.png", "z3.png"):
        shutil.copy(calibrated, tmp_path / name)
    data = opened(tmp_path, calibration_images=2)
    assert data.calibration.count + data.evaluation.count < 23
    assert any("Copies of calibration images" in note for note in data.notes)
    check_disjoint(data)


def test_pictures_without_labels_take_the_classes_of_the_weights(tmp_path: Path) -> None:
    names = ("cat", "dog", "bee", "ant")
    data = opened(loose(tmp_path, 5), classes=names, num_classes=4)
    assert data.evaluation.classes == names
    check_classes(data, names, 4)


def test_images_with_and_without_labels_in_one_folder_are_explained(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    paint(tmp_path / "stray.png", 99)
    with pytest.raises(UserError) as caught:
        opened(tmp_path)
    message = str(caught.value)
    assert "holds pictures itself (stray.png, …)" in message
    assert "folders of pictures (ant, bee, cat), whose names are labels" in message
    assert "Keep one kind" in message


def test_what_lies_beside_loose_pictures_and_is_none(tmp_path: Path) -> None:
    loose(tmp_path, 10)
    for name in ("notes.txt", ".hidden.png"):
        (tmp_path / name).write_text("no picture")
    for name in (".git", "empty", "folder.png"):
        (tmp_path / name).mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no picture")
    data = opened(tmp_path)
    assert data.calibration.count + data.evaluation.count == 10


def test_a_picture_beside_splits_is_no_set_of_its_own(tmp_path: Path) -> None:
    fill(tmp_path / "train", 2)
    fill(tmp_path / "val", 2, first=50)
    paint(tmp_path / "overview.png", 99)
    data = opened(tmp_path)
    assert data.evaluation.labelled and data.evaluation.count == 6


def test_one_picture_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"too few pictures.* without labels, in none"):
        opened(loose(tmp_path, 1))


def test_what_is_no_picture_is_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    for name in ("notes.txt", ".hidden.png", "Thumbs.db"):
        (tmp_path / "ant" / name).write_text("no picture")
    (tmp_path / ".git").mkdir()
    data = opened(tmp_path)
    assert data.calibration.count + data.evaluation.count == 15


def test_what_is_passed_over_is_counted_and_named(tmp_path: Path) -> None:
    for part in ("train", "val"):
        fill(tmp_path / part, 5, first=100 * (part == "val"))
    for name in (".ipynb_checkpoints/a.png", "sub/.cache/b.png", ".c.png"):
        paint(tmp_path / "val" / "ant" / name, 7)
    for name in ("bee/x.heic", "bee/y.txt", "bee/sub/z.npy", "labels.csv"):
        (tmp_path / "val" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "val" / name).write_text("no picture")
    (tmp_path / "val" / "cat" / "ants").symlink_to("../ant")
    (tmp_path / "train" / "dog").mkdir()
    (tmp_path / "README.md").write_text("no picture")
    paint(tmp_path / "holdout" / "a.png", 8)
    data = opened(tmp_path, classes=(*CLASSES, "dog"), num_classes=4)
    assert (data.calibration.count, data.evaluation.count) == (15, 15)
    assert [note for note in data.notes if note.startswith("Passed over")] == [
        f"Passed over beside {tmp_path / 'val'}: README.md, holdout/.",
        f"Passed over in {tmp_path / 'val'}: 3 hidden (ant/.c.png, ant/.ipynb_checkpoints, "
        "ant/sub/.cache); 4 files of other kinds (bee/sub/z.npy, bee/x.heic, bee/y.txt and 1 "
        "more); 1 link to a folder read already (cat/ants).",
        f"Passed over in {tmp_path / 'train'}: 1 folder without pictures (dog).",
    ]


def test_what_is_passed_over_beside_loose_pictures_is_named(tmp_path: Path) -> None:
    for index in range(10):
        paint(tmp_path / f"{index}.png", index)
    paint(tmp_path / ".trash" / "a.png", 50)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    data = opened(tmp_path)
    assert data.calibration.count + data.evaluation.count == 10
    assert data.notes[-1] == (
        f"Passed over in {tmp_path}: 1 hidden (.trash); 1 file of another kind (notes.txt); "
        "1 folder without pictures (empty)."
    )


def test_a_few_broken_pictures_are_left_out_and_named(tmp_path: Path) -> None:
    files = [LabelledFile(paint(tmp_path / f"{i}.png", 0, (4, 4)), i % 3) for i in range(200)]
    for broken in (files[3], files[150]):
        broken.path.write_bytes(broken.path.read_bytes()[:40])
    images = Pictures("set", FileSource(tmp_path, files), CLASSES, SMALL)
    for _ in range(2):  # a second pass counts nothing twice
        batches = list(images.batches(0, 200, 16))
        assert sum(len(pixels) for pixels, _ in batches) == 198
        labels = torch.cat([labels for _, labels in batches]).tolist()
        assert labels == [f.label for i, f in enumerate(files) if i not in (3, 150)]
        assert images.broken == (str(files[3].path), str(files[150].path))


def test_more_broken_pictures_are_refused(tmp_path: Path) -> None:
    files = [LabelledFile(paint(tmp_path / f"{i}.png", 0, (4, 4)), 0) for i in range(50)]
    files[7].path.write_bytes(b"")
    images = Pictures("set", FileSource(tmp_path, files), CLASSES, SMALL)
    with pytest.raises(UserError, match=r"1 of the 50 pictures in set .*7\.png"):
        list(images.batches(0, 50, 16))


def test_a_batch_without_any_whole_picture_is_not_there(tmp_path: Path) -> None:
    files = [LabelledFile(paint(tmp_path / f"{i:03d}.png", 0, (4, 4)), 0) for i in range(100)]
    files[0].path.write_bytes(b"")
    images = Pictures("set", FileSource(tmp_path, files), CLASSES, SMALL)
    assert [len(pixels) for pixels, _ in images.batches(0, 3, 1)] == [1, 1]


@pytest.mark.parametrize("name", ["grey.png", "cmyk.jpg", "palette.gif", "alpha.png", "deep.png"])
def test_pictures_of_every_kind_are_read(tmp_path: Path, name: str) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    pictures = {
        "grey.png": Image.fromarray(grey),
        "cmyk.jpg": Image.fromarray(grey).convert("CMYK"),
        "palette.gif": Image.fromarray(grey).convert("P"),
        "alpha.png": Image.fromarray(grey).convert("RGBA"),
        "deep.png": Image.fromarray(grey.astype(np.uint16) * 257),
    }
    pictures[name].save(tmp_path / name)
    image = load_image(tmp_path / name)
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image)[..., 0].astype(int) - grey).max() <= 12


def test_pictures_that_cannot_be_read_are_explained(tmp_path: Path) -> None:
    whole = paint(tmp_path / "whole.jpg", 0, (64, 64))
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:500])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("cut.jpg", "text.jpg", "empty.png", "nowhere.jpg", "x" * 300, "."):
        with pytest.raises(UserError) as caught:
            load_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_a_picture_made_to_exhaust_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = paint(tmp_path / "bomb.png", 0, (64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match=r"bomb\.png cannot be read"):
        load_image(path)


# --- links, copies and broken pictures


def test_a_folder_that_links_to_itself_is_read_once(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    (tmp_path / "cat" / "self").symlink_to(".")
    (tmp_path / "cat" / "up").symlink_to("..")
    (tmp_path / "cat" / "dogs").symlink_to("../bee")
    (tmp_path / "cat" / "more").mkdir()
    paint(tmp_path / "cat" / "more" / "a.png", 99)
    (tmp_path / "cat" / "again").symlink_to("more")
    files = find_files(tmp_path, CLASSES)
    assert len(files) == 16
    assert [file.label for file in files] == [0] * 5 + [1] * 5 + [2] * 6
    data = opened(tmp_path)
    assert data.calibration.count + data.evaluation.count == 16


def test_class_folders_that_are_links_are_read(tmp_path: Path) -> None:
    fill(tmp_path / "store", 5)
    (tmp_path / "photos").mkdir()
    for name in CLASSES:
        (tmp_path / "photos" / name).symlink_to(tmp_path / "store" / name)
    assert len(find_files(tmp_path / "photos", CLASSES)) == 15


def test_links_to_impossible_places_are_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    for link in ("zoo", "cat/more", "cat/z.png"):
        (tmp_path / link).symlink_to("x" * 300)
    (tmp_path / "cat" / "z.png").unlink()
    data = opened(tmp_path)
    assert data.calibration.count + data.evaluation.count == 15


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(fill(tmp_path, 5) / "cat" / "more" / "a.png", 99)
    scandir = os.scandir

    def deny(path: str) -> object:
        if str(path).endswith("more"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(UserError, match=r"The folder .*more cannot be read: Permission denied"):
        opened(tmp_path)


def test_pictures_that_cannot_be_opened_are_broken_ones(tmp_path: Path) -> None:
    fill(tmp_path / "train", 4)
    fill(tmp_path / "val", 4, first=100)
    for link in ("train/ant/x.png", "val/ant/x.png", "val/ant/y.png"):
        (tmp_path / link).symlink_to("nowhere")
    data = opened(tmp_path, reading=RunSettings(broken_share=0.2))
    assert len(labels_of(data.evaluation)) == 12
    assert [Path(name).name for name in data.evaluation.broken] == ["x.png", "y.png"]  # type: ignore[attr-defined]


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content is hashed."""
    names: list[str] = []
    digest = hashlib.file_digest

    def counted(file: BinaryIO, name: str) -> object:
        names.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return names


def sized(folder: Path, count: int) -> Path:
    """Pictures of different sizes in bytes: none can be a copy of another."""
    folder.mkdir(parents=True)
    for i in range(count):
        path = paint(folder / f"{i:03d}.png", i)
        path.write_bytes(path.read_bytes() + bytes(1000 * i))
    return folder


def test_dividing_a_folder_proves_that_it_is_disjoint(tmp_path: Path, hashed: list[str]) -> None:
    sized(tmp_path / "a", 10)
    for _ in range(3):
        check_disjoint(opened(tmp_path, num_classes=1))
    assert hashed == []


def test_a_file_is_hashed_once_for_all_models(tmp_path: Path, hashed: list[str]) -> None:
    fill(tmp_path, 20)
    paths = [*tmp_path.rglob("*.png")]
    longest = max(path.stat().st_size for path in paths)
    for path in paths:  # all of one size, so that each could be a copy
        path.write_bytes(path.read_bytes().ljust(longest, b"."))
    for _ in range(3):
        check_disjoint(opened(tmp_path))
    assert len(hashed) == 60
    paths[0].write_bytes(b"changed".ljust(longest + 1, b"."))
    images = opened(tmp_path)
    assert len([*images.evaluation.content_hashes(0, images.evaluation.count)]) == 48
    assert len(hashed) <= 61


def test_images_that_nobody_divided_are_compared_once(tmp_path: Path, hashed: list[str]) -> None:
    sized(tmp_path / "a", 5)
    files = [LabelledFile(path, 0) for path in sorted((tmp_path / "a").iterdir())]

    def pictures(some: list[LabelledFile]) -> Pictures:
        return Pictures("set", FileSource(tmp_path, some), CLASSES, SMALL)

    data = Data("set", pictures(files[:2]), pictures(files[2:]))
    check_disjoint(data)
    check_disjoint(data)
    assert len(hashed) == 5
    divided = opened(tmp_path, num_classes=1)
    with pytest.raises(UserError, match=r"1 of the 1 evaluation images of .* are calibration"):
        check_disjoint(replace(divided, evaluation=divided.calibration))


def test_an_example_does_not_depend_on_the_first_picture(tmp_path: Path) -> None:
    fill(tmp_path, 10)
    options = {"num_classes": 3, "reading": RunSettings(broken_share=0.5)}
    data = opened(tmp_path, **options)
    first, second, *_ = data.evaluation.source.files  # type: ignore[attr-defined]
    first.path.write_bytes(b"")
    expected = SMALL.normalise(SMALL.pixels(load_image(second.path)).unsqueeze(0))
    assert torch.equal(example_image(data.evaluation), expected)
    for file in data.evaluation.source.files:  # type: ignore[attr-defined]
        file.path.write_bytes(b"")
    with pytest.raises(UserError, match="cannot be decoded"):
        example_image(opened(tmp_path, **options).evaluation)


# --- pictures that show nothing


def noisy(path: Path, mean: int, seed: int) -> None:
    """One colour, but for noise of a few steps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-3, 4, (9, 11, 3))
    Image.fromarray(np.clip(mean + noise, 0, 255).astype(np.uint8)).save(path)


@pytest.mark.parametrize("workers", [1, 8])
def test_pictures_that_show_nothing_of_their_own_are_counted(tmp_path: Path, workers: int) -> None:
    for index in range(4):
        noisy(tmp_path / "val" / "ant" / f"{index}.png", 60 * index, index)
        paint(tmp_path / "val" / "bee" / f"{index}.png", index)
    pixels = np.array(Image.open(tmp_path / "val" / "bee" / "3.png")).astype(int)
    for index in range(4):  # the same, but for steps that nobody sees
        near = np.clip(pixels + index, 0, 255).astype(np.uint8)
        (tmp_path / "val" / "cat").mkdir(exist_ok=True)
        Image.fromarray(near).save(tmp_path / "val" / "cat" / f"{index}.png")
    fill(tmp_path / "train", 3, first=100)
    data = opened(tmp_path, reading=RunSettings(workers=workers))
    assert labels_of(data.calibration) and labels_of(data.evaluation, batch_size=5)
    assert labels_of(data.evaluation, batch_size=3)  # read again, they are not counted twice
    assert isinstance(data.evaluation, Pictures) and isinstance(data.calibration, Pictures)
    assert (data.calibration.alike, data.evaluation.alike) == (0, 8)


# --- warnings of large pictures


def test_the_filters_of_the_host_are_unchanged_after_threads_decode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)  # every picture is suspicious
    data = opened(tmp_path, reading=RunSettings(workers=8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters, before = warnings.filters, list(warnings.filters)
        for _ in range(5):
            assert len(labels_of(data.evaluation)) == 48
            assert warnings.filters is filters and list(filters) == before
        with (
            pytest.raises(Image.DecompressionBombWarning),
            Image.open(next(iter(tmp_path.rglob("*.png")))),
        ):
            pass


def test_overlapping_readers_leave_the_filters_as_they_were(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    data = opened(tmp_path)
    before = list(warnings.filters)
    one, other = (images.batches(0, 4, 1) for images in (data.evaluation, data.calibration))
    next(one)
    with warnings.catch_warnings():
        next(other)
        one.close()  # type: ignore[attr-defined]
        warnings.simplefilter("error", UserWarning)
    other.close()  # type: ignore[attr-defined]
    assert list(warnings.filters) == before
