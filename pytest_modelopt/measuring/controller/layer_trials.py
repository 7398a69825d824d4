"""A worker that holds a model and its data, and tries a recipe on some of its layers: the pytest process's side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from pytest_modelopt.measuring.controller.process import WorkerFailed
from pytest_modelopt.measuring.controller.side_by_side import compared
from pytest_modelopt.measuring.controller.variant_measurement import Measuring
from pytest_modelopt.measuring.controller.worker_context import Failed, Measured, WorkerContext
from pytest_modelopt.measuring.protocol import LayerTrial
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.results.answers import Interval
from pytest_modelopt.results.case import CaseError, MeasuredCase
from pytest_modelopt.results.layer_costs import LayerGroup


@dataclass(frozen=True)
class Tried:
    """One trial: the case that its answers make, beside those of the model as it is on the same examples."""

    case: MeasuredCase
    saved_bytes: int | None
    why: str = ""
    """Why there are no answers."""
    changes_nothing: bool = False
    """Whether that is since the recipe has nothing left to change: the answers are those of the model as it is."""


class OutOfTime(Exception):
    """The time for trials is over."""


class LayerTrials:
    """Use it as a context: it starts a worker, and ends it. `open` comes first.

    Whatever takes longer than until `until`, by the monotonic clock, raises OutOfTime.
    """

    def __init__(self, context: WorkerContext, measuring: Measuring, original: Measured, variant: Variant) -> None:
        assert variant.recipe is not None
        self._context, self._measuring, self._original = context, measuring, original
        self._recipe = variant.recipe
        self._made = Measured(replace(variant, recipe=None), examples=original.examples)
        self._before = original
        self._bytes: int | None = None
        self._reference = context.new_file("outputs")
        self._made.files.append(self._reference)
        self.until = float("inf")
        self.groups: tuple[LayerGroup, ...] = ()

    def __enter__(self) -> LayerTrials:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker and remove its files. May be called twice."""
        self._context.discard(self._made)

    def open(self, case: MeasuredCase, pass_s: float) -> None:
        """Load the model, score it on as many examples as `pass_s` seconds take, and see what the recipe changes.

        Raises:
            Failed: the model or the recipe cannot be tried so.
        """
        variant = self._made.variant
        if variant.data is None or variant.generation is not None:
            why = "there is no data to answer on" if variant.data is None else "it generates"
            raise Failed(CaseError("compare", f"the model's layers cannot be tried one by one: {why}"))
        self._case = case
        self._measuring.load(self._made, case.name)
        answers, self._bytes = self._ask("begin_trials", examples=self._made.examples, pass_s=pass_s, keep=self._path)
        measurement = self._original.measurement
        assert measurement is not None
        seen = replace(measurement, score=answers.score, examples=answers.examples)
        self._before = Measured(self._original.variant, loaded=self._original.loaded, measurement=seen, answers=answers)
        whole = self._original.answers
        if whole is not None and whole.examples == answers.examples:
            self._before.examples = self._original.examples
        self.groups = self._ask("layer_groups", recipe=self._recipe)

    @property
    def load_s(self) -> float:
        """What it took to load the model before."""
        return self._original.seconds.get("load", 0.0)

    @property
    def score(self) -> float | None:
        """Of the model as it is, on the examples of the trials."""
        assert self._before.answers is not None
        return self._before.answers.score

    def keep(self, groups: Sequence[LayerGroup]) -> Tried:
        """The recipe on all other layers."""
        names = [group.name for group in groups]
        try:
            found: LayerTrial = self._ask("try_keeping", recipe=self._recipe, kept=names, reference=self._path)
        except Failed as failed:
            if self._made.worker is None or not self._made.worker.is_alive:
                raise
            return Tried(self._case, None, failed.error.message)  # its answers cannot be scored, as those of NaN
        answers, measurement = found.answers, self._before.measurement
        if answers is None or measurement is None:
            return Tried(self._case, None, found.why, found.changes_nothing)
        after = Measured(
            self._made.variant,
            loaded=self._made.loaded,
            measurement=replace(measurement, score=answers.score, examples=answers.examples),
            answers=answers,
        )
        case = replace(compared(self._case, self._before, after), coverage=None, interval=None, error=None)
        saved = None if None in (self._bytes, found.weights_bytes) else self._bytes - found.weights_bytes  # type: ignore[operator]
        return Tried(self._with_interval(case, after), saved)

    def _with_interval(self, case: MeasuredCase, after: Measured) -> MeasuredCase:
        """With that of the drop, for a metric that is not right-or-wrong."""
        then, now = self._before.answers, after.answers
        assert then is not None
        assert now is not None
        if then.correct is not None and now.correct is not None:
            return case
        if then.summands is None or now.summands is None:
            return case
        sides: dict[str, Any] = {"before": then.summands, "after": now.summands, "width": now.width}
        found = self._ask("interval", **sides)
        return replace(case, interval=found) if isinstance(found, Interval) else case

    @property
    def _path(self) -> str:
        return str(self._reference)

    def _ask(self, operation: str, **arguments: Any) -> Any:
        left = self.until - time.monotonic()
        if left <= 0:
            raise OutOfTime
        limit_s = min(left, self._context.limits.step_limit_s)
        self._context.progress.step(self._case.name, f"looking for the layers that {self._recipe.text} harms")
        try:
            return self._context.request(self._made.worker, operation, limit_s, **arguments)
        except WorkerFailed as failed:
            if time.monotonic() >= self.until:
                raise OutOfTime from None
            raise Failed(CaseError("compare", failed.message, failed.output)) from None
