"""Candidates with figures that can be checked in the head, and what hands them out as a gauge does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pytest_modelopt.exploring.choice import Trial
from pytest_modelopt.judging.judge import judge
from pytest_modelopt.limits.catalogue import parse_value
from pytest_modelopt.measuring.controller.side_by_side import GoesOn
from pytest_modelopt.optimizing.expression import Expression, parse
from pytest_modelopt.results.case import Case, CaseError, MeasuredCase, Stage
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.verdicts import Limit
from tests.reporting.records_by_hand import MIB, case, limit, measurement, timing

REFERENCE = replace(measurement(None, weights=6 * MIB, peak=2 * MIB, size=8 * MIB), observations=Observations("0a"))
"""8 MiB of memory and of size."""


def candidate(recipe: str, *, memory: float = 8, size: float = 8, lost: int = 0, speedup: float | None = None) -> Case:
    """Memory and size in MiB; `lost` of 360 examples; a speedup of four seconds of quiet pairs, None for no times."""
    side = measurement(recipe, weights=int(memory * MIB), peak=0, size=int(size * MIB), score=(351 - lost) / 360)
    pairs = None if speedup is None else timing(80, 4_000_000, round(4_000_000 / speedup))
    return case(
        recipe, reference=REFERENCE, variant=replace(side, observations=Observations("0b")), timing=pairs, limits=()
    )


def limits(**texts: str) -> tuple[Limit, ...]:
    """`max_accuracy_drop="1 pp"` and so on."""
    return tuple(limit(name, parse_value(name, text, unit_interval=True), text) for name, text in texts.items())


def trial(of: Case, order: int = 0, bounds: Sequence[Limit] = ()) -> Trial:
    return Trial(parse(of.recipe), order, judge(replace(of, limits=tuple(bounds)), timed_limits=1))


class ByHand:
    """Gives the figures of each case stage by stage, as long as it is asked to go on, and notes what was asked."""

    def __init__(
        self, bounds: Sequence[Limit], *cases: Case, ends: Callable[[str], None] = lambda recipe: None
    ) -> None:
        self.cases = {each.recipe: each for each in cases}
        self.bounds, self.ends = tuple(bounds), ends
        self.asked: dict[str, list[Stage]] = {}
        self.timed: list[str] = []

    def judge(self, case: MeasuredCase) -> Case:
        return judge(replace(case, limits=self.bounds), timed_limits=1)

    def measure(self, recipe: Expression, goes_on: GoesOn) -> Case:
        self.ends(recipe.text)
        whole = self.cases[recipe.text]
        if whole.error is not None:
            return whole
        assert whole.variant is not None
        side = replace(whole.variant, score=None, weights_bytes=None, call_peak_bytes=None, observations=None)
        begun = replace(whole, variant=side, timing=None)
        side = replace(side, weights_bytes=whole.variant.weights_bytes, call_peak_bytes=0)
        weighed = replace(begun, variant=side)
        answered = replace(weighed, variant=replace(side, score=whole.variant.score))
        stages: tuple[tuple[Stage, Case], ...] = (("size", begun), ("memory", weighed), ("score", answered))
        for stage, known in stages:
            self.asked.setdefault(recipe.text, []).append(stage)
            if not goes_on(known, stage):
                return self.judge(known)
        untimed = replace(whole, timing=None)
        if not goes_on(untimed, "timing"):
            return self.judge(untimed)
        self.timed.append(recipe.text)
        return self.judge(whole)

    def time(self, recipe: Expression, case: Case) -> Case:
        self.ends(recipe.text)
        self.timed.append(recipe.text)
        return self.judge(replace(case, timing=self.cases[recipe.text].timing))


def failed(recipe: str, message: str) -> Case:
    return replace(candidate(recipe), variant=None, error=CaseError("optimize", message))
