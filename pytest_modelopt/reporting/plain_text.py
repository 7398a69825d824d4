"""Text from a record made safe to print: names, messages and a worker's output may hold anything."""

from __future__ import annotations

import re
import unicodedata

_TERMINAL_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # titles, links
    r"|\x1b[ -/]*[0-~]?"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
_COMMAND = re.compile(r"##(?=\w*\[)")
_LINE_BREAK = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def plain_line(text: str) -> str:
    """`text` on one line: no control or invisible characters; runs of white space are one blank."""
    return " ".join(_visible(line) for line in plain_lines(text)).strip()


def no_command(line: str) -> str:
    """A line that no CI system takes for a command: GitHub's begin with '::', or hold '##[', others hold '##vso['."""
    if line.lstrip().startswith("::"):
        line = line.replace("::", ": :", 1)
    return _COMMAND.sub("## ", line)


def printed(line: str) -> str:
    """A line of a text as it may be written to a terminal or a log, its indentation kept: the last step before that."""
    line = _LINE_BREAK.sub(" ", _TERMINAL_SEQUENCE.sub("", line))
    return no_command(_printable(line.expandtabs(4)))


def plain_lines(text: str) -> list[str]:
    """`text` as lines without control characters; a carriage return ends a line, blank lines at both ends go."""
    lines = _LINE_BREAK.split(_TERMINAL_SEQUENCE.sub("", text))
    return "\n".join(_printable(line.expandtabs(4)).rstrip() for line in lines).strip("\n").split("\n")


def _visible(line: str) -> str:
    return " ".join(line.split())


def _printable(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(_character(character) for character in text)


def _character(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cs", "Co", "Cn"):
        return "\N{REPLACEMENT CHARACTER}"
    if category in ("Zs", "Zl", "Zp"):
        return " "
    return "" if category in ("Cc", "Cf") else character
