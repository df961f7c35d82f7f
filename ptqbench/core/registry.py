"""The registry that models, recipes, backends and gates are instances of."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import Generic, TypeVar

from ptqbench.core.names import nearest
from ptqbench.errors import UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Named entries; a duplicate is an error, and an unknown name suggests the nearest ones.

    Args:
        kind: Noun for one entry, for messages ("model").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Register ``entry`` under ``name``.

        Raises:
            ValueError: The name is taken.
        """
        if name in self._entries:
            raise ValueError(f"The {self.kind} {name!r} is already registered.")
        return self.replace(name, entry)

    def replace(self, name: str, entry: T) -> T:
        """Register ``entry`` under ``name``, whether or not that is taken."""
        self._entries[name] = entry
        return entry

    def get(self, name: str) -> T:
        """Return the entry called ``name``.

        Raises:
            UnknownNameError: It does not exist.
        """
        try:
            return self._entries[name]
        except KeyError:
            hint = nearest(name, self.names())
            raise UnknownNameError(f"Unknown {self.kind} {name!r}. {hint}") from None

    def match(self, *patterns: str) -> list[str]:
        """Return names that match any of the shell wildcards, in order of registration.

        Raises:
            UnknownNameError: A pattern matches nothing.
        """
        for pattern in patterns:
            if not fnmatch.filter(self._entries, pattern):
                self.get(pattern)
        return [n for n in self._entries if any(fnmatch.fnmatchcase(n, p) for p in patterns)]

    def names(self) -> list[str]:
        """Return all names, in order of registration."""
        return list(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[T]:
        return iter(self._entries.values())
