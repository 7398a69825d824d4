"""The comparison of two measured variants as a case, and what makes two of them comparable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from pytest_modelopt.measuring.controller.answer_comparison import compare, compare_tokens, slices
from pytest_modelopt.measuring.controller.worker_context import Failed, Measured, WorkerContext
from pytest_modelopt.measuring.protocol import LEAST_HELD, TooFewExamples
from pytest_modelopt.results.answers import Interval
from pytest_modelopt.results.case import CaseError, MeasuredCase, Stage

GoesOn = Callable[[MeasuredCase, Stage | Literal["look"]], bool]
"""Whether the variant of a case is measured further, of which the figures up to `size` (with what the recipe changed),
`memory`, `score` or, before `timing`, all but the times are known. At a `look`, between memory and score, the case has
the agreement on some random examples: a part of the evidence, which no figure of the case is made of."""


def always(case: MeasuredCase, stage: Stage | Literal["look"]) -> bool:
    return True


class Enough(Exception):
    """Ends the measuring of a variant of which enough is known."""

    def __init__(self, case: MeasuredCase) -> None:
        super().__init__(case.name)
        self.case = case


def compared(case: MeasuredCase, original: Measured, optimized: Measured) -> MeasuredCase:
    """The case with both measurements and their comparison, as far as they exist."""
    assert original.loaded is not None
    before, after = original.answers, optimized.answers
    return replace(
        _called(case, optimized),
        metric=original.loaded.metric_name,
        higher_is_better=original.loaded.higher_is_better,
        reference=original.measurement,
        variant=optimized.measurement,
        coverage=optimized.loaded.coverage if optimized.loaded else None,
        agreement=compare(before, after) if before and after else None,
        tokens=compare_tokens(before, after) if before and after else None,
        slices=slices(before, after, original.examples, higher_is_better=original.loaded.higher_is_better)
        if before and after
        else None,
    )


def _called(case: MeasuredCase, measured: Measured) -> MeasuredCase:
    """The case with the sizes of the inputs that its call was given."""
    called = measured.loaded.called if measured.loaded is not None else None
    return case if called is None else replace(case, batch_size=called.batch_size, input_shapes=called.shapes)


def alone(case: MeasuredCase, ours: Measured) -> MeasuredCase:
    """The case of head's variant while there is nothing beside it."""
    assert ours.loaded is not None
    case = _called(case, ours)
    metric, higher = ours.loaded.metric_name, ours.loaded.higher_is_better
    return replace(case, metric=metric, higher_is_better=higher, variant=ours.measurement)


def doubt(original: Measured, candidate: Measured) -> None:
    """Of a candidate, at each of its operating points. As `_doubted`."""
    if candidate.variant.candidate is not None:
        _doubted(original, candidate)


def _doubted(original: Measured, candidate: Measured) -> None:
    """Where hardly anything of its weights was found, they are somewhere: of a small model the books tolerate more than
    it weighs. Then the process meter tells."""
    before, after = original.measurement, candidate.measurement
    if before is None or after is None or after.outside_of_torch or after.reserved_bytes is not None:
        return
    held, whole = after.weights_bytes, before.weights_bytes
    if held is not None and whole is not None and held * LEAST_HELD < whole:
        candidate.measurement = replace(after, hidden_bytes=None)


def require_same_data(original: Measured, optimized: Measured) -> None:
    before, after = original.answers, optimized.answers
    if before is None or after is None or before.data_fingerprint == after.data_fingerprint:
        return
    message = (
        f"the data differs from one load to the next ({before.examples} and {after.examples} examples, other content "
        "or another order): the data factory must give the same examples each time"
    )
    raise Failed(CaseError("compare", message))


def of_the_original(error: CaseError) -> CaseError:
    if error.stage == "read":
        return error
    return replace(error, message=f"the original cannot be measured: {error.message}")


def with_interval(context: WorkerContext, case: MeasuredCase, original: Measured, optimized: Measured) -> MeasuredCase:
    """The case with the interval of its drop, or with the reason for none; as it is where each answer is right or
    wrong, since the bounds of that follow from the counts."""
    before, after = original.answers, optimized.answers
    if before is None or after is None or (before.correct is not None and after.correct is not None):
        return case
    why_not = before.why_not.get("interval") or after.why_not.get("interval")
    if why_not is None:
        text, of = "resampling the examples", original.variant.first
        sides: dict[str, Any] = {"before": before.summands, "after": after.summands, "width": after.width}
        if of not in optimized.intervals:
            found = context.ask(optimized, case.name, "interval", text, stage="score", **sides)
            optimized.intervals[of] = found
        known = optimized.intervals[of]
        if isinstance(known, Interval):
            return replace(case, interval=known)
        why_not = known
    return replace(case, no_interval=why_not, interval_lacks_examples=isinstance(why_not, TooFewExamples))
