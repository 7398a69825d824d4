"""What the tests of a run came to, from their reports: every test that has a budget leaves a case, or says why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pytest_modelopt.results.case import Case, CaseError, Expected
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.outcome import is_red
from pytest_modelopt.results.record import Environment

Phase = Literal["setup", "call", "teardown", "crash"]
_DURING: dict[Phase, str] = {"setup": "in its set-up: ", "call": "", "teardown": "in its tear-down: ", "crash": ""}


@dataclass(frozen=True)
class Report:
    """What pytest reported of one phase of a test."""

    test: str
    phase: Phase
    outcome: str
    """'passed', 'failed', 'skipped', or what another plugin makes of it ('rerun')."""
    message: str
    """Why it failed or was skipped."""
    expected: str | None
    """The reason of `xfail`, where pytest expected the test to fail."""
    unmeasured: Case | None
    """What is known of its case before it is measured; None for a test that is none of ours."""
    cases: Sequence[Case]
    """What it measured, on the last report that may carry it."""
    strict: bool
    environment: Environment | None = None


@dataclass
class _Test:
    """One test, in its last attempt."""

    unmeasured: Case
    cases: dict[tuple[str, int], Case] = field(default_factory=dict)
    """By id and machine."""
    failure: str = ""
    expected: Expected | None = None
    is_skipped: bool = False
    has_passed: bool = False
    strict: bool = False

    def take(self, report: Report) -> None:
        self.cases |= {(case.id, case.machine): case for case in report.cases}
        self.unmeasured = next(iter(self.cases.values()), self.unmeasured)  # nobody asks for that any more
        self.strict = report.strict
        if report.outcome == "failed":
            self.failure = self.failure or f"{_DURING[report.phase]}{report.message}"
        elif report.expected is not None:
            self.expected = Expected("xfailed" if report.outcome == "skipped" else "xpassed", report.expected)
            self.unmeasured = replace(self.unmeasured, error=CaseError("test", report.message))
        elif report.outcome == "skipped":
            self.is_skipped = True
        elif report.outcome == "passed" and report.phase == "call":
            self.has_passed = True

    def final_cases(self) -> Iterator[Case]:
        """Its cases as the record holds them. A failure that no red case explains is an error of the last one."""
        cases = list(self.cases.values())
        if self.failure:
            if not any(is_red(case, self.strict) for case in cases):
                last = cases.pop() if cases else self.unmeasured
                cases.append(replace(last, error=CaseError("test", self.failure), verdicts=(), findings=()))
        elif self.expected is not None:
            if not cases and self.expected.outcome == "xfailed":
                cases = [self.unmeasured]
            cases = [replace(case, expected=self.expected) for case in cases]
        yield from cases


class GatedTests:
    """All tests of a run that may leave a case, by their node ids."""

    def __init__(self) -> None:
        self._tests: dict[str, _Test] = {}
        self._originals: dict[tuple[str, str], Measurement] = {}
        """The last one of each model at each workload: many cases are compared with the same, and keep it once."""

    def add(self, case: Case) -> None:
        self._tests[case.id] = _Test(case, {(case.id, case.machine): case})

    def take(self, report: Report) -> bool:
        """Whether the report says something that belongs to the record."""
        if report.unmeasured is not None and (report.phase == "setup" or report.test not in self._tests):
            self._tests[report.test] = _Test(report.unmeasured)  # a rerun measures anew
        test = self._tests.get(report.test)
        if test is None:
            return False
        before = list(test.final_cases())
        test.take(replace(report, cases=[self._with_known_original(case) for case in report.cases]))
        return list(test.final_cases()) != before

    def _with_known_original(self, case: Case) -> Case:
        """Each report brings a copy of its own."""
        if case.reference is None:
            return case
        key = case.model, case.workload
        if self._originals.get(key) != case.reference:
            self._originals[key] = case.reference
        return replace(case, reference=self._originals[key])

    @property
    def cases(self) -> list[Case]:
        return [case for test in self._tests.values() for case in test.final_cases()]

    @property
    def skipped(self) -> frozenset[str]:
        return frozenset(name for name, test in self._tests.items() if test.is_skipped and not any(test.final_cases()))

    @property
    def idle(self) -> frozenset[str]:
        """Those that passed without measuring; one that states a budget fails instead."""
        return frozenset(name for name, test in self._tests.items() if test.has_passed and not any(test.final_cases()))
