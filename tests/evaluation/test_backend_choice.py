"""The choice of a backend where a recipe recommends none, and its sentence in the report."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers import odd_networks
from helpers.custom_models import seeded

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend_registry import BACKENDS, default_backend, recommended
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES, TorchBackend
from ptqbench.core.phases import Phases
from ptqbench.data.image_set import Data
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.data.random_images import RandomImages
from ptqbench.errors import UserError
from ptqbench.evaluation import backend_choice
from ptqbench.evaluation.backend_choice import (
    Candidate,
    Choice,
    choose_backend,
    select,
    usable_backends,
)
from ptqbench.evaluation.subject import LatencyInput, Subject
from ptqbench.measurement.fastest import CallTime
from ptqbench.models.custom.registration import open_recipe
from ptqbench.settings.run_settings import RunSettings

USABLE = [backend.name for backend in TORCH_ENGINES if backend.availability() is None]


@pytest.fixture(scope="module")
def whole_subject(tmp_path_factory):
    """The subject with its canonical model, which takes torch a while."""
    recipe = open_recipe("net")
    subject = Subject(
        model=seeded(odd_networks.Everything).eval(),
        recipe=recipe,
        weights="random",
        preprocessing=Preprocessing(),
        data=Data("random", RandomImages(16, 0), RandomImages(16, 1)),
        latency=LatencyInput((1, 3, 16, 16), 1),
        folder=tmp_path_factory.mktemp("subject"),
        facts={"notes": ("before",)},
        thresholds=recipe.thresholds,
        settings=RunSettings(),
    )
    return replace(subject, canonical=subject.quantizable())


@pytest.fixture
def subject(whole_subject, tmp_path):
    return replace(whole_subject, folder=tmp_path)


@pytest.fixture(scope="module")
def builds():
    """What was built for each backend in this module, once."""
    return {}


@pytest.fixture
def copies(builds, monkeypatch):
    """Every build after the first one for a backend is a copy."""
    original = TorchBackend.build

    def build(self, model, recipe, calibration, path, *rest):
        if self.name not in builds:
            artifact = original(self, model, recipe, calibration, path, *rest)
            builds[self.name] = artifact.info, path.read_bytes()
        info, contents = builds[self.name]
        path.write_bytes(contents)
        return Artifact(path, info)

    monkeypatch.setattr(TorchBackend, "build", build)


def candidates(*each: tuple[str, float, float | None]) -> list[Candidate]:
    return [Candidate(*one) for one in each]


def test_the_fastest_that_agrees_often_enough_is_selected():
    every = candidates(("a", 1.0, 0.90), ("b", 2.0, 0.96), ("c", 3.0, 0.99))
    assert select(every, 0.95) == "b"
    assert select(every, 0.90) == "a"
    assert select(every, 0.97) == "c"
    assert select(candidates(("a", 1.0, None), ("b", 2.0, None)), 0.95) == "a"
    assert select(candidates(("a", 1.0, 0.96), ("b", 2.0, None)), 0.95) == "a"
    assert select(candidates(("a", 1.0, 0.7), ("b", 2.0, 0.9), ("c", 9.0, None)), 0.95) == "b"


def test_where_none_agrees_the_fastest_of_the_closest_is_selected():
    every = candidates(("a", 1.0, 0.50), ("b", 2.0, 0.79), ("c", 3.0, 0.80))
    assert select(every, 0.95) == "b"


def test_the_sentence_lists_times_and_agreement():
    every = tuple(candidates(("a", 1.0, 0.97), ("b", 2.0, 0.99)))
    sentence = Choice("a", every, 200, 0.95, {"c": "no kernel"}).sentence("net")
    assert sentence == (
        "net: its recipe recommends no backend; selected a, the fastest here that agrees with "
        "float32 on at least 95 % of 200 images: a 1 ms, agreement 97.0%; b 2 ms, agreement 99.0%; "
        "c not possible (no kernel)."
    )
    sentence = Choice("a", every, 200, 0.999, {}).sentence("net")
    assert "the fastest among the closest to float32 on 200 images; none reaches 99.9 %" in sentence
    assert ", the fastest here: " in Choice("a", every, 0, 0.9, {}).sentence("net")


def test_the_sentence_says_what_was_not_measured_and_what_was_too_slow():
    every = (
        Candidate("a", 1.0, 0.97),
        Candidate("b", 2.0, None),
        Candidate("c", 90.0, None, left_after=2),
    )
    sentence = Choice("a", every, 200, 0.95, {}).sentence("net")
    assert sentence.endswith(
        "images: a 1 ms, agreement 97.0%; b 2 ms, agreement not measured; c 90 ms, too slow "
        "after 2 calls."
    )
    alone = Choice("a", (Candidate("a", 1.0, None), every[2]), 0, 0.95, {})
    assert alone.sentence("net").endswith(
        "selected a, the fastest here: a 1 ms; c 90 ms, too slow after 2 calls."
    )


@pytest.fixture
def even_race(monkeypatch):
    """All backends are equally fast, so that all of them stay, in the order of their names."""

    def race(models, example, **rest):
        assert all(model(example).isfinite().all() for model in models.values())
        return {name: CallTime(1.0) for name in sorted(models)}

    monkeypatch.setattr(backend_choice, "race", race)


def test_every_backend_for_this_cpu_is_timed(subject):
    names = {backend.name for backend in usable_backends(subject)}
    written = {b for b in USABLE if instruction_set() in BACKENDS.get(b).targets}
    assert names == (written or set(USABLE))
    steps = []
    choice = choose_backend(
        subject, Phases(), compare=False, progress=lambda *step: steps.append(step)
    )
    assert {each.backend for each in choice.candidates} == names
    assert {each.agreement for each in choice.candidates} == {None}
    assert choice.backend in names
    assert [each.ms for each in choice.candidates] == sorted(each.ms for each in choice.candidates)
    assert {step for step, _, _ in steps} == {
        *(f"build for {name}" for name in names), "calibrate", "time the backends",
    }  # fmt: skip
    assert ("calibrate", 16, 16) in steps
    assert subject.with_note("after").facts["notes"] == ("before", "after")


def test_the_artifact_of_the_selected_backend_stays(subject, copies):
    choice = choose_backend(subject, Phases(), compare=False)
    assert list(subject.folder.iterdir()) == [choice.artifact.path]
    assert choice.artifact.path == subject.int8_path(BACKENDS.get(choice.backend))
    assert choice.artifact.info.backend == choice.backend
    example = subject.latency.example()
    assert choice.artifact.load()(example).shape == subject.model(example).shape


def test_agreement_is_measured_in_the_order_of_speed_until_one_suffices(subject, copies, even_race):
    names = sorted(backend.name for backend in usable_backends(subject))
    easy = replace(subject, thresholds=subject.thresholds.replaced({"agreement": 0.25}))
    choice = choose_backend(easy, Phases())
    assert choice.backend == names[0]
    assert choice.images == 16
    assert [each.agreement is None for each in choice.candidates] == [False, True, True]
    strict = replace(subject, thresholds=subject.thresholds.replaced({"agreement": 1.0}))
    shares = [each.agreement for each in choose_backend(strict, Phases()).candidates]
    assert all(share is None or 0.5 <= share <= 1 for share in shares)
    assert None not in shares or 1.0 in shares


def test_what_candidates_are_compared_with_may_be_a_faster_float32(subject, copies, even_race):
    calls = []

    def float32(images):
        calls.append(len(images))
        return subject.model(images)

    choose_backend(subject, Phases(), SimpleNamespace(predictor=float32))
    assert calls == [16]  # once for all candidates


def test_a_hopeless_backend_leaves_and_is_not_compared(subject, copies, monkeypatch):
    first, *others = sorted(backend.name for backend in usable_backends(subject))
    called = dict.fromkeys((first, *others), 0)
    original = TorchBackend.load

    def load(self, path, threads=None):
        model = original(self, path, threads)

        def run(images):
            called[self.name] += 1
            time.sleep(0.0 if self.name == first else 0.15)
            return model(images)

        return run

    monkeypatch.setattr(TorchBackend, "load", load)
    choice = choose_backend(subject, Phases())
    assert choice.backend == first
    assert choice.images == 0
    assert [each.left_after for each in choice.candidates] == [None] + [2] * len(others)
    assert [called[name] for name in others] == [2] * len(others)


def test_a_backend_that_cannot_build_is_named_and_one_is_enough(subject, copies, monkeypatch):
    original = TorchBackend.build
    names = [backend.name for backend in usable_backends(subject)]

    def build(self, *args):
        if self.name == names[0]:
            raise UserError("no kernel.")
        return original(self, *args)

    monkeypatch.setattr(TorchBackend, "build", build)
    choice = choose_backend(subject, Phases(), compare=False)
    assert choice.impossible == {names[0]: "no kernel"}
    assert {each.backend for each in choice.candidates} == set(names[1:])
    monkeypatch.setattr(backend_choice, "usable_backends", lambda subject: [BACKENDS.get(names[0])])
    with pytest.raises(UserError, match="no kernel"):
        choose_backend(subject, Phases(), compare=False)


def test_a_backend_whose_artifact_does_not_run_is_named(subject, copies, monkeypatch):
    names = [backend.name for backend in usable_backends(subject)]
    if len(names) < 2:
        pytest.skip("one backend only")
    load = TorchBackend.load

    def failing(self, path, threads=None):
        model = load(self, path, threads)

        def call(images):
            if self.name == names[0] and images.shape[2] == 20:
                raise RuntimeError("quantized::add: operands differ. Details")
            return model(images)

        return call

    monkeypatch.setattr(TorchBackend, "load", failing)
    larger = replace(subject, latency=LatencyInput((1, 3, 20, 20), 1))
    choice = choose_backend(larger, Phases())
    assert choice.backend != names[0]
    assert f"Timing of net on {names[0]} stops" in choice.impossible[names[0]]
    assert "RuntimeError: quantized::add: operands differ)" in choice.impossible[names[0]]


def test_images_that_cannot_be_decoded_do_not_count_as_disagreement(subject, copies, even_race):
    class HalfBroken(RandomImages):
        def batches(self, start, stop, batch_size):
            for pixels, labels in super().batches(start, stop, batch_size):
                yield pixels[::2], labels[::2]

    images = HalfBroken(16, 1)
    halved = replace(subject, data=replace(subject.data, evaluation=images))
    choice = choose_backend(halved, Phases())
    assert choice.images == 8
    assert any((each.agreement or 0) > 0.5 for each in choice.candidates)


def test_images_of_which_none_can_be_decoded_leave_the_fastest(subject, copies, even_race):
    class Broken(RandomImages):
        def batches(self, start, stop, batch_size):
            return iter(())

    broken = replace(subject, data=replace(subject.data, evaluation=Broken(16, 1)))
    choice = choose_backend(broken, Phases())
    assert choice.images == 0
    assert {each.agreement for each in choice.candidates} == {None}


def test_kernels_for_any_cpu_are_for_this_one(subject, monkeypatch):
    def backend(name, *targets):
        facts = {"name": name, "runtime": "torch", "targets": targets}
        return SimpleNamespace(**facts, refusal=lambda recipe: None)

    backends = [backend("any"), backend("here", instruction_set()), backend("elsewhere", "no cpu")]
    monkeypatch.setattr(backend_choice, "BACKENDS", backends)
    assert [each.name for each in usable_backends(subject)] == ["any", "here"]


def test_what_a_recipe_rules_out_is_no_candidate(subject):
    name = usable_backends(subject)[0].name
    recipe = replace(subject.recipe, unsupported={name: "no kernel"})
    usable = usable_backends(replace(subject, recipe=recipe))
    assert name not in {backend.name for backend in usable}


def test_a_default_stands_in_where_nothing_is_measured():
    assert recommended(replace(open_recipe("net"), backend="qnnpack")) == "qnnpack"
    assert recommended(open_recipe("net")) == default_backend()
    assert default_backend() in USABLE
