"""Paired accuracy against a plain per-image count, and how images are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ptqbench.core.phases import Phases
from ptqbench.data.image_set import UNLABELLED
from ptqbench.errors import UserError
from ptqbench.measurement.accuracy import label_ranks, measure_accuracy
from ptqbench.measurement.accuracy_record import Accuracy, Pairs
from ptqbench.measurement.intervals import Estimate
from ptqbench.measurement.size import Size, measure_size


class Numbered:
    """Images whose only pixel is their number, so that a model can look its logits up."""

    name = "numbered images"

    def __init__(self, labels: Tensor, count: int | None = None, labelled: bool = True) -> None:
        self.labels = labels
        self.labelled = labelled
        self.limit = len(labels)
        self.count = self.limit if count is None else count
        self.classes = ("a",)
        self.ranges: list[tuple[int, int]] = []
        self.largest = 0

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.ranges.append((start, stop))
        for first in range(start, stop, batch_size):
            numbers = torch.arange(first, min(first + batch_size, stop))
            self.largest = max(self.largest, len(numbers))
            yield numbers.float().reshape(-1, 1, 1, 1), self.labels[numbers]

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        return map(str, range(start, stop))


def table(logits: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda pixels: logits[pixels[:, 0, 0, 0].long()]


def case(n: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, float32 logits that mostly find them, int8 logits rounded until they tie."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), labels] += 1.5
    noise = 0.3 * torch.randn(n, classes, generator=generator)
    return labels, logits, ((logits + noise) * 2).round() / 2


def measure(labels: Tensor, f: Tensor, q: Tensor, batch_size: int = 32) -> Accuracy:
    return measure_accuracy(table(f), table(q), Numbered(labels), batch_size=batch_size)


@pytest.mark.parametrize("classes", [3, 5, 16])
def test_counts_are_those_of_a_plain_loop(classes: int) -> None:
    labels, f, q = case(400, classes)

    def order(row: Tensor) -> list[int]:
        return sorted(range(classes), key=lambda c: (-float(row[c]), c))

    orders = [(order(a), order(b), int(y)) for a, b, y in zip(f, q, labels, strict=True)]
    right = [(a[0] == y, b[0] == y) for a, b, y in orders]
    accuracy = measure(labels, f, q)
    assert accuracy.n == 400
    assert accuracy.classes == classes
    kinds = ((True, True), (True, False), (False, True), (False, False))
    assert accuracy.top1 == Pairs(*(right.count(kind) for kind in kinds))
    among = [(y in a[:5], y in b[:5]) for a, b, y in orders]
    assert accuracy.top5 == Pairs(*(among.count(kind) for kind in kinds))
    assert accuracy.top1.n == accuracy.top5.n == 400
    assert accuracy.float32_top1 == np.mean([a for a, _ in right])
    assert accuracy.int8_top1 == np.mean([b for _, b in right])
    assert accuracy.float32_top5 == np.mean([y in a[:5] for a, _, y in orders])
    assert accuracy.int8_top5 == np.mean([y in b[:5] for _, b, y in orders])
    assert accuracy.agreement.value == np.mean([a[0] == b[0] for a, b, _ in orders])
    assert accuracy.agreed == sum(a[0] == b[0] for a, b, _ in orders)
    difference = accuracy.difference
    assert difference is not None
    assert difference.value == pytest.approx(accuracy.int8_top1 - accuracy.float32_top1)
    assert difference.low < difference.value < difference.high


def test_sqnr_is_signal_power_over_noise_power() -> None:
    labels, f, q = case(100, 7)
    exact, rounded = f.double().numpy(), q.double().numpy()
    expected = 10 * np.log10((exact**2).sum() / ((exact - rounded) ** 2).sum())
    assert measure(labels, f, q).sqnr_db == pytest.approx(expected, rel=1e-9)


def test_equal_logits_agree_without_noise() -> None:
    labels, f, _ = case(50, 4)
    accuracy = measure(labels, f, f.clone())
    assert accuracy.sqnr_db == math.inf
    assert accuracy.sqnr == Estimate(math.inf, math.inf, math.inf, 50)
    assert accuracy.difference is not None
    assert (accuracy.agreement.value, accuracy.difference.value) == (1, 0)


def test_the_batch_size_changes_nothing() -> None:
    labels, f, q = case(101, 6)
    one, many = measure(labels, f, q, batch_size=1), measure(labels, f, q, batch_size=64)
    assert one.sqnr_db == pytest.approx(many.sqnr_db, rel=1e-12)
    assert (one.top1, one.top5, one.agreement) == (many.top1, many.top5, many.agreement)


def test_ranks_break_ties_as_argmax_does() -> None:
    logits = torch.tensor([[1.0, 2.0, 2.0], [3.0, 3.0, 3.0], [0.0, -1.0, 5.0]])
    assert label_ranks(logits, torch.tensor([2, 1, 2])).tolist() == [1, 1, 0]
    generator = torch.Generator().manual_seed(0)
    tied = torch.randint(0, 3, (500, 8), generator=generator).float()
    labels = torch.randint(0, 8, (500,), generator=generator)
    assert torch.equal(label_ranks(tied, labels) == 0, tied.argmax(1) == labels)


def test_images_are_streamed_in_batches() -> None:
    labels, f, q = case(100, 4)
    images = Numbered(labels)
    measure_accuracy(table(f), table(q), images, batch_size=16)
    assert images.largest == 16
    assert images.ranges == [(0, 100)]


def test_evaluation_goes_on_until_it_is_settled() -> None:
    labels, f, q = case(5000, 4)
    images = Numbered(labels, count=2000)
    seen: list[int] = []

    def enough(accuracy: Accuracy) -> bool:
        seen.append(accuracy.n)
        return accuracy.n >= 4000

    accuracy = measure_accuracy(table(f), table(q), images, batch_size=500, stop_when=enough)
    assert images.ranges == [(0, 2000), (2000, 3000), (3000, 4000)]
    assert seen == [2000, 3000, 4000]
    assert accuracy == measure(labels[:4000], f, q, batch_size=500)


def test_evaluation_stops_at_the_limit() -> None:
    labels, f, q = case(2600, 4)
    images = Numbered(labels, count=1000)
    accuracy = measure_accuracy(
        table(f), table(q), images, batch_size=500, stop_when=lambda accuracy: False
    )
    assert images.ranges == [(0, 1000), (1000, 2000), (2000, 2600)]
    assert accuracy.n == 2600


def test_progress_and_phases_are_kept() -> None:
    labels, f, q = case(50, 4)
    calls: list[tuple[str, int, int]] = []
    phases = Phases()
    measure_accuracy(
        table(f), table(q), Numbered(labels), batch_size=20,
        progress=lambda *call: calls.append(call), phases=phases,
    )  # fmt: skip
    assert calls == [("accuracy", 20, 50), ("accuracy", 40, 50), ("accuracy", 50, 50)]
    assert {phase.name: phase.forward for phase in phases.records()} == {
        "evaluation images": False,
        "float32 predictions": True,
        "int8 predictions": True,
        "scoring": False,
    }


def test_models_run_in_inference_mode() -> None:
    labels, f, q = case(10, 4)
    modes = []

    def watching(pixels: Tensor) -> Tensor:
        modes.append(torch.is_inference_mode_enabled())
        return table(f)(pixels)

    measure_accuracy(watching, table(q), Numbered(labels), batch_size=10)
    assert modes == [True]
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_int8_logits_that_are_no_numbers_are_wrong(value: float) -> None:
    labels = torch.tensor([1, 0, 0])
    f = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    q = f.clone()
    q[0, 1] = value
    accuracy = measure(labels, f, q)
    assert accuracy.top1 == Pairs(2, 1, 0, 0)
    assert accuracy.int8_top5 == accuracy.agreement.value == pytest.approx(2 / 3)
    assert accuracy.sqnr == Estimate(-math.inf, -math.inf, -math.inf, 3)


def test_float32_logits_that_are_no_numbers_are_the_users_error() -> None:
    labels, f, q = case(10, 4)
    f[3, 1] = math.nan
    with pytest.raises(UserError, match="float32 gives logits that are infinite"):
        measure(labels, f, q)


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_outside_the_model_are_the_users_error(label: int) -> None:
    labels, f, q = case(10, 4)
    labels[2] = label
    with pytest.raises(UserError, match="the classes 0 to 3"):
        measure(labels, f, q)


def test_without_labels_predictions_and_logits_are_compared_alone() -> None:
    labels, f, q = case(300, 8)
    images = Numbered(torch.full_like(labels, UNLABELLED), labelled=False)
    accuracy = measure_accuracy(table(f), table(q), images, batch_size=64)
    known = measure(labels, f, q, batch_size=64)
    assert (accuracy.agreement, accuracy.sqnr) == (known.agreement, known.sqnr)
    assert (accuracy.n, accuracy.classes, accuracy.labelled) == (300, 8, False)
    assert known.labelled
    unknown = ("float32_top1", "int8_top1", "float32_top5", "int8_top5", "difference")
    assert {getattr(accuracy, name) for name in unknown} == {None}
    assert None not in {getattr(known, name) for name in unknown}


def test_a_few_images_without_label_among_others_are_the_users_error() -> None:
    labels, f, q = case(10, 4)
    with pytest.raises(UserError, match="labels run from -1 to -1"):
        measure(torch.full_like(labels, UNLABELLED), f, q)


def test_outputs_of_different_shape_are_the_users_error() -> None:
    labels, f, q = case(10, 4)
    with pytest.raises(UserError, match=r"\(10, 4\) and int8 of shape \(10, 3\)"):
        measure(labels, f, q[:, :3])


def test_no_images_are_the_users_error() -> None:
    with pytest.raises(UserError, match="no images to evaluate in numbered images"):
        measure(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3), torch.zeros(0, 3))


def test_batches_have_images() -> None:
    labels, f, q = case(4, 4)
    with pytest.raises(ValueError, match="batch size"):
        measure(labels, f, q, batch_size=0)


def test_size_is_that_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "float32.pt").write_bytes(b"x" * 400)
    folder = tmp_path / "int8" / "parts"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(b"x" * 60)
    (folder.parent / "b").write_bytes(b"x" * 40)
    size = measure_size(tmp_path / "float32.pt", tmp_path / "int8")
    assert size == Size(400, 100)
    assert size.ratio == 4
    with pytest.raises(FileNotFoundError):
        measure_size(tmp_path / "float32.pt", tmp_path / "missing")


def test_empty_artifacts_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 byte"):
        Size(100, 0)
