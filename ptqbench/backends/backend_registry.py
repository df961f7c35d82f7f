"""The backends by name, and which of them a recipe or a file belongs to. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.backends.backend import Backend
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.core.registry import Registry
from ptqbench.errors import UserError
from ptqbench.recipes.recipe import MEASURED

if TYPE_CHECKING:
    from ptqbench.backends.artifact import ArtifactInfo
    from ptqbench.recipes import Recipe

BACKENDS: Registry[Backend] = Registry("backend")

for _engine in TORCH_ENGINES:
    BACKENDS.add(_engine.name, _engine)


def recommended(recipe: Recipe) -> str:
    """The backend that a recipe recommends, or the default one if it recommends none."""
    return recipe.backend if recipe.backend != MEASURED else default_backend()


def default_backend() -> str:
    """The first available backend whose kernels are written for this CPU, else the first one."""
    available = [backend for backend in BACKENDS if backend.availability() is None]
    native = [backend for backend in available if instruction_set() in backend.targets]
    return (native or available or list(BACKENDS))[0].name


def recognize(path: Path) -> ArtifactInfo | None:
    """Check that some runtime executes a file and that it is undamaged, without running it.

    Returns:
        What the file records about itself; None if ptqbench did not build it.

    Raises:
        UserError: It is missing, damaged or of no known kind.
    """
    reasons = []
    for backend in {backend.runtime: backend for backend in BACKENDS}.values():
        try:
            return backend.recognize(path)
        except UserError as error:
            reasons.append(str(error))
    raise UserError(" ".join(dict.fromkeys(reasons)))
