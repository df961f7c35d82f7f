"""The inventory as tables."""

from __future__ import annotations

from collections.abc import Container, Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ptqbench.evaluation.inventory import Inventory, ModelEntry
from ptqbench.recipes.family import FAMILIES, OTHER
from ptqbench.reporting.format import MISSING, count, percent, times


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
    """Show models with their weights, recipes with thresholds, and backends with their state.

    Models with trained weights come first and in full, the others by family and name alone.
    """
    detailed = [m for m in inventory.models if m.weights.shipped] or list(inventory.models)
    names = {model.name for model in detailed}
    others = [model for model in inventory.models if model.name not in names]
    parts: list[RenderableType] = [_models(detailed), Text()]
    if others:
        order = [recipe.model for recipe in inventory.recipes]
        others.sort(key=lambda model: order.index(model.name) if model.name in order else -1)
        parts += [_families(others), Text()]
    return Group(
        *parts,
        _recipes(inventory, names),
        Text(),
        _backends(inventory),
        Text(),
        Text(_note(inventory, len(others)), style="dim"),
    )


def _note(inventory: Inventory, others: int) -> str:
    text = (
        f"This CPU: {inventory.instruction_set}. Recipes name the recommended backend and "
        "the least that their gates require."
    )
    if others:
        text += (
            f" For those of the other {count(others, 'model')}, and measurements of each on every "
            "backend, see ptqbench list --json."
        )
    if inventory.timm is not None:
        version, number = inventory.timm
        text += (
            f" timm {version} has {number:,} more architectures, named timm:NAME: "
            "ptqbench list 'timm:*' lists them."
        )
    return text


def models_view(inventory: Inventory) -> RenderableType:
    """Show models with their input and the weights that exist for them, one in a line."""
    table = _table("Model", "input", "weights")
    for model in inventory.models:
        sources = ", ".join((*model.sources, "or a file"))
        table.add_row(Text(model.name), "×".join(map(str, model.input_size)), sources)
    return table


def _models(models: Iterable[ModelEntry]) -> Table:
    table = _table("Model", "input", "fixture weights", "float32 top-1", right=("float32 top-1",))
    for model in models:
        shape = "×".join(map(str, model.input_size))
        state = Text("shipped", "green") if model.weights.shipped else Text("not shipped", "yellow")
        table.add_row(Text(model.name), shape, state, _top1(model))
    return table


def _families(models: Iterable[ModelEntry]) -> Table:
    members: dict[str, list[str]] = {}
    for model in models:
        members.setdefault(model.family, []).append(model.name)
    order = [*FAMILIES, OTHER]
    table = _table("Family", "more models, with the weights probe, imagenet or a file")
    for name in sorted(members, key=order.index):
        table.add_row(Text(name), Text(" ".join(members[name])))
    return table


def _top1(model: ModelEntry) -> str:
    images = model.weights.evaluation_images
    top1 = percent(model.weights.float32_top1, unit=" %")
    return top1 if images is None or top1 == MISSING else f"{top1} of {count(images, 'image')}"


def _recipes(inventory: Inventory, names: Container[str]) -> Table:
    here = f"speedup ({inventory.instruction_set})"
    numbers = ("top-1 kept", "agreement", "size", here)
    table = _table("Recipe", "flow", "backend", *numbers, right=numbers)
    for recipe in inventory.recipes:
        if recipe.model not in names:
            continue
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
