"""``register_model``: a model of a user's own gets a name. No torch is imported for it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ptqbench.core.paths import user_path
from ptqbench.errors import UserError
from ptqbench.models.custom.spec import OWN, OwnModel
from ptqbench.recipes import RECIPES, Recipe
from ptqbench.recipes.recipe import MEASURED
from ptqbench.recipes.toml_format import read
from ptqbench.settings.thresholds import Thresholds

if TYPE_CHECKING:
    from torch import nn

Factory = TypeVar("Factory", bound="Callable[..., nn.Module]")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PARAMETER = "num_classes"


def register_model(
    name: str,
    *,
    input_size: tuple[int, int, int] = (3, 224, 224),
    recipe: Recipe | str | Path | None = None,
    fixed_input: bool = False,
    quantizable: Callable[..., nn.Module] | None = None,
) -> Callable[[Factory], Factory]:
    """Register the function or class below as a model, to be named wherever models are.

    ::

        @ptqbench.register_model("my_net", input_size=(3, 160, 160))
        def my_net(num_classes: int = 7) -> nn.Module: ...

    It is called with ``num_classes=N`` and returns a float32 classifier, images ``N×3×H×W`` to
    logits ``N×K``. Whoever runs the same code twice (a cell of a notebook) registers it anew.

    Args:
        name: Letters, digits, ``_``, ``-`` and ``.``; not that of another model.
        input_size: ``(3, H, W)`` with ``H`` = ``W``, at which latency is measured and to which
            pictures are cropped unless the weights' sidecar says otherwise.
        recipe: How it is quantized, or a file that says it (``ptqbench recipe``), relative to the
            file with the function; None: found by tracing the model.
        fixed_input: Whether it takes no other height and width.
        quantizable: Another factory, called alike, of the same model with the same state-dict
            keys, with ``QuantStub``, ``DeQuantStub`` and ``FloatFunctional``; only a recipe with
            ``flow="eager"`` needs it, and only if the model itself has no stubs.

    Returns:
        A decorator that returns what it is put on.

    Raises:
        UserError: The name is taken or no name, ``input_size`` is none, or what is registered
            has no parameter ``num_classes``.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(
            f"register_model({name!r}): a model's name has letters, digits, `_`, `-` and `.`, and "
            "begins with none of the last two."
        )
    size = _size(name, input_size)

    def register(factory: Factory) -> Factory:
        own = OwnModel(
            name=name,
            factory=factory,
            origin=_origin(factory),
            num_classes=_classes(factory, name),
            input_size=size,
            fixed_input=fixed_input,
            quantizable=quantizable,
        )
        _check_free(own)
        if isinstance(recipe, (str, Path)):
            add(own, read(_folder(factory) / user_path(recipe)))
        else:
            add(own, recipe)
        return factory

    return register


def add(own: OwnModel, recipe: Recipe | None = None) -> None:
    """Add a model, and its recipe or one that leaves everything to be found."""
    OWN.replace(own.name, own)
    recipe = open_recipe(own.name) if recipe is None else replace(recipe, model=own.name)
    RECIPES.replace(own.name, recipe)


def open_recipe(name: str) -> Recipe:
    """A recipe that says nothing: groups and counts are found, the backend is measured."""
    return Recipe(name, MEASURED, fusion=None, int8_modules=None, thresholds=Thresholds())


def add_reference(text: str, factory: object) -> None:
    """Register what ``module:function`` leads to, under that text.

    A function that is registered under a name as well is the same model: its input size and its
    recipe are taken over.

    Args:
        text: As the user wrote it.
        factory: What it leads to.

    Raises:
        UserError: It is no function or class with a parameter ``num_classes``.
    """
    if not callable(factory):
        raise UserError(
            f"{text} is a {type(factory).__name__}, not a function that makes a model. Name a "
            f"function with a parameter {_PARAMETER}."
        )
    known = next((own for own in OWN if own.factory is factory), None)
    if known is not None:
        add(replace(known, name=text), RECIPES.get(known.name))
    else:
        add(OwnModel(text, factory, _origin(factory), _classes(factory, text)))


def _check_free(own: OwnModel) -> None:
    if own.name in OWN:
        before = OWN.get(own.name)
        same_file = before.origin == own.origin  # imported under two names
        if same_file or _place(before.factory) == _place(own.factory):
            return
        raise UserError(
            f"{own.origin} registers the model {own.name!r}, but {before.origin} already does. "
            "Give one of them another name."
        )
    if own.name in RECIPES:
        raise UserError(
            f"{own.origin} registers the model {own.name!r}, but that is a model of torchvision's. "
            f"Give it another name, such as {'my_' + own.name!r}."
        )


def _place(factory: Callable[..., object]) -> tuple[object, object]:
    return getattr(factory, "__module__", None), getattr(factory, "__qualname__", id(factory))


def _size(name: str, given: object) -> tuple[int, int, int]:
    """The input size, checked."""
    numbers = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers)
    if len(numbers) != 3 or not whole:
        raise UserError(
            f"register_model({name!r}): input_size={given!r} must be three whole numbers, "
            "channels, height and width, like (3, 224, 224)."
        )
    channels, height, width = numbers
    if channels != 3 or height != width:
        raise UserError(
            f"register_model({name!r}): input_size={given!r}, but pictures are read in RGB and cut "
            "to squares: it must be like (3, 224, 224)."
        )
    return channels, height, width


def _classes(factory: Callable[..., object], name: str) -> int | None:
    """The default of ``num_classes``, after a check that it is all that a call needs."""
    where = f"{name}: {getattr(factory, '__qualname__', factory)} ({_origin(factory)})"
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        raise UserError(f"{where} is not a Python function. Wrap it in one.") from None
    anything = any(each.kind is each.VAR_KEYWORD for each in parameters)
    found: Any = next((each for each in parameters if each.name == _PARAMETER), None)
    if not anything and (found is None or found.kind is found.POSITIONAL_ONLY):
        raise UserError(
            f"{where} has no parameter {_PARAMETER}. It is called with the number of classes of "
            f"the weights, like def {getattr(factory, '__name__', 'net')}({_PARAMETER}: int = 10)."
        )
    needed = [
        each.name
        for each in parameters
        if each is not found
        and each.default is each.empty
        and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    ]
    if needed:
        raise UserError(
            f"{where} cannot be called with {_PARAMETER} alone, because {', '.join(needed)} has no "
            "default. Give it one, or wrap the function in one that does."
        )
    default = None if found is None else found.default
    return default if isinstance(default, int) and not isinstance(default, bool) else None


def _folder(factory: Callable[..., object]) -> Path:
    try:
        return Path(inspect.getfile(inspect.unwrap(factory))).parent
    except TypeError:
        return Path()


def _origin(factory: Callable[..., object]) -> str:
    """File and line, as far as Python knows them."""
    inner = inspect.unwrap(factory)
    try:
        file = inspect.getsourcefile(inner) or inspect.getfile(inner)
        line = inspect.getsourcelines(inner)[1]
    except (OSError, TypeError):
        return f"module {getattr(factory, '__module__', 'unknown')}"
    path = Path(file)
    here = Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}, line {line}"
