"""Try out a file that ptqbench did not build: does it take images and return logits?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ptqbench.backends.artifact import Artifact
from ptqbench.backends.backend import Backend, Model
from ptqbench.errors import UserError

_SIZES = (224, 32, 64, 96, 128, 160, 192, 240, 256, 260, 288, 299, 300, 320, 380, 384, 448, 512)
"""Sides of square inputs that classifiers are usually trained for."""
_ROUNDED = 0.02
"""Probabilities that were rounded to 8 bits add up to 1 within that."""


class NotRunningError(Exception):
    """The file fails on every input; a property of the artifact, not a usage error.

    Attributes:
        loads: Whether it can be loaded, so that its graph can be read.
    """

    def __init__(self, reason: str, *, loads: bool) -> None:
        super().__init__(reason)
        self.loads = loads


@dataclass(frozen=True)
class Behaviour:
    """How a file takes batches and what it returns.

    Attributes:
        one_at_a_time: Whether it only takes batches of one image.
        probabilities: Whether its outputs are probabilities, not logits.
    """

    one_at_a_time: bool = False
    probabilities: bool = False


@dataclass(frozen=True)
class ForeignArtifact(Artifact):
    """An int8 file that ptqbench did not build, or that is judged on another backend.

    Attributes:
        behaviour: How it takes batches and what it returns.
    """

    behaviour: Behaviour = Behaviour()

    def on(self, backend: Backend) -> ForeignArtifact:
        """The same file, to be loaded on another backend."""
        return replace(self, info=replace(self.info, backend=backend.name, engine=backend.engine))

    def load(self, threads: int | None = None) -> Model:
        """Load the file on the backend that it is judged on; see ``Artifact.load``."""
        return self._in_its_batches(super().load(threads))

    def simulation(self) -> Model:
        """Load the file to be computed in float32; see ``backend.Backend.simulation``."""
        return self._in_its_batches(super().simulation())

    def _in_its_batches(self, model: Model) -> Model:
        if not self.behaviour.one_at_a_time:
            return model

        def run(images: Tensor) -> Tensor:
            return torch.cat([model(image) for image in images.split(1)])

        return run


def try_out(
    backend: Backend, path: Path, images: Tensor, classes: int, latency: Tensor
) -> Behaviour:
    """Run a file once on everything that it will have to do.

    The file may take the process down: this runs in a child process
    (``measurement.replay.ReplayProcess.try_out``).

    Args:
        backend: What it is judged on.
        path: The file.
        images: A few of the data, ``N×C×H×W`` float32.
        classes: Number of logits of the float32 model.
        latency: The input at which latency is measured, ``N×C×H×W`` float32.

    Raises:
        NotRunningError: It cannot be loaded there, or runs on no input.
        UserError: It runs, but on other inputs or with other outputs than it should.
    """
    try:
        model = backend.load(path)
    except Exception as error:  # there is no list of what foreign files raise
        raise NotRunningError(backend.reason(error), loads=False) from None
    trial = _Trial(backend, path, model)
    logits = trial.run(images[:1])
    if isinstance(logits, Exception):
        trial.check_size(images, logits)
        raise NotRunningError(backend.reason(logits), loads=True)
    checked = _checked_logits(path, logits, classes)
    several = trial.run(torch.cat([images[:1]] * 2))
    single = not isinstance(several, Tensor) or several.shape != (2, classes)
    trial.check_latency(latency, single)
    sums_to_1 = bool((checked >= 0).all()) and abs(float(checked.sum()) - 1) < _ROUNDED
    return Behaviour(single, sums_to_1)


@dataclass(frozen=True)
class _Trial:
    backend: Backend
    path: Path
    model: Callable[[Tensor], object]

    def run(self, images: Tensor) -> object:
        """The output of the model, or the error that it raises."""
        try:
            with torch.inference_mode():
                return self.model(images)
        except Exception as error:  # as in try_out
            return error

    def check_size(self, images: Tensor, error: Exception) -> None:
        """Look for a size of image that the file runs on, if it does not run on the data's."""
        channels, height, width = images.shape[1:]
        for size in _SIZES:
            if size not in (height, width) and isinstance(
                self.run(torch.zeros(1, channels, size, size)), Tensor
            ):
                raise UserError(
                    f"{self.path} does not run on images of {height}×{width} "
                    f"({self.backend.reason(error)}), but on images of {size}×{size}. Prepare "
                    f"them as it was trained: --resize and --crop {size}, or a FILE.json next "
                    "to the weights."
                )

    def check_latency(self, latency: Tensor, single: bool) -> None:
        """Check that the file runs on the input that latency is measured at."""
        shape = "×".join(map(str, latency.shape))
        if single and len(latency) > 1:
            raise UserError(
                f"{self.path} takes one image at a time, but latency is to be measured at "
                f"{shape}. Leave --batch-size at 1."
            )
        result = self.run(latency)
        if isinstance(result, Exception):
            raise UserError(
                f"{self.path} runs on the images, but not on the input that latency is measured "
                f"at, {shape}: {self.backend.reason(result)}. Set the size that it was exported "
                "for with --input-size."
            )


def _checked_logits(path: Path, logits: object, classes: int) -> Tensor:
    if not isinstance(logits, Tensor):
        raise UserError(
            f"{path} returns a {type(logits).__name__} instead of logits. ptqbench judges "
            "classifiers that return one tensor, a row of logits per image: save one that does."
        )
    if logits.is_quantized or logits.dtype != torch.float32:
        raise UserError(
            f"{path} returns outputs of type {str(logits.dtype).removeprefix('torch.')} instead of "
            "float32 logits. End the model with what dequantizes them (a DeQuantStub, a "
            "DequantizeLinear), or convert them."
        )
    if logits.shape != (1, classes):
        shape = "×".join(map(str, logits.shape))
        what = f"{logits.shape[1]} classes" if logits.ndim == 2 else f"outputs of shape {shape}"
        raise UserError(
            f"{path} returns {what} for an image, but the float32 model has {classes} classes. "
            "Name the model and the weights that the file was built from (--model, --weights)."
        )
    return logits
