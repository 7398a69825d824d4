"""Points of the plot of an exploration: memory, drop and time of each candidate, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_modelopt.exploring.choice import Trial, broken, dominator
from pytest_modelopt.exploring.confirming import Confirmed
from pytest_modelopt.limits.front import Found, drop_found, figure, speed_found
from pytest_modelopt.results.metric import in_unit_interval


@dataclass(frozen=True)
class Point:
    """One candidate. Memory is a share of the original's; `speed` is how many times as fast it is."""

    recipe: str
    memory: Found
    drop: Found | None
    """On the examples, with its one-sided 95% bounds in the population; the drop alone where there are none."""
    is_share: bool
    """Whether the drop is of a score from 0 to 1."""
    speed: Found | None
    is_confirmed: bool
    is_front: bool
    """Whether nothing dominates it and it breaks no limit, or it was measured anew."""


def points(trials: Sequence[Trial], confirmed: Sequence[Confirmed]) -> list[Point]:
    """Of all that were measured whole, the least memory first; of a finalist as it was measured anew."""
    anew = {each.trial.order: each.case for each in confirmed if each.case.error is None}
    whole = [trial for trial in trials if trial.is_whole]
    kept = [trial for trial in whole if not broken(trial.case)]
    found = []
    for trial in whole:
        case = anew.get(trial.order, trial.case)
        memory = figure(case, "memory")
        if case is None or memory is None:
            continue
        is_front = trial.order in anew or (trial in kept and dominator(trial, kept) is None)
        share = Found(memory.middle, memory.low, memory.high)
        is_share = bool(in_unit_interval(case.metric))
        name = str(trial.recipe)
        found.append(Point(name, share, drop_found(case), is_share, speed_found(case), trial.order in anew, is_front))
    return sorted(found, key=lambda point: (point.memory.at, point.recipe))
