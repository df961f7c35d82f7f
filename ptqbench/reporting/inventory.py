"""What there is to run: models, weights, recipes and backends, and what works here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from ptqbench.recipes import Thresholds
from ptqbench.reporting.result import SCHEMA_VERSION, plain


class _Model(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def input_size(self) -> tuple[int, int, int]: ...


class _Recipe(Protocol):
    @property
    def model(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def flow(self) -> str: ...
    @property
    def thresholds(self) -> Thresholds: ...


class _Backend(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def engine(self) -> str: ...
    def availability(self) -> str | None: ...


@dataclass(frozen=True)
class WeightsEntry:
    """Trained weights on the fixture images.

    Attributes:
        shipped: Whether the file is there.
        float32_top1: Measured share of evaluation images that float32 gets right, if known.
        evaluation_images: Images that this was measured on, if known.
    """

    shipped: bool
    float32_top1: float | None = None
    evaluation_images: int | None = None


@dataclass(frozen=True)
class ModelEntry:
    """A model: its name, the input at which latency is measured, and its fixture weights."""

    name: str
    input_size: tuple[int, int, int]
    weights: WeightsEntry


@dataclass(frozen=True)
class RecipeEntry:
    """A recipe: what it is for and what its gates ask for; speedup by instruction set."""

    model: str
    backend: str
    flow: str
    accuracy: float | None
    agreement: float
    size_ratio: float
    speedup: Mapping[str, float]


@dataclass(frozen=True)
class BackendEntry:
    """A backend, and why this CPU or build cannot run it; None: it can."""

    name: str
    engine: str
    unavailable: str | None


@dataclass(frozen=True)
class Inventory:
    """Everything that can be asked for by name."""

    instruction_set: str
    models: tuple[ModelEntry, ...]
    recipes: tuple[RecipeEntry, ...]
    backends: tuple[BackendEntry, ...]

    def to_json(self) -> str:
        """The inventory as JSON text, ending in a newline."""
        content = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n"


def read_weights(folder: Path, name: str) -> WeightsEntry:
    """Look for the weights of a model and for what their sidecar says about them.

    Args:
        folder: Where ``NAME.safetensors`` and ``NAME.json`` lie.
        name: Name of the model.
    """
    shipped = (folder / f"{name}.safetensors").is_file()
    try:
        said = json.loads((folder / f"{name}.json").read_text("utf-8"))
    except (OSError, ValueError):
        said = None
    said = said if isinstance(said, dict) else {}
    top1, images = (said.get(key) for key in ("float32_top1", "evaluation_images"))
    return WeightsEntry(
        shipped,
        float(top1) if isinstance(top1, (int, float)) else None,
        images if isinstance(images, int) else None,
    )


def collect(
    models: Iterable[_Model],
    recipes: Iterable[_Recipe],
    backends: Iterable[_Backend],
    weights: Path,
    instruction_set: str,
) -> Inventory:
    """Ask registries and the folder of weights what there is.

    Args:
        models: Registered models.
        recipes: Registered recipes.
        backends: Registered backends.
        weights: Folder of the fixture weights.
        instruction_set: Of this CPU.
    """
    return Inventory(
        instruction_set,
        tuple(ModelEntry(m.name, m.input_size, read_weights(weights, m.name)) for m in models),
        tuple(
            RecipeEntry(
                recipe.model,
                recipe.backend,
                recipe.flow,
                recipe.thresholds.accuracy,
                recipe.thresholds.agreement,
                recipe.thresholds.size_ratio,
                dict(recipe.thresholds.speedup),
            )
            for recipe in recipes
        ),
        tuple(BackendEntry(b.name, b.engine, b.availability()) for b in backends),
    )


def inventory() -> Inventory:
    """What is registered in this installation, on this CPU."""
    from ptqbench.backends.engine import BACKENDS
    from ptqbench.backends.isa import instruction_set
    from ptqbench.models.zoo import MODELS
    from ptqbench.recipes import RECIPES
    from ptqbench.resources import fixtures_dir

    return collect(MODELS, RECIPES, BACKENDS, fixtures_dir() / "weights", instruction_set())
