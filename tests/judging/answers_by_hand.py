"""Cases with answers that can be counted in the head, and their verdicts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pytest_modelopt.results.answers import Agreement, Repeat, Slices
from pytest_modelopt.results.case import Case
from tests.judging.judged import Judged, judged
from tests.reporting.records_by_hand import case, limit, measurement

Z2 = 1.6448536269514722**2
"""Nothing seen on N examples is bounded by z2 / (N + z2), which is Wilson's bound and Tango's."""


def answered(
    examples: int = 450, lost: int = 0, won: int = 0, flips: int | None = None, score: float = 0.9, **changes: Any
) -> Case:
    """A classifier that was right on `score`, and what the variant changed."""
    drop = (lost - won) / examples
    made = case(
        reference=replace(measurement(None, score=score), examples=examples),
        variant=replace(measurement("int8-dynamic", score=score - drop), examples=examples),
        agreement=Agreement(examples, lost, won, lost + won if flips is None else flips),
    )
    return replace(made, **changes)


def verdict(of: Case, name: str, value: float, text: str = "L") -> Judged:
    return judged(of, limit(name, value, text))


def text(of: Case, name: str, value: float) -> str:
    """What the verdict says between the limit and the place that states it."""
    told = verdict(of, name, value).sentence
    beginning = f"digits-vit/int8-dynamic: {name} L "
    assert told.startswith(beginning)
    return told.removeprefix(beginning).removesuffix(". (budgets.yaml:23)")


def classes(*columns: tuple[int, int, int], names: tuple[str, ...] | None = None) -> Slices:
    """For each class: examples, right to wrong, wrong to right."""
    examples, lost, won = (tuple(column) for column in zip(*columns, strict=True))
    drops = tuple((less - more) / count for count, less, more in columns)
    return Slices(names or tuple(str(n) for n in range(len(columns))), names is None, examples, drops, lost, won)


def sliced(*columns: tuple[int, int, int], names: tuple[str, ...] | None = None, **changes: Any) -> Case:
    examples, lost, won = (sum(column) for column in zip(*columns, strict=True))
    return answered(examples, lost, won, slices=classes(*columns, names=names), **changes)


def varying(of: Case, score: float | None, flips: int | None, side: str = "variant") -> Case:
    """`of`, but this is what a second pass of one side gave."""
    measured = getattr(of, side)
    return replace(of, **{side: replace(measured, repeat=Repeat(measured.examples, score, flips))})
