"""Limits of a budget, the verdict on each, and what the doctor found that explains them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

Level = Literal["error", "warn"]
Outcome = Literal["pass", "fail", "inconclusive", "not measured", "waived"]
Figure = Literal[
    "memory",
    "process_memory",
    "cache",
    "size",
    "timing",
    "loading",
    "prefill",
    "decode",
    "score",
    "predictions",
    "slices",
    "coverage",
]
Parameter: TypeAlias = str | int | float | bool | None
"""Of a sentence on a verdict."""
Row: TypeAlias = dict[str, Parameter | list[str]]
Detail: TypeAlias = Parameter | list[str] | list[Row]
"""What a finding holds: plain JSON values."""


@dataclass(frozen=True, slots=True)
class Waiver:
    """A broken limit that is accepted for a while, with the place that says so."""

    until: str
    """The last day on which it holds, ISO 8601: '2027-01-31'."""
    reason: str
    file: str
    line: int
    owner: str = ""
    ceiling: float | None = None
    """What the figure must keep meanwhile, in the limit's base unit; None: anything is accepted."""
    ceiling_text: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """One bound of a budget, with the place that states it.

    `value` is in the limit's base unit: bytes for memory and size, a fraction in 0..1 for reductions, flips and
    coverage, the metric's unit for accuracy, a factor for `min_speedup` (1.3 means 1.3 times as fast), seconds for
    `max_latency`, a share of the base's figure for growth and slowdown. `text` is what the author wrote.
    """

    name: str
    value: float
    text: str
    level: Level
    file: str
    line: int
    waiver: Waiver | None = None


def ceiling_of(limit: Limit) -> Limit | None:
    """What must hold while the limit is waived, as a limit; None where there is no waiver, or anything is accepted."""
    waiver = limit.waiver
    if waiver is None or waiver.ceiling is None:
        return None
    return replace(
        limit, value=waiver.ceiling, text=waiver.ceiling_text, file=waiver.file, line=waiver.line, waiver=None
    )


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a verdict is what it is, as data: `reporting/messages/verdicts.py` has the sentence for each `code`.

    `parameters` are what the sentence names beside the case, the limit and the figures of the verdict.
    """

    code: str
    parameters: dict[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one limit. All figures are in the limit's base unit."""

    limit: Limit
    outcome: Outcome
    measured: float | None
    reason: Reason
    low: float | None = None
    high: float | None = None
    """What the measurement allows the figure to be; None where it repeats, or has no such bound."""
    waived: Outcome | None = None
    """What the verdict would be without its waiver."""
    is_beyond_ceiling: bool = False
    """Whether the figure is beyond the ceiling of the limit's waiver, too."""

    @property
    def is_red(self) -> bool:
        """Whether this verdict alone fails the case (an inconclusive one does so only under strict)."""
        return self.limit.level == "error" and self.outcome in ("fail", "not measured")


@dataclass(frozen=True, slots=True)
class Finding:
    """What the doctor found in a case: a likely reason for a figure. `reporting/messages/findings.py` words it."""

    rule: str
    parameters: dict[str, Detail]
    """What the rule saw, as it was measured: bytes, seconds, shares of 1, names."""
    explains: tuple[Figure, ...]
    """The figures that it speaks about: it is told under limits of these."""
    is_note: bool = False
    """Whether it is worth saying even where all limits hold."""
