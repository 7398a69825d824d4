"""A budgets file in place of what it was: whole, checked, and only where nobody else has changed it meanwhile."""

from __future__ import annotations

import codecs
import shutil
from collections.abc import Callable
from pathlib import Path

from pytest_modelopt.results.files.atomic_files import write_text


def replace_text(path: Path, text: str, before: str, *, check: Callable[[Path], None]) -> None:
    """Replace `before`, the content of the file (the one that a link names), by `text`, once `check` has seen it.

    Raises:
        ValueError: where the file holds something else by now, and what `check` raises; then nothing is written.
    """
    path = path.resolve()
    raw = path.read_bytes()
    if raw.decode("utf-8-sig", errors="replace") != before:
        raise ValueError(f"{path} was changed by others meanwhile, so nothing was written: run it again")

    def check_first(new: Path) -> None:
        check(new)
        shutil.copymode(path, new)

    mark = "\N{ZERO WIDTH NO-BREAK SPACE}" if raw.startswith(codecs.BOM_UTF8) else ""
    write_text(mark + text, path, check=check_first)
