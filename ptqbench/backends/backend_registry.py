"""The backends by name, and which of them a recipe or a file belongs to. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.backends.backend import Backend
from ptqbench.backends.cpu import instruction_set
from ptqbench.backends.executorch.et_backend import EXECUTORCH
from ptqbench.backends.inductor.inductor_backend import INDUCTOR
from ptqbench.backends.onnxruntime.ort_backend import ONNX_RUNTIME
from ptqbench.backends.openvino.ov_backend import OPENVINO
from ptqbench.backends.torch_engines.engine import TORCH_ENGINES
from ptqbench.core.registry import Registry
from ptqbench.errors import UserError
from ptqbench.recipes.recipe import MEASURED

if TYPE_CHECKING:
    from ptqbench.backends.artifact import ArtifactInfo
    from ptqbench.recipes import Recipe

BACKENDS: Registry[Backend] = Registry("backend")

for _backend in (*TORCH_ENGINES, ONNX_RUNTIME, OPENVINO, EXECUTORCH, INDUCTOR):
    BACKENDS.add(_backend.name, _backend)


def recommended(recipe: Recipe) -> str:
    """The backend that a recipe recommends, or the default one if it recommends none."""
    return recipe.backend if recipe.backend != MEASURED else default_backend()


def default_backend() -> str:
    """The first available backend whose kernels are written for this CPU, else the first one."""
    available = [backend for backend in BACKENDS if backend.availability() is None]
    native = [backend for backend in available if instruction_set() in backend.targets]
    return (native or available or list(BACKENDS))[0].name


def other_engines(backend: Backend) -> list[Backend]:
    """The other backends of a backend's runtime that are available."""
    return [
        other
        for other in BACKENDS
        if other.runtime == backend.runtime
        and other.engine != backend.engine
        and other.availability() is None
    ]


@dataclass(frozen=True)
class Recognition:
    """What a file is, as far as that can be told without running it.

    Attributes:
        runtime: The runtime that executes it.
        info: What it records about itself; None if ptqbench did not build it.
    """

    runtime: str
    info: ArtifactInfo | None


def recognize(path: Path) -> Recognition:
    """Check that some runtime executes a file and that it is undamaged, without running it.

    Raises:
        UserError: It is missing, damaged or of no known kind.
    """
    by_runtime = {backend.runtime: backend for backend in BACKENDS}.values()
    ending = path.suffix.lower()
    reasons = []
    for backend in [each for each in by_runtime if each.suffix == ending] or by_runtime:
        try:
            return Recognition(backend.runtime, backend.recognize(path))
        except UserError as error:
            reasons.append(str(error))
    raise UserError(" ".join(dict.fromkeys(reasons)))


def backend_for(file: Recognition, recipe: Recipe) -> str:
    """The backend that a file will run on: that which it records, or one of its runtime.

    Args:
        file: The file.
        recipe: Recommends a backend, which is taken if it is of that runtime.
    """
    if file.info is not None:
        return file.info.backend
    name = recommended(recipe)
    if BACKENDS.get(name).runtime == file.runtime:
        return name
    return next(backend.name for backend in BACKENDS if backend.runtime == file.runtime)
