"""Which backend is taken where a recipe recommends none, and what is said about it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest
from helpers import odd_networks as odd_nets
from helpers.custom_models import seeded

from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.registry import BACKENDS, default_backend, recommended
from ptqbench.backends.torch_engines.engine import TorchBackend
from ptqbench.core.phases import Phases
from ptqbench.data.image_set import Data
from ptqbench.errors import UserError
from ptqbench.evaluation import backend_choice as choosing
from ptqbench.evaluation.backend_choice import (
    Choice,
    Tried,
    candidates,
    choose_backend,
    noted,
    picked,
)
from ptqbench.evaluation.case import Subject, Timing
from ptqbench.evaluation.recipe_proposal import Noise
from ptqbench.evaluation.subject import artifact_folder
from ptqbench.models.custom.registration import open_recipe

USABLE = [backend.name for backend in BACKENDS if backend.availability() is None]


@pytest.fixture
def subject():
    with ExitStack() as stack:
        timing = Timing((1, 3, 16, 16), 1)
        model = seeded(odd_nets.Everything).eval()
        recipe = open_recipe("net")
        data = Data("random", Noise(16, 0), Noise(16, 1))
        folder = artifact_folder(None, stack)
        yield Subject(model, recipe, "random", data, timing, folder, {"notes": ("before",)})


def tried(*each: tuple[str, float, float | None]) -> list[Tried]:
    return [Tried(*one) for one in each]


def test_the_fastest_that_agrees_often_enough_is_picked():
    every = tried(("a", 1.0, 0.90), ("b", 2.0, 0.96), ("c", 3.0, 0.99))
    assert picked(every, 0.95) == "b"
    assert picked(every, 0.90) == "a"
    assert picked(every, 0.97) == "c"
    assert picked(tried(("a", 1.0, None), ("b", 2.0, None)), 0.95) == "a"


def test_where_none_agrees_the_fastest_of_the_nearest_is():
    every = tried(("a", 1.0, 0.50), ("b", 2.0, 0.79), ("c", 3.0, 0.80))
    assert picked(every, 0.95) == "b"


def test_the_sentence_says_what_was_seen():
    every = tuple(tried(("a", 1.0, 0.97), ("b", 2.0, 0.99)))
    said = Choice("a", every, 200, 0.95, {"c": "no kernel"}).sentence("net")
    assert said == (
        "net: its recipe recommends no backend, a was taken, the fastest here that agrees with "
        "float32 on at least 95% of 200 images: a 1 ms, agreement 97.0%; b 2 ms, agreement 99.0%; "
        "c not possible (no kernel)."
    )
    said = Choice("a", every, 200, 0.999, {}).sentence("net")
    assert "the fastest of those nearest to float32, because none agrees on 99.9% of 200" in said
    assert ", the fastest here: " in Choice("a", every, 0, 0.9, {}).sentence("net")


def test_every_backend_for_this_cpu_is_timed_and_looked_at(subject):
    names = {backend.name for backend in candidates(subject)}
    written = {b for b in USABLE if instruction_set() in BACKENDS.get(b).targets}
    assert names == (written or set(USABLE))
    choice = choose_backend(subject, Phases())
    assert {each.backend for each in choice.tried} == names
    assert choice.backend in names
    assert [each.ms for each in choice.tried] == sorted(each.ms for each in choice.tried)
    assert choice.images == 16
    assert all(0.5 <= each.agreement <= 1 for each in choice.tried)
    assert list(subject.folder.iterdir()) == []
    alone = choose_backend(subject, Phases(), agree=False)
    assert {each.agreement for each in alone.tried} == {None}
    assert noted(subject, "after").facts["notes"] == ("before", "after")


def test_a_backend_that_cannot_is_told_and_one_is_enough(subject, monkeypatch):
    original = TorchBackend.build
    names = [backend.name for backend in candidates(subject)]

    def build(self, *args):
        if self.name == names[0]:
            raise UserError("no kernel.")
        return original(self, *args)

    monkeypatch.setattr(TorchBackend, "build", build)
    choice = choose_backend(subject, Phases(), agree=False)
    assert choice.impossible == {names[0]: "no kernel"}
    assert {each.backend for each in choice.tried} == set(names[1:])
    monkeypatch.setattr(choosing, "candidates", lambda subject: [BACKENDS.get(names[0])])
    with pytest.raises(UserError, match="no kernel"):
        choose_backend(subject, Phases(), agree=False)


def test_what_a_recipe_rules_out_is_no_candidate(subject):
    name = candidates(subject)[0].name
    recipe = replace(subject.recipe, unsupported={name: "no kernel"})
    found = candidates(replace(subject, recipe=recipe))
    assert name not in {backend.name for backend in found}


def test_a_default_stands_in_where_nothing_is_measured():
    assert recommended(replace(open_recipe("net"), backend="qnnpack")) == "qnnpack"
    assert recommended(open_recipe("net")) == default_backend()
    assert default_backend() in USABLE
