"""Each limit of the catalogue at the very ends of what its figure may be: kept at them, and not one step beyond."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import pytest

from pytest_modelopt.judging.judge import judge
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.results.answers import Agreement, Interval, Slices
from pytest_modelopt.results.base import Base
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.generation import CallMemory
from pytest_modelopt.results.measurement import Coverage, LayerCoverage, ProcessMemory
from pytest_modelopt.results.timed_pairs import Timing
from pytest_modelopt.statistics.proportions import drop_bounds, share_bounds
from pytest_modelopt.statistics.samples import Samples
from pytest_modelopt.statistics.starts import start_speedup, start_time
from pytest_modelopt.statistics.tails import tail_latency
from pytest_modelopt.statistics.timing import ALPHA_PASS, Estimate, alpha_fail, speedup, variant_latency
from tests.reporting.records_by_hand import case, limit, measurement, timing

MS = 1_000_000
TIMED_LIMITS = 3
FINALISTS = 20


def in_processes(of: Case, before: tuple[int, ...], after: tuple[int, ...]) -> Case:
    """The same in another runtime, so that its memory is that of processes."""
    assert of.reference is not None
    assert of.variant is not None
    return replace(
        of,
        reference=replace(of.reference, process_memory=ProcessMemory(before, "memray")),
        variant=replace(of.variant, process_memory=ProcessMemory(after, "memray"), runtime="ONNX Runtime"),
    )


ORIGINAL = measurement(None, size=10_000, weights=9_000, peak=1_000, score=0.9, examples=1000)
VARIANT = measurement(
    "r",
    size=4_000,
    weights=3_500,
    peak=500,
    score=0.89,
    examples=1000,
    process_memory=ProcessMemory((500, 510, 502), "memray"),
    call_memory=CallMemory(cache_bytes=5120, context=20, sequences=1, prefill_peak_bytes=9000, step_peak_bytes=6000),
)
CALLS = replace(timing(200, 2 * MS, MS), variant_calls_ns=200 * ((*(9 * (MS,)), 3 * MS),))
CASE = case(
    "r",
    reference=ORIGINAL,
    variant=VARIANT,
    coverage=Coverage((LayerCoverage("a", "Linear", 700, 700), LayerCoverage("b", "Conv2d", 300, 0)), ()),
    agreement=Agreement(1000, right_to_wrong=15, wrong_to_right=5, flips=30),
    slices=Slices(("0", "1"), True, (500, 500), (0.02000000000000001, 0.0), (12, 3), (2, 3)),
    timing=CALLS,
    loading=timing(40, 300 * MS, 100 * MS),
    phases={"prefill": timing(200, 3 * MS, 2 * MS), "decode": timing(200, 2 * MS, 4 * MS)},
)
CONVERTED = in_processes(CASE, (1000, 1000, 1000), (500, 510, 502))
GROWN = replace(CASE, reference=VARIANT, variant=replace(ORIGINAL, recipe="r"), base=Base("1a2b", "compared"))
LOST = replace(CASE, base=Base("1a2b", "compared"))
POPULATION = replace(CASE, inference="population")


@dataclass(frozen=True)
class Row:
    """Everything from `low` to `high` is what the figure may be: both are the figure where it repeats."""

    name: str
    case: Case
    low: float
    high: float

    @property
    def good_and_bad(self) -> tuple[float, float]:
        """The tightest limit that holds, and the loosest that is not broken."""
        return (self.high, self.low) if self.name.startswith("max") else (self.low, self.high)

    def outcome(self, value: float) -> str:
        of = replace(self.case, limits=(limit(self.name, value, "L"),))
        (verdict,) = judge(of, timed_limits=TIMED_LIMITS).verdicts
        return verdict.outcome

    def beyond(self, value: float, *, tighter: bool = True) -> float:
        """The nearest float on that side; for a slowdown, of which a ratio is judged, one some steps away."""
        step = 1e-12 if self.name == "max_slowdown" else math.ulp(value)
        return value - step if self.name.startswith("max") == tighter else value + step


def timed(name: str, of: Case, estimate: Estimate) -> Row:
    errors = (ALPHA_PASS, alpha_fail(TIMED_LIMITS))
    return Row(name, of, *estimate.interval(*(reversed(errors) if name.startswith("max") else errors)))


def samples(of: Timing | None) -> Samples:
    assert of is not None
    return Samples.of(of.pairs, None, of.variant_calls_ns)


def of_slices() -> tuple[float, float]:
    """Broken where one bound at half of the error breaks it, kept where each bound keeps it."""
    counts = ((12, 2, 500), (3, 3, 500))
    half = NormalDist().inv_cdf(1 - 0.05 / 2)
    return max(drop_bounds(*each, half)[0] for each in counts), max(drop_bounds(*each)[1] for each in counts)


def slowdowns() -> tuple[float, float]:
    low, high = speedup(samples(CASE.timing)).interval(ALPHA_PASS, alpha_fail(TIMED_LIMITS))
    return 1 / high - 1, 1 / low - 1


PREFILL, DECODE = samples(CASE.phases["prefill"]), samples(CASE.phases["decode"])
ROWS = [
    Row("max_memory", CASE, 4000, 4000),
    Row("max_memory", CONVERTED, 500, 510),
    Row("min_memory_reduction", CASE, 0.6, 0.6),
    Row("min_memory_reduction", CONVERTED, 0.49, 0.5),
    Row("max_process_memory", CASE, 500, 510),
    Row("max_size", CASE, 4000, 4000),
    Row("min_size_reduction", CASE, 0.6, 0.6),
    timed("min_speedup", CASE, speedup(samples(CASE.timing))),
    timed("max_latency", CASE, variant_latency(samples(CASE.timing))),
    timed("max_p95_latency", CASE, tail_latency(samples(CASE.timing))),
    timed("max_load_time", CASE, start_time(samples(CASE.loading))),
    timed("min_load_speedup", CASE, start_speedup(samples(CASE.loading))),
    timed("max_first_token_latency", CASE, variant_latency(PREFILL)),
    timed("min_prefill_speedup", CASE, speedup(PREFILL)),
    timed("min_decode_speedup", CASE, speedup(DECODE)),
    Row("max_cache_memory", CASE, 5120, 5120),
    Row("max_accuracy_drop", CASE, 0.01, 0.01),
    Row("max_accuracy_drop", POPULATION, *drop_bounds(15, 5, 1000)),
    Row("min_accuracy", CASE, 0.89, 0.89),
    Row("min_accuracy", POPULATION, *share_bounds(890, 1000)),
    Row("max_slice_drop", CASE, 0.02, 0.02),
    Row("max_slice_drop", POPULATION, *of_slices()),
    Row("max_flips", CASE, 0.03, 0.03),
    Row("max_flips", POPULATION, *share_bounds(30, 1000)),
    Row("min_coverage", CASE, 0.7, 0.7),
    Row("max_memory_growth", GROWN, 1.5, 1.5),
    Row("max_memory_growth", in_processes(GROWN, (400, 500), (600,)), 0.2, 0.5),
    Row("max_size_growth", GROWN, 1.5, 1.5),
    Row("max_accuracy_loss", LOST, 0.01, 0.01),
    Row("max_accuracy_loss", replace(LOST, inference="population"), *drop_bounds(15, 5, 1000)),
    Row("max_slowdown", LOST, *slowdowns()),
]


def test_every_limit_of_the_catalogue_stands_here() -> None:
    assert {row.name for row in ROWS} == set(LIMITS)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_limit_is_kept_at_the_end_of_its_figure_and_broken_a_step_beyond_the_other_end(row: Row) -> None:
    good, bad = row.good_and_bad
    if row.name != "max_slowdown":  # 1 / (1 + end) is not the bound to the last bit
        assert (row.outcome(good), row.outcome(bad)) == ("pass", "pass" if good == bad else "inconclusive")
    assert row.outcome(row.beyond(good, tighter=False)) == "pass"
    assert row.outcome(row.beyond(good)) == ("fail" if good == bad else "inconclusive")
    assert row.outcome(row.beyond(bad, tighter=False)) == ("pass" if good == bad else "inconclusive")
    assert row.outcome(row.beyond(bad)) == "fail"


OF_ONE_FINALIST = NormalDist().inv_cdf(1 - 0.05 / FINALISTS)
RESAMPLED = replace(
    POPULATION,
    metric="shop:r2",
    agreement=None,
    slices=None,
    interval=Interval(-0.02, 0.03),
)
"""A drop of 0.01, with its bounds at 95%."""
ENDS_OF_ONE_FINALIST = [
    ("max_accuracy_drop", POPULATION, drop_bounds(15, 5, 1000, OF_ONE_FINALIST)[1]),
    ("max_accuracy_drop", RESAMPLED, 0.01 + OF_ONE_FINALIST / NormalDist().inv_cdf(0.95) * (0.03 - 0.01)),
    ("min_accuracy", POPULATION, share_bounds(890, 1000, OF_ONE_FINALIST)[0]),
    ("max_flips", POPULATION, share_bounds(30, 1000, OF_ONE_FINALIST)[1]),
    ("max_slice_drop", POPULATION, max(drop_bounds(*each, OF_ONE_FINALIST)[1] for each in ((12, 2, 500), (3, 3, 500)))),
    ("min_speedup", CASE, speedup(samples(CASE.timing)).interval(ALPHA_PASS / FINALISTS, 1)[0]),
    ("max_latency", CASE, variant_latency(samples(CASE.timing)).interval(1, ALPHA_PASS / FINALISTS)[1]),
]


@pytest.mark.parametrize(("name", "of", "end"), ENDS_OF_ONE_FINALIST)
def test_among_finalists_each_keeps_its_limits_at_its_share_of_the_error(name: str, of: Case, end: float) -> None:
    looser = 1 if name.startswith("max") else -1
    off = 1e-12 if of is RESAMPLED else 0.0  # by hand, and not to the last bit
    kind, kept = LIMITS[name], limit(name, end + looser * off, "L")
    missed = limit(name, end - looser * max(off, math.ulp(end)), "L")
    assert kind.passes_among(of, kept, FINALISTS)
    assert not kind.passes_among(of, missed, FINALISTS)
    assert kind.passes_among(of, missed, 1)
    assert kind.passes_among(replace(of, inference="set"), missed, FINALISTS) == (not kind.is_timed)
