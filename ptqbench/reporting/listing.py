"""The inventory as tables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ptqbench.reporting.inventory import Inventory, ModelEntry
from ptqbench.reporting.numbers import MISSING, count, percent, times


def _table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(
            column,
            style="bold" if index == 0 else "",
            justify="right" if column in right else "left",
            no_wrap=index == 0,
            overflow="fold",
        )
    return table


def inventory_view(inventory: Inventory) -> RenderableType:
    """Models with their weights, recipes with their thresholds, backends with their state."""
    return Group(
        _models(inventory),
        Text(),
        _recipes(inventory),
        Text(),
        _backends(inventory),
        Text(),
        Text(
            f"This CPU: {inventory.instruction_set}. Recipes name the recommended backend and "
            "the least that their gates ask for.",
            style="dim",
        ),
    )


def _models(inventory: Inventory) -> Table:
    table = _table("Model", "input", "fixture weights", "float32 top-1", right=("float32 top-1",))
    for model in inventory.models:
        shape = "×".join(map(str, model.input_size))
        state = Text("shipped", "green") if model.weights.shipped else Text("not shipped", "yellow")
        table.add_row(Text(model.name), shape, state, _top1(model))
    return table


def _top1(model: ModelEntry) -> str:
    images = model.weights.evaluation_images
    top1 = percent(model.weights.float32_top1, unit=" %")
    return top1 if images is None or top1 == MISSING else f"{top1} of {count(images, 'image')}"


def _recipes(inventory: Inventory) -> Table:
    here = f"speedup ({inventory.instruction_set})"
    numbers = ("top-1 kept", "agreement", "size", here)
    table = _table("Recipe", "flow", "backend", *numbers, right=numbers)
    for recipe in inventory.recipes:
        table.add_row(
            Text(recipe.model),
            recipe.flow,
            recipe.backend,
            percent(recipe.accuracy, 1, " %"),
            percent(recipe.agreement, 1, " %"),
            times(recipe.size_ratio),
            times(recipe.speedup.get(inventory.instruction_set)),
        )
    return table


def _backends(inventory: Inventory) -> Table:
    table = _table("Backend", "engine", "here")
    for backend in inventory.backends:
        if backend.unavailable is None:
            state = Text("available", style="green")
        else:
            state = Text(f"not available: {backend.unavailable}", style="yellow")
        table.add_row(Text(backend.name), backend.engine, state)
    return table
