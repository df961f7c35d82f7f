"""Export a module as a program, for any number of images and, where possible, any size.

Sizes that are open make a program several times as large and slow to load. So it is exported for
images of one size, and executed at another one; only if it then computes something else, its sizes
are opened, too.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ptqbench.backends.inductor.pt2_archive import Pt2Archive
from ptqbench.backends.inductor.pt2_program import read_program
from ptqbench.core.silence import silence

_BATCH = 2
"""Images in the example of an export: torch takes a batch of one for a constant."""
_LARGER = 32
"""Pixels by which the images are larger that show whether a program takes other sizes."""
_TOLERANCE = 0.1
"""Norm of the difference of logits relative to that of the logits: what rounding the other way may
change in a simulated model. A wrong shape gives an error or other logits altogether."""


def export(module: nn.Module, example: Tensor, extra: Mapping[str, str] | None = None) -> bytes:
    """Export a module.

    Args:
        module: In evaluation mode.
        example: One input, ``1×C×H×W`` float32.
        extra: Texts to put into the file, by name.

    Returns:
        The content of a file: without images, and without the lines of source that it comes from.

    Raises:
        Exception: Whatever torch raises for a module that it cannot export.
    """
    images = example[:1].repeat(_BATCH, 1, 1, 1)
    larger = _larger(module, example[:1])
    content = _saved(_exported(module, images, (0,)), extra)
    others = [example[:1], *([] if larger is None else [larger])]
    if _agree(module, content, others):
        return content
    if larger is not None:
        opened = _saved(_exported(module, images, (0, 2, 3)), extra)
        if _agree(module, opened, others):
            return opened
    if _agree(module, content, others[:1]):
        return content
    return _saved(_exported(module, example[:1], ()), extra)


def _larger(module: nn.Module, example: Tensor) -> Tensor | None:
    """Images of another size, if the module takes them and gives as many logits."""
    images = torch.nn.functional.pad(example, (0, _LARGER, 0, _LARGER), mode="replicate")
    try:
        with torch.inference_mode():
            return images if module(images).shape == module(example).shape else None
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError):
        return None


def _exported(module: nn.Module, images: Tensor, sizes: tuple[int, ...]) -> ExportedProgram:
    """Export with some dimensions of the images open, as far as the module allows that."""
    shapes = ({place: Dim.AUTO if place in sizes else Dim.STATIC for place in range(4)},)
    with torch.no_grad(), silence():
        program = torch.export.export(module, (images.clone(),), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta = {key: value for key, value in node.meta.items() if key == "val"}
    program._example_inputs = None
    return program


def _saved(program: ExportedProgram, extra: Mapping[str, str] | None) -> bytes:
    # In memory: written to a path, the archive is named after the file.
    whole = io.BytesIO()
    with silence():
        torch.export.save(program, whole, extra_files=dict(extra or {}))
    return _compressed(whole)


def _compressed(archive: io.BytesIO) -> bytes:
    """An archive with its structure compressed, which is a fifth of the size of small networks."""
    whole = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(whole, "w") as target:
        for entry in source.infolist():
            written = zipfile.ZipInfo(entry.filename)
            if entry.filename.endswith(".json"):
                written.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(written, source.read(entry))
    return whole.getvalue()


def _agree(module: nn.Module, content: bytes, inputs: list[Tensor]) -> bool:
    """Whether a program computes what the module does."""
    program = read_program(Pt2Archive(content)).module()
    for images in inputs:
        with torch.inference_mode():
            expected = module(images)
            try:
                logits = program(images)
            except (RuntimeError, ValueError, IndexError):  # sizes that do not fit
                return False
        if logits.shape != expected.shape:
            return False
        if float((logits - expected).norm()) > _TOLERANCE * float(expected.norm()):
            return False
    return True
