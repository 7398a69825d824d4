"""What the fixtures give back to a test: a view on the record's figures, with the derived ones by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.results.answers import Agreement, Interval, Slices
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.generation import TokenAgreement
from pytest_modelopt.results.measurement import Coverage, Measurement
from pytest_modelopt.results.timed_pairs import TimedCall, Timing
from pytest_modelopt.results.verdicts import Finding

if TYPE_CHECKING:
    from torch import nn

    from pytest_modelopt.limits.derived import Derived


class NotMeasured(RuntimeError):
    """A figure that a test asks for and that could not be measured; the message is the reason that was recorded."""


@dataclass(frozen=True)
class Comparison:
    """A variant measured against its original. `case` holds the raw figures and, with a budget, the verdicts.

    Memory, size and score of each side stand in `original` and `variant`. What was not measured is None there, with the
    reason in `unmeasured`; the properties here that are no Optional raise NotMeasured.
    """

    case: Case

    @property
    def original(self) -> Measurement:
        return self._measured(self.case.reference, "original")

    @property
    def variant(self) -> Measurement:
        return self._measured(self.case.variant, "variant")

    def _measured(self, side: Measurement | None, name: str) -> Measurement:
        if side is None:
            raise NotMeasured(f"{self.case.name} has no {name}: {self._error or 'the run did not measure it'}")
        return side

    @property
    def _error(self) -> str:
        return f"{self.case.error.stage}: {self.case.error.message}" if self.case.error is not None else ""

    @property
    def _derived(self) -> Derived:
        from pytest_modelopt.limits.derived import Derived

        return Derived(self.case)

    @property
    def coverage(self) -> Coverage:
        """What the recipe changed, by layer, in weight bytes."""
        if self.case.coverage is None:
            why = self.variant.unmeasured.get("coverage", "what is no recipe's work has none")
            raise NotMeasured(f"{self.case.name} has no coverage: {self._error or why}")
        return self.case.coverage

    @property
    def timing(self) -> Timing:
        """The pairs. Raises NotMeasured where nothing was timed."""
        timing = self.case.timing
        if timing is None or not timing.pairs:
            sides = (self.case.variant, self.case.reference)
            reasons = [side.unmeasured["timing"] for side in sides if side is not None and "timing" in side.unmeasured]
            why = self._error or "; ".join(reasons) or "the run took no pairs"
            raise NotMeasured(f"{self.case.name} has no speedup and no latency: {why}")
        return timing

    @property
    def speedup(self) -> float:
        """How many times as fast the variant is: the ratio of the two latencies of this comparison."""
        from pytest_modelopt.limits.latency import speedup_of

        return speedup_of(self.timing).figure

    @property
    def speedup_interval(self) -> tuple[float, float]:
        """All limits on the speedup that these pairs leave undecided: it holds the truth in 95% of runs."""
        from pytest_modelopt.limits.latency import interval_of, speedup_of

        return interval_of(speedup_of(self.timing), 1)

    @property
    def original_latency_s(self) -> float:
        """Seconds of one call of the original, in this comparison."""
        from pytest_modelopt.limits.latency import latencies_s

        return latencies_s(self.timing)[0]

    @property
    def latency_s(self) -> float:
        """Seconds of one call of the variant, warm, on the machine left alone."""
        from pytest_modelopt.limits.latency import latencies_s

        return latencies_s(self.timing)[1]

    @property
    def tokens(self) -> TokenAgreement | None:
        """Of a model that generates: its most probable tokens held against the original's."""
        return self.case.tokens

    def timing_of(self, call: TimedCall) -> Timing:
        """The pairs of a part of the call, `"prefill"` or `"decode"`. Raises NotMeasured where it was not timed."""
        timing = self.case.timing_of(call)
        if timing is None or not timing.pairs:
            raise NotMeasured(f"{self.case.name} has no pairs of {call}: {self._error or 'it was not timed'}")
        return timing

    @property
    def memory_reduction(self) -> float | None:
        """Share of the original's peak memory that the variant saves, 0..1; negative where it needs more.

        By torch's allocator, or, where one of the two runs on a foreign runtime, by the process memory of both.
        """
        return self._derived.memory_reduction

    @property
    def size_reduction(self) -> float | None:
        """Share of the original's saved size that the variant saves; negative where it is larger."""
        return self._derived.size_reduction

    @property
    def accuracy_drop(self) -> float | None:
        """How much worse the variant's score is, in the metric's unit: 0.01 is one point of accuracy."""
        return self._derived.drop

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the doctor found: likely reasons for these figures."""
        return self.case.findings

    @property
    def agreement(self) -> Agreement | None:
        """Predictions compared one by one; None for a metric that is not right-or-wrong per example."""
        return self.case.agreement

    @property
    def slices(self) -> Slices | None:
        """The comparison by classes, or by the slices that the project names; None where there are neither."""
        return self.case.slices

    @property
    def interval(self) -> Interval | None:
        """Bounds of the drop in the population, for a metric that is not right-or-wrong; `case.no_interval` says why
        there are none."""
        return self.case.interval


@dataclass(frozen=True)
class Optimized:
    """An optimized variant, made in a process of its own and saved."""

    recipe: str
    coverage: Coverage
    notes: tuple[str, ...]
    """What the recipes have to say: layers they left alone, and why."""
    path: Path
    """The saved module; gone when the run ends."""
    _write: Callable[[Path, Measurement | None], tuple[Path, ...]] = field(repr=False, compare=False)

    def save(self, path: str | Path, *, measured: Comparison | None = None) -> tuple[Path, ...]:
        """Write it as it is shipped, and as `pytest-modelopt export` does: in the format of its runtime, else as one of
        torch's. Returns the files, of which the first is the one to load.

        `path` lies in the working folder, or is absolute. Its suffix is that of the format, or there is none. With
        `measured` it is written only where it is, bit by bit, what was measured in that comparison, of the same test;
        the record then has the SHA-256 of the files.

        Raises:
            RuntimeError: where it cannot be written, is of another format than the suffix says, or is not what was
                measured.
        """
        from pytest_modelopt.config.candidate_schema import SUFFIXES
        from pytest_modelopt.measuring.controller.process import WorkerFailed

        target = Path(path).resolve()
        suffix = target.suffix if target.suffix in SUFFIXES else ""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            wanted = None if measured is None else measured.variant
            files = self._write(target.with_name(target.name.removesuffix(suffix)), wanted)
        except WorkerFailed as failed:
            raise RuntimeError(f"{self.recipe} cannot be saved: {failed.message}") from None
        if suffix not in ("", files[0].suffix):
            told = ", ".join(file.name for file in files)
            raise RuntimeError(f"{self.recipe} is no {suffix} file: it was written as {told}")
        return files

    def load(self) -> nn.Module:
        """The optimized module, loaded into this process."""
        from pytest_modelopt.measuring.worker.files.size import load

        model: nn.Module = load(self.path)
        return model
