"""GitHub Actions: annotations at the lines that state the limits, and the step summary."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Literal

from pytest_modelopt.reporting.base_summary import format_loosened
from pytest_modelopt.reporting.item import Item
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.reporting.sentences import items
from pytest_modelopt.results.record import Record

WORST_SHOWN = 9
"""GitHub shows ten annotations of a level and step, and drops the rest without a word: nine, and one for the rest."""
_STEP_SUMMARY_BYTES = 1024 * 1024

_Command = Literal["error", "warning", "notice"]


def annotations(record: Record, *, workspace: str | None, rootdir: str | Path) -> list[str]:
    """Workflow commands, one line each: an error for what is red, a warning for what is not kept and not red.

    A notice stands at each limit that head states less strictly than its base; an error where that is forbidden.

    Files in the record are relative to `rootdir`; GitHub wants them relative to `workspace` (its variable
    GITHUB_WORKSPACE). An annotation of a file outside of it, or in a run without it, stands at no line.
    """
    told = items(record)
    lines: list[str] = []
    loosened = _loosened(record)
    by_command: dict[_Command, list[Item]] = {
        "error": [*(item for item in told if item.severity == "error"), *(loosened if record.no_loosening else ())],
        "warning": [item for item in told if item.severity == "warning"],
        "notice": [] if record.no_loosening else loosened,
    }
    for command, found in by_command.items():
        worst = sorted(found, key=lambda item: -item.excess)
        lines += [_annotation(command, item, workspace, rootdir) for item in worst[:WORST_SHOWN]]
        if len(worst) > WORST_SHOWN:
            lines.append(_rest(command, worst[WORST_SHOWN:]))
    return lines


def require_step_summary(path: Path) -> None:
    """Raises OSError where nothing could be appended to that file now."""
    is_new = not path.exists()
    with path.open("a", encoding="utf-8"):
        pass
    if is_new:
        path.unlink()


def append_step_summary(path: str | Path, markdown: str) -> None:
    """Append `markdown` to the file that GITHUB_STEP_SUMMARY names.

    Where the step has written so much before that GitHub would drop everything, only a sentence is appended.
    """
    file = Path(path)
    before = file.stat().st_size if file.exists() else 0
    if before + len(markdown.encode()) > _STEP_SUMMARY_BYTES:
        markdown = "The pytest-modelopt report is left out here: with it the step's summary would exceed 1 MiB.\n"
    with file.open("a", encoding="utf-8", newline="\n") as summary:
        summary.write(markdown)


def _loosened(record: Record) -> list[Item]:
    return [
        Item(
            "info",
            "NOTE",
            plain_line(f"{each.case}: {each.limit} is less strict than at the base"),
            format_loosened(each),
            file=each.file,
            line=each.line,
        )
        for each in (record.against.loosened if record.against is not None else ())
    ]


def _annotation(command: _Command, item: Item, workspace: str | None, rootdir: str | Path) -> str:
    file = _in_workspace(item.file, workspace, rootdir)
    place = {"file": file, "line": str(item.line)} if file is not None and item.line is not None else {}
    return _workflow_command(command, {**place, "title": item.title}, item.short or item.text)


def _rest(command: _Command, rest: Sequence[Item]) -> str:
    names = [item.title for item in rest[:WORST_SHOWN]]
    more = f"\nand {len(rest) - len(names)} more" if len(rest) > len(names) else ""
    return _workflow_command(command, {"title": f"and {len(rest)} more"}, "\n".join(names) + more)


def _in_workspace(file: str | None, workspace: str | None, rootdir: str | Path) -> str | None:
    if file is None or workspace is None:
        return None
    whole = os.path.normpath(PurePath(rootdir) / file)
    try:
        return PurePath(whole).relative_to(os.path.normpath(workspace)).as_posix()
    except ValueError:
        return None


def _workflow_command(command: _Command, properties: dict[str, str], message: str) -> str:
    listed = ",".join(f"{name}={_escaped_property(value)}" for name, value in properties.items())
    return f"::{command} {listed}::{_escaped(message)}"


def _escaped(text: str) -> str:
    lines = "\n".join(plain_line(line) for line in text.split("\n"))
    return lines.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escaped_property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")
