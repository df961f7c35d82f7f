"""Turn what torch or a user's code raises in a step of a run into a sentence."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from ptqbench.core.user_code import innermost_line, library_folders
from ptqbench.errors import UserError

_PACKAGE = Path(__file__).parents[1]
_RAISED = re.compile(r"^(?:[\w.]*Error|[\w.]*Exception): ")
"""How the line begins that says what was raised inside TorchScript."""
_OBSERVER = "activation_post_process"
CALLER = "caller"
"""Key of a node's ``meta`` under which is the path of the module whose forward calls it."""


@contextmanager
def step(name: str, advice: str, model: object = None) -> Iterator[None]:
    """Refuse in a sentence if torch or the user's code raises an error in the body.

    Errors that ptqbench raises itself are defects, and pass.

    Args:
        name: Of the step and what was tried, as the subject of a sentence.
        advice: What to do, as sentences; ``{module}`` stands for the module where it stops.
        model: The module that the body runs or transforms.

    Raises:
        UserError: Something is raised inside torch or the user's code.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        if _is_defect(error):
            raise
        path = failing_module(error, model)
        place = f" in the module {path!r}" if path else ""
        line = innermost_line(error, library_folders())
        code = f" at {line}" if line else ""
        todo = advice.format(module=path or "the module that is to blame")
        raise UserError(
            f"{name} stops{place}{code} ({type(error).__name__}: {reason_of(error)}). {todo}"
        ) from error


def _is_defect(error: Exception) -> bool:
    """Whether ptqbench's own code raised an error, and not what it calls.

    torch's operators are written in C++, so that the last frame is that of their caller; what
    they raise is a RuntimeError, which ptqbench never raises.
    """
    frames = traceback.extract_tb(error.__traceback__)
    inside = bool(frames) and Path(frames[-1].filename).is_relative_to(_PACKAGE)
    return inside and not isinstance(error, RuntimeError)


def failing_module(error: BaseException, model: object) -> str:
    """Find the innermost module of a model that an error comes from.

    The frames of the traceback show which module's forward was running, or which node of a graph
    was transformed.

    Args:
        error: As raised, with its traceback.
        model: An ``nn.Module``.

    Returns:
        Its path; empty if the frames show none besides the model itself.
    """
    named: Any = getattr(model, "named_modules", dict)
    paths = {id(module): path for path, module in named()}
    nodes = _nodes_by_target(model)
    for frame in reversed(list(_frames(error.__traceback__))):
        for name in ("self", "node", "root_node", "module", "mod"):
            value = frame.get(name)
            path = str(paths.get(id(value), ""))
            if not path and hasattr(value, "target") and hasattr(value, "meta"):
                path = _path_of(value)
            if _OBSERVER in path:
                observed = nodes.get(path)
                path = _path_of(observed.args[0]) if observed is not None and observed.args else ""
            if path:
                return path
    return ""


def _frames(trace: TracebackType | None) -> Iterator[dict[str, Any]]:
    while trace is not None:
        yield trace.tb_frame.f_locals
        trace = trace.tb_next


def _nodes_by_target(model: object) -> dict[str, Any]:
    graph = getattr(model, "graph", None)
    return {str(node.target): node for node in getattr(graph, "nodes", ())}


def _path_of(node: Any) -> str:
    """Path of the module that a node of a graph calls, or that calls its function."""
    if getattr(node, "op", "") == "call_module":
        return str(node.target)
    return str(getattr(node, "meta", {}).get(CALLER, ""))


def reason_of(error: BaseException) -> str:
    """The reason in an error of torch, without the tracebacks that TorchScript wraps it in.

    What comes after the first sentence is about torch's own code.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raised = [line for line in lines if _RAISED.match(line)]
    line = _RAISED.sub("", raised[-1]) if raised else lines[0]
    return line.partition(". ")[0].rstrip(". ")
