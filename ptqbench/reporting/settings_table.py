"""Render the settings as tables: every value with its origin."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ptqbench.reporting.format import MISSING
from ptqbench.settings.layers import DEFAULT, RECIPE, RECIPE_PROBE, Settings, Value
from ptqbench.settings.schema import SETTINGS


def settings_view(settings: Settings, models: Sequence[str]) -> RenderableType:
    """Render the settings of the session, then those of each model.

    Args:
        settings: As loaded.
        models: Names of the models to show.
    """
    where = "no file" if settings.file is None else str(settings.file)
    parts: list[RenderableType] = [Text(f"Settings from {where}", style="bold"), Text()]
    session = {n: settings.value(n) for n, key in SETTINGS.items() if not key.per_model}
    parts.append(_table("Session", session))
    for model in models:
        values = {n: settings.value(n, model) for n, key in SETTINGS.items() if key.per_model}
        parts += [Text(), _table(model, values)]
    return Group(*parts)


def _table(title: str, values: dict[str, Value]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(title, style="bold", no_wrap=True, min_width=30)
    table.add_column("value", overflow="fold", min_width=16)
    table.add_column("origin", overflow="fold")
    for name, value in values.items():
        # Unset thresholds of other instruction sets are left out.
        if value.value is None and name.count(".") > 1:
            continue
        by_default = value.origin in (DEFAULT, RECIPE, RECIPE_PROBE)
        origin = Text(value.origin, style="dim" if by_default else "cyan")
        table.add_row(Text(name), Text(_shown(name, value.value)), origin)
    return table


def _shown(name: str, value: object) -> str:
    if value is None or value == ():
        return SETTINGS[name].unset or MISSING
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value)
