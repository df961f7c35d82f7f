"""What is compared: each way to quantize and execute a network, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.peer_runtimes import onnx_runtime, openvino_nncf
from ptqbench.backends.backend import Model
from ptqbench.data.image_set import ImageSet
from ptqbench.evaluation.subject import Subject

ONNX_FLOAT, OPENVINO_FLOAT = "float32.onnx", "float32.xml"
ONNX_FULL, ONNX_REDUCED = "full-range.onnx", "reduced-range.onnx"
Load = Callable[[Path, int, tuple[int, ...]], Model]


@dataclass(frozen=True)
class SingleImages:
    """The first images of a set one by one, from the beginning each time they are iterated over.

    Attributes:
        images: The set.
        count: How many.
    """

    images: ImageSet
    count: int

    def __iter__(self) -> Iterator[Tensor]:
        return (pixels for pixels, _ in self.images.batches(0, self.count, 1))


def calibration_images(subject: Subject) -> SingleImages:
    """Return the images that the subject's recipe calibrates with."""
    images = subject.data.calibration
    return SingleImages(images, min(subject.recipe.calibration_images, images.count))


@dataclass(frozen=True)
class Candidate:
    """A way to execute a network.

    Attributes:
        name: In the record and in documents.
        file: What it executes, in the network's folder; candidates may share one.
        build: Writes that file: from the subject, and the file's path.
        load: Reads it: from its path, the number of threads and the shape of the images.
        batch_size: Images of a call.
    """

    name: str
    file: str
    build: Callable[[Subject, Path], object]
    load: Load
    batch_size: int = 1


def _float(subject: Subject, path: Path, export: Callable[..., None]) -> None:
    image = subject.inspection_images()[:1]
    any_size = image.shape != subject.latency.example()[:1].shape
    export(subject.model, image, path, any_size=any_size)


def _onnx(subject: Subject, path: Path, reduce_range: bool) -> None:
    images = calibration_images(subject)
    onnx_runtime.quantize(path.with_name(ONNX_FLOAT), images, path, reduce_range=reduce_range)


def _nncf(subject: Subject, path: Path, how: openvino_nncf.Setting) -> None:
    images = calibration_images(subject)
    openvino_nncf.quantize(path.with_name(OPENVINO_FLOAT), images, images.count, path, how)


def _peers() -> Iterator[Candidate]:
    onnx, openvino = onnx_runtime.load, openvino_nncf.load
    for name, file, runtime, load in (
        ("ONNX Runtime float32", ONNX_FLOAT, onnx_runtime, onnx),
        ("OpenVINO float32", OPENVINO_FLOAT, openvino_nncf, openvino),
    ):
        yield Candidate(name, file, partial(_float, export=runtime.export), load)
    reduced, full = partial(_onnx, reduce_range=True), partial(_onnx, reduce_range=False)
    exact: Any = partial(onnx, exact=True)
    yield Candidate("ONNX Runtime 7-bit weights", ONNX_REDUCED, reduced, onnx)
    yield Candidate("ONNX Runtime 8-bit weights", ONNX_FULL, full, onnx)
    yield Candidate("ONNX Runtime 8-bit exact", ONNX_FULL, full, exact)
    for how in openvino_nncf.SETTINGS:
        yield Candidate(f"NNCF {how}", f"nncf-{how}.xml", partial(_nncf, how=how), openvino)


PEERS = tuple(_peers())
"""The other runtimes; what is quantized comes after what it is quantized from."""
