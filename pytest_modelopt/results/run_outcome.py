"""The outcome of a run: the one rule for pytest's exit status, the commands' exit statuses and all headlines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pytest_modelopt.results.base import Against
from pytest_modelopt.results.outcome import case_outcome, is_red
from pytest_modelopt.results.record import Record

Cause = Literal[
    "red case",
    "interrupted",
    "never ran",
    "not collected",
    "not whole",
    "nothing measured",
    "loosened",
    "target missing",
]


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended: its cases, and what became of the tests that left none."""

    word: str
    """'FAILED', 'INTERRUPTED', 'NOTHING MEASURED', 'INCONCLUSIVE', 'passed with warnings' or 'passed'."""
    ran: int
    known: int
    """Cases that ran, and tests that left none."""
    never_ran: tuple[str, ...]
    """Node ids of planned tests of which nothing is known."""
    deselected: tuple[str, ...]
    """Node ids of tests that were left out: by `-k`, `-m`, `--deselect` or paths on the command line."""
    skipped: tuple[str, ...]
    idle: tuple[str, ...]
    causes: tuple[Cause, ...]
    """Why it is red; empty where it is not."""

    @property
    def is_red(self) -> bool:
        return bool(self.causes)

    @property
    def is_partial(self) -> bool:
        return bool(self.never_ran or self.deselected or self.skipped)

    @property
    def partial(self) -> str:
        """'PARTIAL: 2 of 6 cases ran'; '' for a run that left nothing out."""
        if not self.is_partial:
            return ""
        return f"PARTIAL: {self.ran} of {self.known} case{'' if self.known == 1 else 's'} ran"

    @property
    def headline(self) -> str:
        """'passed', 'PARTIAL: 2 of 6 cases ran', 'FAILED, PARTIAL: 2 of 6 cases ran'."""
        told = [] if self.partial and self.word not in ("FAILED", "INTERRUPTED", "INCONCLUSIVE") else [self.word]
        return ", ".join([*told, *([self.partial] if self.partial else [])])


def run_outcome(record: Record) -> RunOutcome:
    """What the record of one run, or of several jobs, comes to.

    Red are a case that is red, an interruption, a planned test that never ran, a file that could not be collected, and
    a record that knows of nothing. What was expected to fail is told and not red. What was deselected or skipped is
    told, and red in a run that is meant to be whole, which must also have measured something. What became looser since
    the base is told, and red where that was demanded, as is then not to know it. So is a target without a machine.
    """
    ran = {name for case in record.cases for name in (case.id, case.id.rpartition("#")[0])}
    skipped = tuple(name for name in record.skipped if name not in ran)
    idle = tuple(name for name in record.idle if name not in ran and name not in skipped)
    ended = ran.union(skipped, idle)
    never_ran = tuple(name for name in dict.fromkeys(record.planned) if name not in ended)
    deselected = tuple(
        name for name in dict.fromkeys(record.collected) if name not in ended and name not in record.planned
    )
    is_whole = record.whole or record.merged is not None
    causes: dict[Cause, bool] = {
        "red case": any(is_red(case, record.strict) for case in record.cases),
        "interrupted": not record.complete,
        "never ran": bool(never_ran),
        "not collected": bool(record.uncollected),
        "not whole": is_whole and bool(deselected or skipped),
        "nothing measured": not record.cases and (is_whole or not (skipped or idle)),
        "loosened": record.no_loosening and not _is_as_strict(record.against),
        "target missing": _lacks_target(record),
    }
    found: tuple[Cause, ...] = tuple(cause for cause, holds in causes.items() if holds)
    return RunOutcome(
        _word(record, found),
        ran=len(record.cases),
        known=len(record.cases) + len(skipped) + len(idle) + len(never_ran) + len(deselected),
        never_ran=never_ran,
        deselected=deselected,
        skipped=skipped,
        idle=idle,
        causes=found,
    )


def record_is_red(record: Record) -> bool:
    return run_outcome(record).is_red


def _lacks_target(record: Record) -> bool:
    """Whether a case was not measured on a target that is demanded."""
    if not record.cases or not record.targets:
        return False
    from pytest_modelopt.results.target import on_targets

    return any(each.is_demanded and each.is_missing for each in on_targets(record))


def _is_as_strict(against: Against | None) -> bool:
    """Whether it is known that head states no limit less strictly than its base."""
    return against is not None and not (against.loosened or against.removed or against.unknown)


def _word(record: Record, causes: tuple[Cause, ...]) -> str:
    outcomes = {case_outcome(case, record.strict) for case in record.cases}
    if "interrupted" in causes and "red case" not in causes and record.merged is None:
        return "INTERRUPTED"
    if causes and causes != ("nothing measured",):
        return "FAILED"
    if not record.cases:
        return "NOTHING MEASURED"
    if "inconclusive" in outcomes:
        return "INCONCLUSIVE"
    return "passed with warnings" if "warn" in outcomes else "passed"
