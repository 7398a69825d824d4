"""What commands print of records in documentation/records/, as README.md and docs/ show it.

`python -m documentation.outputs` writes these blocks again. A block begins with the command behind `$ `, perhaps with a
pipe into `head` or `grep`.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
from pathlib import Path
from unittest import mock

from pytest_modelopt.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
WIDTH = "120"
"""Columns of a block of code on GitHub, and of the site."""
_BLOCK = re.compile(
    r"^```\n(\$ pytest-modelopt (report documentation/records/[^|\n]+)(?:\| ((?:head|grep) .+))?)\n(?:.*\n)*?```$",
    re.MULTILINE,
)


def renewed(text: str) -> str:
    """The text of a page, with each block as its command prints it now."""
    return _BLOCK.sub(lambda block: f"```\n{block[1]}\n{_printed(block[2], block[3])}\n```", text)


def _printed(arguments: str, pipe: str | None) -> str:
    command, record, *more = shlex.split(arguments)
    out = io.StringIO()
    with mock.patch.dict(os.environ, COLUMNS=WIDTH), contextlib.redirect_stdout(out):
        main([command, str(ROOT / record), *more])
    told = out.getvalue()
    if pipe:
        told = subprocess.run(shlex.split(pipe), input=told, capture_output=True, text=True, check=True).stdout
    return "\n".join(line.rstrip() for line in told.strip("\n").split("\n"))


if __name__ == "__main__":
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(renewed(text), encoding="utf-8")
