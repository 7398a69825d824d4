"""Names and stash keys that the plugin's parts share. Imported when the plugin is off, too: nothing may cost here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_modelopt.plugin.session import Session
    from pytest_modelopt.results.case import Case

MARKER = "model_budget"
NEEDS_MODELOPT = "needs --modelopt"

SESSION: pytest.StashKey[Session] = pytest.StashKey()
"""On the config: the run, while `--modelopt` is on."""
CASES: pytest.StashKey[list[Case]] = pytest.StashKey()
"""On an item: the cases that its test measured."""
ENDED: pytest.StashKey[bool] = pytest.StashKey()
"""On an item: its test has ended, so nothing that is measured now would be asserted."""
TEST: pytest.StashKey[str] = pytest.StashKey()
"""On an item: its node id as it was collected. pytest-xdist adds the name of a group to it later."""
USED: pytest.StashKey[bool] = pytest.StashKey()
"""On an item: it asked for one of our fixtures, maybe while it ran."""
JOB: pytest.StashKey[bool] = pytest.StashKey()
"""On the config: this pytest runs a job of a fleet, whose reports another process tells."""
