"""What disturbed a timing, in words, from records made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pytest_modelopt.limits.latency import latencies_s, speedup_of
from pytest_modelopt.reporting.sentences import case_items, items
from pytest_modelopt.reporting.summary import machine
from pytest_modelopt.reporting.table import blocks
from pytest_modelopt.reporting.timing_conditions import disturbances, oddities
from pytest_modelopt.results.figures import format_factor
from pytest_modelopt.results.timed_pairs import Conditions, EarlierRuns, Timing, WorkerUse
from pytest_modelopt.statistics.samples import ORIGINAL_TOLERANCE
from tests.reporting.records_by_hand import QUIET, case, limit, measurement, record, timing, verdict


def delayed(share: float) -> Timing:
    """Every block waited for `share` of its time."""
    made = timing()
    pairs = tuple(
        replace(
            pair,
            reference_delayed_ns=round(pair.reference_block_ns * share),
            variant_delayed_ns=round(pair.variant_block_ns * share),
        )
        for pair in made.pairs
    )
    return replace(made, pairs=pairs)


DISTURBED = [
    (replace(QUIET, other_cores=0.97), "other processes kept 0.97 of 2 cores busy"),
    (replace(QUIET, stolen_cores=0.1), "the host took 0.1 cores away (steal)"),
    (replace(QUIET, throttled_s=0.25), "a processor quota stopped it for 250 ms"),
]


@pytest.mark.parametrize(("conditions", "text"), DISTURBED)
def test_each_disturbance_is_said_with_its_figure(conditions: Conditions, text: str) -> None:
    assert disturbances(timing(conditions=conditions)) == [text, "load average 0.5"]


def test_time_that_others_had_the_processor_is_a_disturbance() -> None:
    assert disturbances(delayed(0.04)) == []
    assert disturbances(delayed(0.12))[0] == "others had the processor for 12% of the timed time"


def test_a_quiet_machine_and_one_that_tells_nothing_are_not_disturbed() -> None:
    assert disturbances(timing()) == []
    silent = replace(QUIET, load=None, other_cores=None, stolen_cores=None, throttled_s=None)
    assert disturbances(timing(conditions=silent)) == []


def test_a_few_busy_cores_of_many_are_no_disturbance() -> None:
    """The workers have one of 64 cores: that it is one of the 6 busy ones is not likely."""
    assert disturbances(timing(conditions=replace(QUIET, cores=64, other_cores=6.0))) == []
    assert disturbances(timing(conditions=replace(QUIET, cores=64, other_cores=30.0))) != []


def test_more_threads_than_given_and_spinning_are_odd() -> None:
    odd = replace(QUIET, reference=WorkerUse(2, 0.03), variant=WorkerUse(None, 0.9))
    first, second = oddities(timing(conditions=odd))
    assert first.startswith("the original worked with 2 threads though `threads` is 1")
    assert second.startswith("the variant kept 0.9 cores busy when it was not its turn")
    assert oddities(timing()) == []


def test_one_note_speaks_for_all_comparisons_that_were_disturbed() -> None:
    busy = replace(QUIET, other_cores=0.97)
    told = items(record(case("a", timing=timing(conditions=busy)), case("b", timing=timing()), case("c")))
    (note,) = [item for item in told if "disturbed" in item.title]
    assert note.label == "NOTE"
    assert note.text == (
        "busy: 1 of 2 comparisons timed on a disturbed machine, which changes times and no other figure; at worst, "
        "digits-vit/a: other processes kept 0.97 of 2 cores busy, load average 0.5"
    )


def test_what_workers_did_alike_in_several_comparisons_is_one_note() -> None:
    spinning = timing(conditions=replace(QUIET, variant=WorkerUse(1, 0.9)))
    told = [item.text for item in items(record(case("a", timing=spinning), case("b", timing=spinning), case("c")))]
    assert len(told) == 1
    assert told[0].startswith("digits-vit/a, digits-vit/b: the variant kept 0.9 cores busy when it was not its turn")


def test_a_broken_timed_limit_says_that_the_machine_was_disturbed() -> None:
    broken = verdict(limit("min_speedup", 3.0, "3x"), "fail", 0.8)
    busy = timing(conditions=replace(QUIET, other_cores=0.97))
    (item,) = case_items(case(verdicts=(broken,), timing=busy), strict=False)
    assert item.why[0] == ("timed on a disturbed machine: other processes kept 0.97 of 2 cores busy, load average 0.5")


def test_a_gpu_is_told_with_its_name_its_tables_and_its_reserved_memory() -> None:
    on_gpu = replace(
        case("low-rank", timing=timing(), reference=replace(measurement(None), reserved_bytes=40 * 2**20)),
        device="cuda",
    )
    of_cpu = case("low-rank", timing=timing())
    run = record(on_gpu, of_cpu)
    assert run.environment is not None
    run = replace(run, environment=replace(run.environment, gpu="Example GPU (CUDA 13.0)"))
    assert [block.conditions.rpartition("; ")[2] for block in blocks(run)] == [
        "memory and latency of batch 1 on cuda",
        "memory and latency of batch 1, 1 thread",
    ]
    assert "; Example GPU (CUDA 13.0), Example CPU (AVX512), torch" in machine(run)
    (note,) = [item for item in items(run) if "reserved" in item.title]
    assert note.text == "digits-vit: reserved on the GPU by torch's allocator: original 40 MiB"


def test_a_speedup_that_is_corrected_to_the_best_state_is_told_as_it_was_timed_too() -> None:
    """The original takes 1.5 times as long as in the fastest of 12 runs, in which the speedup followed it by 0.9."""
    following = {"original": 1.0, "speedup_with_original": 0.9, "latency_with_original": 0.1}
    earlier = EarlierRuns(12, 11, 0.81, 0.01, own=12, **following, fastest_s=2e-3)
    made = timing(200, 3_000_000, 1_000_000)
    slow = replace(made, earlier=earlier)
    corrected = speedup_of(slow)
    assert corrected.correction == pytest.approx((1.5 * math.exp(-ORIGINAL_TOLERANCE)) ** -0.9, rel=0.01)
    assert corrected.figure == pytest.approx(3 * corrected.correction)
    one, other = latencies_s(slow)
    assert one / other == pytest.approx(corrected.figure)
    assert other == pytest.approx(1e-3), "a latency is as it was timed"
    told = record(case("bf16", timing=slow), case("int8", timing=made))
    [note] = [item.text for item in items(told) if item.text.startswith("state: ")]
    at_best = format_factor(corrected.figure)
    assert note == (
        "state: 1 of 2 comparisons corrected to the machine's best state, by what earlier runs in other states show; "
        f"at most, digits-vit/bf16: 3x as timed, {at_best} at its best"
    )
    assert not [item for item in items(record(case("int8", timing=made))) if item.text.startswith("state: ")]
