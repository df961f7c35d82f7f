"""Requests: one per model, and what cannot be requested."""

from __future__ import annotations

import pytest

from ptqbench.errors import UserError
from ptqbench.settings.layers import Layer, Settings
from ptqbench.settings.requests import CaseRequest, case_requests
from ptqbench.settings.thresholds import Thresholds


class Catalog:
    """Models of a test."""

    def names(self) -> list[str]:
        return ["a:b", "a_b"]

    def backend(self, model: str) -> str:
        return "x86"

    def thresholds(self, model: str, weights: str | None = None) -> Thresholds:
        return Thresholds(agreement=0.5 if weights == "probe" else 0.9)


SETTINGS = Settings(Catalog(), Layer("command line", {"models": ("*",)}))


def test_a_request_knows_who_set_what() -> None:
    first, second = case_requests(SETTINGS)
    assert (first.model, second.model) == ("a:b", "a_b")
    assert (first.backend, first.origin, first.settings.weights) == ("x86", "recipe", "probe")
    assert first.threshold_origins["agreement"] == "recipe, under probe weights"
    assert first.threshold_origins["accuracy"] == "recipe"
    assert first.settings.thresholds == {}


def test_a_case_has_one_backend() -> None:
    with pytest.raises(ValueError, match="too many values"):
        _ = CaseRequest("a_b", ("x86", "onednn"), "a test").backend


def test_artifacts_of_two_models_do_not_overwrite_each_other() -> None:
    with pytest.raises(UserError, match=r"a:b and a_b would have the same name, a_b-….int8.pt"):
        case_requests(SETTINGS, "kept")
