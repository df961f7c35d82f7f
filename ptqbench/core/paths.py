"""Handle paths as users write them: ``~``, and text that cannot be a file name."""

from __future__ import annotations

import os
from pathlib import Path

from ptqbench.errors import UserError


def user_path(text: str | Path) -> Path:
    """Expand ``~`` and ``~name`` at the beginning of a path.

    Args:
        text: As a user wrote it.

    Raises:
        UserError: There is no user of that name, or the home folder is unknown.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        start = Path(text).parts[0]
        raise UserError(
            f"The path {text} begins with {start}, but the home folder of "
            f"{f'the user {start[1:]!r}' if start[1:] else 'the current user'} is not known. "
            f"Write the folder's full path, or ./{text} for a name that begins with ~."
        ) from None


def is_file(path: str | Path) -> bool:
    """Whether there is a regular file; an impossible path is simply not one.

    Args:
        path: May be too long or contain NUL.
    """
    return os.path.isfile(path)


def is_dir(path: str | Path) -> bool:
    """Whether there is a folder; an impossible path is simply not one.

    Args:
        path: May be too long or contain NUL.
    """
    return os.path.isdir(path)


def exists(path: str | Path) -> bool:
    """Whether there is anything at a path; nothing is at an impossible one.

    Args:
        path: May be too long or contain NUL.
    """
    return os.path.exists(path)
