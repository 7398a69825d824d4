"""The text of a failed test: broken limits, what explains each, the cause, its address, the worker's output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pytest_modelopt.reporting.item import Item, each_once
from pytest_modelopt.reporting.names import case_name
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.reporting.sentences import case_items
from pytest_modelopt.results.case import Case


def in_short(cases: Sequence[Case], *, strict: bool) -> str:
    """What makes cases of one test red, on one line that does not repeat what the test's name says:
    'max_memory 1 MiB: 1.07 MiB (+6.8%); max_size 1 MiB: 2 MiB (+100%)'."""
    told = [(case, item.short) for case in cases for item in _red(case, strict)]
    several = len({case.id for case, _ in told}) > 1
    return "; ".join(f"{case_name(case)}: {short}" if several else short for case, short in told)


def explain(case: Case, *, strict: bool, first: str = "") -> str:
    """All that makes the case red, as lines of plain text.

    `first`: a case with the very same error, or whose base did not run for the same reason: all that belongs to it was
    told there.
    """
    told = _red(case, strict)
    why_no_base = plain_line(case.base.why) if first and case.base is not None else ""
    if why_no_base:
        told = [replace(item, text=item.text.replace(why_no_base, f"as in {first}")) for item in told]
    if first:
        told = [
            replace(item, text=f"{item.text} (as in {first})", next_step="", why=(), output=())
            if item.label == "ERROR"
            else item
            for item in told
        ]
    lines: list[str] = []
    for item, known in each_once(told, lambda each: (*each.told_below, *each.changed)):
        lines += [item.text, *(f"  {line}" for line in known)]
    lines += [f"  {why}" for why in dict.fromkeys(why for item in told for why in item.why)]
    addresses = [item.address for item in told if item.address]
    if addresses and not first:
        lines.append(f"  see {addresses[0]}")
    output = [line for item in told for line in item.output]
    if output:
        lines += ["  the worker's last output:", *(f"    {line}" for line in output)]
    return "\n".join(lines)


def _red(case: Case, strict: bool) -> list[Item]:
    return [item for item in case_items(case, strict) if item.severity == "error"]
