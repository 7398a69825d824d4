"""From a test's markers to its budget: the closest marker wins, key by key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_modelopt.config.loader import CaseEntry
from pytest_modelopt.config.marker import parse_marker
from pytest_modelopt.config.problems import BudgetsError, Problem
from pytest_modelopt.limits.catalogue import merge
from pytest_modelopt.limits.spelling import did_you_mean
from pytest_modelopt.plugin.keys import MARKER
from pytest_modelopt.plugin.session import Budget, Session
from pytest_modelopt.results.verdicts import Limit


def read_budget(item: pytest.Item, session: Session) -> Budget:
    """The budget that the item's markers state. Raises BudgetsError with every mistake in them."""
    file, line, _ = item.location
    closest_first: list[tuple[Limit, ...]] = []
    entry: CaseEntry | None = None
    problems: list[Problem] = []
    for marker in item.iter_markers(MARKER):
        try:
            known = {entry.name for entry in session.entries}
            stated = parse_marker(marker.args, marker.kwargs, file=file, line=(line or 0) + 1, known=known)
        except BudgetsError as error:
            problems += error.problems
            continue
        closest_first.append(stated.limits)
        if stated.case is not None:
            named = next((e for e in session.entries if e.name == stated.case), None)
            if named is None:
                names = [e.name for e in session.entries]
                message = f"no case {stated.case!r} in {session.options.budgets.name}{did_you_mean(stated.case, names)}"
                problems.append(Problem(file, (line or 0) + 1, message))
                continue
            closest_first.append(named.limits)
            entry = entry or named
    if problems:
        raise BudgetsError(tuple(problems))
    return Budget(merge(closest_first), entry)


_MEASURES = re.compile(rf"\b(modelopt|{MARKER})\b")


def may_measure(file: Path) -> bool:
    """Whether a file of tests that pytest skipped as a whole names our fixture or our marker."""
    try:
        return bool(_MEASURES.search(file.read_text(encoding="utf-8", errors="replace")))
    except OSError:
        return False
