"""A loaded program as a function from images to logits."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ptqbench.backends.inductor.inductor_lowering import lower
from ptqbench.backends.inductor.pt2_archive import Pt2Archive
from ptqbench.backends.inductor.pt2_program import Program, read_program


def open_program(path: Path) -> Program:
    """Read the program in a file."""
    return read_program(Pt2Archive(path))


class InductorModel:
    """A loaded file, lowered to Inductor's kernels or executed operator by operator.

    Args:
        path: The file.
        threads: Number of threads to run with; None: as many as torch is set to.
        lowered: Whether Inductor's passes are applied.

    Raises:
        RuntimeError: Inductor cannot lower it.
    """

    def __init__(self, path: Path, threads: int | None = None, *, lowered: bool = True) -> None:
        program = open_program(path)
        self._layout = torch.channels_last if lowered else torch.contiguous_format
        self.module = lower(program).module if lowered else program.module()
        self._threads = threads

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``N×K`` float32 of images ``N×C×H×W`` float32."""
        if self._threads is not None and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        # oneDNN's layout: the first kernel would change it for integers, which takes longer.
        logits: Tensor = self.module(images.contiguous(memory_format=self._layout))
        return logits
