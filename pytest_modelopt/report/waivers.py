"""Waivers of a record: the limits that they let pass, and those that hold without them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_modelopt.record.model import Record
from pytest_modelopt.record.verdicts import Limit, Waiver
from pytest_modelopt.report.plain import plain_line


@dataclass(frozen=True)
class WaivedLimit:
    """One waiver, and what became of it in all cases of the record that it is about."""

    case: str
    """'digits-vit/int8-dynamic'."""
    limit: Limit
    waiver: Waiver
    is_used: bool
    """Whether a limit would be broken, or undecided, without it."""
    is_unused: bool
    """Whether all hold without it. Neither: the limit was not measured, or is broken beyond the ceiling."""

    @property
    def sentence(self) -> str:
        """'digits-vit/int8-dynamic: max_memory 3 MiB is waived until 2027-01-31 by kai: reason. (budgets.yaml:40)'."""
        waiver = self.waiver
        name = f"{self.case}: {self.limit.name} {self.limit.text}"
        by = f" by {waiver.owner}" if waiver.owner.strip() else ""
        ceiling = f", up to {waiver.ceiling_text}" if waiver.ceiling_text.strip() else ""
        place = f"({waiver.file}:{waiver.line})"
        if self.is_unused:
            return plain_line(f"{name} holds without its waiver until {waiver.until}{by}: remove it. {place}")
        word = "is waived" if self.is_used else "is red in spite of its waiver"
        return plain_line(f"{name} {word} until {waiver.until}{ceiling}{by}: {waiver.reason.rstrip('. ')}. {place}")


def waived_limits(record: Record) -> list[WaivedLimit]:
    """Every waiver of the record once, in the order of its cases."""
    outcomes: dict[tuple[str, Limit, Waiver], list[str]] = {}
    for case, limit, waiver, outcome in _stated(record):
        outcomes.setdefault((case, limit, waiver), []).append(outcome)
    return [
        WaivedLimit(case, limit, waiver, "waived" in found, set(found) == {"pass"})
        for (case, limit, waiver), found in outcomes.items()
    ]


def _stated(record: Record) -> Iterator[tuple[str, Limit, Waiver, str]]:
    for case in record.cases:
        judged = {verdict.limit.name: verdict.outcome for verdict in case.verdicts}
        for limit in case.limits:
            if limit.waiver is not None:
                yield case.name, limit, limit.waiver, judged.get(limit.name, "not judged")
