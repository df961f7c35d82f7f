"""Parse a data specifier: the name of a data set with its root, or a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ptqbench.core.names import nearest
from ptqbench.core.paths import exists, is_dir, is_file, user_path
from ptqbench.errors import UserError

FIXTURE = "fixture"
CIFAR10 = "cifar10"
IMAGENET = "imagenet"
FOLDER = "folder"

FORMS = (FIXTURE, CIFAR10, f"{CIFAR10}:ROOT", f"{IMAGENET}:ROOT")
"""Specifiers other than a folder."""

ALLOWED = "`fixture`, `cifar10`, `cifar10:ROOT`, `imagenet:ROOT` or the path of a folder"
"""All forms of a specifier, for messages."""

CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
CIFAR10_FILES = (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta")
"""Where torchvision looks for CIFAR-10 below its root."""

IMAGENET_META = ("meta.bin", "ILSVRC2012_devkit_t12.tar.gz")
IMAGENET_VAL = ("val", "ILSVRC2012_img_val.tar")
"""What torchvision looks for below ImageNet's root; of each pair one is enough."""


@dataclass(frozen=True)
class Source:
    """A source of images.

    Attributes:
        kind: ``fixture``, ``cifar10``, ``imagenet`` or ``folder``.
        path: The folder, or the root of the data set; None: ptqbench's cache.
    """

    kind: str
    path: Path | None = None


def read_source(text: str) -> Source:
    """Parse a specifier, without checking that the source exists.

    ``./cifar10`` names a folder that is called like a data set.

    Raises:
        UserError: A data set is named without the root that it needs.
    """
    name, colon, root = text.partition(":")
    if text == FIXTURE:
        return Source(FIXTURE)
    if name == CIFAR10 and (root or not colon):
        return Source(CIFAR10, user_path(root) if root else None)
    if name == IMAGENET and root:
        return Source(IMAGENET, user_path(root))
    if name in (CIFAR10, IMAGENET):
        raise UserError(
            f"The images {text} need the folder that they are in, like {name}:/data/{name}. "
            f"{_expected(name)}"
        )
    return Source(FOLDER, user_path(text))


def resolved(text: str, folder: Path) -> str:
    """Return a specifier of the same source that does not depend on the working folder.

    Args:
        text: As the user wrote it.
        folder: Where relative paths start.

    Raises:
        UserError: A data set is named without the root that it needs.
    """
    source = read_source(text)
    if source.path is None:
        return text
    path = folder / source.path
    if source.kind != FOLDER:
        return f"{source.kind}:{path}"
    # `Path` drops the `./` that tells a folder from the data set of the same name.
    plain = str(path)
    return plain if _means_folder(plain) else str(path.absolute())


def check_source(text: str, origin: str = "") -> None:
    """Fail early if a source does not exist.

    Args:
        text: As the user wrote it.
        origin: Who set it, for the message.

    Raises:
        UserError: A folder does not exist, or a data set is not complete.
    """
    source = read_source(text)
    place = f"{text} ({origin})" if origin else text
    if source.kind == FOLDER and source.path is not None and not is_dir(source.path):
        hint = nearest(text, list(FORMS))
        raise UserError(
            f"There are no images at {place}: it is neither a folder nor the name of a data set "
            f"({', '.join(FORMS)}). {hint if hint.startswith('Did') else ''}".rstrip()
            + " A folder holds one folder of images per class, or images without labels."
        )
    if source.kind == CIFAR10 and source.path is not None:
        check_cifar10(source.path)
    if source.kind == IMAGENET and source.path is not None:
        _check_imagenet(source.path)


def check_cifar10(root: Path) -> None:
    """Check that CIFAR-10's files, or their archive, are in a folder.

    Raises:
        UserError: They are not.
    """
    _check_root(root, CIFAR10)
    folder = root / CIFAR10_FOLDER
    missing = [name for name in CIFAR10_FILES if not is_file(folder / name)]
    if missing and not is_file(root / CIFAR10_ARCHIVE):
        above = f" Name the folder above it, {root.parent}." if root.name == folder.name else ""
        raise UserError(
            f"CIFAR-10 is not in {root}: {folder / missing[0]} is missing.{above} "
            f"{_expected(CIFAR10)}"
        )


def _check_imagenet(root: Path) -> None:
    _check_root(root, IMAGENET)
    for names in (IMAGENET_META, IMAGENET_VAL):
        if not any(exists(root / name) for name in names):
            raise UserError(
                f"ImageNet is not in {root}: there is neither {names[0]} nor {names[1]}. "
                f"{_expected(IMAGENET)}"
            )


def _check_root(root: Path, name: str) -> None:
    if not is_dir(root):
        raise UserError(f"The folder {root} of {name}:{root} does not exist. {_expected(name)}")


def _expected(name: str) -> str:
    if name == CIFAR10:
        return (
            f"Expected there: the folder {CIFAR10_FOLDER} with {CIFAR10_FILES[0]} … "
            f"{CIFAR10_FILES[-1]}, or the archive {CIFAR10_ARCHIVE}. Without a folder, `cifar10` "
            "is downloaded."
        )
    return (
        f"Expected there, as torchvision makes it: {IMAGENET_META[0]} (or {IMAGENET_META[1]}) and "
        f"{IMAGENET_VAL[0]}/ with one folder per synset (or {IMAGENET_VAL[1]}); and train/, if "
        "calibration images are to come from there."
    )


def _means_folder(text: str) -> bool:
    try:
        return read_source(text).kind == FOLDER
    except UserError:
        return False
