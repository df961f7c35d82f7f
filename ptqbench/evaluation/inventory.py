"""The inventory: models, weights, recipes and backends, and whether they work on this CPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ptqbench.evaluation.result import plain
from ptqbench.recipes import Recipe
from ptqbench.recipes.family import OTHER, family
from ptqbench.settings.weights_specifier import FIXTURE, PROBE

SCHEMA_VERSION = 1
"""Version of the inventory as JSON; it changes when a field changes its meaning or goes away."""


class _Model(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def input_size(self) -> tuple[int, int, int]: ...


class _Backend(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def engine(self) -> str: ...
    def availability(self) -> str | None: ...


@dataclass(frozen=True)
class WeightsEntry:
    """The shipped weights of a model, trained on the fixture images.

    Attributes:
        shipped: Whether the file exists.
        float32_top1: Measured share of evaluation images that float32 gets right, if known.
        evaluation_images: Images that this was measured on, if known.
    """

    shipped: bool
    float32_top1: float | None = None
    evaluation_images: int | None = None


@dataclass(frozen=True)
class ModelEntry:
    """A model.

    Attributes:
        name: Registered name.
        input_size: ``C×H×W`` at which latency is measured.
        weights: Its fixture weights.
        family: The family of its architecture.
        sources: Names of the weights that exist for it, apart from files: ``fixture``, ``probe``
            and those of torchvision, or ``pretrained``.
    """

    name: str
    input_size: tuple[int, int, int]
    weights: WeightsEntry
    family: str = OTHER
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecipeEntry:
    """A recipe: its architecture, what becomes int8 and the thresholds of its gates.

    Attributes:
        model: Name of the architecture.
        backend: Recommended backend.
        flow: ``fx`` or ``eager``.
        accuracy: Share of float32's top-1 that int8 must retain.
        agreement: Share of images with the same class.
        size_ratio: How many times smaller int8 must be.
        speedup: How many times faster, by instruction set.
        hash: Of the recipe.
        fused_groups: Number of fusion groups; None if not counted yet.
        int8_modules: Number of layers that become int8; None likewise.
        keep_float: What stays float32.
        thresholds: Every threshold that is set, by name.
        probe: Those that replace them under ``probe`` weights.
        published: What torchvision published in float32 and int8, in percent, by the name of
            its weights.
    """

    model: str
    backend: str
    flow: str
    accuracy: float | None
    agreement: float
    size_ratio: float
    speedup: Mapping[str, float]
    hash: str = ""
    fused_groups: int | None = None
    int8_modules: int | None = None
    keep_float: tuple[str, ...] = ()
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    probe: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True)
class BackendEntry:
    """A backend, and the reason why this CPU or build cannot run it; None if it can."""

    name: str
    engine: str
    unavailable: str | None


@dataclass(frozen=True)
class CaseEntry:
    """A model on a backend.

    Attributes:
        model: Registered name.
        backend: Name.
        recommended: Whether the recipe recommends it.
        unavailable: Why this CPU or build cannot run the backend; None if it can.
        unsupported: Why the model cannot be quantized for it, as tried; None if it can.
        measured: Measurements, one record for each kind of CPU and flow.
    """

    model: str
    backend: str
    recommended: bool
    unavailable: str | None
    unsupported: str | None
    measured: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Inventory:
    """Everything that has a name, and every model on every backend.

    Attributes:
        instruction_set: Of this CPU.
        models: In the order of reports.
        recipes: In that order, too.
        backends: Those that are registered.
        matrix: Every model on every backend.
        timm: The version of timm and the number of its architectures, which are no entries until
            they are named; None: it is not installed.
    """

    instruction_set: str
    models: tuple[ModelEntry, ...]
    recipes: tuple[RecipeEntry, ...]
    backends: tuple[BackendEntry, ...]
    matrix: tuple[CaseEntry, ...] = ()
    timm: tuple[str, int] | None = None

    def only(self, models: Collection[str]) -> Inventory:
        """Return the inventory of some models."""
        return replace(
            self,
            models=tuple(entry for entry in self.models if entry.name in models),
            recipes=tuple(entry for entry in self.recipes if entry.model in models),
            matrix=tuple(entry for entry in self.matrix if entry.model in models),
        )

    def to_json(self) -> str:
        """Return the inventory as JSON text, ending in a newline."""
        content = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n"


def read_weights(folder: Path, name: str) -> WeightsEntry:
    """Look for the weights of a model and read their sidecar.

    Args:
        folder: Where ``NAME.safetensors`` and ``NAME.json`` lie.
        name: Name of the model.
    """
    shipped = (folder / f"{name}.safetensors").is_file()
    try:
        sidecar = json.loads((folder / f"{name}.json").read_text("utf-8"))
    except (OSError, ValueError):
        sidecar = None
    sidecar = sidecar if isinstance(sidecar, dict) else {}
    top1, images = (sidecar.get(key) for key in ("float32_top1", "evaluation_images"))
    return WeightsEntry(
        shipped,
        float(top1) if isinstance(top1, (int, float)) else None,
        images if isinstance(images, int) else None,
    )


def collect(
    models: Iterable[_Model],
    recipes: Iterable[Recipe],
    backends: Iterable[_Backend],
    weights: Path,
    instruction_set: str,
    published: Callable[[Any], Iterable[str]] = lambda model: (),
    measured: Mapping[tuple[str, str], tuple[Mapping[str, Any], ...]] | None = None,
) -> Inventory:
    """Collect the inventory from registries and the folder of weights.

    Args:
        models: Registered models.
        recipes: Registered recipes.
        backends: Registered backends.
        weights: Folder of the fixture weights.
        instruction_set: Of this CPU.
        published: Names of the weights that torchvision or timm has for a model.
        measured: Measurements by model and backend.
    """
    recipes, measured = list(recipes), measured or {}
    entries = [BackendEntry(b.name, b.engine, b.availability()) for b in backends]
    return Inventory(
        instruction_set,
        tuple(_model(m, read_weights(weights, m.name), published(m)) for m in models),
        tuple(_recipe(recipe) for recipe in recipes),
        tuple(entries),
        tuple(
            CaseEntry(
                recipe.model,
                backend.name,
                backend.name == recipe.backend,
                backend.unavailable,
                recipe.unsupported.get(backend.name),
                measured.get((recipe.model, backend.name), ()),
            )
            for recipe in recipes
            for backend in entries
        ),
    )


def _model(model: _Model, weights: WeightsEntry, published: Iterable[str]) -> ModelEntry:
    shipped = (FIXTURE,) if weights.shipped else ()
    sources = (*shipped, PROBE, *published)
    return ModelEntry(model.name, model.input_size, weights, family(model.name), sources)


def _recipe(recipe: Recipe) -> RecipeEntry:
    thresholds = asdict(recipe.thresholds)
    groups = recipe.fused_groups if recipe.fusion is None else len(recipe.fusion)
    return RecipeEntry(
        recipe.model,
        recipe.backend,
        recipe.flow,
        recipe.thresholds.accuracy,
        recipe.thresholds.agreement,
        recipe.thresholds.size_ratio,
        dict(recipe.thresholds.speedup),
        recipe.hash,
        groups,
        recipe.int8_modules,
        recipe.keep_float,
        {name: value for name, value in thresholds.items() if value not in (None, {})},
        dict(recipe.probe),
        {name: asdict(entry) for name, entry in recipe.published.items()},
    )


def inventory() -> Inventory:
    """Return what is registered in this installation, on this CPU."""
    from ptqbench.backends.backend_registry import BACKENDS
    from ptqbench.backends.cpu import instruction_set
    from ptqbench.core.package_data import fixtures_dir
    from ptqbench.evaluation.coverage_record import measured_cases
    from ptqbench.models.catalog import MODELS
    from ptqbench.models.custom import timm_models
    from ptqbench.recipes import RECIPES
    from ptqbench.weights.open_weights import published_names

    everything = collect(
        MODELS,
        RECIPES,
        BACKENDS,
        fixtures_dir() / "weights",
        instruction_set(),
        published_names,
        measured_cases(fixtures_dir() / "coverage.json"),
    )
    return replace(everything, timm=timm_models.summary())
