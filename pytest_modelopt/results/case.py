"""One (model, recipe, budget): as it is planned, as it was measured, and as it was judged."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from statistics import median_low
from typing import Any, Literal, TypeVar

from pytest_modelopt.results.answers import Agreement, Inference, Interval, Slices
from pytest_modelopt.results.base import Base
from pytest_modelopt.results.generation import Generation, TokenAgreement
from pytest_modelopt.results.measurement import Coverage, Measurement
from pytest_modelopt.results.timed_pairs import TimedCall, Timing
from pytest_modelopt.results.verdicts import Finding, Limit, Verdict
from pytest_modelopt.results.workload import at_workload

ORIGINAL = "original"
"""Stands for a recipe where the model without one is compared with its base."""
Stage = Literal["start", "read", "load", "optimize", "size", "memory", "score", "timing", "limits", "compare", "test"]


@dataclass(frozen=True, slots=True)
class CaseError:
    """Why a case has no result: the stage that failed, one message, and the last lines that the worker printed."""

    stage: Stage
    message: str
    output: str = ""


@dataclass(frozen=True, slots=True)
class Expected:
    """A test that is marked with `xfail`, and what came of it: none of its cases makes a run red."""

    outcome: Literal["xfailed", "xpassed"]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCase:
    """One (model, recipe, budget), of which nothing is measured yet."""

    id: str
    """The pytest node id."""
    model: str
    recipe: str
    """'' where a test failed before it said which."""
    limits: tuple[Limit, ...]
    batch_size: int
    device: str = "cpu"
    inference: Inference = "set"
    threads: int | None = None
    """Intra-op threads of the calls that are timed."""
    workload: str = ""
    """The operating point at which it is measured; '' where its model has one only."""
    call: str = ""
    """The function (model, inputs) -> outputs that is called, by its name; empty where the model itself is."""
    optimize: str = ""
    """The path below the model of the module that recipes change; empty where that is the model."""
    generation: Generation | None = None
    """None for a model that is called once."""

    @property
    def row(self) -> str:
        """'int8-dynamic @ night': what its row is called in the table of its model."""
        return at_workload(self.recipe, self.workload)

    @property
    def name(self) -> str:
        return f"{self.model}/{self.row}" if self.recipe else at_workload(self.model, self.workload)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCase(PlannedCase):
    """A planned case with the two sides of its comparison, as far as they could be measured."""

    metric: str | None = None
    higher_is_better: bool = True
    reference: Measurement | None = None
    variant: Measurement | None = None
    input_shapes: tuple[tuple[int, ...], ...] = ()
    """Of the tensors that the measured call was given, in the order of its arguments."""
    coverage: Coverage | None = None
    agreement: Agreement | None = None
    """None for a metric that is not right-or-wrong per example."""
    slices: Slices | None = None
    interval: Interval | None = None
    """Of the drop, for a metric that is not right-or-wrong; None where none is honest: `no_interval` says why."""
    no_interval: str = ""
    interval_lacks_examples: bool = False
    """Whether that is for want of examples: then a limit on the population is undecided, and nothing is wrong."""
    timing: Timing | None = None
    loading: Timing | None = None
    """Fresh processes in turns, each from the start of loading the saved side to its first answer, as pairs of one call
    and a launch each; None where no limit asked for them."""
    phases: dict[TimedCall, Timing] = field(default_factory=dict)
    """Of a model that generates: the two parts of its call, each timed in pairs of its own."""
    tokens: TokenAgreement | None = None
    """Of a model that generates."""
    error: CaseError | None = None
    base: Base | None = None
    """Where head is compared with its base and not with its original: then `reference` is the base's measurement."""

    def timing_of(self, call: TimedCall) -> Timing | None:
        """The pairs of the whole call, or of a part of it; None where it was not timed."""
        return self.timing if call == "whole" else self.phases.get(call)

    @property
    def timings(self) -> dict[str, Timing]:
        """All that were taken, by where they stand: 'timing', 'loading', 'phases.prefill'."""
        found = {"timing": self.timing, "loading": self.loading}
        found |= {f"phases.{name}": timing for name, timing in self.phases.items()}
        return {name: timing for name, timing in found.items() if timing is not None}

    @property
    def drop(self) -> float | None:
        """How much worse the variant's score is than the original's, in the metric's unit; negative is better.

        Where predictions were compared one by one it is what was counted, without the rounding of two scores: 63 of 400
        are 15.75 pp.
        """
        if self.reference is None or self.variant is None:
            return None
        if self.reference.score is None or self.variant.score is None:
            return None
        if math.isclose(self.reference.score, self.variant.score, rel_tol=1e-12):
            return 0.0
        difference = self.reference.score - self.variant.score
        drop = difference if self.higher_is_better else -difference
        if self.agreement is None:
            return drop
        counted = (self.agreement.right_to_wrong - self.agreement.wrong_to_right) / self.agreement.examples
        return counted if math.isclose(counted, drop, abs_tol=1e-9) else drop

    @property
    def foreign_runtimes(self) -> tuple[str, ...]:
        """What the original or the variant holds beside torch: runtimes, or memory of which nobody knows whose it is.

        With any, the memory of both is compared by the process meter: torch's allocator would not see one of them.
        """
        found = (side.outside_of_torch for side in (self.reference, self.variant) if side is not None)
        return tuple(dict.fromkeys(what for what in found if what is not None))

    @property
    def is_one_file(self) -> bool:
        """Whether both sides are files of the same content."""
        sides = (self.reference, self.variant)
        sums = [sorted(side.provenance.sums.values()) for side in sides if side is not None and side.provenance]
        return len(sums) == len(sides) and bool(sums[0]) and sums[0] == sums[1]

    def memory_peaks_bytes(self, side: Measurement | None) -> tuple[int, ...]:
        """What the meter of this comparison read for `side`: one exact figure, or one of each fresh process.

        Empty where it was not measured.
        """
        if side is None:
            return ()
        if self.foreign_runtimes:
            return side.process_memory.peaks_bytes if side.process_memory else ()
        return () if side.memory_bytes is None else (side.memory_bytes,)

    def memory_bytes(self, side: Measurement | None) -> int | None:
        """Peak memory of `side` by the meter of this comparison: the median where there are several figures."""
        peaks = self.memory_peaks_bytes(side)
        return median_low(peaks) if peaks else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(MeasuredCase):
    """A measured case with its verdicts."""

    verdicts: tuple[Verdict, ...] = ()
    findings: tuple[Finding, ...] = ()
    """Of a run. A record that is read has none: `diagnosis.examine` finds them in its figures."""
    expected: Expected | None = None
    """The result of a test that is marked with `xfail`; None for any other test."""
    machine: int = 0
    """Which machine of its record it was measured on: 0 is `Record.environment`, 1 the first of `other_machines`."""


_Stage = TypeVar("_Stage", bound=PlannedCase)


def next_stage(kind: type[_Stage], case: PlannedCase, **found: Any) -> _Stage:
    """The case as a `kind`, with what was `found`."""
    known = {each.name: getattr(case, each.name) for each in fields(kind) if hasattr(case, each.name)}
    return kind(**{**known, **found})
