"""torch's quantized engines as backends. Imports torch only when one of them is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.backends.artifact import Artifact, ArtifactInfo
from ptqbench.backends.cpu import instruction_set, multiplies_into_16_bits
from ptqbench.backends.torch_engines.archive_check import check_torchscript, read_info

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ptqbench.backends.backend import Model
    from ptqbench.backends.graph import Graph
    from ptqbench.backends.integer_reference import ExactRun
    from ptqbench.backends.traced_model import TracedModel
    from ptqbench.core.phases import Phases
    from ptqbench.quantization.calibration import CalibrationCache
    from ptqbench.quantization.pairing import Pairing
    from ptqbench.recipes import CompletedRecipe, Recipe

_ADVICE = {
    "missing": "look at qconfig and keep_float",
    "stray": "look for missing stubs or qconfig",
    "batch_norms": "look at the fusion groups",
    "saturation": "use 7-bit weights (−64…64) or 7-bit activations (reduce_range)",
}
_NO_STUB = "with arguments from the 'CPU' backend"
_STUB = ": an int8 operator gets float input, so a QuantStub is missing in front of it"


@dataclass(frozen=True)
class TorchBackend:
    """A quantized engine with frozen TorchScript as its artifact; see ``backend.Backend``.

    Attributes:
        name: Name of the backend.
        engine: Name of torch's quantized engine.
        targets: Instruction sets that its kernels are written for.
        sums_in_16_bits: Instruction sets on which some of its kernels saturate.
        pairing: Which products these add.
    """

    name: str
    engine: str
    targets: tuple[str, ...]
    sums_in_16_bits: tuple[str, ...]
    pairing: Pairing | None
    runtime: str = "torch"
    suffix: str = ".pt"
    on_request: bool = False

    @property
    def advice(self) -> Mapping[str, str]:
        """Words of ``torch.ao``."""
        return _ADVICE

    @property
    def label(self) -> str:
        """Runtime and engine."""
        return f"torch {self.engine}"

    def availability(self) -> str | None:
        """None if this build and CPU can run it, else the reason why not."""
        import torch

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
        recipe: Recipe | CompletedRecipe,
        calibration: Iterable[Tensor],
        path: Path,
        phases: Phases | None = None,
        calibrations: CalibrationCache | None = None,
    ) -> Artifact:
        """Quantize a float32 model with its recipe; see ``backend.Backend.build``."""
        from ptqbench.backends.torch_engines.lowering import build_int8

        return build_int8(self, model, recipe, calibration, path, phases, calibrations)

    def build_float(
        self, model: nn.Module | TracedModel, name: str, example: Tensor, path: Path
    ) -> Artifact:
        """Save the float32 model as frozen TorchScript; see ``backend.Backend.build_float``."""
        from ptqbench.backends.torch_engines.torchscript import save_script, trace_and_freeze
        from ptqbench.backends.traced_model import TracedModel

        module = model.module if isinstance(model, TracedModel) else model
        script = trace_and_freeze(module, example)
        return save_script(script, path, ArtifactInfo("float32", self.name, self.engine, name))

    def float_lowerings(self, artifact: Artifact) -> dict[str, Model]:
        """Ways to run a float32 artifact: ``frozen`` as saved, and ``optimized``.

        The latter is made by ``torch.jit.optimize_for_inference``, which uses oneDNN's layouts.
        """
        import torch

        from ptqbench.backends.torch_engines.torchscript import load_script
        from ptqbench.quantization.torch_warnings import known_deprecations_ignored

        frozen = artifact.load()
        loaded = load_script(artifact.path, artifact.info.engine)
        with known_deprecations_ignored():
            optimized: Model = torch.jit.optimize_for_inference(loaded)
        return {"frozen": frozen, "optimized": optimized}

    def load(self, path: Path, threads: int | None = None) -> Model:
        """Load TorchScript; its int8 weights are packed for this engine while it loads."""
        from ptqbench.backends.torch_engines.torchscript import EngineBound, load_script

        return EngineBound(load_script(path, self.engine), self.engine, threads)

    def simulation(self, path: Path) -> Model:
        """Load a file to be computed operator by operator, in float32."""
        from ptqbench.backends.torch_engines.script_simulation import ScriptSimulation
        from ptqbench.backends.torch_engines.torchscript import load_script

        return ScriptSimulation(load_script(path, self.engine), self.engine)

    def active_engine(self) -> str:
        """The quantized engine that torch is set to."""
        import torch

        engine: str = torch.backends.quantized.engine
        return engine

    def layers(self, path: Path) -> Graph:
        """Read the graph of a TorchScript file."""
        from ptqbench.backends.torch_engines.script_graph import read_script
        from ptqbench.backends.torch_engines.torchscript import load_script

        return read_script(load_script(path, self.engine))

    def exact(self, path: Path, images: Tensor, phases: Phases | None = None) -> ExactRun:
        """Run a file and record what each int8 layer reads and writes."""
        from ptqbench.backends.torch_engines.layer_traffic import record_traffic
        from ptqbench.backends.torch_engines.torchscript import load_script

        return record_traffic(load_script(path, self.engine), images, self.engine, phases)

    def load_exact(self, path: Path, threads: int | None = None) -> Model | None:
        """No engine of torch has kernels for that."""
        return None

    def files(self, path: Path) -> tuple[Path, ...]:
        """TorchScript is one file."""
        return (path,)

    def probe(self) -> Mapping[str, float]:
        """Run layers with worst-case integers."""
        from ptqbench.backends.torch_engines.saturation_probe import probe_engine

        return probe_engine(self.engine)

    def slow_layers(self, graph: Graph) -> str:
        """Depthwise convolutions that fbgemm's kernels are not written for."""
        from ptqbench.backends.torch_engines.slow_kernels import slow_layers

        return slow_layers(graph, self.engine)

    def recognize(self, path: Path) -> ArtifactInfo | None:
        """Check that a file is undamaged TorchScript, and read what it records."""
        check_torchscript(path)
        return read_info(path)

    def reason(self, error: Exception) -> str:
        """The reason in an error of torch, with a hint if it is a well-known mistake."""
        from ptqbench.core.step_errors import reason_of

        reason = reason_of(error)
        if "quantized::" in reason and _NO_STUB in reason:
            reason += _STUB
        return reason


_X86 = ("avx2", "avx2_128", "avx2_vnni", "avx512", "avx512_vnni", "amx")

_WITHOUT_VNNI = tuple(name for name in _X86 if multiplies_into_16_bits(name))

# fbgemm's depthwise kernels multiply into 16 bits on every x86 CPU, and x86 runs grouped
# convolutions with them even where it leaves all else to oneDNN. On AVX-VNNI without AVX-512
# both run fbgemm's AVX2 kernels throughout, which do not use VNNI: x86 leaves layers to oneDNN
# only on CPUs with AVX-512 VNNI. oneDNN has kernels of its own for either kind of VNNI.
TORCH_ENGINES = (
    TorchBackend("x86", "x86", _X86, sums_in_16_bits=_X86, pairing="taps"),
    TorchBackend("fbgemm", "fbgemm", _X86, sums_in_16_bits=_X86, pairing="taps"),
    TorchBackend("onednn", "onednn", _X86, sums_in_16_bits=_WITHOUT_VNNI, pairing="channels"),
    TorchBackend("qnnpack", "qnnpack", ("neon",), sums_in_16_bits=(), pairing=None),
)
"""The engines that torch has on one CPU or another."""
