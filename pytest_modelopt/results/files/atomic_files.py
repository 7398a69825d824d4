"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


def write_text(text: str, path: Path, *, check: Callable[[Path], None] | None = None) -> None:
    """Write `text` as UTF-8 to `path`, so that a reader sees the old file or the new one, never half of one.

    Missing parent folders are made. The text goes into a new file in the same folder, which then takes the name.
    `check` sees that file first: where it raises, nothing is kept.

    Raises:
        OSError: if the file cannot be written; its `filename` is `path`, and never the name that nobody knows.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():  # /dev/null would be replaced by a file
        raise OSError(errno.EINVAL, "this is a device or a pipe, no file", str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        if check is not None:
            check(temporary)
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # what fails while it is written, as on a full disk, has none
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # what could not be made need not go, and is not what went wrong
            temporary.unlink()


def require_writable(path: Path) -> None:
    """Raises OSError, as `write_text` does, where it could not write to `path` now. Nothing is left behind."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        with contextlib.suppress(_Enough):
            write_text(" " * 4096, path, check=_enough)
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()


class _Enough(Exception):
    """It can be written."""


def _enough(file: Path) -> NoReturn:
    raise _Enough(file)
