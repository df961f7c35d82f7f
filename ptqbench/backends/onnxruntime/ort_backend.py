"""ONNX Runtime as a backend. Imports neither it nor torch before one is used."""

from __future__ import annotations

import importlib.util
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

_PACKAGES = ("onnxruntime", "onnx", "onnxscript")
_ADVICE = {
    "missing": (
        "look at which operators the tool quantizes (op_types_to_quantize, nodes_to_exclude), "
        "and at keep_float"
    ),
    "stray": "its weights are not quantized in the file",
    "batch_norms": (
        "fold it before quantizing: onnxruntime.quantization.shape_inference.quant_pre_process"
    ),
    "saturation": "quantize with 7-bit weights (reduce_range=True)",
    "exact": "session.x64quantprecision=1",
}
_X86 = ("avx2", "avx2_128", "avx2_vnni", "avx512", "avx512_vnni", "amx")


@dataclass(frozen=True)
class OrtBackend:
    """ONNX Runtime with QDQ files as artifacts; see ``backend.Backend``.

    Its kernels for the CPU, MLAS, multiply u8 activations by s8 weights. Without VNNI they add
    pairs of products in 16 bits, except in depthwise convolutions.

    Attributes:
        sums_in_16_bits: Instruction sets on which some of its kernels saturate.
    """

    name: str = "onnxruntime"
    label: str = "ONNX Runtime"
    runtime: str = "onnxruntime"
    engine: str = "onnxruntime"
    suffix: str = ".onnx"
    on_request: bool = False
    targets: tuple[str, ...] = (*_X86, "neon")
    sums_in_16_bits: tuple[str, ...] = tuple(n for n in _X86 if multiplies_into_16_bits(n))
    pairing: Pairing | None = "patches"

    @property
    def advice(self) -> Mapping[str, str]:
        """Words of ``onnxruntime.quantization``."""
        return _ADVICE

    def availability(self) -> str | None:
        """None if the packages are installed and work, else the reason why not."""
        missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            return (
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; "
                "pip install 'ptqbench[onnx]' installs what it needs"
            )
        try:
            import onnx
            import onnxruntime
        except Exception as error:  # a broken installation raises anything
            return (
                f"ONNX Runtime is installed but cannot be imported ({error}); install it again: "
                "pip install --force-reinstall onnxruntime onnx"
            )
        del onnx, onnxruntime
        return None

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
        from ptqbench.backends.onnx_format.int8_export import export_int8
        from ptqbench.backends.onnxruntime.ort_build import reader

        return export_int8(reader(self), model, recipe, calibration, path, phases, calibrations)

    def build_float(
        self, model: nn.Module | TracedModel, name: str, example: Tensor, path: Path
    ) -> Artifact:
        """Export the float32 model; see ``backend.Backend.build_float``."""
        from ptqbench.backends.onnx_format.int8_export import export_float
        from ptqbench.backends.onnxruntime.ort_build import reader
        from ptqbench.backends.traced_model import TracedModel

        module = model.model if isinstance(model, TracedModel) else model
        return export_float(reader(self), module, name, example, path)

    def float_lowerings(self, artifact: Artifact) -> dict[str, Model]:
        """The one way to run a float32 file: as ONNX Runtime optimizes it."""
        return {"onnxruntime": artifact.load()}

    def load(self, path: Path, threads: int | None = None) -> Model:
        """Load a file into a session."""
        from ptqbench.backends.onnxruntime.ort_session import OrtModel

        return OrtModel(path, threads)

    def load_exact(self, path: Path, threads: int | None = None) -> Model | None:
        """Load a file for the kernels that add in 32 bits, where others would saturate."""
        from ptqbench.backends.onnxruntime.ort_session import EXACT, OrtModel

        return OrtModel(path, threads, {EXACT: "1"}) if self.saturates() else None

    def simulation(self, path: Path) -> Model:
        """Load a file to be executed node by node: layers between Q and DQ nodes are float32.

        Layers of operators that are int8 by definition, as ``QLinearConv``, keep their kernels, but
        those that cannot saturate.
        """
        from ptqbench.backends.onnxruntime.ort_session import EXACT, LITERAL, OrtModel

        return OrtModel(path, None, {EXACT: "1"}, LITERAL)

    def files(self, path: Path) -> tuple[Path, ...]:
        """The model, and the files in its folder that hold its weights."""
        from ptqbench.backends.onnx_format.external_data import data_files

        return (path, *data_files(path))

    def active_engine(self) -> str:
        """ONNX Runtime has one engine on the CPU."""
        return self.engine

    def layers(self, path: Path) -> Graph:
        """Read what ONNX Runtime makes of a file on this machine."""
        from ptqbench.backends.onnxruntime.executed_graph import executed_graph

        return executed_graph(path)

    def exact(self, path: Path, images: Tensor, phases: Phases | None = None) -> ExactRun:
        """Run a file and record what each int8 layer reads and writes."""
        from ptqbench.backends.onnxruntime.ort_traffic import record_traffic

        return record_traffic(path, images, phases)

    def probe(self) -> Mapping[str, float]:
        """Run layers with worst-case integers."""
        from ptqbench.backends.onnxruntime.ort_probe import layer_outputs
        from ptqbench.backends.worst_case import worst_shares

        return worst_shares(layer_outputs)

    def slow_layers(self, graph: Graph) -> str:
        """Operators that run in float32 between int8 layers, and s8 multiplied by s8 on x86."""
        from ptqbench.backends.cpu import instruction_set
        from ptqbench.backends.onnxruntime.float_islands import slow_layers

        return slow_layers(graph, instruction_set())

    def recognize(self, path: Path) -> ArtifactInfo | None:
        """Check that a file is a sound ONNX model, and read what it records."""
        from ptqbench.backends.onnx_format.onnx_check import check_file, check_onnx, read_info

        if path.suffix.lower() != self.suffix:
            raise UserError(f"{path} cannot be loaded as an ONNX model: its name has no .onnx.")
        check_file(path)
        if self.availability() is not None:
            return None  # its case says so, and what to install
        return read_info(check_onnx(path), path)

    def reason(self, error: Exception) -> str:
        """The reason in an error of ONNX Runtime, without codes and source lines."""
        from ptqbench.backends.onnxruntime.ort_errors import reason_of

        return reason_of(error)


ONNX_RUNTIME = OrtBackend()
