"""A closer look at a case whose variant is worse than the original, or breaks a limit: what the doctor needs."""

from __future__ import annotations

from collections.abc import Callable

from pytest_modelopt.measuring.controller.layer_trials import LayerTrials
from pytest_modelopt.measuring.controller.layers_at_fault import with_layers_at_fault
from pytest_modelopt.measuring.controller.side_by_side import compared
from pytest_modelopt.measuring.controller.variant_measurement import Measuring
from pytest_modelopt.measuring.controller.worker_context import Measured, WorkerContext
from pytest_modelopt.results.case import MeasuredCase

Breaks = Callable[[MeasuredCase], bool]
"""Whether the exact figures of a case break a limit."""


class CloserLook:
    """At memory and size, at inputs that are prepared otherwise, and at the layers. It changes no figure."""

    def __init__(
        self, context: WorkerContext, measuring: Measuring, breaks_memory: Breaks, breaks_answers: Breaks
    ) -> None:
        self._context, self._measuring = context, measuring
        self._breaks_memory, self._breaks_answers = breaks_memory, breaks_answers

    def take(self, case: MeasuredCase, before: Measured, after: Measured) -> None:
        """Put what is found into the measurements. Raises Failed."""
        self._look_into(case, before, after)
        self._try_inputs(case, before, after)
        self._find_layers(case, before, after)

    def _look_into(self, case: MeasuredCase, before: Measured, after: Measured) -> None:
        """Look at what takes memory and size, where one is worse than the original's, or memory breaks a limit."""
        case = compared(case, before, after)
        then, now = case.reference, case.variant
        assert then is not None
        assert now is not None
        pairs = ((then.memory_bytes, now.memory_bytes), (then.size_bytes, now.size_bytes))
        is_worse = any(old is not None and new is not None and new > old for old, new in pairs)
        if is_worse or self._breaks_memory(case):
            for measured in (before, after):
                self._measuring.look_into(measured, case.name)

    def _try_inputs(self, case: MeasuredCase, before: Measured, after: Measured) -> None:
        """Of a candidate that gives most examples another answer than the original, or breaks a limit on answers."""
        if after.variant.generation is not None:
            return
        if after.variant.candidate is None or not before.variant.is_original or after.answers is None:
            return
        case = compared(case, before, after)
        differs = case.agreement is not None and 2 * case.agreement.flips > case.agreement.examples
        if differs or self._breaks_answers(case):
            self._measuring.try_inputs(before, after, case.name)

    def _find_layers(self, case: MeasuredCase, before: Measured, after: Measured) -> None:
        """Of a recipe that breaks a limit on answers: the layers through which it does, in a worker of its own."""
        variant, within_s = after.variant, self._context.limits.bisect_s
        if not within_s or variant.recipe is None or not variant.recipe.can_keep or variant.generation is not None:
            return
        if not before.variant.is_original or not variant.is_at_first or after.answers is None:
            return
        if not self._breaks_answers(compared(case, before, after)):
            return
        trials = LayerTrials(self._context, self._measuring, before, variant)
        after.measurement = with_layers_at_fault(trials, case, self._breaks_answers, within_s, after.measurement)
