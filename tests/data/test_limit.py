"""A limit on the evaluation images: a sample that is balanced, seeded, and said to be one."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptqbench.data.fixture.images import open_fixture
from ptqbench.data.fixture.manifest import SPLITS, Manifest, Split, image_digests, shard_hash
from ptqbench.data.fixture.scenes import SIZE, render
from ptqbench.data.folder import open_folder
from ptqbench.data.image_set import Data, check_disjoint
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.data.reading import Reading
from ptqbench.data.sampling import balanced, held_out_share
from ptqbench.evaluation.subject import reading_of, shown_settings
from ptqbench.settings.layers import Layer, Settings
from ptqbench.settings.requests import case_requests
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.schema import parse_table

pytest_plugins = ["pytester"]

SMALL = Preprocessing(8, 8)
SIZES = {"ant": 40, "bee": 3, "cat": 20, "dog": 12}


def folder(top: Path, sizes: dict[str, int] = SIZES, first: int = 0) -> Path:
    """Tiny pictures, each with a content of its own."""
    number = first
    for name, count in sizes.items():
        (top / name).mkdir(parents=True)
        for i in range(count):
            values = np.full((4, 4, 3), (number % 256, number // 256, 7), np.uint8)
            Image.fromarray(values).save(top / name / f"{i:03d}.png")
            number += 1
    return top


def opened(path: Path, limit: int | None, seed: int = 0) -> Data:
    return open_folder(
        path, SMALL, classes=None, num_classes=4, seed=seed, reading=Reading(limit=limit)
    )


def names_of(data: Data, root: Path) -> list[str]:
    return [f.path.relative_to(root).as_posix() for f in data.evaluation._files]  # type: ignore[attr-defined]


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


def test_the_share_held_out_is_a_fifth_at_most_and_one_at_least() -> None:
    assert [held_out_share(n, 10) for n in (1, 4, 5, 14, 15, 50, 500)] == [1, 1, 1, 2, 3, 10, 10]


# --- folders


def test_a_folder_is_sampled_evenly_and_it_is_said(tmp_path: Path) -> None:
    whole = opened(folder(tmp_path), None)
    data = opened(tmp_path, 20)
    assert data.evaluation.count == data.evaluation.limit == 20
    there = labels_of(whole)
    taken = labels_of(data)
    assert all(taken[label] in (there[label], *range(5, 8)) for label in range(4))
    assert taken.total() == 20
    expected = f"sample of 20 of the {there.total()} images, chosen evenly over the classes (seed 0"
    assert any(expected in note for note in data.notes)
    assert not any("sample" in note for note in whole.notes)


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
    data = open_folder(tmp_path, SMALL, classes=None, num_classes=2, reading=Reading(limit=4))
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
    ("limit", "count", "most", "said"),
    [(None, 10, 20, 0), (4, 4, 4, 1), (15, 10, 15, 1), (20, 10, 20, 0), (99, 10, 20, 0)],
)
def test_of_the_fixture_set_first_look_and_top_up_are_limited(
    manifest: Manifest, tmp_path: Path, limit: int | None, count: int, most: int, said: int
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
    assert len(data.notes) == said
    with pytest.raises(ValueError, match="has images 0"):
        list(data.evaluation.batches(0, most + 1, 8))


# --- the doors


def test_the_setting_reaches_the_run_and_its_record() -> None:
    file = Layer("ptqbench.toml", parse_table({"limit": 30, "workers": 2}, Path(), "a file"))
    table = Layer("a table", parse_table({"limit": 7, "broken_share": 0.5}, Path(), "a table"))
    settings = Settings(Layer("command line"), (("resnet*", table),), file)
    case = settings.case("resnet18")[0]
    assert (case.limit, case.broken_share, case.workers) == (7, 0.5, 2)
    assert settings.case("squeezenet1_1")[0].limit == 30
    chosen = Settings(Layer("command line", {"models": ("resnet18",)}), settings.models, file)
    (request,) = case_requests(chosen, {}, None)
    expected = Reading(limit=7, broken_share=0.5, workers=2)
    assert reading_of(request.settings) == expected
    assert shown_settings(request.settings)["limit"] == 7
    assert isinstance(shown_settings(RunSettings())["workers"], int)


RUNNER = """
from ptqbench.gates.gate import GateResult, Verdict
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
    ("option", "said"),
    [("25", "limit 25 of the case"), ("0", "'limit'*a whole number of at least 1"), ("x", "x")],
)
def test_the_plugin_takes_a_limit(pytester: pytest.Pytester, option: str, said: str) -> None:
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
    (result.stdout if option == "25" else result.stderr).fnmatch_lines([f"*{said}*"])
