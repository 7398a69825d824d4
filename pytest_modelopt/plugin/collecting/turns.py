"""Cases of budgets.yaml whose timing takes turns: those of one model that will run in this process.

The first of them that runs has all of them measured, and each test takes what is its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.plugin.collecting.collection import AgainstBase, CaseItem, test_id
from pytest_modelopt.plugin.session import Session
from pytest_modelopt.results.case import ORIGINAL

_ENDS_EARLY = ("maxfail", "stepwise", "forked", "timeout")
"""Options of pytest and its plugins under which a test may not do the work of the next ones: the run may end before
them, or each runs in a process of its own, or within a time of its own."""
_LIMITS_OF_A_TEST = ("timeout", "faulthandler_exit_on_timeout")
"""Settings of an ini file that end a test which takes long; `timeout` is pytest-timeout's."""
_TIMEOUT = "PYTEST_TIMEOUT"
"""The environment variable of pytest-timeout."""
_OWN_TERMS = ("skip", "skipif", "xfail", "timeout")
"""Marks of a test that may not run, or not for long."""


def note_turns(config: pytest.Config, items: Sequence[pytest.Item], session: Session) -> None:
    """Tell the session which of the items that will run take turns."""
    if hasattr(config, "workerinput") or session.compares_with_base or _ends_early(config):
        return
    groups: dict[tuple[str, str], dict[str, CaseItem]] = {}
    for item in items:
        if isinstance(item, CaseItem) and _takes_turns(item):
            groups.setdefault((item.entry.model.name, item.entry.workload.device), {})[test_id(item)] = item
    for group in groups.values():
        if len(group) > 1:
            entries = {case_id: item.entry for case_id, item in group.items()}
            session.turns.update((case_id, entries) for case_id in entries)


def _takes_turns(item: CaseItem) -> bool:
    """Of a model with several operating points one worker goes from point to point, and cannot wait at one of them."""
    entry = item.entry
    if isinstance(item, AgainstBase) or entry.recipe == ORIGINAL or entry.workload.name:
        return False
    if any(item.get_closest_marker(name) for name in _OWN_TERMS):
        return False
    return any(LIMITS[limit.name].is_timed for limit in entry.limits)


def _ends_early(config: pytest.Config) -> bool:
    if _TIMEOUT in os.environ or any(config.getoption(name, None) for name in _ENDS_EARLY):
        return True
    return any(_ini(config, name) for name in _LIMITS_OF_A_TEST)


def _ini(config: pytest.Config, name: str) -> object:
    """None where neither pytest nor a plugin knows the name."""
    try:
        return config.getini(name)
    except ValueError:
        return None
