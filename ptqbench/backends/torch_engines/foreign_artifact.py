"""Load and try out TorchScript that somebody else made: does it take images, give logits?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ptqbench.backends.torch_engines.artifact import Artifact, EngineBound, load_script, reason_of
from ptqbench.backends.torch_engines.engine import engine_set
from ptqbench.errors import UserError

_SIZES = (224, 32, 64, 96, 128, 160, 192, 240, 256, 260, 288, 299, 300, 320, 380, 384, 448, 512)
"""Sides of square inputs that classifiers are usually made for."""
_ROUNDED = 0.02
"""Probabilities that were rounded to 8 bits add up to 1 within that."""
_NO_STUB = "with arguments from the 'CPU' backend"


class NotRunning(Exception):
    """A file that does what it should on no image: a defect, not a mistake of who asks.

    Attributes:
        loads: Whether it can be loaded, so that its graph can be read.
    """

    def __init__(self, reason: str, *, loads: bool) -> None:
        super().__init__(reason)
        self.loads = loads


@dataclass(frozen=True)
class GivenArtifact(Artifact):
    """An int8 file that somebody else made.

    Attributes:
        one_at_a_time: Whether it only takes batches of one image.
        probabilities: Whether its outputs are probabilities, and not logits.
    """

    one_at_a_time: bool = False
    probabilities: bool = False

    def under(self, engine: str) -> GivenArtifact:
        """The same file, to be loaded under another engine."""
        return replace(self, info=replace(self.info, engine=engine))

    def load(self) -> Callable[[Tensor], Tensor]:
        """Load the file under the engine that it is judged under.

        Returns:
            A function from ``N×C×H×W`` float32 to logits ``N×K`` float32.
        """
        model = super().load()
        if not self.one_at_a_time:
            return model

        def run(images: Tensor) -> Tensor:
            return torch.cat([model(image) for image in images.split(1)])

        return run


def try_out(given: GivenArtifact, images: Tensor, classes: int, latency: Tensor) -> GivenArtifact:
    """Run a file once on everything that it will have to do.

    Args:
        given: The file.
        images: A few of the data, ``N×C×H×W`` float32.
        classes: Number of logits of the float32 model.
        latency: The input at which latency is measured, ``N×C×H×W`` float32.

    Returns:
        The file, with how it takes batches and what it gives.

    Raises:
        NotRunning: It cannot be loaded under its engine, or runs on no input there.
        UserError: It runs, but on other inputs or with other outputs than are asked for.
    """
    path, engine = given.path, given.info.engine
    with engine_set(engine):
        try:
            model = EngineBound(load_script(path, engine), engine)
        except Exception as error:  # what strangers' files raise has no list
            raise NotRunning(reason_of(error), loads=False) from None
        logits = _run(model, images[:1])
        if isinstance(logits, Exception):
            _check_size(path, model, images, logits)
            raise NotRunning(_explained(logits), loads=True)
        checked = _checked_logits(path, logits, classes)
        several = _run(model, torch.cat([images[:1]] * 2))
        single = not isinstance(several, Tensor) or several.shape != (2, classes)
        _check_latency(path, model, latency, single)
    sums_to_1 = bool((checked >= 0).all()) and abs(float(checked.sum()) - 1) < _ROUNDED
    return GivenArtifact(path, given.info, single, sums_to_1)


def engines_that_run(path: Path, images: Tensor, engines: Iterable[str]) -> tuple[str, ...]:
    """The engines under which a file can be loaded and gives something for an image."""
    found = []
    for engine in engines:
        with engine_set(engine):
            try:
                model = EngineBound(load_script(path, engine), engine)
            except Exception:  # as in try_out
                continue
            if not isinstance(_run(model, images[:1]), Exception):
                found.append(engine)
    return tuple(found)


def _run(model: Callable[[Tensor], Tensor], images: Tensor) -> object:
    """What a model gives, or what it raises."""
    try:
        with torch.inference_mode():
            return model(images)
    except Exception as error:  # as in try_out
        return error


def _explained(error: Exception) -> str:
    reason = reason_of(error)
    if "quantized::" in reason and _NO_STUB in reason:
        reason += ": an int8 operator gets float input, so a QuantStub is missing in front of it"
    return reason


def _check_size(path: Path, model: EngineBound, images: Tensor, error: Exception) -> None:
    """Look for a size of image that the file runs on, if it does not run on the data's."""
    channels, height, width = images.shape[1:]
    for size in _SIZES:
        if size not in (height, width) and isinstance(
            _run(model, torch.zeros(1, channels, size, size)), Tensor
        ):
            raise UserError(
                f"{path} does not run on images of {height}×{width} ({reason_of(error)}), but on "
                f"images of {size}×{size}. Prepare them as it was trained: --resize and "
                f"--crop {size}, or a FILE.json beside the weights."
            )


def _checked_logits(path: Path, logits: object, classes: int) -> Tensor:
    if not isinstance(logits, Tensor):
        raise UserError(
            f"{path} gives a {type(logits).__name__} instead of logits. ptqbench judges "
            "classifiers that give one tensor, a row of logits per image: save one that does."
        )
    if logits.is_quantized or logits.dtype != torch.float32:
        raise UserError(
            f"{path} gives outputs of type {str(logits.dtype).removeprefix('torch.')} instead of "
            "float32 logits. End the model with a DeQuantStub, or convert its outputs."
        )
    if logits.shape != (1, classes):
        found = "×".join(map(str, logits.shape))
        what = f"{logits.shape[1]} classes" if logits.ndim == 2 else f"outputs of shape {found}"
        raise UserError(
            f"{path} gives {what} for an image, but the float32 model has {classes} classes. "
            "Name the model and the weights that the file was made from (--model, --weights)."
        )
    return logits


def _check_latency(path: Path, model: EngineBound, latency: Tensor, single: bool) -> None:
    shape = "×".join(map(str, latency.shape))
    if single and len(latency) > 1:
        raise UserError(
            f"{path} takes one image at a time, but latency is to be measured at {shape}. Leave "
            "--batch-size at 1."
        )
    result = _run(model, latency)
    if isinstance(result, Exception):
        raise UserError(
            f"{path} runs on the images, but not on the input that latency is measured at, "
            f"{shape}: {reason_of(result)}. Give the size that it is made for with --input-size."
        )
