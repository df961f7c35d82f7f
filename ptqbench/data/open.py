"""Open the images that a data specifier names."""

from __future__ import annotations

from ptqbench.core.progress import Progress, silent
from ptqbench.data.cifar10 import open_cifar10
from ptqbench.data.fixture.images import open_fixture
from ptqbench.data.folder import open_folder
from ptqbench.data.image_set import Data
from ptqbench.data.imagenet import open_imagenet
from ptqbench.data.preprocessing import Preprocessing
from ptqbench.data.split import DataOptions
from ptqbench.settings.data_specifier import CIFAR10, FIXTURE, IMAGENET, check_source, read_source
from ptqbench.settings.run_settings import RunSettings


def open_source(
    text: str,
    preprocessing: Preprocessing,
    *,
    classes: tuple[str, ...] | None,
    num_classes: int,
    seed: int = 0,
    reading: RunSettings | None = None,
    progress: Progress = silent,
) -> Data:
    """Open the images that a data specifier names.

    Args:
        text: ``fixture``, ``cifar10[:ROOT]``, ``imagenet:ROOT`` or the path of a folder.
        preprocessing: Preprocessing of the images.
        classes: Class names of the weights in output order, or None if they are not known.
        num_classes: Number of outputs of the weights.
        seed: Seed of the choice of calibration images and samples.
        reading: How many evaluation images to use, how many threads decode, and how many
            pictures may be broken.
        progress: Progress callback while fixture images are rendered.

    Raises:
        UserError: The images do not exist, cannot be read, or have other classes than the weights.
    """
    reading = reading or RunSettings()
    check_source(text)
    source = read_source(text)
    if source.kind == FIXTURE:
        return open_fixture(preprocessing, progress=progress, limit=reading.limit)
    options = DataOptions(preprocessing, classes, num_classes, seed, reading=reading)
    if source.kind == CIFAR10:
        return open_cifar10(source.path, options)
    assert source.path is not None
    opener = open_imagenet if source.kind == IMAGENET else open_folder
    return opener(source.path, options)
