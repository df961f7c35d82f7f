"""Import custom models: plugins, and the functions that settings and options refer to."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ptqbench.core.names import is_within, nearest
from ptqbench.core.paths import is_file, user_path
from ptqbench.core.user_code import describe_error
from ptqbench.errors import UserError
from ptqbench.models.custom.registration import add_reference
from ptqbench.models.custom.spec import CUSTOM_MODELS
from ptqbench.models.custom.timm_models import is_timm, register
from ptqbench.models.custom.torchvision_hook import torchvision_importable
from ptqbench.recipes import RECIPES
from ptqbench.recipes.toml_format import read

if TYPE_CHECKING:
    from ptqbench.settings.layers import Settings

_REFERENCE = re.compile(r"(?P<module>.+):(?P<function>[A-Za-z_][\w.]*)")
_WILDCARDS = frozenset("*?[")


def prepare(settings: Settings) -> None:
    """Register all custom models that settings refer to, and their recipes.

    The models are those that plugins register, and each ``module:function`` and ``timm:NAME`` in
    the list of models, the tables of models and the recipes. Modules are searched in
    the working folder and next to the settings file.

    Args:
        settings: As loaded.

    Raises:
        UserError: A module is missing or cannot be imported, or lacks the function; or a recipe
            is wrong.
    """
    folders = [Path.cwd(), *([settings.file.parent] if settings.file is not None else [])]
    plugins = settings.value("plugins")
    load(plugins.value, folders, plugins.origin)
    models = settings.value("models")
    for text in models.value:
        reference(text, folders)
    for pattern, layer in settings.models:
        if is_reference(pattern) or is_timm(pattern):
            reference(pattern, folders, layer.origin)
    use_recipes(settings.value("recipes").value, folders)


def use_recipes(paths: Iterable[Path], folders: Iterable[Path] = ()) -> None:
    """Register recipes from files for the models that they name.

    Args:
        paths: TOML files, as ``ptqbench recipe`` prints them.
        folders: Searched for modules before Python's path.

    Raises:
        UserError: A recipe cannot be read, is wrong, or is for an unknown model or for the same
            model as another.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        recipe = read(path)
        reference(recipe.model, folders, str(path))
        if recipe.model not in RECIPES:
            raise UserError(
                f"The recipe {path} is for the model {recipe.model!r}, which does not exist. "
                f"{nearest(recipe.model, RECIPES.names())}"
            )
        if recipe.model in seen:
            raise UserError(
                f"{seen[recipe.model]} and {path} are both recipes for {recipe.model}. Keep one."
            )
        seen[recipe.model] = path
        RECIPES.replace(recipe.model, recipe)


def load(modules: Iterable[str], folders: Iterable[Path], origin: str = "") -> None:
    """Import modules that register models.

    Args:
        modules: Dotted names, or paths of Python files.
        folders: Searched for modules before Python's path.
        origin: Where they are named, for messages.

    Raises:
        UserError: A module is missing or cannot be imported.
    """
    for name in modules:
        _import(name, folders, f"The plugin {name}{f' ({origin})' if origin else ''}")


def is_reference(text: str) -> bool:
    """Whether a text is ``module:function`` rather than a name or wildcard."""
    return _REFERENCE.fullmatch(text) is not None and not _WILDCARDS.intersection(text)


def reference(text: str, folders: Iterable[Path] = (), origin: str = "") -> None:
    """Register the model that ``module:function``, ``file.py:function`` or ``timm:NAME`` refers to.

    Any other text, and one that is registered already, is ignored.

    Args:
        text: The user's text.
        folders: Searched for modules before Python's path.
        origin: Where it is written, for messages.

    Raises:
        UserError: There is no such module or function, or it does not return a model.
    """
    if is_timm(text):
        register(text, origin)
        return
    match = _REFERENCE.fullmatch(text)
    if match is None or text in CUSTOM_MODELS or _WILDCARDS.intersection(text):
        return
    place = f" ({origin})" if origin else ""
    module = _import(match["module"], folders, f"The module of {text}{place}")
    factory: object = module
    for part in match["function"].split("."):
        if not hasattr(factory, part):
            public = _callables(factory)
            raise UserError(
                f"{match['module']} has no function {match['function']!r}{place}. "
                f"{nearest(part, public) if public else 'It has none.'}"
            )
        factory = getattr(factory, part)
    add_reference(text, factory)


def _callables(owner: object) -> list[str]:
    """Public functions and classes defined in a module or class, or imported if there are none."""
    public = {n: v for n, v in vars(owner).items() if callable(v) and not n.startswith("_")}
    home = getattr(owner, "__name__", "")
    local = [name for name, v in public.items() if getattr(v, "__module__", None) == home]
    return local or list(public)


def _import(name: str, folders: Iterable[Path], what: str) -> ModuleType:
    """Import a module by its name or its file."""
    with torchvision_importable():
        return _import_plainly(name, folders, what)


def _import_plainly(name: str, folders: Iterable[Path], what: str) -> ModuleType:
    if name.endswith(".py"):
        return _from_file(name, folders, what)
    _extend_path(folders)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and is_within(name, error.name):
            places = ", ".join(dict.fromkeys(map(str, folders))) or "Python's path"
            raise UserError(
                f"{what} does not exist: there is no module {error.name} in "
                f"{places} or among the installed packages. "
                f"{_neighbours(error.name, folders)}"
            ) from None
        raise _failed(what, error) from error
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise _failed(what, error) from error


def _failed(what: str, error: BaseException) -> UserError:
    reason = str(error).rstrip(".") if isinstance(error, UserError) else describe_error(error)
    return UserError(f"{what} cannot be imported: {reason}.")


def _from_file(name: str, folders: Iterable[Path], what: str) -> ModuleType:
    """Import a file as a module of the same name."""
    file_name = user_path(name)
    path = next((p for p in (file_name, *(f / file_name for f in folders)) if is_file(p)), None)
    if path is None:
        raise UserError(f"{what} does not exist: there is no file {name}.")
    path = path.resolve()
    _extend_path([path.parent])
    for loaded in list(sys.modules.values()):
        file = Path(getattr(loaded, "__file__", None) or "")
        if file.name == path.name and file.resolve() == path:
            return loaded
    # A module of the same name as another must not replace it.
    key = path.stem if path.stem not in sys.modules else f"ptqbench_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(key, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        del sys.modules[key]
        raise _failed(what, error) from error
    return module


def _extend_path(folders: Iterable[Path]) -> None:
    """Put folders in front of Python's path."""
    for folder in reversed(list(folders)):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
            importlib.invalidate_caches()


def _neighbours(name: str, folders: Iterable[Path]) -> str:
    """Suggest modules whose names are similar."""
    known = sorted(
        path.stem
        for folder in dict.fromkeys(folders)
        for path in folder.glob("*")  # unlike iterdir, nothing if it cannot be read
        if path.suffix == ".py" or is_file(path / "__init__.py")
    )
    return nearest(name, known) if known else "There are no modules."
