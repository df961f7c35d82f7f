"""Files and logits shared by the processes of a session: computed once, by the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from ptqbench.backends.backend import Model
from ptqbench.core.atomic import atomic_path
from ptqbench.data.image_set import ImageSet, alike_in, broken_in, expected_labels


class SharedFolder:
    """A folder whose files are each written by one process and read by all.

    Args:
        path: The folder; created when first needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the file ``name``, written by ``make`` unless a process has written it already.

        Args:
            name: Of the file in the folder.
            make: Writes the file to the path passed to it. If it fails, nothing is left and
                the next process tries again.
        """

        def write(target: Path) -> None:
            with atomic_path(target) as temporary:
                make(temporary)

        return self.built(name, write)

    def built(self, name: str, build: Callable[[Path], object]) -> Path:
        """Return the artifact ``name``, built unless a process has built it already.

        Args:
            name: Of its file in the folder; further files of it lie beside that.
            build: Writes it to the path passed to it, whole or not at all, that file last.
        """
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        target = self.path / name
        with FileLock(f"{target}.lock"):
            if not target.exists():
                build(target)
        return target


class SharedLogits:
    """An image set whose logits are computed once per session and then looked up.

    Its batches hold positions instead of pixels, and its models return the logits that belong
    to positions. A measurement that only passes batches to models needs no pixels.

    Attributes:
        name: Name of the image set.
        classes: Its classes.
        labelled: Whether it has labels.
        expected_labels: Labels that have images in the data, evaluated or not.
        count: Images used at first.
        limit: Images there are.
        alike: Images decoded by any worker that show nothing of their own.

    Args:
        folder: Where logits are stored.
        images: The images.
        models: Loads a model, by the name under which its logits are stored.
        batch_size: Images in a forward pass.
    """

    def __init__(
        self,
        folder: SharedFolder,
        images: ImageSet,
        models: Mapping[str, Callable[[], Model]],
        batch_size: int,
    ) -> None:
        self.name, self.classes, self.labelled = images.name, images.classes, images.labelled
        self.expected_labels = expected_labels(images)
        self.count, self.limit = images.count, images.limit
        self._folder = folder
        self._images = images
        self._models = models
        self._batch_size = batch_size
        self._start = 0
        self._logits: dict[str, Tensor] = {}
        self._broken: dict[str, None] = {}
        self.alike = 0

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of the images that could not be decoded, by any worker."""
        return tuple(self._broken)

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions ``N`` int64 and labels ``N`` int64 of the images from start to stop."""
        labels = torch.empty(0, dtype=torch.int64)
        for name in self._models:
            self._logits[name], labels = self._chunk(name, start, stop)
        self._start = start
        for first in range(0, len(labels), batch_size):
            chosen = labels[first : first + batch_size]
            yield torch.arange(start + first, start + first + len(chosen)), chosen

    def content_hashes(self, start: int, stop: int) -> Iterator[str]:
        """Return the hashes of the image set."""
        return self._images.content_hashes(start, stop)

    def model(self, name: str) -> Model:
        """The model called ``name``: positions ``N`` to logits ``N×K`` float32."""

        def look_up(positions: Tensor) -> Tensor:
            return self._logits[name][positions - self._start]

        return look_up

    def _chunk(self, name: str, start: int, stop: int) -> tuple[Tensor, Tensor]:
        def make(path: Path) -> None:
            model = self._models[name]()
            logits, labels = [], []
            with torch.inference_mode():
                for pixels, classes in self._images.batches(start, stop, self._batch_size):
                    logits.append(model(pixels).numpy())
                    labels.append(classes.numpy())
            empty = np.empty((0, 0), np.float32)
            outputs = np.concatenate(logits) if logits else empty
            right = np.concatenate(labels) if labels else np.empty(0, np.int64)
            with path.open("wb") as file:
                broken = np.array(broken_in(self._images), dtype=np.str_)
                alike = np.int64(alike_in(self._images))
                np.savez(file, logits=outputs, labels=right, broken=broken, alike=alike)

        path = self._folder.once(f"{name}-{start}-{stop}.npz", make)
        with np.load(path, allow_pickle=False) as stored:
            self._broken |= dict.fromkeys(map(str, stored["broken"]))
            self.alike = max(self.alike, int(stored["alike"]))
            return torch.from_numpy(stored["logits"]), torch.from_numpy(stored["labels"])
