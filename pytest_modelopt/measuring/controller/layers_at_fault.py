"""The layers through which a recipe breaks a limit on answers, found by keeping some of them, within a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from pytest_modelopt.measuring.controller.fewest_kept_layers import by_kind, least
from pytest_modelopt.measuring.controller.layer_trials import LayerTrials, OutOfTime, Tried
from pytest_modelopt.measuring.controller.worker_context import Failed
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.figures import format_time
from pytest_modelopt.results.layer_costs import LayerGroup
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.observations import LayersAtFault, Observations

PASSES = 16
"""So many passes over the examples are meant to fit into the time; of more data, batches are left out."""


def find(
    trials: LayerTrials, case: MeasuredCase, breaks: Callable[[MeasuredCase], bool], within_s: float
) -> LayersAtFault | None:
    """What must stay so that the recipe keeps its limits on answers; None where nothing short of all does.

    Raises:
        OutOfTime: nothing was found by then.
        Failed: the model's layers cannot be tried.
    """
    trials.until = time.monotonic() + within_s
    if trials.load_s > within_s:
        raise OutOfTime
    trials.open(case, within_s / PASSES)
    search = _Search(trials, breaks)
    if len(trials.groups) < 2 or search.holds([]):  # on the examples of the trials it breaks no limit
        return None
    is_least = True
    try:
        kinds: dict[str, list[LayerGroup]] = {}
        for group in trials.groups:
            kinds.setdefault(group.kind, []).append(group)
        enough = by_kind(kinds, search.harm, search.holds) if len(kinds) > 1 else list(trials.groups)
        if enough is not None:
            search.narrow(enough)
    except OutOfTime:
        is_least = False
        if search.best is None:
            raise
    return search.found(is_least=is_least)


def with_layers_at_fault(
    trials: LayerTrials,
    case: MeasuredCase,
    breaks: Callable[[MeasuredCase], bool],
    within_s: float,
    measurement: Measurement | None,
) -> Measurement | None:
    """The variant's measurement with what was found, or with the reason why nothing was. Looking costs the case
    nothing."""
    if measurement is None:
        return None
    seen = measurement.observations or Observations()
    try:
        with trials:
            seen = replace(seen, layers_at_fault=find(trials, case, breaks, within_s))
    except OutOfTime:
        why = (
            f"{format_time(within_s)} were over before it was known which layers break a limit on answers: give more "
            "by --modelopt-bisect"
        )
        seen = replace(seen, unobserved=seen.unobserved | {"layers_at_fault": why})
    except Failed as failed:
        seen = replace(seen, unobserved=seen.unobserved | {"layers_at_fault": failed.error.message})
    return replace(measurement, observations=seen)


class _Search:
    """What was tried, by the layers that were kept."""

    def __init__(self, trials: LayerTrials, breaks: Callable[[MeasuredCase], bool]) -> None:
        self._trials, self._breaks = trials, breaks
        self._tried: dict[frozenset[LayerGroup], Tried] = {}
        self.best: tuple[LayerGroup, ...] | None = None
        """The fewest layers, and of as many the smallest, whose keeping holds the limits."""

    def _try(self, groups: Sequence[LayerGroup]) -> Tried:
        key = frozenset(groups)
        if key not in self._tried:
            self._tried[key] = self._trials.keep(groups)
        return self._tried[key]

    def holds(self, groups: Sequence[LayerGroup]) -> bool:
        if len(groups) == len(self._trials.groups):  # then nothing is changed, which keeps every limit
            return True
        tried = self._try(groups)
        if tried.changes_nothing:
            return True
        if tried.why or self._breaks(tried.case):
            return False
        if groups and (self.best is None or _size(groups) < _size(self.best)):
            self.best = tuple(groups)
        return True

    def harm(self, groups: Sequence[LayerGroup]) -> float:
        """What is still lost with these kept."""
        tried = self._try(groups)
        changed = tried.case.agreement
        if tried.why:
            return 0.0 if tried.changes_nothing else float("inf")
        return changed.flips / changed.examples if changed is not None else tried.case.drop or 0.0

    def narrow(self, enough: Sequence[LayerGroup]) -> None:
        """Find the least part of what must stay; a small layer that does as well goes before a large one."""
        largest = max(group.weight_bytes for group in enough)
        small = sorted(
            (group for group in self._trials.groups if group.weight_bytes <= largest),
            key=lambda each: each.weight_bytes,
        )
        least(small if self.holds(small) else enough, self.holds)

    def found(self, *, is_least: bool) -> LayersAtFault | None:
        if self.best is None:
            return None
        order = [group for group in self._trials.groups if group in self.best]
        broken, kept = self._tried[frozenset()].case, self._tried[frozenset(self.best)].case
        assert broken.variant is not None
        assert kept.variant is not None
        return LayersAtFault(
            layers={group.name: group.kind for group in order},
            kept_bytes=sum(group.weight_bytes for group in order),
            changed_bytes=sum(group.weight_bytes for group in self._trials.groups),
            examples=kept.variant.examples,
            original_score=self._trials.score,
            broken_score=broken.variant.score,
            kept_score=kept.variant.score,
            broken_flips=None if broken.agreement is None else broken.agreement.flips,
            kept_flips=None if kept.agreement is None else kept.agreement.flips,
            trials=len(self._tried),
            is_least=is_least,
        )


def _size(groups: Sequence[LayerGroup]) -> tuple[int, int]:
    return len(groups), sum(group.weight_bytes for group in groups)
