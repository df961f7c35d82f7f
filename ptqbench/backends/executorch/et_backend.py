"""ExecuTorch as a backend. Imports neither it nor torch before one is used."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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

_PACKAGES = ("executorch", "torchao")
_ADVICE = {
    "missing": (
        "look at which operators the quantizer annotates (XNNPACKQuantizer), whether the file was "
        "lowered with XnnpackPartitioner, and at keep_float"
    ),
    "stray": "its weights are not quantized in the file, or XNNPACK does not execute it",
    "exact sums": (
        "XNNPACK's kernels widen both factors to 16 bits and add their products in 32, on every "
        "CPU: s8 by s8 cannot saturate, so weights use all eight bits"
    ),
}


@dataclass(frozen=True)
class ExecuTorchBackend:
    """ExecuTorch with XNNPACK, and its programs as artifacts; see ``backend.Backend``.

    XNNPACK multiplies s8 activations by s8 weights and adds in 32 bits on every CPU.

    Attributes:
        sums_in_16_bits: None of its kernels do.
    """

    name: str = "executorch"
    label: str = "ExecuTorch (XNNPACK)"
    runtime: str = "executorch"
    engine: str = "xnnpack"
    suffix: str = ".pte"
    on_request: bool = False
    targets: tuple[str, ...] = (
        *("avx2", "avx2_128", "avx2_vnni", "avx512", "avx512_vnni", "amx"),
        "neon",
    )
    sums_in_16_bits: tuple[str, ...] = ()
    pairing: Pairing | None = None

    @property
    def advice(self) -> Mapping[str, str]:
        """Words of torchao and ExecuTorch."""
        return _ADVICE

    def availability(self) -> str | None:
        """None if the packages are installed and work, else the reason why not."""
        missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            return (
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; "
                "pip install 'ptqbench[executorch]' installs what it needs"
            )
        from ptqbench.backends.executorch.et_import import broken

        if reason := broken():
            return (
                f"ExecuTorch is installed but cannot be used ({reason}); install the version that "
                "fits torch: pip install --force-reinstall 'ptqbench[executorch]'"
            )
        return None

    def refusal(self, recipe: Recipe) -> str | None:
        """None if it can run here and quantize a recipe's model, else the reason why not."""
        if reason := self.availability():
            return reason
        reason = recipe.unsupported.get(self.name)
        return f"{recipe.model} cannot be quantized for {self.name}: {reason}" if reason else None

    def saturates(self, instructions: str | None = None) -> bool:
        """Whether full-range 8-bit operands saturate: never."""
        return False

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
        from ptqbench.backends.executorch.et_build import build_int8

        return build_int8(self, model, recipe, calibration, path, phases, calibrations)

    def build_float(
        self, model: nn.Module | TracedModel, name: str, example: Tensor, path: Path
    ) -> Artifact:
        """Export the float32 model; see ``backend.Backend.build_float``."""
        from ptqbench.backends.executorch.et_build import build_float
        from ptqbench.backends.traced_model import TracedModel

        module = model.model if isinstance(model, TracedModel) else model
        return build_float(self, module, name, example, path)

    def files(self, path: Path) -> tuple[Path, ...]:
        """The one file."""
        return (path,)

    def float_lowerings(self, artifact: Artifact) -> dict[str, Model]:
        """The one way to run a float32 file: as XNNPACK executes it."""
        return {"executorch": artifact.load()}

    def load(self, path: Path, threads: int | None = None) -> Model:
        """Load a file."""
        from ptqbench.backends.executorch.et_session import EtModel

        return EtModel(path, threads)

    def load_exact(self, path: Path, threads: int | None = None) -> Model | None:
        """Nothing saturates."""
        return None

    def simulation(self, path: Path) -> Model:
        """The graph of XNNPACK in a file, operator by operator in float32."""
        from ptqbench.backends.executorch.et_simulation import WrittenOut

        return WrittenOut(path)

    def active_engine(self) -> str:
        """XNNPACK, the one delegate that is used."""
        return self.engine

    def layers(self, path: Path) -> Graph:
        """Read the graphs that XNNPACK executes, and the operators around them."""
        from ptqbench.backends.executorch.et_graph import executed_graph

        return executed_graph(path)

    def exact(self, path: Path, images: Tensor, phases: Phases | None = None) -> ExactRun:
        """Run a file and record what each int8 layer reads and writes."""
        from ptqbench.backends.executorch.et_traffic import record_traffic

        return record_traffic(path, images, phases)

    def probe(self) -> Mapping[str, float]:
        """Run layers with worst-case integers."""
        from ptqbench.backends.executorch.et_probe import probe

        return probe()

    def slow_layers(self, graph: Graph) -> str:
        """Operators that XNNPACK does not execute, or executes in float32 between int8 layers."""
        from ptqbench.backends.executorch.et_float_islands import slow_layers

        return slow_layers(graph)

    def recognize(self, path: Path) -> ArtifactInfo | None:
        """Check that a file is a sound program, and read what it records."""
        from ptqbench.backends.executorch.et_file import check_pte

        if path.suffix.lower() != self.suffix:
            raise UserError(
                f"{path} cannot be loaded as a program of ExecuTorch: its name has no .pte."
            )
        return check_pte(path)

    def reason(self, error: Exception) -> str:
        """The reason in an error of ExecuTorch."""
        from ptqbench.backends.executorch.et_errors import reason_of

        return reason_of(error)


EXECUTORCH = ExecuTorchBackend()
