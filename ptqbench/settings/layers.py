"""Settings: where they come from, which one wins, and how each knows its origin.

They stand in ``[tool.ptqbench]`` of ``pyproject.toml`` or in ``ptqbench.toml``, with tables
``model."WILDCARD"`` for some models. What wins: command line, marker, table of the model,
general settings of the file, recipe, default.
"""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ptqbench.core.names import nearest
from ptqbench.core.package_data import SHIPPED
from ptqbench.errors import UserError
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.schema import (
    KEYS,
    POLICIES,
    overlaid,
    parse_table,
    threshold_changes,
    threshold_names,
)
from ptqbench.settings.weights_specifier import default_weights, is_source_name

_OWN_HINT = (
    "A model of your own is named as module:function, or registered by a module in `plugins`."
)


_CASE_KEYS = tuple(each.name for each in fields(RunSettings) if each.name in KEYS)


@dataclass(frozen=True)
class Value:
    """A value and who set it."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Layer:
    """Settings of one origin.

    Attributes:
        origin: Who set them, for people.
        values: Parsed values by dotted name.
        origins: A more precise origin of single values.
    """

    origin: str
    values: Mapping[str, object] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> Value | None:
        """The value called ``name``, or None if this origin does not set it."""
        if name not in self.values:
            return None
        return Value(self.values[name], self.origins.get(name, self.origin))


@dataclass(frozen=True)
class Settings:
    """All settings of a session.

    Attributes:
        command_line: Options.
        models: Tables of models by wildcard, in the order of the file.
        general: What the file says for all models.
        file: The file, if there is one.
    """

    command_line: Layer = Layer("command line")
    models: tuple[tuple[str, Layer], ...] = ()
    general: Layer = Layer("file")
    file: Path | None = None

    def value(self, name: str, model: str | None = None, marker: Layer | None = None) -> Value:
        """A setting and its origin.

        Args:
            name: Dotted name.
            model: Of which model; None: of the session.
            marker: What a marker on the test says.
        """
        layers = [self.command_line, marker, *self._tables(model), self.general]
        for layer in layers:
            if layer is not None and (found := layer.get(name)) is not None:
                return found
            if layer is not None and name in POLICIES and (other := _policy(layer)) is not None:
                return Value(None, other.origin)
        if name == "weights" and model is not None:
            return Value(default_weights(model), DEFAULT)
        recipe = RECIPES.get(model) if model is not None and model in RECIPES else None
        if recipe is None or not name.startswith("thresholds."):
            return _default(name, recipe)
        return _promised(name, recipe, self.value("weights", model).value)

    def _tables(self, model: str | None) -> list[Layer]:
        """Tables of a model, the one that wins first: its own name, then the later wildcard."""
        if model is None:
            return []
        fitting = [(p, layer) for p, layer in self.models if fnmatch.fnmatchcase(model, p)]
        fitting.reverse()
        return [layer for _, layer in sorted(fitting, key=lambda pair: pair[0] != model)]

    def check_models(self) -> None:
        """Check that each table of a model is for a model that there is.

        Raises:
            UserError: A wildcard matches nothing.
        """
        for pattern, layer in self.models:
            if not fnmatch.filter(RECIPES.names(), pattern):
                hint = nearest(pattern, RECIPES.names())
                raise UserError(f"{layer.origin} is for no model that there is. {hint}")

    def chosen_models(self) -> list[str]:
        """Names of the models that the session is about.

        Raises:
            UserError: A name or wildcard matches nothing, or weights of one model are set
                for several.
        """
        self.check_models()
        wanted = self.value("models")
        for pattern in wanted.value:
            if not fnmatch.filter(RECIPES.names(), pattern):
                hint = nearest(pattern, RECIPES.names())
                place = "" if wanted.origin == COMMAND_LINE else f"{wanted.origin}: "
                if not difflib.get_close_matches(pattern, RECIPES.names(), cutoff=0.75):
                    hint += f" {_OWN_HINT}"
                raise UserError(f"{place}Unknown model {pattern!r}. {hint}")
        names = RECIPES.match(*wanted.value) if wanted.value else list(SHIPPED)
        shared: dict[Value, list[str]] = {}
        for name in names:
            shared.setdefault(self.value("weights", name), []).append(name)
        for weights, of in shared.items():
            if not is_source_name(weights.value) and len(of) > 1:
                raise UserError(
                    f"The weights {weights.value} ({weights.origin}) belong to one model, but "
                    f"are set for {', '.join(of)}. Set them in the table of their model, or "
                    "choose one model."
                )
        return names

    def case(self, model: str, marker: Layer | None = None) -> tuple[RunSettings, dict[str, str]]:
        """Return the settings of a model's cases, and who set each threshold.

        Args:
            model: Registered name.
            marker: Thresholds set by a marker on the test.
        """
        thresholds: dict[str, object] = {}
        origins: dict[str, str] = {}
        for name in KEYS:
            prefix, _, rest = name.partition(".")
            if prefix != "thresholds":
                continue
            value = self.value(name, model, marker)
            origins[rest] = value.origin
            if value.origin not in (RECIPE, RECIPE_PROBE, DEFAULT) and value.value is not None:
                thresholds[name] = value.value
        values = {name: self.value(name, model, marker).value for name in _CASE_KEYS}
        return RunSettings(**values, thresholds=threshold_changes(thresholds)), origins


def _policy(layer: Layer) -> Value | None:
    """The policy for top-1 that a layer chooses, if it does; it takes the others' place."""
    return next((found for name in POLICIES if (found := layer.get(name)) is not None), None)


RECIPE = "recipe"
RECIPE_PROBE = "recipe, under probe weights"
DEFAULT = "default"
COMMAND_LINE = "command line"


def _default(name: str, recipe: Recipe | None) -> Value:
    if recipe is not None and name == "backends":
        return Value((recipe.backend,), RECIPE)
    if name == "profile" and os.environ.get("CI", "").lower() not in ("", "0", "false"):
        return Value("ci", f"{DEFAULT} where CI is set in the environment")
    return Value(KEYS[name].default, DEFAULT)


def _promised(name: str, recipe: Recipe, weights: str) -> Value:
    """A threshold that nobody sets, as the recipe promises it under some weights."""
    _, group, *instructions = name.split(".")
    value, usual = (
        found.get(instructions[0]) if instructions else found
        for found in (
            getattr(thresholds, group)
            for thresholds in (recipe.thresholds_for(weights), recipe.thresholds)
        )
    )
    return Value(value, RECIPE if value == usual else RECIPE_PROBE)


def marker_layer(args: Sequence[object], values: Mapping[str, object], where: str) -> Layer:
    """The thresholds that a marker ``ptqbench(...)`` sets.

    Args:
        args: Positional arguments of the marker.
        values: Its keyword arguments.
        where: The test, for messages.

    Raises:
        UserError: There are positional arguments, a name is unknown, or a value is wrong.
    """
    place = f"the marker ptqbench on {where}"
    if args:
        raise UserError(
            f"{place[0].upper()}{place[1:]} takes keyword arguments only, but got {args[0]!r}. "
            f"Known: {', '.join(threshold_names())}."
        )
    for name in values:
        if name not in threshold_names():
            hint = nearest(name, list(threshold_names()))
            raise UserError(f"Unknown threshold {name!r} in {place}. {hint}")
    return Layer("marker", parse_table({"thresholds": dict(values)}, Path(), place))


def merged(layers: Iterable[Layer]) -> Layer:
    """Several markers on one test as one; the first, which is the closest, wins."""
    values: dict[str, object] = {}
    for layer in layers:
        values = overlaid(layer.values, values)
    return Layer("marker", values)
