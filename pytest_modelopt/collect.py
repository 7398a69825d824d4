"""budgets.yaml as a pytest file: a collector for each model, whose items are its cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_modelopt.keys import CASES, SESSION
from pytest_modelopt.record.model import ORIGINAL, Case
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
        if not self.config.stash[SESSION].compares_with_base:
            for entry in self._entries:
                yield CaseItem.from_parent(self, name=entry.recipe, entry=entry)
            return
        model = self._entries[0].model
        yield AgainstBase.from_parent(
            self, name=f"{ORIGINAL} against base", entry=replace(self._entries[0], recipe=ORIGINAL, line=model.line)
        )
        for entry in self._entries:  # the base's turn comes while the variant is still there
            yield CaseItem.from_parent(self, name=entry.recipe, entry=entry)
            yield AgainstBase.from_parent(self, name=f"{entry.recipe} against base", entry=entry)


class CaseItem(pytest.Item):
    """One case: fails when a limit is broken or the case cannot be measured."""

    def __init__(self, *, entry: CaseEntry, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.entry = entry
        self.add_marker("model_budget")

    def measure(self) -> Case:
        session = self.config.stash[SESSION]
        model = self.entry.model
        variant = session.variant(model, self.entry.recipe)
        return session.run(self.nodeid, model.name, self.entry.limits, variant, model.inference)

    def runtest(self) -> None:
        session = self.config.stash[SESSION]
        case = self.measure()
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


class AgainstBase(CaseItem):
    """A variant, or the original, against the same at the base: fails when a limit of `regression:` is broken."""

    def measure(self) -> Case:
        return self.config.stash[SESSION].run_against(self.nodeid, self.entry)


class BrokenBudget(Exception):
    """The message names every broken limit of the case, or the error that kept it from being measured."""


def red_message(cases: Sequence[Case], *, strict: bool) -> str:
    """All that is wrong with a test's cases, together; empty where nothing is."""
    return "\n\n".join(explain(case, strict=strict) for case in cases if is_red(case, strict))
