"""Let users' modules import torchvision where its compiled operators cannot be loaded.

``import torchvision`` stops there until the schemas of its operators are declared
(``models.import_torchvision``). A user's module, or a library such as timm that it imports, does
so before ptqbench needs torchvision itself; and it may not, so that torch is not imported first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Finder(MetaPathFinder):
    """Finds nothing itself; sees to torchvision's operators when somebody imports it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Provide the operators before the first import of torchvision."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            from ptqbench.models.import_torchvision import provide_operators

            provide_operators()
        return None


@contextmanager
def torchvision_importable() -> Iterator[None]:
    """Make ``import torchvision`` work inside the block, whoever imports it."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
