"""The base of a run in words: what was compared with what, and which limits became looser on the way."""

from __future__ import annotations

from pytest_modelopt.reporting.names import first_names, short_revision, shortened
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.results.base import Against, Loosening
from pytest_modelopt.results.figures import format_count
from pytest_modelopt.results.record import Record

KINDS = {
    "relaxed": "relaxed",
    "removed": "removed",
    "waived": "waived",
    "warn": "only warns now",
}


def format_compared(against: Against) -> str:
    """'head 1a2b3c4d5e6f with uncommitted changes against base 0f1e2d3c4b5a (merge-base:origin/main)'."""
    head = "head" if against.head is None else f"head {short_revision(against.head)}"
    changes = " with uncommitted changes" if against.has_uncommitted else ""
    asked, base = shortened(against.asked), shortened(against.base)
    if against.kind == "record":
        return f"{head}{changes} against the saved record {asked}, started {base}"
    as_asked = "" if base.startswith(asked) else f" ({asked})"
    return f"{head}{changes} against base {short_revision(base)}{as_asked}"


def format_loosened(loosened: Loosening) -> str:
    """'digits-vit/int8-dynamic: max_memory 3 MiB -> 4 MiB (relaxed, +33%) (budgets.yaml:12)'."""
    kind = KINDS["relaxed"] if loosened.kind == "relaxed" else ""  # of the others the new text says it
    how = ", ".join(part for part in (kind, loosened.by) if part.strip())
    return plain_line(
        f"{loosened.case}: {loosened.limit} {loosened.old} -> {loosened.new}{f' ({how})' if how else ''} "
        f"({loosened.file}:{loosened.line})"
    )


def format_removed(against: Against) -> str:
    """'REMOVED 2 cases that the base has: a/b, c/d'."""
    return f"REMOVED {format_count(len(against.removed), 'case')} that the base has: {first_names(against.removed)}"


def format_forbidden(record: Record) -> str:
    """Why a run that forbids loosening is red: what became looser, or that nobody knows."""
    against = record.against
    if against is None:
        return f"nothing was compared with a base, and {_DEMANDED} demands it: name one by --modelopt-against REV"
    told = []
    if against.loosened:
        names = dict.fromkeys(f"{each.limit} of {each.case}" for each in against.loosened)
        told.append(f"less strict than at the base: {first_names(names)}")
    if against.removed:
        told.append(f"no longer there: {first_names(against.removed)}")
    if told:
        return (
            f"{'; '.join(told)}. {_DEMANDED} allows no such change: state what the base states, or let somebody who "
            "may decide it run without this option"
        )
    return (
        f"whether a limit is less strict than at the base is not known: {plain_line(against.unknown)}; {_DEMANDED} "
        "demands to know it"
    )


_DEMANDED = "--modelopt-no-loosening"
