"""budgets.yaml as a pytest file: a collector for each model, whose items are its cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_modelopt.keys import CASES, SESSION
from pytest_modelopt.record.model import Case
from pytest_modelopt.record.outcome import is_red
from pytest_modelopt.report.failure import explain

if TYPE_CHECKING:
    from pytest_modelopt.budgets.file import CaseEntry


class BudgetsModule(pytest.File):
    """The budgets file, which was read when the run was configured."""

    def collect(self) -> Iterator[ModelNode]:
        budgets = self.config.stash[SESSION].budgets
        assert budgets is not None
        for model in budgets.models:
            entries = tuple(entry for entry in budgets.cases if entry.model == model)
            yield ModelNode.from_parent(self, name=model.name, entries=entries)


class ModelNode(pytest.Collector):
    """One model of the file."""

    def __init__(self, *, entries: tuple[CaseEntry, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._entries = entries

    def collect(self) -> Iterator[CaseItem]:
        for entry in self._entries:
            yield CaseItem.from_parent(self, name=entry.recipe, entry=entry)


class CaseItem(pytest.Item):
    """One case: fails when a limit is broken or the case cannot be measured."""

    def __init__(self, *, entry: CaseEntry, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.entry = entry
        self.add_marker("model_budget")

    def runtest(self) -> None:
        session = self.config.stash[SESSION]
        variant = session.variant(self.entry)
        model = self.entry.model
        case = session.run(self.nodeid, model.name, self.entry.limits, variant, model.inference)
        self.stash[CASES] = [case]
        message = red_message([case], strict=session.options.strict)
        if message:
            raise BrokenBudget(message)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, BrokenBudget):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, self.entry.line - 1, self.entry.name


class BrokenBudget(Exception):
    """The message names every broken limit of the case, or the error that kept it from being measured."""


def red_message(cases: Sequence[Case], *, strict: bool) -> str:
    """All that is wrong with a test's cases, together; empty where nothing is."""
    return "\n\n".join(explain(case, strict=strict) for case in cases if is_red(case, strict))
