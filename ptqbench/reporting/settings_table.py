"""Settings as a table: every value with its origin."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ptqbench.reporting.format import MISSING
from ptqbench.settings.layers import DEFAULT, RECIPE, RECIPE_PROBE, Settings, Value
from ptqbench.settings.schema import KEYS

_UNSET = {
    "threads": "all physical cores",
    "workers": "one per core",
    "input_size": "of the model",
    "limit": "all images",
}
"""What a setting means that nobody has set."""
_NONE = {"plugins": MISSING, "recipes": MISSING}
"""The same of a list; any other means all that there is."""


def settings_view(settings: Settings, models: Sequence[str]) -> RenderableType:
    """Settings of the session, then those of each model.

    Args:
        settings: As loaded.
        models: Names of the models to show.
    """
    where = "no file" if settings.file is None else str(settings.file)
    parts: list[RenderableType] = [Text(f"Settings from {where}", style="bold"), Text()]
    session = {n: settings.value(n) for n, key in KEYS.items() if not key.per_model}
    parts.append(_table("Session", session))
    for model in models:
        values = {n: settings.value(n, model) for n, key in KEYS.items() if key.per_model}
        parts += [Text(), _table(model, values)]
    return Group(*parts)


def _table(title: str, values: dict[str, Value]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(title, style="bold", no_wrap=True, min_width=30)
    table.add_column("value", overflow="fold", min_width=16)
    table.add_column("origin", overflow="fold")
    for name, found in values.items():
        # Thresholds for other instruction sets that nobody has set say nothing.
        if found.value is None and name.count(".") > 1:
            continue
        by_default = found.origin in (DEFAULT, RECIPE, RECIPE_PROBE)
        origin = Text(found.origin, style="dim" if by_default else "cyan")
        table.add_row(Text(name), Text(_shown(name, found.value)), origin)
    return table


def _shown(name: str, value: object) -> str:
    if value is None:
        return _UNSET.get(name, MISSING)
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or _NONE.get(name, "all")
    return str(value)
