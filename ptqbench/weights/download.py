"""Download weights into the folder of torch.hub."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import IO

import torch.hub
from filelock import FileLock

from ptqbench.core.atomic import atomic_path
from ptqbench.core.paths import is_file
from ptqbench.core.progress import Progress, silent
from ptqbench.errors import UserError

_HASH = re.compile(r"-([0-9a-f]{8,})\.[^.]*$")
_CHUNK = 1 << 20
_TIMEOUT_S = 30


def file_name(url: str) -> str:
    """Return the name of the file at a URL."""
    return os.path.basename(urllib.parse.urlsplit(url).path)


def hash_prefix(url: str) -> str:
    """Return the beginning of a file's SHA-256 from its name (``resnet18-f37072fd.pth``)."""
    match = _HASH.search(file_name(url))
    return match.group(1) if match else ""


def checkpoints_folder() -> Path:
    """Return torch.hub's folder of weights: ``hub/checkpoints`` in the folder TORCH_HOME."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def fetch(url: str, progress: Progress = silent) -> Path:
    """Download a file unless it exists.

    An existing file is returned as it is; its reader checks its hash.

    Args:
        url: Address of the file.
        progress: Progress callback, in kilobytes.

    Returns:
        Path of the file.

    Raises:
        UserError: The file cannot be downloaded or written, or its hash is not the expected one.
    """
    path = checkpoints_folder() / file_name(url)
    if is_file(path):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The workers of pytest-xdist need the same file at the same time.
        with FileLock(path.with_name(f".{path.name}.lock")):
            if not is_file(path):
                _download(url, path, progress)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise UserError(_offline(url, path, error)) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"The weights {path} cannot be written: {reason}. Make room there, or set "
            "another folder in the environment variable TORCH_HOME."
        ) from None
    return path


def _download(url: str, path: Path, progress: Progress) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as source, atomic_path(path) as temporary:
        total = int(source.headers.get("Content-Length") or 0)
        sha256, done = _copy(source, temporary, total, f"download {path.name}", progress)
        prefix = hash_prefix(url)
        if not sha256.startswith(prefix) or (total and done != total):
            raise UserError(
                f"The file downloaded from {url} is not {path.name}: {done} of {total or done} "
                f"bytes, with a SHA-256 that begins with {sha256[: len(prefix) or 8]}. Try "
                f"again, or place the file in {path.parent}."
            )


def _copy(
    source: IO[bytes], target: Path, total: int, description: str, progress: Progress
) -> tuple[str, int]:
    digest, done = hashlib.sha256(), 0
    with target.open("wb") as file:
        while chunk := source.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            progress(description, done // 1000, max(total, done) // 1000)
    return digest.hexdigest(), done


def _offline(url: str, path: Path, error: Exception) -> str:
    reason = str(getattr(error, "reason", "") or error) or type(error).__name__
    home = os.environ.get("TORCH_HOME")
    chosen = f"TORCH_HOME={home} chooses" if home else "The environment variable TORCH_HOME chooses"
    return (
        f"The weights {path.name} are not in {path.parent} and cannot be downloaded ({reason}). "
        f"Get the file from {url} on a machine with a network, and place it as {path}. {chosen} "
        "the folder that contains hub/checkpoints."
    )
