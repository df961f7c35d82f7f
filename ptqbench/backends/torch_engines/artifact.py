"""The file that would ship: frozen TorchScript, and how to load and run it."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.jit._trace import TopLevelTracedModule

from ptqbench.backends.torch_engines.archive_check import check_torchscript, extra_file
from ptqbench.core.atomic import atomic_path
from ptqbench.errors import UserError
from ptqbench.quantization.torch_warnings import known_deprecations_ignored

_METADATA = "ptqbench.json"
"""Name of the extra file inside the TorchScript archive."""
_RAISED = re.compile(r"^(?:[\w.]*Error|[\w.]*Exception): ")
"""How the line begins that says what was raised inside TorchScript."""


@dataclass(frozen=True)
class ArtifactInfo:
    """What the artifact says about itself.

    Attributes:
        precision: ``int8`` or ``float32``.
        backend: Name of the backend that it was made for.
        engine: torch quantized engine that it must be loaded and run under.
        model: Architecture.
        recipe_hash: Hash of the recipe that made it, empty for float32.
        flow: ``fx`` or ``eager``, empty for float32.
        instruction_set: Of the CPU that it was made for.
        calibration_images: How many images the ranges were taken from.
        torch: torch version that made it.
        build: What was seen of fusion and observers (``quantization.build_record.BuildRecord``
            as a dictionary); None for float32.
    """

    precision: str
    backend: str
    engine: str
    model: str
    recipe_hash: str = ""
    flow: str = ""
    instruction_set: str = ""
    calibration_images: int = 0
    torch: str = torch.__version__
    build: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Artifact:
    """A saved model; measurements load it and never see the object that it was made from.

    Attributes:
        path: The TorchScript file.
        info: What it says about itself.
    """

    path: Path
    info: ArtifactInfo

    @property
    def size_bytes(self) -> int:
        """Size of the file in bytes."""
        return self.path.stat().st_size

    def load(self) -> Callable[[Tensor], Tensor]:
        """Load the file under its own engine.

        Returns:
            A function from ``N×C×H×W`` float32 to logits ``N×K`` float32, which runs
            under the artifact's engine whatever is loaded beside it.

        Raises:
            UserError: The file is no longer there or cannot be loaded under that engine.
        """
        engine = self.info.engine
        try:
            return EngineBound(load_script(self.path, engine), engine)
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(
                f"{self.path} cannot be loaded under {engine}: {reason_of(error)}"
            ) from None

    @classmethod
    def open(cls, path: str | Path) -> Artifact:
        """Read an artifact's own description, without loading the model.

        Raises:
            UserError: Not a TorchScript file, damaged, or not one that this ptqbench wrote.
        """
        path = Path(path)
        check_torchscript(path)
        info = read_info(path)
        if info is None:
            raise UserError(
                f"{path} is TorchScript, but not an artifact: it does not say which engine "
                "it was made for. Make it with ptqbench.quantize, or judge it as it is: "
                "ptqbench gate --artifact FILE --backend NAME."
            )
        return cls(path, info)


def read_info(path: Path) -> ArtifactInfo | None:
    """What a TorchScript file says about itself; None if ptqbench did not make it.

    Args:
        path: Checked by ``container.check_torchscript``.

    Raises:
        UserError: Another version of ptqbench made it, in words that this one does not know.
    """
    text = extra_file(path, _METADATA)
    if text is None:
        return None
    try:
        return ArtifactInfo(**json.loads(text))
    except (ValueError, TypeError):
        raise UserError(
            f"{path} describes itself in words that this version of ptqbench does not "
            "know. Make it again with ptqbench.quantize."
        ) from None


class EngineBound:
    """A loaded model that runs under one quantized engine.

    Some operators (qnnpack's additions among them) ask for the engine at every call, so
    two artifacts of different engines can only live side by side if each sets its own.
    """

    def __init__(self, module: torch.jit.ScriptModule, engine: str) -> None:
        self.module = module
        self.engine = engine

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``N×K`` float32 of images ``N×C×H×W`` float32."""
        if torch.backends.quantized.engine != self.engine:
            torch.backends.quantized.engine = self.engine
        logits: Tensor = self.module(images)
        return logits


def trace(module: nn.Module, example: Tensor) -> torch.jit.ScriptModule:
    """Trace a module.

    Args:
        module: In evaluation mode.
        example: One input, ``N×C×H×W`` float32; other sizes work afterwards too.
    """
    with warnings.catch_warnings(), torch.no_grad():
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

    Raises:
        UserError: The folder cannot be written to, or the disk is full.
    """
    metadata: Mapping[str, str] = {_METADATA: json.dumps(asdict(info))}
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
    torch.backends.quantized.engine = engine
    with known_deprecations_ignored():
        module: torch.jit.ScriptModule = torch.jit.load(str(path))
    return module.eval()


def reason_of(error: Exception) -> str:
    """The reason in an error of torch, without the tracebacks that TorchScript wraps it in.

    What comes after the first sentence is about torch's own code.
    """
    lines = str(error).splitlines() or [type(error).__name__]
    raised = [line for line in lines if _RAISED.match(line)]
    line = _RAISED.sub("", raised[-1]) if raised else lines[0]
    return line.partition(". ")[0].rstrip(". ")
