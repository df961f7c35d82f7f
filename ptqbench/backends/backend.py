"""The protocol that every runtime is used through.

Whatever executes an artifact (an engine of torch, ONNX Runtime, OpenVINO, …) is an object with
these methods, registered in ``backends.backend_registry``. Nothing outside ``backends/`` asks which
runtime it is talking to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ptqbench.backends.artifact import Artifact, ArtifactInfo
    from ptqbench.backends.graph import Graph
    from ptqbench.backends.integer_reference import ExactRun
    from ptqbench.backends.traced_model import TracedModel
    from ptqbench.core.phases import Phases
    from ptqbench.quantization.calibration import CalibrationCache
    from ptqbench.quantization.pairing import Pairing
    from ptqbench.recipes import CompletedRecipe, Recipe

Model: TypeAlias = "Callable[[Tensor], Tensor]"
"""A loaded model: float32 images ``N×C×H×W`` to float32 logits ``N×K``."""


class SimulationError(Exception):
    """What a file says cannot be computed without the kernels that execute it; the reason."""


class Backend(Protocol):
    """What executes an artifact."""

    @property
    def name(self) -> str:
        """Name of the backend, unique among all runtimes."""

    @property
    def label(self) -> str:
        """What a report calls it: runtime and engine."""

    @property
    def runtime(self) -> str:
        """Name of the runtime; backends of one runtime share a file format."""

    @property
    def engine(self) -> str:
        """Name of what executes int8 within the runtime."""

    @property
    def suffix(self) -> str:
        """How names of its files end, as in ``.onnx``."""

    @property
    def on_request(self) -> bool:
        """Whether runs use it only where they name it, not as one more float32 opponent."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Instruction sets that its kernels are written for; empty: any."""

    @property
    def sums_in_16_bits(self) -> tuple[str, ...]:
        """Instruction sets on which some of its kernels add in 16 bits, which saturates."""

    @property
    def pairing(self) -> Pairing | None:
        """Which products these kernels add; None: unknown, or there are none."""

    @property
    def advice(self) -> Mapping[str, str]:
        """What to do about a problem, in the words of the tools that write its files.

        By kind of problem: ``missing``, ``stray`` and ``batch_norms`` of conversion, and
        ``saturation``. Gates have general words for a kind that is not there. ``exact sums`` says
        why kernels saturate on no CPU.
        """

    def availability(self) -> str | None:
        """None if this installation and CPU can run it, else the reason why not."""

    def refusal(self, recipe: Recipe) -> str | None:
        """None if it can run here and quantize a recipe's model, else the reason why not."""

    def saturates(self, instructions: str | None = None) -> bool:
        """Whether full-range 8-bit operands saturate on an instruction set (default: here)."""

    def build(
        self,
        model: nn.Module,
        recipe: Recipe | CompletedRecipe,
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
            UserError: The backend cannot be used here, there are no calibration images, or the
                recipe does not fit the model or says that it cannot be done.
        """

    def build_float(
        self, model: nn.Module | TracedModel, name: str, example: Tensor, path: Path
    ) -> Artifact:
        """Save the float32 model in the same container.

        Args:
            model: Float32, evaluation mode; traced, if its trace is needed anyway.
            name: Architecture.
            example: One input, ``N×C×H×W`` float32.
            path: The file to write.
        """

    def float_lowerings(self, artifact: Artifact) -> dict[str, Model]:
        """Ways to run a float32 artifact on this runtime by name, that of the file itself first."""

    def load(self, path: Path, threads: int | None = None) -> Model:
        """Load a file; the caller must trust it or have tried it out in a child process.

        Args:
            path: Of this runtime.
            threads: Number of threads to run with; None: as many as the process uses.

        Raises:
            Exception: Whatever the runtime raises; :meth:`reason` shortens it.
        """

    def load_exact(self, path: Path, threads: int | None = None) -> Model | None:
        """Load a file so that its kernels add without saturation, where others would saturate.

        Returns:
            None if nothing saturates on this CPU, or the runtime has no such way.
        """

    def simulation(self, path: Path) -> Model:
        """Load a file so that it computes in float32 what it says, operator by operator.

        Values are rounded where the file says so, and nowhere else; weights are the numbers that
        its integers stand for.

        Raises:
            SimulationError: The runtime has no such way, or the file has an operator without one.
        """

    def active_engine(self) -> str:
        """The engine that executes what this process runs on the runtime at the moment."""

    def layers(self, path: Path) -> Graph:
        """Read what a file really contains, in execution order."""

    def exact(self, path: Path, images: Tensor, phases: Phases | None = None) -> ExactRun:
        """Run a file and record what each int8 layer reads and writes.

        Args:
            path: An int8 file of this runtime.
            images: A few, ``N×C×H×W`` float32; all inputs and outputs are held in memory.
            phases: Where the forward pass is counted.

        Returns:
            The graph with whatever traffic could be recorded; a runtime that cannot show any
            returns none, and its reason.
        """

    def probe(self) -> Mapping[str, float]:
        """Share of the true value that full-range layers compute, by kind of layer.

        1 is exact. Empty if the runtime cannot execute a layer on its own.
        """

    def slow_layers(self, graph: Graph) -> str:
        """What it has no fast kernel for in the graph of a file, as a sentence with a remedy.

        Empty if there is nothing of that kind.
        """

    def files(self, path: Path) -> tuple[Path, ...]:
        """All files that an artifact consists of, that of its name first."""

    def recognize(self, path: Path) -> ArtifactInfo | None:
        """Check that a file is of this runtime and undamaged, without running any of it.

        Returns:
            What the file records about itself; None if ptqbench did not build it.

        Raises:
            UserError: It is missing, damaged or of another kind.
        """

    def reason(self, error: Exception) -> str:
        """The reason in an error of the runtime, without its own tracebacks."""
