"""The one registry shape."""

from __future__ import annotations

import pytest

from ptqbench.core.registry import Registry
from ptqbench.errors import UnknownNameError, UserError


@pytest.fixture
def fruit() -> Registry[int]:
    registry: Registry[int] = Registry("fruit")
    for number, name in enumerate(["pear", "apple", "apricot"]):
        registry.add(name, number)
    return registry


def test_entries_come_back_in_order_of_registration(fruit: Registry[int]) -> None:
    assert fruit.names() == ["pear", "apple", "apricot"]
    assert list(fruit) == [0, 1, 2]
    assert fruit.get("apple") == 1
    assert "apple" in fruit
    assert "plum" not in fruit


def test_a_duplicate_is_an_error_and_changes_nothing(fruit: Registry[int]) -> None:
    with pytest.raises(ValueError, match="'apple' is already registered"):
        fruit.add("apple", 7)
    assert fruit.get("apple") == 1


def test_an_unknown_name_suggests_the_nearest(fruit: Registry[int]) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown fruit 'appel'. Did you mean apple\?"):
        fruit.get("appel")
    assert issubclass(UnknownNameError, UserError)


def test_a_name_like_no_other_lists_what_is_known(fruit: Registry[int]) -> None:
    with pytest.raises(UnknownNameError, match="Known: pear, apple, apricot"):
        fruit.get("zzz")


def test_wildcards_select_in_order_and_once(fruit: Registry[int]) -> None:
    assert fruit.match("ap*") == ["apple", "apricot"]
    assert fruit.match("apricot", "a*", "pear") == ["pear", "apple", "apricot"]
    with pytest.raises(UnknownNameError):
        fruit.match("pear", "b*")


def test_registries_share_nothing() -> None:
    first: Registry[int] = Registry("first")
    second: Registry[int] = Registry("second")
    first.add("name", 1)
    assert second.names() == []
