"""Import torchvision, even if its compiled operators cannot be loaded.

A CPU-only torch cannot load the compiled library of a torchvision that was built for CUDA, and
``import torchvision`` then stops because it registers fake kernels for undeclared operators. The
classifiers need none of these operators, so declaring their schemas is enough. If the library
loads, nothing is declared.

``torchvision.ops`` also imports torch's compiler for one predicate, which takes longer than all
other imports of a run together; and ``torchvision.datasets`` imports readers of videos and
archives. In the process of the ``ptqbench`` command, and nowhere else, stand-ins defer
both to their first use.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ptqbench.core.process import is_dedicated
from ptqbench.errors import UserError

_SCHEMAS = {
    name: f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms")
}
"""Operators that ``torchvision._meta_registrations`` looks up when it is imported."""
_DATASETS = "torchvision.datasets"


@functools.cache
def _library() -> torch.library.Library:
    """Namespace of the declared schemas, which must live as long as the process."""
    return torch.library.Library("torchvision", "FRAGMENT")  # noqa: TOR901


def load_compiled_operators(package: Path) -> bool:
    """Load torchvision's compiled library from its package folder.

    Returns:
        Whether there is a library and it was loaded.
    """
    for library in sorted(package.glob("_C*.so")) + sorted(package.glob("_C*.pyd")):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return True
    return False


def declare_missing_schemas() -> list[str]:
    """Declare the schemas that torchvision's import needs and that are not registered.

    Returns:
        The names that were declared.
    """
    missing = [name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    for name in missing:
        _library().define(_SCHEMAS[name])
    return missing


def provide_operators() -> bool:
    """Load torchvision's compiled operators, or declare their schemas if they cannot be loaded.

    Returns:
        Whether torchvision is installed.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    if not load_compiled_operators(Path(spec.submodule_search_locations[0])):
        declare_missing_schemas()
    return True


@contextmanager
def compiler_import_deferred() -> Iterator[None]:
    """Let ``from torch._dynamo.utils import is_compile_supported`` succeed without the import.

    The stand-in is removed afterwards, so that later imports get the real compiler. If torch's
    compiler is already imported, nothing is done.
    """
    names = ("torch._dynamo", "torch._dynamo.utils")
    if any(name in sys.modules for name in names):
        yield
        return

    def is_compile_supported(device_type: str) -> bool:
        return bool(importlib.import_module(names[1]).is_compile_supported(device_type))

    package, utils = (ModuleType(name) for name in names)
    package.__path__ = []
    utils.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    package.utils = utils  # type: ignore[attr-defined]
    sys.modules.update({names[0]: package, names[1]: utils})
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


class Deferred(ModuleType):
    """Stands in for a module, and imports it when an attribute is first used."""

    def __getattr__(self, name: str) -> Any:
        # Code that iterates over all modules reads `__file__` and the like, and needs no import.
        if name.startswith("__") and name not in ("__path__", "__all__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@functools.cache
def import_torchvision() -> ModuleType:
    """Import torchvision, declaring the schemas of its operators if they cannot load.

    Returns:
        The ``torchvision`` module.

    Raises:
        UserError: torchvision is not installed.
    """
    if not provide_operators():
        raise UserError("torchvision is not installed. Install the one that fits your torch.")
    if not is_dedicated():
        return importlib.import_module("torchvision")
    try:
        with compiler_import_deferred():
            if "torchvision" not in sys.modules:
                sys.modules[_DATASETS] = Deferred(_DATASETS)
            return importlib.import_module("torchvision")
    except (AttributeError, ImportError):
        # A torchvision that needs more of the compiler than the stand-in has.
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        return importlib.import_module("torchvision")
