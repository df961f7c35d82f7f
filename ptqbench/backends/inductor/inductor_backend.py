"""Inductor's x86 kernels as a backend. Imports torch only when it is used."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.backends.cpu import multiplies_into_16_bits
from ptqbench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ptqbench.backends.artifact import Artifact, ArtifactInfo
    from ptqbench.backends.backend import Model
    from ptqbench.backends.graph import Graph
    from ptqbench.backends.integer_reference import ExactRun
    from ptqbench.backends.traced_model import TracedModel
    from ptqbench.core.phases import Phases
    from ptqbench.quantization.calibration import CalibrationCache
    from ptqbench.quantization.pairing import Pairing
    from ptqbench.recipes import CompletedRecipe, Recipe

_ADVICE = {
    "missing": (
        "look at what the quantizer annotates (X86InductorQuantizer: set_global, "
        "set_module_type_qconfig), and at keep_float"
    ),
    "stray": "its weights are not quantized in the file",
    "batch_norms": "fold it before quantizing: prepare_pt2e does in a model in evaluation mode",
    "saturation": (
        "quantize with 7-bit weights (a QuantizationSpec with quant_min=-64 and quant_max=63), or "
        "with 7-bit activations (get_default_x86_inductor_quantization_config(reduce_range=True))"
    ),
    "exact": "the program before it is lowered",
}
_X86 = ("avx2", "avx2_128", "avx2_vnni", "avx512", "avx512_vnni", "amx")
_MACHINES = ("x86_64", "amd64")
_PASSES = "torch._inductor.fx_passes.freezing_patterns"


@dataclass(frozen=True)
class InductorBackend:
    """Inductor with programs of ``torch.export`` as artifacts; see ``backend.Backend``.

    A program is lowered to oneDNN's operators when it is loaded, without a compiler. These multiply
    u8 activations by s8 weights; without VNNI they add pairs of products in 16 bits.

    Attributes:
        sums_in_16_bits: Instruction sets on which some of its kernels saturate.
    """

    name: str = "inductor"
    label: str = "torch Inductor"
    runtime: str = "inductor"
    engine: str = "inductor"
    suffix: str = ".pt2"
    on_request: bool = True
    targets: tuple[str, ...] = _X86
    sums_in_16_bits: tuple[str, ...] = tuple(n for n in _X86 if multiplies_into_16_bits(n))
    pairing: Pairing | None = "channels"

    @property
    def advice(self) -> Mapping[str, str]:
        """Words of torchao."""
        return _ADVICE

    def availability(self) -> str | None:
        """None if this build of torch and this CPU can run it, else the reason why not."""
        import torch

        if platform.machine().lower() not in _MACHINES:
            return f"Inductor has int8 kernels for x86 CPUs alone, and this is {platform.machine()}"
        from ptqbench.backends.inductor.inductor_lowering import missing_operators

        reason = missing_operators()
        try:
            if not reason and importlib.util.find_spec(_PASSES) is None:
                reason = "it does not have the passes of Inductor that ptqbench knows"
        except ImportError as error:
            reason = f"its Inductor cannot be imported ({error})"
        return f"torch {torch.__version__} cannot run it: {reason}" if reason else None

    def refusal(self, recipe: Recipe) -> str | None:
        """None if it can run here and quantize a recipe's model, else the reason why not."""
        if reason := self.availability():
            return reason
        reason = recipe.unsupported.get(self.name)
        return f"{recipe.model} cannot be quantized for {self.name}: {reason}" if reason else None

    def saturates(self, instructions: str | None = None) -> bool:
        """Whether full-range 8-bit operands saturate on ``instructions`` (default: this CPU)."""
        from ptqbench.backends.cpu import instruction_set

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
        from ptqbench.backends.inductor.inductor_build import build_int8

        return build_int8(self, model, recipe, calibration, path, phases, calibrations)

    def build_float(
        self, model: nn.Module | TracedModel, name: str, example: Tensor, path: Path
    ) -> Artifact:
        """Export the float32 model; see ``backend.Backend.build_float``."""
        from ptqbench.backends.inductor.inductor_build import build_float
        from ptqbench.backends.traced_model import TracedModel

        module = model.model if isinstance(model, TracedModel) else model
        return build_float(self, module, name, example, path)

    def float_lowerings(self, artifact: Artifact) -> dict[str, Model]:
        """Ways to run a float32 artifact: ``lowered`` to oneDNN's operators, and ``eager``."""
        from ptqbench.backends.inductor.inductor_session import InductorModel

        return {"lowered": artifact.load(), "eager": InductorModel(artifact.path, lowered=False)}

    def load(self, path: Path, threads: int | None = None) -> Model:
        """Read a program, and lower it for this CPU."""
        from ptqbench.backends.inductor.inductor_session import InductorModel

        return InductorModel(path, threads)

    def load_exact(self, path: Path, threads: int | None = None) -> Model | None:
        """The program as it is in its file: float32 layers of numbers that are rounded."""
        from ptqbench.backends.inductor.inductor_session import InductorModel

        return InductorModel(path, threads, lowered=False) if self.saturates() else None

    def simulation(self, path: Path) -> Model:
        """The program as it is in its file: float32 layers, and operators that round."""
        from ptqbench.backends.inductor.inductor_session import InductorModel

        return InductorModel(path, lowered=False)

    def files(self, path: Path) -> tuple[Path, ...]:
        """A program is one file."""
        return (path,)

    def active_engine(self) -> str:
        """Inductor has one engine on the CPU."""
        return self.engine

    def layers(self, path: Path) -> Graph:
        """Read what Inductor's passes make of a file on this machine."""
        from ptqbench.backends.inductor.inductor_graph import executed_graph

        return executed_graph(path)

    def exact(self, path: Path, images: Tensor, phases: Phases | None = None) -> ExactRun:
        """Run a file and record what each int8 layer reads and writes."""
        from ptqbench.backends.inductor.inductor_traffic import record_traffic

        return record_traffic(path, images, phases)

    def probe(self) -> Mapping[str, float]:
        """Run layers with worst-case integers."""
        from ptqbench.backends.inductor.inductor_probe import layer_outputs
        from ptqbench.backends.worst_case import worst_shares

        return worst_shares(layer_outputs)

    def slow_layers(self, graph: Graph) -> str:
        """Operators that run in float32 between int8 layers, with a conversion on either side."""
        from ptqbench.backends.inductor.inductor_islands import slow_layers

        return slow_layers(graph)

    def recognize(self, path: Path) -> ArtifactInfo | None:
        """Check that a file is a program of torch's own operators, and read what it records."""
        from ptqbench.backends.inductor.pt2_archive import check_pt2

        if path.suffix.lower() != self.suffix:
            raise UserError(
                f"{path} cannot be loaded as a program of torch.export: its name has no .pt2."
            )
        return check_pt2(path)

    def reason(self, error: Exception) -> str:
        """The reason in an error of torch."""
        from ptqbench.core.step_errors import reason_of

        return reason_of(error)


INDUCTOR = InductorBackend()
