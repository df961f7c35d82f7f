"""The file that ships, and what it records about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptqbench.core.names import safe_file_name
from ptqbench.errors import UserError

if TYPE_CHECKING:
    from ptqbench.backends.backend import Backend, Model


def int8_file_name(model: str, backend: Backend) -> str:
    """Name of the int8 artifact of a model for a backend."""
    return f"{safe_file_name(model)}-{backend.name}.int8{backend.suffix}"


@dataclass(frozen=True)
class ArtifactInfo:
    """What an artifact records about itself.

    Attributes:
        precision: ``int8`` or ``float32``.
        backend: Name of the backend that it was built for.
        engine: Engine of the runtime that it must be loaded and run under.
        model: Architecture.
        recipe_hash: Hash of the recipe that it was built with, empty for float32.
        flow: How it was quantized (``fx`` or ``eager``), empty for float32.
        instruction_set: Of the CPU that it was built for.
        calibration_images: Number of images that the ranges were observed on.
        runtime: Runtime that wrote it, with its version.
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
    runtime: str = ""
    build: Mapping[str, object] | None = None


def parse_info(text: str, path: Path) -> ArtifactInfo:
    """Read what an artifact records about itself.

    Args:
        text: JSON.
        path: Of the artifact, for messages.

    Raises:
        UserError: Another version of ptqbench built it, with metadata that this one does not
            know.
    """
    try:
        info = ArtifactInfo(**json.loads(text))
        for name, value in vars(info).items():
            types = {"calibration_images": int, "build": dict | None}.get(name, str)
            if not isinstance(value, types):
                raise TypeError(f"{name} is a {type(value).__name__}")
    except (ValueError, TypeError, RecursionError):
        raise UserError(
            f"{path} carries metadata that this version of ptqbench does not know. Build it "
            "again with ptqbench.quantize."
        ) from None
    return info


@dataclass(frozen=True)
class Artifact:
    """A saved model; measurements load the file and never see the object it was built from.

    Attributes:
        path: The file.
        info: What it records about itself.
    """

    path: Path
    info: ArtifactInfo

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that ship."""
        from ptqbench.backends.backend_registry import BACKENDS

        return BACKENDS.get(self.info.backend).files(self.path)

    @property
    def size_bytes(self) -> int:
        """Size in bytes of all files that ship."""
        return sum(file.stat().st_size for file in self.files)

    def load(self, threads: int | None = None) -> Model:
        """Load the file on its backend.

        Args:
            threads: Number of threads to run with; None: as many as the process uses.

        Returns:
            A function from ``N×C×H×W`` float32 to logits ``N×K`` float32, which runs on
            the artifact's backend whatever else is loaded.

        Raises:
            UserError: The file no longer exists or cannot be loaded there.
        """
        from ptqbench.backends.backend_registry import BACKENDS

        backend = BACKENDS.get(self.info.backend)
        try:
            return backend.load(self.path, threads)
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(
                f"{self.path} cannot be loaded under {backend.engine}: {backend.reason(error)}"
            ) from None

    def simulation(self) -> Model:
        """Load the file to be computed in float32; see ``backend.Backend.simulation``."""
        from ptqbench.backends.backend_registry import BACKENDS

        return BACKENDS.get(self.info.backend).simulation(self.path)

    @classmethod
    def open(cls, path: str | Path) -> Artifact:
        """Read an artifact's description without loading the model.

        Raises:
            UserError: The file is damaged, of no known kind, or was not built by ptqbench.
        """
        from ptqbench.backends.backend_registry import recognize

        path = Path(path)
        info = recognize(path).info
        if info is None:
            raise UserError(
                f"{path} is not an artifact of ptqbench: it does not record the engine that it "
                "was built for. Build one with ptqbench.quantize, or judge the file as it is: "
                "ptqbench gate --artifact FILE --backend NAME."
            )
        return cls(path, info)
