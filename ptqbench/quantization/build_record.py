"""Record what the file of a build does not show: fused modules, and the data of observers.

The prepared module is inspected after calibration and before conversion, on a copy, and the record
is stored in the artifact, so that gates can judge the file later.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.nn import intrinsic
from torch.ao.quantization import FakeQuantizeBase, ObserverBase
from torch.ao.quantization.observer import FixedQParamsObserver, PlaceholderObserver

from ptqbench.core.phases import INSPECTION, Phases
from ptqbench.core.user_code import first_line
from ptqbench.quantization.fusion_groups import is_function
from ptqbench.quantization.fusion_search import Pattern, fusable
from ptqbench.recipes.recipe import Group

_RELU_INSIDE = (
    *(intrinsic.ConvReLU1d, intrinsic.ConvReLU2d, intrinsic.ConvReLU3d, intrinsic.LinearReLU),
    *(intrinsic.ConvBnReLU1d, intrinsic.ConvBnReLU2d, intrinsic.ConvBnReLU3d),
)
_BATCH_NORM_INSIDE = (
    *(intrinsic.ConvBn1d, intrinsic.ConvBn2d, intrinsic.ConvBn3d, intrinsic.LinearBn1d),
    *(intrinsic.ConvBnReLU1d, intrinsic.ConvBnReLU2d, intrinsic.ConvBnReLU3d),
)
"""Modules with a separate BatchNorm, as in training; a folded one does not exist any more."""
_BATCH_NORM = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class BuildRecord:
    """Properties of a model between calibration and conversion.

    Attributes:
        groups: Number of declared fusion groups.
        unfused: Declared groups that are not one module, as ``conv1 + bn1 + relu``.
        extra: Fused modules that are not in a declared group.
        undeclared: Groups in the float model's graph that were not declared.
        wrong: Declared groups that are not in the float model's graph: a ReLU that belongs to a
            sum, modules that do not follow one another.
        left: Patterns that are still in the fused model's graph.
        training_only: Paths of BatchNorm that could have been folded, and of active dropout,
            that still run.
        error: Largest difference of logits between the fused and the unfused float
            model, relative to the largest logit.
        images: Number of images that ``error`` was measured on.
        observers: Number of observers.
        unseen: Observers on an executed path that saw no data.
        unreached: Observers on paths that are not executed.
        untraceable: Why the graphs could not be searched; empty if they were.
        promised: Number of groups that the recipe promises; None if it does not.
    """

    groups: int
    unfused: tuple[str, ...]
    extra: tuple[str, ...]
    undeclared: tuple[str, ...]
    wrong: tuple[str, ...]
    left: tuple[str, ...]
    training_only: tuple[str, ...]
    error: float
    images: int
    observers: int
    unseen: tuple[str, ...]
    unreached: tuple[str, ...]
    untraceable: str = ""
    promised: int | None = None

    def to_dict(self) -> dict[str, object]:
        """Convert the record to JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> BuildRecord:
        """Restore the record from JSON types."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in record.items()
        }
        return cls(**values)


def inspect_build(
    model: nn.Module,
    prepared: nn.Module,
    groups: Iterable[Group],
    images: Tensor,
    *,
    unfused: nn.Module | None = None,
    promised: int | None = None,
    phases: Phases | None = None,
) -> BuildRecord:
    """Inspect a prepared and calibrated model and its float original.

    Args:
        model: Float32 original, evaluation mode; not changed.
        prepared: Fused, with observers, calibrated; not changed.
        groups: The declared fusion groups.
        images: A few real images, ``N×C×H×W`` float32, normalised.
        unfused: The float model whose graph shows the groups, if it is not ``model``: the
            quantizable variant of the eager flow.
        promised: Number of groups that the recipe promises.
        phases: Where the forward passes are counted.
    """
    declared = tuple(groups)
    original = model if unfused is None else unfused
    norms = {name for name, module in original.named_modules() if isinstance(module, _BATCH_NORM)}
    seen = {name: _saw_data(observer) for name, observer in _observers(prepared)}
    probe = copy.deepcopy(prepared)
    reached = _watch(probe)
    phases = phases or Phases()
    with torch.inference_mode(), phases.measure(INSPECTION, forward=True):
        expected, fused = model(images), probe(images)
    scale = float(expected.abs().max())
    error = float((expected - fused).abs().max()) / scale if scale else 0.0
    patterns, left, untraceable = _search(original, prepared)
    foldable = None if patterns is None else {name for p in patterns for name in p.modules}
    undeclared, wrong = _compare(declared, patterns) if patterns is not None else ((), ())
    return BuildRecord(
        groups=len(declared),
        unfused=tuple(
            " + ".join(g) for g in declared if not _is_fused(prepared, g, reached, norms)
        ),
        extra=_extra(prepared, declared),
        undeclared=undeclared,
        wrong=wrong,
        left=left,
        training_only=tuple(
            name
            for name, module in prepared.named_modules()
            if name in reached and _is_training_only(name, module, foldable)
        ),
        error=error,
        images=len(images),
        observers=len(seen),
        unseen=tuple(name for name, saw in seen.items() if not saw and name in reached),
        unreached=tuple(name for name in seen if name not in reached),
        untraceable=untraceable,
        promised=promised,
    )


def _is_training_only(name: str, module: nn.Module, foldable: set[str] | None) -> bool:
    """Whether a module is a BatchNorm that could have been folded, or an active dropout.

    A BatchNorm in front of a convolution, or behind an addition or a concatenation, cannot be
    folded into a layer and is needed.

    Args:
        name: Path of the module.
        module: In the prepared model.
        foldable: Paths of the modules in patterns of the float graph; None: not searched.
    """
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.training
    if isinstance(module, _BATCH_NORM_INSIDE):
        return True
    # Fused with a ReLU, it is part of a module of its original name: norm1.0 is norm1.
    names = {name, name.removesuffix(".0")}
    return isinstance(module, _BATCH_NORM) and (foldable is None or not names.isdisjoint(foldable))


def _observers(prepared: nn.Module) -> list[tuple[str, nn.Module]]:
    """Observers that need data, that is, all without a fixed range."""
    without = (FixedQParamsObserver, PlaceholderObserver)
    observers = []
    inside = set()
    for name, module in prepared.named_modules():
        observer = module
        if isinstance(module, FakeQuantizeBase):
            observer = module.activation_post_process
            inside.add(f"{name}.activation_post_process")
        if isinstance(observer, ObserverBase) and not isinstance(observer, without):
            observers.append((name, module))
    return [(name, module) for name, module in observers if name not in inside]


def _saw_data(observer: nn.Module) -> bool:
    """Whether an observer has a range; initially it is empty, or infinite and inverted."""
    inner = observer
    if isinstance(observer, FakeQuantizeBase):
        inner = observer.activation_post_process  # type: ignore[assignment]
    low, high = getattr(inner, "min_val", None), getattr(inner, "max_val", None)
    if not isinstance(low, Tensor) or not isinstance(high, Tensor):
        return True
    return low.numel() > 0 and bool(torch.isfinite(low).all() and torch.isfinite(high).all())


def _watch(module: nn.Module) -> set[str]:
    """Collect the paths of modules called in later forward passes."""
    reached: set[str] = set()

    def watch(name: str, child: nn.Module) -> None:
        child.register_forward_pre_hook(lambda *_: reached.add(name))

    for name, child in module.named_modules():
        if not isinstance(child, torch.jit.ScriptModule):  # these accept no hooks
            watch(name, child)
    return reached


def _module(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _is_fused(prepared: nn.Module, group: Group, reached: set[str], norms: Container[str]) -> bool:
    first = _module(prepared, group[0])
    for name in group[1:]:
        if is_function(name) and not isinstance(first, _RELU_INSIDE):
            return False
        module = _module(prepared, name)
        if isinstance(module, _BATCH_NORM) and name in reached:
            return False
        if isinstance(module, nn.ReLU | nn.ReLU6) and not isinstance(first, _RELU_INSIDE):
            return False
    convolution = first[0] if isinstance(first, nn.Sequential) else first
    # A convolution with a folded BatchNorm has a bias.
    needs_bias = any(name in norms for name in group)
    return convolution is not None and (
        not needs_bias or getattr(convolution, "bias", None) is not None
    )


def _extra(prepared: nn.Module, declared: tuple[Group, ...]) -> tuple[str, ...]:
    firsts = {group[0] for group in declared}
    inside = _RELU_INSIDE + _BATCH_NORM_INSIDE
    return tuple(
        name
        for name, module in prepared.named_modules()
        if isinstance(module, inside) and name not in firsts
    )


def _search(
    model: nn.Module, prepared: nn.Module
) -> tuple[tuple[Pattern, ...] | None, tuple[str, ...], str]:
    try:
        patterns = fusable(model)
        left = tuple(str(pattern) for pattern in fusable(prepared) if pattern.has_kernel)
    except Exception as error:  # FX raises whatever the traced code does with a proxy
        return None, (), first_line(error)
    return patterns, left, ""


def _compare(
    declared: tuple[Group, ...], patterns: tuple[Pattern, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Compare declared groups with those of the float graph, by the names of their modules."""
    by_first = {group[0]: group for group in declared}
    shown = {pattern.modules[0]: pattern for pattern in patterns}
    undeclared, wrong = [], []
    for first, pattern in shown.items():
        group = by_first.get(first)
        if group is None:
            if pattern.has_kernel and len(pattern.modules) > 1 + (not pattern.is_nameable):
                undeclared.append(str(pattern))
        elif group in pattern.allowed:
            continue
        elif pattern.extends(group):
            undeclared.append(str(pattern))
        else:
            wrong.append(" + ".join(group))
    wrong += [" + ".join(group) for first, group in by_first.items() if first not in shown]
    return tuple(undeclared), tuple(wrong)
