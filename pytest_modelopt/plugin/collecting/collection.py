"""budgets.yaml as a pytest file: a collector for each model, whose items are its cases."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_modelopt.config.problems import BudgetsError
from pytest_modelopt.plugin.collecting.selection import AGAINST_BASE, keyword
from pytest_modelopt.plugin.keys import CASES, MARKER, SESSION, TEST, USED
from pytest_modelopt.plugin.markers import read_budget
from pytest_modelopt.results.base import Base
from pytest_modelopt.results.case import ORIGINAL, Case
from pytest_modelopt.results.outcome import is_red

if TYPE_CHECKING:
    from pytest_modelopt.config.loader import CaseEntry
    from pytest_modelopt.plugin.session import Session


def test_id(item: pytest.Item) -> str:
    """The node id that the test was collected with: pytest-xdist adds the name of a group to it later."""
    return item.stash.get(TEST, item.nodeid)


def is_gated(item: pytest.Item) -> bool:
    """Whether the test may measure, as far as that is known before it runs."""
    fixtures = getattr(item, "fixturenames", ())
    return (
        isinstance(item, CaseItem)
        or item.get_closest_marker(MARKER) is not None
        or any(name in fixtures for name in ("modelopt", "optimize"))
        or item.stash.get(USED, False)
    )


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
        session = self.config.stash[SESSION]
        seen = set[str]()
        for entry in self._entries:
            device = entry.workload.device
            if session.compares_with_base and device not in seen:  # the workers of the originals are those of a device
                seen.add(device)
                for original in session.originals:
                    if (original.model, original.workload.device) == (entry.model, device):
                        yield AgainstBase.from_parent(self, name=f"{original.row}{AGAINST_BASE}", entry=original)
            yield CaseItem.from_parent(self, name=entry.row, entry=entry)
            if session.compares_with_base and entry.recipe != ORIGINAL:  # while the variant is still there
                yield AgainstBase.from_parent(self, name=f"{entry.row}{AGAINST_BASE}", entry=entry)


class CaseItem(pytest.Item):
    """One case: fails when a limit is broken or the case cannot be measured."""

    def __init__(self, *, entry: CaseEntry, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.entry = entry
        self.add_marker("model_budget")
        self.extra_keyword_matches.add(keyword(entry.name))

    def measure(self) -> list[Case]:
        return self.config.stash[SESSION].run_entry(test_id(self), self.entry)

    def runtest(self) -> None:
        session = self.config.stash[SESSION]
        cases = self.stash[CASES] = self.measure()
        message = red_message(cases, session)
        if message:
            raise BrokenBudget(message)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, BrokenBudget):
            return excinfo.getrepr(style="value")
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, self.entry.line - 1, self.entry.name


class AgainstBase(CaseItem):
    """A variant, or the original, against the same at the base: fails when a limit of `regression:` is broken."""

    def measure(self) -> list[Case]:
        return [self.config.stash[SESSION].run_against(test_id(self), self.entry)]


class BrokenBudget(Exception):
    """The message names every broken limit of the case, or the error that kept it from being measured."""


def red_message(cases: Sequence[Case], session: Session) -> str:
    """All that is wrong with a test's cases, together; empty where nothing is."""
    return "\n\n".join(session.explain(case) for case in cases if is_red(case, session.options.strict))


def in_one_line(failure: BaseException, cases: Sequence[Case], session: Session) -> str:
    """What makes a test's cases red, in a few words; '' for a failure that is not `red_message` of them."""
    from pytest_modelopt.reporting.failure_text import in_short

    message = red_message(cases, session)
    return in_short(cases, strict=session.options.strict) if message and str(failure) == message else ""


# --- what is known before anything is measured -----------------------------------------------------------------------


def unmeasured(item: pytest.Item, session: Session) -> Case:
    """The case that the record holds of an item that fails before it measures."""
    case = unknown(test_id(item), session, name=item.name)
    if isinstance(item, CaseItem):
        entry, base = item.entry, session.revision or session.saved
        is_against = isinstance(item, AgainstBase) and base is not None
        return replace(
            case,
            model=entry.model.name,
            recipe=entry.recipe,
            limits=entry.regression if is_against else entry.limits,
            batch_size=entry.workload.batch_size,
            threads=entry.workload.threads,
            device=entry.workload.device,
            workload=entry.workload.name,
            base=Base(base.name, "compared") if is_against and base is not None else None,
        )
    try:
        budget = read_budget(item, session)
    except BudgetsError:
        return case
    if budget.entry is None:
        return replace(case, limits=budget.limits)
    model = f"{budget.entry.model.name} in {item.name}"
    workload = budget.entry.workload.name
    return replace(case, model=model, recipe=budget.entry.recipe, limits=budget.limits, workload=workload)


def unknown(test: str, session: Session, name: str = "") -> Case:
    """The same of a test of which nothing but its node id is known."""
    defaults = session.defaults
    return Case(
        id=test,
        model=name or test.rpartition("::")[2],
        recipe="",
        metric=None,
        higher_is_better=True,
        limits=(),
        batch_size=defaults.batch_size,
        device=defaults.device,
        threads=defaults.threads,
    )


def entry_ids(session: Session, root: Path, items: Sequence[pytest.Item]) -> Iterator[str]:
    """The node ids of all cases of the budgets file, also of those that paths on the command line left out."""
    if not session.entries:
        return
    known = next((item for item in items if isinstance(item, CaseItem)), None)
    node = known.getparent(BudgetsModule) if known is not None else None
    file = Path(os.path.relpath(session.options.budgets, root)).as_posix() if node is None else node.nodeid
    for model in session.models:
        rows = [entry.row for entry in session.entries if entry.model == model]
        yield from (f"{file}::{model.name}::{name}" for name in rows)
        if session.compares_with_base:
            originals = [entry.row for entry in session.originals if entry.model == model]
            others = dict.fromkeys([*originals, *rows])
            yield from (f"{file}::{model.name}::{name}{AGAINST_BASE}" for name in others)
