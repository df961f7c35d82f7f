"""Settings from several origins: which one takes precedence, and where each value comes from.

They are in ``[tool.ptqbench]`` of ``pyproject.toml`` or in ``ptqbench.toml``, with tables
``model."WILDCARD"`` for some models. Precedence: command line, marker, table of the model,
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
from ptqbench.settings.model_catalog import ModelCatalog
from ptqbench.settings.parsing import overlaid, parse_table, threshold_changes
from ptqbench.settings.run_settings import RunSettings
from ptqbench.settings.schema import OVERRIDES, POLICIES, SETTINGS, threshold_names
from ptqbench.settings.weights_specifier import default_weights, is_source_name

RECIPE = "recipe"
RECIPE_PROBE = "recipe, under probe weights"
DEFAULT = "default"
COMMAND_LINE = "command line"

_CUSTOM_HINT = (
    "A custom model is named as module:function, or registered by a module in `plugins`; one of "
    "timm as timm:NAME."
)


@dataclass(frozen=True)
class Value:
    """A value and its origin."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Layer:
    """Settings of one origin.

    Attributes:
        origin: Who set them, for people.
        values: Parsed values by dotted key.
        origins: A more precise origin of single values.
    """

    origin: str
    values: Mapping[str, object] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    def get(self, key: str) -> Value | None:
        """Return the value of a key, or None if this origin does not set it."""
        if key not in self.values:
            return None
        return Value(self.values[key], self.origins.get(key, self.origin))


@dataclass(frozen=True)
class Settings:
    """All settings of a session.

    Attributes:
        catalog: The models, and what their recipes say.
        command_line: Options.
        models: Tables of models by wildcard, in the order of the file.
        general: Settings of the file for all models.
        file: The file, if there is one.
    """

    catalog: ModelCatalog
    command_line: Layer = Layer(COMMAND_LINE)
    models: tuple[tuple[str, Layer], ...] = ()
    general: Layer = Layer("file")
    file: Path | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer, whatever models it is for."""
        return (self.command_line, *(layer for _, layer in self.models), self.general)

    def value(self, key: str, model: str | None = None, marker: Layer | None = None) -> Value:
        """Return a setting and its origin.

        Args:
            key: Dotted key.
            model: Name of a model; None: the setting of the session.
            marker: Settings of a marker on the test.
        """
        for layer in (self.command_line, marker, *self._tables(model), self.general):
            if layer is None:
                continue
            if (value := layer.get(key)) is not None:
                return value
            if key in POLICIES and (other := _policy(layer)) is not None:
                return Value(None, other.origin)
        return self._default(key, model)

    def _default(self, key: str, model: str | None) -> Value:
        if key == "weights" and model is not None:
            return Value(default_weights(model), DEFAULT)
        if key == "profile" and os.environ.get("CI", "").lower() not in ("", "0", "false"):
            return Value("ci", f"{DEFAULT} if CI is set in the environment")
        if model is not None and model in self.catalog.names():
            if key == "backends":
                return Value((self.catalog.backend(model),), RECIPE)
            if key.startswith("thresholds."):
                return self._required(key, model)
        return Value(SETTINGS[key].default, DEFAULT)

    def _required(self, key: str, model: str) -> Value:
        """Return a threshold of the recipe, under the model's weights."""
        _, name, *instructions = key.split(".")
        weights = self.value("weights", model).value
        value, usual = (
            threshold.get(instructions[0]) if instructions else threshold
            for threshold in (
                getattr(thresholds, name)
                for thresholds in (
                    self.catalog.thresholds(model, weights),
                    self.catalog.thresholds(model),
                )
            )
        )
        return Value(value, RECIPE if value == usual else RECIPE_PROBE)

    def _tables(self, model: str | None) -> list[Layer]:
        """Return a model's tables by precedence: the exact name, then the later wildcard."""
        if model is None:
            return []
        fitting = [(p, layer) for p, layer in self.models if fnmatch.fnmatchcase(model, p)]
        fitting.reverse()
        return [layer for _, layer in sorted(fitting, key=lambda pair: pair[0] != model)]

    def check_models(self) -> None:
        """Check that each table of a model is for a model that exists.

        Raises:
            UserError: A wildcard matches nothing.
        """
        names = self.catalog.names()
        for pattern, layer in self.models:
            if not fnmatch.filter(names, pattern):
                hint = nearest(pattern, names)
                raise UserError(f"{layer.origin} does not match any model. {hint}")

    def chosen_models(self) -> list[str]:
        """Return the names of the models that the session is about.

        Raises:
            UserError: A name or wildcard matches nothing, or weights of one model are set
                for several.
        """
        self.check_models()
        known = self.catalog.names()
        patterns = self.value("models")
        for pattern in patterns.value:
            if not fnmatch.filter(known, pattern):
                hint = nearest(pattern, known)
                place = "" if patterns.origin == COMMAND_LINE else f"{patterns.origin}: "
                if not difflib.get_close_matches(pattern, known, cutoff=0.75):
                    hint += f" {_CUSTOM_HINT}"
                raise UserError(f"{place}Unknown model {pattern!r}. {hint}")
        names = [n for n in known if any(fnmatch.fnmatchcase(n, p) for p in patterns.value)]
        names = names or list(SHIPPED)
        self._check_weights(names)
        return names

    def _check_weights(self, names: Sequence[str]) -> None:
        """Check that a file with weights is set for one model only."""
        shared: dict[Value, list[str]] = {}
        for name in names:
            shared.setdefault(self.value("weights", name), []).append(name)
        for weights, models in shared.items():
            if not is_source_name(weights.value) and len(models) > 1:
                raise UserError(
                    f"The weights {weights.value} ({weights.origin}) belong to one model, but "
                    f"are set for {', '.join(models)}. Set them in the table of their model, or "
                    "choose one model."
                )

    def case(self, model: str, marker: Layer | None = None) -> tuple[RunSettings, dict[str, str]]:
        """Return the settings of a model's cases, and who set each threshold.

        Args:
            model: Registered name.
            marker: Thresholds set by a marker on the test.
        """
        thresholds: dict[str, object] = {}
        origins: dict[str, str] = {}
        for key in SETTINGS:
            prefix, _, rest = key.partition(".")
            if prefix != "thresholds":
                continue
            value = self.value(key, model, marker)
            origins[rest] = value.origin
            if value.origin not in (RECIPE, RECIPE_PROBE, DEFAULT) and value.value is not None:
                thresholds[key] = value.value
        overrides = {name: self.value(key, model).value for key, name in OVERRIDES.items()}
        settings = RunSettings(
            **{name: self.value(name, model).value for name in _CASE_KEYS},
            overrides={name: value for name, value in overrides.items() if value is not None},
            thresholds=threshold_changes(thresholds),
        )
        return settings, origins


_CASE_KEYS = tuple(each.name for each in fields(RunSettings) if each.name in SETTINGS)
"""Settings that are fields of the record by the same name."""


def _policy(layer: Layer) -> Value | None:
    """Return the policy for top-1 that a layer sets, if it does; it replaces the others."""
    return next((value for key in POLICIES if (value := layer.get(key)) is not None), None)


def marker_layer(args: Sequence[object], values: Mapping[str, object], where: str) -> Layer:
    """Parse the thresholds that a marker ``ptqbench(...)`` sets.

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
    """Merge several markers on one test; the first, which is the closest, takes precedence."""
    values: dict[str, object] = {}
    for layer in layers:
        values = overlaid(layer.values, values)
    return Layer("marker", values)
