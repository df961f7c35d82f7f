"""Trace, freeze, save, load and run TorchScript under one of torch's quantized engines."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.jit._trace import TopLevelTracedModule

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.torch_engines.archive_check import METADATA
from ptqbench.backends.torch_engines.kernel_layouts import KernelLayouts
from ptqbench.core.atomic import atomic_path
from ptqbench.core.step_errors import reason_of
from ptqbench.errors import UserError
from ptqbench.quantization.torch_warnings import (
    known_deprecations_ignored,
    warn_of_quantized_tensors_once,
)


@contextmanager
def engine_set(engine: str) -> Iterator[None]:
    """Make ``engine`` torch's quantized engine for the body, and restore the one before."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


class EngineBound:
    """A loaded model that runs under one quantized engine.

    Some operators (qnnpack's additions among them) look at the engine on every call, so
    two artifacts of different engines can only coexist if each sets its own.

    Args:
        module: Loaded under the engine.
        engine: torch quantized engine.
        threads: Number of threads to run with; None: as many as torch is set to.
    """

    def __init__(
        self, module: torch.jit.ScriptModule, engine: str, threads: int | None = None
    ) -> None:
        self.module = module
        self.engine = engine
        self.threads = threads

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``N×K`` float32 of images ``N×C×H×W`` float32."""
        if torch.backends.quantized.engine != self.engine:
            torch.backends.quantized.engine = self.engine
        if self.threads is not None and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        logits: Tensor = self.module(images)
        return logits


def trace(module: nn.Module, example: Tensor) -> torch.jit.ScriptModule:
    """Trace a module.

    Args:
        module: In evaluation mode.
        example: One input, ``N×C×H×W`` float32; other sizes work afterwards too.

    Int8 operators are called as the quantized engine that is set needs it.
    """
    layouts = KernelLayouts(torch.backends.quantized.engine)
    with warnings.catch_warnings(), torch.no_grad(), layouts:
        warnings.simplefilter("ignore")  # tracer warnings about shapes that do not vary
        traced: torch.jit.ScriptModule = torch.jit.trace(module, example, check_trace=False)
    return traced


def trace_and_freeze(module: nn.Module, example: Tensor) -> torch.jit.ScriptModule:
    """Lower a module to frozen TorchScript.

    Args:
        module: In evaluation mode; one that is traced already is not traced again, and not
            changed.
        example: See :func:`trace`.
    """
    if not isinstance(module, TopLevelTracedModule):
        module = trace(module.eval(), example)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        frozen: torch.jit.ScriptModule = torch.jit.freeze(module.eval())
    return frozen


def save_script(script: torch.jit.ScriptModule, path: Path, info: ArtifactInfo) -> Artifact:
    """Write the artifact whole or not at all.

    Args:
        script: Frozen.
        path: The file.
        info: What it shall record; its runtime is filled in.

    Raises:
        UserError: The folder cannot be written to, or the disk is full.
    """
    info = replace(info, runtime=f"torch {torch.__version__}")
    metadata: Mapping[str, str] = {METADATA: json.dumps(asdict(info))}
    try:
        with known_deprecations_ignored(), atomic_path(path) as temporary:
            # Through memory: written to a path, the archive is named after the temporary file,
            # and the same artifact has other bytes each time.
            whole = io.BytesIO()
            torch.jit.save(script, whole, _extra_files=dict(metadata))
            temporary.write_bytes(whole.getbuffer())
    except (OSError, RuntimeError) as error:
        raise UserError(f"The artifact {path} cannot be written: {reason_of(error)}.") from error
    return Artifact(path, info)


def load_script(path: Path, engine: str) -> torch.jit.ScriptModule:
    """Load TorchScript under an engine: int8 weights are packed for it while loading."""
    warn_of_quantized_tensors_once()
    torch.backends.quantized.engine = engine
    with known_deprecations_ignored():
        module: torch.jit.ScriptModule
        try:
            str(path).encode()
        except UnicodeEncodeError:  # torch takes names in UTF-8 only
            with path.open("rb") as file:
                module = torch.jit.load(file)
        else:
            module = torch.jit.load(str(path))
    return module.eval()
