"""Examples in the documents that users read: blocks of code, the files that they are, and lines that call a command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"`([\w./]+\.(?:py|yaml|ini))`[^`\n]*:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CALL = re.compile(r"(?:    |\$ )?((?:pytest-modelopt [a-z]|pytest --modelopt).*)")


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """(page and number, text) of each block in that language."""
    for page in PAGES:
        found = [text for name, text in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]
        yield from ((f"{page.name} {number}", text) for number, text in enumerate(found, start=1))


def block(page: str, language: str, number: int = 1) -> str:
    """The text of one block of a page."""
    return dict(blocks(language))[f"{page} {number}"]


def files(page: str) -> dict[str, str]:
    """By path, the blocks of a page that are files: the line above names the path in backticks, ends with a colon."""
    return dict(_NAMED.findall((ROOT / "docs" / page).read_text(encoding="utf-8")))


def calls(page: Path) -> Iterator[str]:
    """The lines of a page that call pytest or our command: in blocks of any form."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if match := _CALL.match(line):
            yield match[1]
