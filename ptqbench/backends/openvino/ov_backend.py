"""OpenVINO as a backend. Imports neither it nor torch before one is used."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.backends.cpu import multiplies_into_16_bits
from ptqbench.backends.openvino.ov_import import import_openvino
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

_PACKAGES = ("openvino", "onnx", "onnxscript")
_ADVICE = {
    "missing": (
        "look at which operators the tool quantizes (ignored_scope of nncf.quantize), and at "
        "keep_float"
    ),
    "stray": "its weights are not quantized in the file",
    "saturation": (
        "quantize with 7-bit weights (overflow_fix=OverflowFix.ENABLE in "
        "nncf.AdvancedQuantizationParameters)"
    ),
}
_X86 = ("avx2", "avx2_128", "avx2_vnni", "avx512", "avx512_vnni", "amx")


@dataclass(frozen=True)
class OpenVinoBackend:
    """OpenVINO with IR files as artifacts; see ``backend.Backend``.

    Its kernels for the CPU, oneDNN, multiply u8 activations by s8 weights. Without VNNI they add
    pairs of products in 16 bits, except in depthwise convolutions. An artifact is two files.

    Attributes:
        sums_in_16_bits: Instruction sets on which some of its kernels saturate.
    """

    name: str = "openvino"
    label: str = "OpenVINO"
    runtime: str = "openvino"
    engine: str = "openvino"
    suffix: str = ".xml"
    on_request: bool = False
    targets: tuple[str, ...] = (*_X86, "neon")
    sums_in_16_bits: tuple[str, ...] = tuple(n for n in _X86 if multiplies_into_16_bits(n))
    pairing: Pairing | None = "groups"

    @property
    def advice(self) -> Mapping[str, str]:
        """Words of NNCF."""
        return _ADVICE

    def availability(self) -> str | None:
        """None if the packages are installed and work, else the reason why not."""
        missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            return (
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; "
                "pip install 'ptqbench[openvino]' installs what it needs"
            )
        try:
            import onnx

            import_openvino()
        except Exception as error:  # a broken installation raises anything
            return (
                f"OpenVINO is installed but cannot be imported ({error}); install it again: "
                "pip install --force-reinstall openvino onnx"
            )
        del onnx
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
        from ptqbench.backends.openvino.ov_build import reader

        return export_int8(reader(self), model, recipe, calibration, path, phases, calibrations)

    def build_float(
        self, model: nn.Module | TracedModel, name: str, example: Tensor, path: Path
    ) -> Artifact:
        """Export the float32 model; see ``backend.Backend.build_float``."""
        from ptqbench.backends.onnx_format.int8_export import export_float
        from ptqbench.backends.openvino.ov_build import reader
        from ptqbench.backends.traced_model import TracedModel

        module = model.model if isinstance(model, TracedModel) else model
        return export_float(reader(self), module, name, example, path)

    def simulation(self, path: Path) -> Model:
        """Load a file with each ``FakeQuantize`` written out, which leaves nothing to make int8."""
        from ptqbench.backends.openvino.ov_session import OvModel, read_model
        from ptqbench.backends.openvino.ov_simulation import written_out

        return OvModel(written_out(read_model(path)))

    def files(self, path: Path) -> tuple[Path, ...]:
        """The structure and, beside it, the weights."""
        from ptqbench.backends.openvino.ir_structure import weights_path

        return (path, weights_path(path))

    def float_lowerings(self, artifact: Artifact) -> dict[str, Model]:
        """The one way to run a float32 file: as OpenVINO compiles it."""
        return {"openvino": artifact.load()}

    def load(self, path: Path, threads: int | None = None) -> Model:
        """Read a file; it is compiled for the images that it is called with."""
        from ptqbench.backends.openvino.ov_session import OvModel

        return OvModel(path, threads)

    def load_exact(self, path: Path, threads: int | None = None) -> Model | None:
        """OpenVINO has no kernels that add in 32 bits where others would saturate."""
        return None

    def active_engine(self) -> str:
        """OpenVINO has one engine on the CPU."""
        return self.engine

    def layers(self, path: Path) -> Graph:
        """Read what OpenVINO makes of a file on this machine."""
        from ptqbench.backends.openvino.ov_graph import executed_graph

        return executed_graph(path)

    def exact(self, path: Path, images: Tensor, phases: Phases | None = None) -> ExactRun:
        """Run a file and record what each int8 layer reads and writes."""
        from ptqbench.backends.openvino.ov_traffic import record_traffic

        return record_traffic(path, images, phases)

    def probe(self) -> Mapping[str, float]:
        """Run layers with worst-case integers."""
        from ptqbench.backends.openvino.ov_probe import layer_outputs
        from ptqbench.backends.worst_case import worst_shares

        return worst_shares(layer_outputs)

    def slow_layers(self, graph: Graph) -> str:
        """Operators that run in float32 between int8 layers, with a conversion on either side."""
        from ptqbench.backends.openvino.ov_float_islands import slow_layers

        return slow_layers(graph)

    def recognize(self, path: Path) -> ArtifactInfo | None:
        """Check that two files are a sound IR model, and read what it records."""
        from ptqbench.backends.openvino.ov_file import check_ir

        if path.suffix.lower() == ".bin":
            raise UserError(
                f"{path} has the weights of an OpenVINO model. Name the .xml beside it."
            )
        if path.suffix.lower() != self.suffix:
            raise UserError(f"{path} cannot be loaded as an OpenVINO model: its name has no .xml.")
        return check_ir(path)

    def reason(self, error: Exception) -> str:
        """The reason in an error of OpenVINO, without places in its source."""
        from ptqbench.backends.openvino.ov_errors import reason_of

        return reason_of(error)


OPENVINO = OpenVinoBackend()
