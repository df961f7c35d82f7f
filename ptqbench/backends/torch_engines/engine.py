"""torch's quantized engines as backends: what can run int8 here, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ptqbench.backends.cpu import instruction_set, multiplies_into_16_bits
from ptqbench.backends.torch_engines.artifact import (
    Artifact,
    ArtifactInfo,
    save_script,
    trace_and_freeze,
)
from ptqbench.core.phases import Phases
from ptqbench.core.registry import Registry
from ptqbench.errors import UserError
from ptqbench.quantization import eager, fx
from ptqbench.quantization.build_record import inspect_build
from ptqbench.quantization.calibration import Calibrated, CalibrationCache, calibrate
from ptqbench.quantization.completion import complete_recipe, unfused
from ptqbench.quantization.torch_warnings import known_deprecations_ignored
from ptqbench.recipes import Recipe
from ptqbench.recipes.recipe import MEASURED

BACKENDS: Registry[TorchBackend] = Registry("backend")

Model = Callable[[Tensor], Tensor]

_FLOWS = {"fx": fx, "eager": eager}
_INSPECTED = 8
"""Images on which fused and unfused float are compared."""


@contextmanager
def engine_set(engine: str) -> Iterator[None]:
    """Make ``engine`` torch's quantized engine for the body, and restore the one before."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


@contextmanager
def process_unchanged() -> Iterator[None]:
    """Put back what measuring sets for the whole process: thread count and engine."""
    threads, engine = torch.get_num_threads(), torch.backends.quantized.engine
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.quantized.engine = engine


@dataclass(frozen=True)
class TorchBackend:
    """A quantized engine with frozen TorchScript as its lowering.

    Attributes:
        name: Name of the backend.
        engine: Name of torch's quantized engine.
        targets: Instruction sets that its kernels are written for.
        sums_in_16_bits: Instruction sets on which kernels of its own saturate.
    """

    name: str
    engine: str
    targets: tuple[str, ...]
    sums_in_16_bits: tuple[str, ...]

    def availability(self) -> str | None:
        """None if this build and CPU can run it, else the reason why not."""
        supported = [e for e in torch.backends.quantized.supported_engines if e != "none"]
        if self.engine in supported:
            return None
        return (
            f"this build of torch {torch.__version__} has no {self.engine} engine on this CPU "
            f"({instruction_set()}); it has {', '.join(supported) or 'none'}"
        )

    def refusal(self, recipe: Recipe) -> str | None:
        """None if it can run here and quantize a recipe's model, else the reason why not."""
        if reason := self.availability():
            return reason
        reason = recipe.unsupported.get(self.name)
        return f"{recipe.model} cannot be quantized for {self.name}: {reason}" if reason else None

    def saturates(self, instructions: str | None = None) -> bool:
        """Whether full-range 8-bit operands saturate on ``instructions`` (default: this CPU)."""
        return (instructions or instruction_set()) in self.sums_in_16_bits

    def build(
        self,
        model: nn.Module,
        recipe: Recipe,
        calibration: Iterable[Tensor],
        path: Path,
        phases: Phases | None = None,
        calibrations: CalibrationCache | None = None,
    ) -> Artifact:
        """Quantize a float32 model with its recipe and save the int8 artifact.

        Args:
            model: Float32, evaluation mode; it is not changed.
            recipe: How to quantize it.
            calibration: Batches ``N×C×H×W`` float32, streamed.
            path: The file to write.
            phases: Where time is counted.
            calibrations: Of this model and these images: backends that share it calibrate once.

        Raises:
            UserError: The engine is missing, there are no calibration images, or the
                recipe does not fit the model or says that it cannot be done.
        """
        if reason := self.refusal(recipe):
            raise UserError(f"The backend {self.name} cannot be used here: {reason}.")
        phases = phases or Phases()
        batches = iter(calibration)
        first = next(batches, None)
        if first is None:
            raise UserError("There are no calibration images: quantization needs at least one.")
        recipe = complete_recipe(recipe, model, first[:1])
        images = _chain(first, batches)
        saturates = self.saturates()
        with engine_set(self.engine):

            def make() -> Calibrated:
                return _calibrated(model, recipe, images, first, saturates, phases)

            calibrated = (
                make()
                if calibrations is None
                else calibrations.get_or_create(recipe, saturates, make)
            )
            with phases.measure("convert"):
                converted = _FLOWS[recipe.flow].convert(calibrated.module)
                if recipe.flow == "eager":
                    eager.check_runs(converted, first[:1])
            with phases.measure("lower and save"):
                script = trace_and_freeze(converted, first[:1])
                info = ArtifactInfo(
                    precision="int8",
                    backend=self.name,
                    engine=self.engine,
                    model=recipe.model,
                    recipe_hash=recipe.hash,
                    flow=recipe.flow,
                    instruction_set=instruction_set(),
                    calibration_images=calibrated.images,
                    build=calibrated.record.to_dict(),
                )
                return save_script(script, path, info)

    def build_float(self, model: nn.Module, name: str, example: Tensor, path: Path) -> Artifact:
        """Save the float32 model in the same container: frozen TorchScript.

        Args:
            model: Float32, evaluation mode, or traced by ``artifact.trace``.
            name: Architecture.
            example: One input, ``N×C×H×W`` float32.
            path: The file to write.
        """
        script = trace_and_freeze(model, example)
        return save_script(script, path, ArtifactInfo("float32", self.name, self.engine, name))

    def float_lowerings(self, artifact: Artifact) -> dict[str, Model]:
        """Ways to run a float32 artifact in this runtime; the fastest is the one to beat.

        Returns:
            ``frozen`` as saved, and ``optimized`` by ``torch.jit.optimize_for_inference``,
            which uses oneDNN's layouts.
        """
        frozen = artifact.load()
        with known_deprecations_ignored():
            loaded = torch.jit.load(str(artifact.path)).eval()
            optimized: Model = torch.jit.optimize_for_inference(loaded)
        return {"frozen": frozen, "optimized": optimized}


def _calibrated(
    model: nn.Module,
    recipe: Recipe,
    images: Iterable[Tensor],
    first: Tensor,
    saturates: bool,
    phases: Phases,
) -> Calibrated:
    """Fuse, observe and calibrate a copy of the model; ``first`` is the first batch."""
    with phases.measure("fuse and observe"):
        prepared = _FLOWS[recipe.flow].prepare(model, recipe, first[:1], saturates=saturates)
    seen = calibrate(prepared, images, phases)
    with phases.measure("inspect the build"):
        record = inspect_build(
            model,
            prepared,
            recipe.groups,
            first[:_INSPECTED],
            unfused=unfused(model, recipe, first[:1]),
            promised=recipe.fused_groups,
            phases=phases,
        )
    return Calibrated(prepared, seen, record)


def _chain(first: Tensor, rest: Iterable[Tensor]) -> Iterator[Tensor]:
    yield first
    yield from rest


def recommended(recipe: Recipe) -> str:
    """The backend that a recipe recommends; of one that recommends none, `default_backend`."""
    return recipe.backend if recipe.backend != MEASURED else default_backend()


def default_backend() -> str:
    """The first backend here whose kernels are written for this CPU, else the first there is."""
    usable = [backend for backend in BACKENDS if backend.availability() is None]
    written = [backend for backend in usable if instruction_set() in backend.targets]
    return (written or usable or list(BACKENDS))[0].name


_X86 = ("avx2", "avx512", "avx512_vnni", "amx")

_WITHOUT_VNNI = tuple(name for name in _X86 if multiplies_into_16_bits(name))

# fbgemm's depthwise kernels multiply into 16 bits on every x86 CPU, and x86 runs grouped
# convolutions with them even where it leaves all else to oneDNN.
for _name, _saturating in (("x86", _X86), ("fbgemm", _X86), ("onednn", _WITHOUT_VNNI)):
    BACKENDS.add(_name, TorchBackend(_name, _name, _X86, sums_in_16_bits=_saturating))
BACKENDS.add("qnnpack", TorchBackend("qnnpack", "qnnpack", ("neon",), sums_in_16_bits=()))
