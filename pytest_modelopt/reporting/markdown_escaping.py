"""Text of a record in GitHub Markdown, where it can become no structure, no mention and no link."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_modelopt.reporting.plain_text import plain_line


def escape(text: str) -> str:
    """`text` on one line, as text and nothing else, wherever in a line of GitHub Markdown it stands."""
    return _SPECIAL.sub(_escaped, plain_line(text))


# As a number, a character is text and never structure, nor a command to a CI system, which begins with two colons. An
# underscore inside a word is text anyway.
_STRUCTURE = r"[&<>|\\`*~\[\]$]|(?<![^\W_])_|_(?![^\W_])|\A[-+=:]"
# GitHub makes links and pictures of these in any text, whatever its escapes: mentions, references to issues,
# addresses, `:white_check_mark:`. An empty comment breaks them up without changing what is read or copied; so it does
# with a number that would begin a list.
_EMOJI = r":(?=(?:100|1234|[+-]1):|(?=[\w+-]{1,80}:)[\w+-]*?[a-z])"  # of a bounded length: no text takes long
_LINKING = rf"[@#]|\A\d+(?=[.)])|(?<![^\W_])(?:www(?=\.)|gh(?=-\d))|:(?=//)|{_EMOJI}"
_SPECIAL = re.compile(f"(?P<linking>{_LINKING})|(?P<structure>{_STRUCTURE})", re.IGNORECASE)


def _escaped(match: re.Match[str]) -> str:
    if match["linking"]:
        return f"{match[0]}<!-- -->"
    return f"&#{ord(match[0])};"


def fenced(lines: Sequence[str]) -> str:
    """`lines` as a code block, behind a fence that is longer than any run of backticks in them."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}text", *lines, fence])
