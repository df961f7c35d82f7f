"""A float32 model that guesses or predicts one class proves nothing about int8."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ptqbench.gates import GATES, Evidence, GateResult, Verdict
from ptqbench.gates.stopping import stopping_rule
from ptqbench.measurement.accuracy import measure_accuracy
from ptqbench.measurement.accuracy_record import Accuracy, ClassSpread
from ptqbench.settings.thresholds import Thresholds

N = 2000
PASS, UNVERIFIED = Verdict.PASS, Verdict.UNVERIFIED


class Numbered:
    """Images whose only pixel is their number."""

    name = "numbered"

    def __init__(
        self, labels: Tensor, classes: int, labelled: bool = True, expected: set[int] | None = None
    ) -> None:
        self.classes = tuple(f"class {index}" for index in range(classes))
        self.labels = labels if labelled else torch.full_like(labels, -1)
        self.labelled = labelled
        self.count = self.limit = len(labels)
        if expected is not None:
            self.expected_labels = frozenset(expected)

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(start, stop, batch_size):
            numbers = torch.arange(first, min(first + batch_size, stop))
            yield numbers.float().reshape(-1, 1, 1, 1), self.labels[numbers]

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        return map(str, range(start, stop))


def measure(images: Numbered, predictions: Tensor) -> Accuracy:
    """Measure an int8 that is float32 itself, so that only float32 is in question."""
    logits = torch.nn.functional.one_hot(predictions, len(images.classes)).float() * 4 + 1

    def model(pixels: Tensor) -> Tensor:
        return logits[pixels.flatten().long()]

    return measure_accuracy(model, model, images, batch_size=500)


def judge(gate: str, accuracy: Accuracy) -> GateResult:
    return GATES.get(gate)(Evidence(Thresholds(), "avx2", {"accuracy": accuracy}))


def ninety_to_ten() -> Tensor:
    return (torch.arange(N) % 10 == 0).long()


def mostly(right: float, labels: Tensor, classes: int) -> Tensor:
    """Predictions that are the label for a share of the images, at random."""
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(labels), generator=generator) > right
    return torch.where(wrong, (labels + 1) % classes, labels)


def test_one_class_for_everything_is_unverified_on_unequal_classes() -> None:
    accuracy = measure(Numbered(ninety_to_ten(), 2), torch.zeros(N, dtype=torch.int64))
    assert accuracy.float32_top1 == 0.9
    for gate in ("accuracy", "agreement"):
        result = judge(gate, accuracy)
        assert result.verdict is UNVERIFIED
        assert "predicts the same class for 100.0% of 2,000 images" in result.detail
        assert "labels are of 2 classes" in result.detail and "preprocessing" in result.detail


def test_ten_folders_and_a_thousand_outputs_do_not_hide_a_constant_float32() -> None:
    labels = torch.arange(N) % 10
    predictions = torch.full((N,), 3)
    predictions[:10] = 700  # a few images come out otherwise
    accuracy = measure(Numbered(labels, 1000), predictions)
    assert (accuracy.predictions, accuracy.labels) == (ClassSpread(2, 1990), ClassSpread(10, 200))
    assert {judge(gate, accuracy).verdict for gate in ("accuracy", "agreement")} == {UNVERIFIED}
    assert stopping_rule(Thresholds())(accuracy)


def test_ten_folders_and_a_thousand_outputs_are_guessed_at_one_tenth() -> None:
    labels = torch.arange(N) % 10
    predictions = torch.randint(0, 10, (N,), generator=torch.Generator().manual_seed(1))
    accuracy = measure(Numbered(labels, 1000), predictions)
    result = judge("accuracy", accuracy)
    assert result.verdict is UNVERIFIED
    assert "no better than guessing" in result.detail and "gets 10.0%" in result.detail
    # Its predictions differ, so that int8's can be compared with them.
    assert judge("agreement", accuracy).verdict is PASS


def test_predictions_in_the_shares_of_the_labels_are_guesses() -> None:
    labels = ninety_to_ten()
    accuracy = measure(Numbered(labels, 2), labels.roll(1))
    assert accuracy.float32_top1 == 0.8
    assert judge("accuracy", accuracy).verdict is UNVERIFIED


@pytest.mark.parametrize("right", [0.95, 0.99])
def test_a_sound_float32_on_unequal_classes_is_judged(right: float) -> None:
    labels = ninety_to_ten()
    accuracy = measure(Numbered(labels, 2), mostly(right, labels, 2))
    assert judge("accuracy", accuracy).verdict is PASS
    assert judge("agreement", accuracy).verdict is PASS


def test_rare_classes_that_are_found_are_not_a_constant_float32() -> None:
    labels = (torch.arange(N) % 200 == 0).long()  # 99.5 % one class
    accuracy = measure(Numbered(labels, 2), labels)
    assert accuracy.predictions == ClassSpread(2, 1990)
    assert judge("agreement", accuracy).verdict is PASS
    assert judge("accuracy", accuracy).verdict is PASS


def test_images_of_one_class_are_judged_by_the_number_of_outputs() -> None:
    labels = torch.zeros(N, dtype=torch.int64)
    accuracy = measure(Numbered(labels, 16), mostly(0.8, labels, 16))
    assert judge("accuracy", accuracy).verdict is PASS
    constant = measure(Numbered(labels, 16), labels)
    assert {judge(gate, constant).verdict for gate in ("accuracy", "agreement")} == {PASS}
    guesses = measure(Numbered(labels, 16), torch.arange(N) % 16)
    assert judge("accuracy", guesses).verdict is UNVERIFIED


def test_without_labels_a_constant_float32_leaves_agreement_unverified() -> None:
    images = Numbered(torch.zeros(N, dtype=torch.int64), 16, labelled=False)
    result = judge("agreement", measure(images, torch.full((N,), 5)))
    assert result.verdict is UNVERIFIED
    assert (result.criterion, result.observed, result.n) == ("agreement", 1.0, N)
    assert "agreement with it proves nothing" in result.detail
    assert "add images of others" in result.detail
    assert judge("agreement", measure(images, torch.arange(N) % 16)).verdict is PASS


@pytest.mark.parametrize(
    ("alike", "verdict"), [(0, PASS), (N // 2, PASS), (N - 21, PASS), (N - 1, UNVERIFIED)]
)
def test_pictures_that_are_all_alike_prove_nothing(alike: int, verdict: Verdict) -> None:
    labels = torch.arange(N) % 16
    images = Numbered(labels, 16)
    images.alike = alike  # type: ignore[attr-defined]
    accuracy = measure(images, labels)
    for gate in ("accuracy", "agreement"):
        result = judge(gate, accuracy)
        assert result.verdict is verdict
        assert ("2,000 pictures are of one colour or all alike" in result.detail) == (
            verdict is UNVERIFIED
        )


def test_a_model_of_one_output_is_not_a_constant_one() -> None:
    labels = torch.zeros(N, dtype=torch.int64)
    for labelled in (True, False):
        accuracy = measure(Numbered(labels, 1, labelled), labels)
        assert judge("agreement", accuracy).verdict is PASS


# --- classes that have images, but none among those evaluated


def test_a_class_that_is_not_evaluated_leaves_accuracy_unverified() -> None:
    labels = torch.arange(N) % 3
    images = Numbered(labels, 5, expected={0, 1, 2, 4})
    accuracy = measure(images, mostly(0.95, labels, 3))
    assert accuracy.missing_classes == ("class 4",)
    result = judge("accuracy", accuracy)
    assert result.verdict is UNVERIFIED
    assert "1 class has images in the data, but none among the 2,000 evaluated: class 4" in (
        result.detail
    )
    assert judge("agreement", accuracy).verdict is PASS


def test_classes_without_any_image_leave_accuracy_as_it_is() -> None:
    labels = torch.arange(N) % 3
    for expected in (None, {0, 1, 2}):
        accuracy = measure(Numbered(labels, 5, expected=expected), mostly(0.95, labels, 3))
        assert accuracy.missing_classes == ()
        assert judge("accuracy", accuracy).verdict is PASS
