"""Register custom models, without importing torch."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ptqbench.core.paths import user_path
from ptqbench.errors import UserError
from ptqbench.models.custom.spec import CUSTOM_MODELS, CustomModel
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.recipes.recipe import MEASURED
from ptqbench.recipes.toml_format import read
from ptqbench.settings.thresholds import Thresholds

if TYPE_CHECKING:
    from torch import nn

Factory = TypeVar("Factory", bound="Callable[..., nn.Module]")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PARAMETER = "num_classes"
_PROBE = {"accuracy": 0.7, "agreement": 0.6, "sqnr_db": 8.0}
"""Thresholds under ``probe`` weights: the least that is required of one of torchvision's models
(``recipes/measured.json``). A random network is less robust than a trained one; a file that
computes something else is near chance, and below 3 dB."""


def register_model(
    name: str,
    *,
    input_size: tuple[int, int, int] = (3, 224, 224),
    recipe: Recipe | str | Path | None = None,
    fixed_input: bool = False,
    quantizable: Callable[..., nn.Module] | None = None,
) -> Callable[[Factory], Factory]:
    """Register the decorated function or class as a model that can be used by its name.

    ::

        @ptqbench.register_model("my_net", input_size=(3, 160, 160))
        def my_net(num_classes: int = 7) -> nn.Module: ...

    It is called with ``num_classes=N`` and returns a float32 classifier, images ``N×3×H×W`` to
    logits ``N×K``. Running the same code twice (a notebook cell) replaces the model.

    Args:
        name: Letters, digits, ``_``, ``-`` and ``.``; not the name of another model.
        input_size: ``(3, H, W)`` with ``H`` = ``W``, at which latency is measured and to which
            pictures are cropped unless the weights' sidecar sets another size.
        recipe: How it is quantized, or a recipe file (``ptqbench recipe``), relative to the
            file with the function; None: determined by tracing the model.
        fixed_input: Whether it accepts no other height and width.
        quantizable: Another factory with the same parameter, of the same model with the same
            state-dict keys, with ``QuantStub``, ``DeQuantStub`` and ``FloatFunctional``; only a
            recipe with ``flow="eager"`` needs it, and only if the model itself has no stubs.

    Returns:
        A decorator that returns the decorated object.

    Raises:
        UserError: The name is taken or invalid, ``input_size`` is invalid, or the factory has no
            parameter ``num_classes``.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(
            f"register_model({name!r}): a model's name consists of letters, digits, `_`, `-` and "
            "`.`, and must not start with `-` or `.`."
        )
    size = _size(name, input_size)

    def register(factory: Factory) -> Factory:
        custom = CustomModel(
            name=name,
            factory=factory,
            origin=_origin(factory),
            num_classes=_classes(factory, name),
            input_size=size,
            fixed_input=fixed_input,
            quantizable=quantizable,
        )
        _check_free(custom)
        if isinstance(recipe, (str, Path)):
            add(custom, read(_folder(factory) / user_path(recipe)))
        else:
            add(custom, recipe)
        return factory

    return register


def add(custom: CustomModel, recipe: Recipe | None = None) -> None:
    """Add a model and its recipe, by default one that leaves everything open."""
    CUSTOM_MODELS.replace(custom.name, custom)
    recipe = open_recipe(custom.name) if recipe is None else replace(recipe, model=custom.name)
    RECIPES.replace(custom.name, recipe)
    # The catalog imports torch; until something else does, it is left alone and adds the
    # registered models when it is imported.
    catalog = sys.modules.get("ptqbench.models.catalog")
    if catalog is not None:
        catalog.add_custom_model(custom)


def open_recipe(name: str) -> Recipe:
    """A recipe that leaves everything open: groups and counts by tracing, backend by measuring."""
    return Recipe(
        name, MEASURED, fusion=None, int8_modules=None, thresholds=Thresholds(), probe=_PROBE
    )


def add_reference(text: str, factory: object) -> None:
    """Register the object that ``module:function`` refers to, under that text.

    A function that is also registered under a name is the same model: its input size and its
    recipe apply.

    Args:
        text: The user's text.
        factory: The object.

    Raises:
        UserError: It is not a function or class with a parameter ``num_classes``.
    """
    if not callable(factory):
        raise UserError(
            f"{text} is a {type(factory).__name__}, not a function that returns a model. Name a "
            f"function with a parameter {_PARAMETER}."
        )
    known = next((custom for custom in CUSTOM_MODELS if custom.factory is factory), None)
    if known is not None:
        add(replace(known, name=text), RECIPES.get(known.name))
    else:
        add(CustomModel(text, factory, _origin(factory), _classes(factory, text)))


def _check_free(custom: CustomModel) -> None:
    if custom.name in CUSTOM_MODELS:
        before = CUSTOM_MODELS.get(custom.name)
        same_file = before.origin == custom.origin  # imported under two names
        if same_file or _place(before.factory) == _place(custom.factory):
            return
        raise UserError(
            f"{custom.origin} registers the model {custom.name!r}, but {before.origin} already "
            "does. Give one of them another name."
        )
    if custom.name in RECIPES:
        raise UserError(
            f"{custom.origin} registers the model {custom.name!r}, but torchvision has a model of "
            f"that name. Give it another name, such as {'my_' + custom.name!r}."
        )


def _place(factory: Callable[..., object]) -> tuple[object, object]:
    return getattr(factory, "__module__", None), getattr(factory, "__qualname__", id(factory))


def _size(name: str, value: object) -> tuple[int, int, int]:
    """Check an input size."""
    numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers)
    if len(numbers) != 3 or not whole:
        raise UserError(
            f"register_model({name!r}): input_size={value!r} must be three whole numbers, "
            "channels, height and width, like (3, 224, 224)."
        )
    channels, height, width = numbers
    if channels != 3 or height != width:
        raise UserError(
            f"register_model({name!r}): input_size={value!r}, but pictures are read in RGB and cut "
            "to squares: it must be like (3, 224, 224)."
        )
    return channels, height, width


def _classes(factory: Callable[..., object], name: str) -> int | None:
    """Check that a call needs ``num_classes`` only, and return its default."""
    where = f"{name}: {getattr(factory, '__qualname__', factory)} ({_origin(factory)})"
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        raise UserError(f"{where} is not a Python function. Wrap it in one.") from None
    anything = any(each.kind is each.VAR_KEYWORD for each in parameters)
    parameter: Any = next((each for each in parameters if each.name == _PARAMETER), None)
    if not anything and (parameter is None or parameter.kind is parameter.POSITIONAL_ONLY):
        raise UserError(
            f"{where} has no parameter {_PARAMETER}. It is called with the number of classes of "
            f"the weights, like def {getattr(factory, '__name__', 'net')}({_PARAMETER}: int = 10)."
        )
    needed = [
        each.name
        for each in parameters
        if each is not parameter
        and each.default is each.empty
        and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    ]
    if needed:
        raise UserError(
            f"{where} cannot be called with {_PARAMETER} alone, because {', '.join(needed)} has no "
            "default. Give it one, or wrap the function in one that does."
        )
    default = None if parameter is None else parameter.default
    return default if isinstance(default, int) and not isinstance(default, bool) else None


def _folder(factory: Callable[..., object]) -> Path:
    try:
        return Path(inspect.getfile(inspect.unwrap(factory))).parent
    except TypeError:
        return Path()


def _origin(factory: Callable[..., object]) -> str:
    """File and line of a definition, as far as Python knows them."""
    inner = inspect.unwrap(factory)
    try:
        file = inspect.getsourcefile(inner) or inspect.getfile(inner)
        line = inspect.getsourcelines(inner)[1]
    except (OSError, TypeError):
        return f"module {getattr(factory, '__module__', 'unknown')}"
    path = Path(file)
    here = Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}, line {line}"
