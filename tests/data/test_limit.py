"""Samples and held-out images: no class vanishes, and each keeps its share."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ptqbench.data.fixture.images import open_fixture
from ptqbench.data.fixture.manifest import SPLITS, Manifest, Split, image_digests, shard_hash
from ptqbench.data.fixture.scenes import SIZE, render
from ptqbench.data.folder import open_folder
from ptqbench.data.image_set import Data, check_disjoint, expected_labels
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.data.sampling import balanced, held_out, proportional
from ptqbench.data.split import DataOptions
from ptqbench.evaluation.subject import shown_settings
from ptqbench.gates import Evidence, Verdict, evaluate
from ptqbench.measurement.accuracy import measure_accuracy
from ptqbench.recipes.recipe_catalog import CATALOG
from ptqbench.settings.layers import Layer, Settings
from ptqbench.settings.parsing import parse_table
from ptqbench.settings.requests import case_requests
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.thresholds import Thresholds

pytest_plugins = ["pytester"]

SMALL = Preprocessing(8, 8)
SIZES = {"ant": 40, "bee": 3, "cat": 20, "dog": 12}


def folder(top: Path, sizes: dict[str, int] = SIZES, first: int = 0) -> Path:
    """Tiny pictures, each with a content of its own."""
    number = first
    for name, count in sizes.items():
        (top / name).mkdir(parents=True)
        for i in range(count):
            values = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
            Image.fromarray(values).save(top / name / f"{i:03d}.png")
            number += 1
    return top


def opened(path: Path, limit: int | None, seed: int = 0) -> Data:
    return open_folder(path, DataOptions(SMALL, None, 4, seed, reading=RunSettings(limit=limit)))


def names_of(data: Data, root: Path) -> list[str]:
    return [f.path.relative_to(root).as_posix() for f in data.evaluation.source.files]  # type: ignore[attr-defined]


def labels_of(data: Data) -> Counter[int]:
    count = data.evaluation.count
    return Counter(int(n) for _, labels in data.evaluation.batches(0, count, 16) for n in labels)


# --- the choice itself


def test_the_choice_is_balanced_for_every_count() -> None:
    labels = [0] * 30 + [1] * 4 + [2] * 11
    names = [f"{i}.png" for i in range(len(labels))]
    for count in range(1, len(labels) + 5):
        chosen = balanced(labels, names, count, seed=3)
        assert len(set(chosen)) == len(chosen) == min(count, len(labels))
        taken = Counter(labels[i] for i in chosen)
        # Nobody has two more than a class that still has some left.
        for label, there in ((0, 30), (1, 4), (2, 11)):
            assert taken[label] == there or taken[label] >= max(taken.values()) - 1


def test_a_larger_choice_contains_the_smaller_one() -> None:
    labels = [i % 7 for i in range(100)]
    names = [str(i) for i in range(100)]
    whole = balanced(labels, names, 100, seed=0)
    assert all(balanced(labels, names, count, seed=0) == whole[:count] for count in range(100))


def test_with_more_classes_than_images_the_first_classes_are_not_preferred() -> None:
    labels = list(range(1000))
    chosen = balanced(labels, map(str, labels), 100, seed=0)
    # The mean of 100 out of 0 … 999 has a standard error of 27; the first 100 would give 50.
    assert 400 < sum(chosen) / 100 < 600


def test_the_seed_chooses() -> None:
    labels, names = [0] * 100, [str(i) for i in range(100)]
    assert balanced(labels, names, 10, 0) == balanced(labels, names, 10, 0)
    assert balanced(labels, names, 10, 0) != balanced(labels, names, 10, 1)


# --- a sample that keeps the shares of the classes


def test_a_sample_keeps_the_shares_of_the_classes() -> None:
    sizes = [400, 200, 100, 60, 50, 40, 30, 25, 20, 15]
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    names = [f"{i}.png" for i in range(len(labels))]
    for count in (47, 94, 188, 470, 940):
        drawn = Counter(labels[i] for i in proportional(labels, names, count, seed=0))
        assert drawn.total() == count
        for label, size in enumerate(sizes):
            assert abs(drawn[label] - count * size / 940) < 1


@pytest.mark.parametrize("classes", [4, 1000])
def test_a_sample_has_every_class_as_soon_as_it_can(classes: int) -> None:
    labels = [0] * 500 + list(range(1, classes))
    names = list(map(str, range(len(labels))))
    drawn = proportional(labels, names, classes, seed=0)
    assert {labels[i] for i in drawn} == set(range(classes))
    assert len({labels[i] for i in proportional(labels, names, classes - 1, 0)}) == classes - 1


def test_a_larger_sample_contains_the_smaller_one() -> None:
    labels = [0] * 61 + [1] * 7 + [2] * 20 + [3]
    names = list(map(str, range(len(labels))))
    whole = proportional(labels, names, len(labels), seed=2)
    assert sorted(whole) == list(range(len(labels)))
    for count in range(len(labels) + 5):
        assert proportional(labels, names, count, seed=2) == whole[:count]


def test_top1_of_a_sample_estimates_top1_of_the_set() -> None:
    """Classes of unequal sizes on which a model is right unequally often."""
    sizes, accuracies = [400, 200, 100, 60, 50, 40, 30, 25, 20, 15], np.linspace(0.95, 0.3, 10)
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    names = [f"{i}.png" for i in range(len(labels))]
    random = np.random.default_rng(0)
    right = random.random(len(labels)) < accuracies[labels]

    def means(choose: Callable[..., list[int]]) -> list[float]:
        return [float(right[choose(labels, names, 200, seed)].mean()) for seed in range(60)]

    truth = float(right.mean())
    # The standard error of the mean of 60 samples of 200 images is below 0.003.
    assert abs(np.mean(means(proportional)) - truth) < 0.01
    assert abs(np.mean(means(balanced)) - truth) > 0.05


def test_with_fewer_images_than_classes_large_classes_are_drawn_more_often() -> None:
    sizes = [90] * 10 + [10] * 90
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    names = list(map(str, range(len(labels))))
    drawn = [labels[i] for seed in range(200) for i in proportional(labels, names, 1, seed)]
    # Half of the images are of the first ten classes; the standard error is 0.035.
    assert 0.35 < np.mean([label < 10 for label in drawn]) < 0.65


# --- held out for calibration


@pytest.mark.parametrize(
    "sizes",
    [
        [980, 20],
        [400, 200, 100, 60, 50, 40, 30, 25, 20, 15],
        [40, 3, 20, 12],
        [100, 1, 1],
        [5000, 4, 2],
    ],
)
def test_no_class_loses_more_than_a_fifth_to_calibration(sizes: list[int]) -> None:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    names = list(map(str, range(len(labels))))
    held = Counter(labels[i] for i in held_out(labels, names, 512, seed=0))
    assert all(held[label] <= size / 5 for label, size in enumerate(sizes))
    assert held.total() == min(512, sum(size // 5 for size in sizes))


def test_classes_too_small_for_a_fifth_give_one_if_nothing_else_does() -> None:
    labels = [i // 4 for i in range(40)]
    held = [labels[i] for i in held_out(labels, map(str, range(40)), 512, seed=0)]
    assert len(held) == len(set(held)) == 8
    assert held_out([0, 1, 2], "abc", 512, seed=0) == []
    assert len(held_out([0, 0, 1], "abc", 512, seed=0)) == 1
    assert len(held_out([0, 0], "ab", 512, seed=0)) == 1


def test_few_calibration_images_are_taken_evenly() -> None:
    labels = [0] * 900 + [1] * 100
    held = Counter(labels[i] for i in held_out(labels, map(str, range(1000)), 16, seed=0))
    assert held == {0: 8, 1: 8}


def test_a_folder_keeps_its_small_classes(tmp_path: Path) -> None:
    data = opened(folder(tmp_path), None)
    assert labels_of(data) == {0: 32, 1: 3, 2: 16, 3: 10}
    assert data.calibration.count == 14
    assert not any("images, but none" in note for note in data.notes)


# --- folders


def test_a_folder_is_sampled_in_proportion_and_it_is_said(tmp_path: Path) -> None:
    whole = opened(folder(tmp_path), None)
    data = opened(tmp_path, 20)
    assert data.evaluation.count == data.evaluation.limit == 20
    present, drawn = labels_of(whole), labels_of(data)
    assert drawn.total() == 20
    for label in range(4):
        assert abs(drawn[label] - 20 * present[label] / present.total()) < 1
    assert drawn[1] >= 1
    expected = (
        f"sample of 20 of the {present.total()} images, which keeps the shares of the classes"
    )
    assert any(expected in note and "(seed 0)" in note for note in data.notes)
    assert not any("sample" in note for note in whole.notes)


def test_classes_that_a_small_sample_leaves_out_are_named(tmp_path: Path) -> None:
    data = opened(folder(tmp_path), 3)
    (missing,) = set(range(4)) - set(labels_of(data))
    name = sorted(SIZES)[missing]
    assert f"1 of 4 classes have images, but none is evaluated: {name}." in data.notes
    assert expected_labels(data.evaluation) == {0, 1, 2, 3}


@pytest.mark.parametrize(("limit", "verdict"), [(4, Verdict.PASS), (3, Verdict.UNVERIFIED)])
def test_a_class_that_is_left_out_reaches_the_verdict(
    tmp_path: Path, limit: int, verdict: Verdict
) -> None:
    images = opened(folder(tmp_path), limit).evaluation

    def reader() -> Callable[[torch.Tensor], torch.Tensor]:
        """Make a model that is always right."""
        labels = iter([labels for _, labels in images.batches(0, limit, 1)])
        return lambda pixels: torch.nn.functional.one_hot(next(labels), 4).float()

    accuracy = measure_accuracy(reader(), reader(), images, batch_size=1)
    thresholds = Thresholds(accuracy=0.3)
    (result,) = evaluate(Evidence(thresholds, "avx2", {"accuracy": accuracy}), ["accuracy"])
    assert result.verdict is verdict
    assert bool(accuracy.missing_classes) is (verdict is Verdict.UNVERIFIED)


def test_classes_that_only_the_training_part_has_are_expected(tmp_path: Path) -> None:
    folder(tmp_path / "train", {"ant": 3, "bee": 3})
    folder(tmp_path / "val", {"ant": 4}, first=900)
    classes = ("ant", "bee", "cat")
    data = open_folder(tmp_path, DataOptions(SMALL, classes, 3))
    assert expected_labels(data.evaluation) == {0, 1}
    assert "1 of 3 classes have no images: cat." in data.notes
    assert "1 of 3 classes have images, but none is evaluated: bee." in data.notes


def test_the_limit_leaves_calibration_as_it_is(tmp_path: Path) -> None:
    whole, data = opened(folder(tmp_path), None), opened(tmp_path, 5)
    assert [*data.calibration.content_hashes(0, data.calibration.count)] == [
        *whole.calibration.content_hashes(0, whole.calibration.count)
    ]
    assert set(names_of(data, tmp_path)) < set(names_of(whole, tmp_path))
    check_disjoint(data)


def test_the_sample_is_the_same_wherever_the_folder_lies(tmp_path: Path) -> None:
    folder(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "far" / "away")
    places = [tmp_path / "here", tmp_path / "far" / "away"]
    first, second = (names_of(opened(place, 11), place) for place in places)
    assert first == second == sorted(first)
    assert first != names_of(opened(places[0], 11, seed=1), places[0])


def test_a_limit_beyond_what_is_there_changes_nothing(tmp_path: Path) -> None:
    whole, data = opened(folder(tmp_path), None), opened(tmp_path, 10_000)
    assert names_of(data, tmp_path) == names_of(whole, tmp_path)
    assert data.notes == whole.notes


def test_copies_of_calibration_images_do_not_count_towards_the_limit(tmp_path: Path) -> None:
    folder(tmp_path / "train", {"ant": 3, "bee": 3})
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    folder(tmp_path / "new", {"ant": 2, "bee": 2}, first=900)
    for path in (tmp_path / "new").rglob("*.png"):
        shutil.copy(path, tmp_path / "val" / path.parent.name / f"new{path.name}")
    shutil.rmtree(tmp_path / "new")
    data = open_folder(tmp_path, DataOptions(SMALL, None, 2, reading=RunSettings(limit=4)))
    assert data.evaluation.count == 4
    assert all("new" in name for name in names_of(data, tmp_path))


# --- the fixture set


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """Eight calibration and twenty evaluation images in shards of six."""
    splits = {}
    for name, images in (("calibration", 8), ("evaluation", 20)):
        split = Split(name, SPLITS[name], images, 6, ())
        hashes = []
        for shard in split.shards(0, images):
            scenes = [render(0, SPLITS[name], i, i % 16) for i in range(*split.bounds(shard))]
            hashes.append(shard_hash(image_digests(np.stack(scenes).transpose(0, 3, 1, 2))))
        splits[name] = replace(split, sha256=tuple(hashes))
    return Manifest(0, splits)


@pytest.mark.parametrize(
    ("limit", "count", "most", "notes"),
    [(None, 10, 20, 0), (4, 4, 4, 1), (15, 10, 15, 1), (20, 10, 20, 0), (99, 10, 20, 0)],
)
def test_of_the_fixture_set_first_look_and_top_up_are_limited(
    manifest: Manifest, tmp_path: Path, limit: int | None, count: int, most: int, notes: int
) -> None:
    data = open_fixture(
        Preprocessing(SIZE, SIZE),
        cache_dir=tmp_path,
        evaluation_images=10,
        limit=limit,
        manifest=manifest,
    )
    assert (data.evaluation.count, data.evaluation.limit) == (count, most)
    assert data.calibration.count == data.calibration.limit == 8
    assert len(data.notes) == notes
    with pytest.raises(ValueError, match="has images 0"):
        list(data.evaluation.batches(0, most + 1, 8))


# --- the doors


def test_the_setting_reaches_the_run_and_its_record() -> None:
    file = Layer("ptqbench.toml", parse_table({"limit": 30, "workers": 2}, Path(), "a file"))
    table = Layer("a table", parse_table({"limit": 7, "broken_share": 0.5}, Path(), "a table"))
    settings = Settings(CATALOG, Layer("command line"), (("resnet*", table),), file)
    case = settings.case("resnet18")[0]
    assert (case.limit, case.broken_share, case.workers) == (7, 0.5, 2)
    assert settings.case("squeezenet1_1")[0].limit == 30
    chosen = Settings(
        CATALOG, Layer("command line", {"models": ("resnet18",)}), settings.models, file
    )
    (request,) = case_requests(chosen, None)
    assert (request.settings.limit, request.settings.workers) == (7, 2)
    assert shown_settings(request.settings)["limit"] == 7
    assert isinstance(shown_settings(RunSettings())["workers"], int)


RUNNER = """
from ptqbench.gates import GateResult, Verdict
from ptqbench.evaluation.result import CaseResult

class Runner:
    def backends(self): return {"x86": None}
    def machine(self): return {}
    def judge(self, case, gate):
        detail = f"limit {case.settings.limit!r} of the case"
        result = GateResult(gate, Verdict.FAIL, None, None, None, None, detail)
        return CaseResult(case.model, "", case.backend, "", "", {}, (result,))

def pytest_ptqbench_runner(config):
    return Runner()
"""


@pytest.mark.parametrize(
    ("option", "message"),
    [("25", "limit 25 of the case"), ("0", "'limit'*a whole number of at least 1"), ("x", "x")],
)
def test_the_plugin_takes_a_limit(pytester: pytest.Pytester, option: str, message: str) -> None:
    pytester.makeconftest(RUNNER)
    pytester.makepyfile("def test_size(ptqbench_gate): ptqbench_gate('size')")
    installed = any(
        entry.value == "ptqbench.pytest_plugin" for entry in metadata.entry_points(group="pytest11")
    )
    result = pytester.runpytest_subprocess(
        *(() if installed else ("-p", "ptqbench.pytest_plugin")), "-p", "no:cacheprovider",
        "--ptqbench-models", "resnet18", "--ptqbench-backends", "x86", "--ptqbench-limit", option,
    )  # fmt: skip
    assert result.ret == (pytest.ExitCode.TESTS_FAILED if option == "25" else 4)
    (result.stdout if option == "25" else result.stderr).fnmatch_lines([f"*{message}*"])
