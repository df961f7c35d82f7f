"""Trace a model with torch.fx, or explain which line cannot be traced and what to do.

Symbolic tracing runs ``forward`` once on stand-ins. Python that needs the value of a stand-in
(``if x.sum() > 0``, ``range(x.shape[0])``) cannot run; neither FX quantization nor the search for
fusion groups works then.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.ao.quantization import FakeQuantizeBase, ObserverBase, QuantStub
from torch.fx.proxy import TraceError

from ptqbench.core.names import is_within
from ptqbench.core.user_code import CodeLine, innermost_line
from ptqbench.errors import UserError
from ptqbench.quantization.classifier_check import check_classifier, check_output

_TORCH = Path(torch.__file__).parent


class Tracer(fx.Tracer):
    """Does not trace into torch's modules, fused and scripted ones, stubs, observers, ``leaves``.

    Args:
        leaves: Paths of further modules that are not traced into.

    Attributes:
        failed: Path of the innermost module in which tracing failed; None: it did not fail, or
            in the ``forward`` of the model itself.
    """

    def __init__(self, leaves: Iterable[str] = ()) -> None:
        super().__init__()
        self.leaves = frozenset(leaves)
        self.failed: str | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether ``m`` is not traced into."""
        if isinstance(m, ObserverBase | FakeQuantizeBase | torch.jit.ScriptModule):
            return True
        if module_qualified_name in self.leaves:
            return True
        return type(m).__module__.startswith("torch.ao.") or super().is_leaf_module(
            m, module_qualified_name
        )

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Trace a call of ``m``, and remember where it failed."""
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.failed is None:
                self.failed = self.path_of_module(m)
            raise


@dataclass(frozen=True)
class Failure:
    """Where and why a model cannot be traced.

    Attributes:
        module: Path of the module; empty: the model itself.
        kind: Name of its class.
        line: The line of code that failed; None if it is not in a file.
        reason: Error of torch.fx or of the code itself.
        decides: Whether Python needed the value of a stand-in.
        stubs: Whether the model was written for eager mode.
    """

    module: str
    kind: str
    line: CodeLine | None
    reason: str
    decides: bool
    stubs: bool = False

    @property
    def message(self) -> str:
        """Explanation for the model's author: what, where, why, and what to do."""
        where = f"the module {self.module!r} ({self.kind})" if self.module else f"{self.kind}"
        line = f" at {self.line}" if self.line else ""
        rewrite = (
            "Rewrite the line so that nothing in forward depends on values (torch.where in place "
            "of if; sizes that never change belong in __init__)"
            if self.decides
            else "Rewrite the line"
        )
        problem = f"The model cannot be traced: {where}{line} ({self.reason}). {rewrite}"
        if self.stubs:
            return (
                f"{problem}; or, because the model is written for eager mode, give it a recipe "
                'with flow = "eager" that names what tracing would find: fusion and int8_modules.'
            )
        keep = (
            "or leave the module whole and in float32, with "
            f'keep_float = ["{self.module}"] in its recipe '
            f"(`ptqbench recipe MODEL --keep-float {self.module}` prints one)"
            if self.module
            else "or move it into a separate module, to be left whole and in float32 with "
            "keep_float in its recipe"
        )
        return (
            f"{problem}; {keep}; or write the model for eager mode, with QuantStub, DeQuantStub "
            'and FloatFunctional, and name its fusion groups in a recipe with flow = "eager".'
        )


def trace(
    model: nn.Module, example: Tensor | None = None, keep_float: Iterable[str] = ()
) -> fx.GraphModule:
    """Trace a classifier.

    Args:
        model: Evaluation mode; it is not changed.
        example: One input ``N×C×H×W`` float32 to try the model on first, to distinguish errors of
            the model from errors of tracing; None: it is not tried.
        keep_float: Paths of modules that stay float32. One that cannot be traced becomes a leaf.

    Returns:
        The traced model, which calls its leaf modules.

    Raises:
        UserError: The model cannot be traced, or has several outputs.
    """
    if example is not None:
        check_classifier(model, example)
    traced, _ = _trace(model, keep_float)
    output = next(node for node in reversed(traced.graph.nodes) if node.op == "output")
    check_output(output.args[0], type(model).__name__)
    return traced


def untraceable_leaves(model: nn.Module, keep_float: Iterable[str]) -> tuple[str, ...]:
    """Return the modules of ``keep_float`` that must be leaves for the model to be traced.

    Raises:
        UserError: The model cannot be traced even then.
    """
    return _trace(model, keep_float)[1]


def _trace(model: nn.Module, keep_float: Iterable[str]) -> tuple[fx.GraphModule, tuple[str, ...]]:
    candidates = tuple(keep_float)
    leaves: list[str] = []
    while True:
        tracer = Tracer(leaves)
        try:
            return fx.GraphModule(model, tracer.trace(model)), tuple(leaves)
        except Exception as error:  # FX raises whatever the traced code does with a stand-in
            failed = tracer.failed or ""
            leaf = next((path for path in candidates if is_within(failed, path)), None)
            if leaf is None or leaf in leaves:
                raise UserError(tracing_failure(error, model, failed).message) from None
            leaves.append(leaf)


def check_decisions(model: nn.Module, example: Tensor, traced: fx.GraphModule) -> None:
    """Check that leaf modules have no data-dependent control flow.

    TorchScript records the branches of one input. A leaf module that torch.fx cannot trace may take
    other branches for the next image, unless these depend on shapes only or it is scripted.

    Args:
        model: Float32, evaluation mode.
        example: One input ``N×C×H×W`` float32.
        traced: The model, traced by :func:`trace`.

    Raises:
        UserError: The lowered model differs from the model on other inputs.
    """
    leaves = [
        str(node.target)
        for node in traced.graph.nodes
        if node.op == "call_module" and not _is_torchs(traced.get_submodule(str(node.target)))
    ]
    if not leaves:
        return
    generator = torch.Generator().manual_seed(0)
    shape = (3, *example.shape[1:])
    inputs = [torch.randn(shape, generator=generator) + shift for shift in (0.0, 2.0, -2.0)]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lowered = torch.jit.trace(model, example, check_trace=False)
        try:
            same = all(torch.allclose(lowered(x), model(x), 1e-3, 1e-4) for x in inputs)
        except RuntimeError:  # a batch size, say, that was recorded as a constant
            same = False
    if not same:
        raise UserError(
            f"{' or '.join(leaves)} has data-dependent control flow; tracing would freeze the "
            "branch taken for the example input. Script it with torch.jit.script: "
            f"self.{leaves[0]} = torch.jit.script({leaves[0]}) in __init__."
        )


def _is_torchs(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.") and not isinstance(module, nn.Sequential)


def tracing_failure(error: Exception, model: nn.Module, module: str = "") -> Failure:
    """Locate an error of tracing in the user's code.

    Args:
        error: The exception with its traceback.
        model: The model that was traced.
        module: Path of the innermost module that was being traced.
    """
    line = innermost_line(error, (_TORCH,))
    text = str(error).strip() or type(error).__name__
    stand_in = isinstance(error, TraceError) or "Proxy" in text or "symbolically" in text
    reason = (
        "torch.fx cannot follow Python that depends on the values or the shape of a tensor"
        if stand_in
        else f"{type(error).__name__}: {text.splitlines()[0].rstrip('.')}"
    )
    kind = type(model.get_submodule(module) if module else model).__name__
    return Failure(module, kind, line, reason, stand_in, stubs=has_stubs(model))


def has_stubs(model: nn.Module) -> bool:
    """Whether the model was written for eager quantization."""
    return any(isinstance(module, QuantStub) for module in model.modules())
