"""Timing with real workers: launches, threads, and what is noticed meanwhile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest

from pytest_modelopt import system
from pytest_modelopt.measuring.controller.launches import start_again
from pytest_modelopt.measuring.controller.process import WorkerFailed
from pytest_modelopt.measuring.controller.runner import Runner, StepLimits
from pytest_modelopt.measuring.controller.timing.paired_timing import Listener
from pytest_modelopt.measuring.controller.worker_context import Measured, WorkerContext
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.plugin.progress import Silent
from pytest_modelopt.reporting.timing_conditions import disturbances, oddities
from pytest_modelopt.results.case import MeasuredCase, PlannedCase
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.timed_pairs import Timing
from pytest_modelopt.selftest import trial

SOURCE = (Path(__file__).parents[1] / "users" / "timed_user.py").read_text(encoding="utf-8")


def timed(variant: Variant, tmp_path: Path, *, slowdown: float = 0.0, min_speedup: float = 0.5) -> Timing:
    return trial(
        variant, slowdown=slowdown, min_speedup=min_speedup, time_limit_s=3, step_limit_s=60, folder=tmp_path
    ).timing


def launches(timing: Timing) -> list[int]:
    """In their order, each once where its pairs follow one another."""
    return [number for number, _ in groupby(pair.launch for pair in timing.pairs)]


# --- launches --------------------------------------------------------------------------------------------------------


def test_a_clear_case_is_decided_in_one_launch(variant: Callable[..., Variant], tmp_path: Path) -> None:
    """Twice as slow, by construction, against a limit of 10% slower."""
    done = trial(variant(), slowdown=1.0, min_speedup=1 / 1.1, time_limit_s=20, folder=tmp_path)
    assert done.outcome(1 / 1.1) == "fail"
    assert launches(done.timing) == [1]


def test_a_comparison_that_stays_open_is_tried_in_three_launches(
    variant: Callable[..., Variant], tmp_path: Path
) -> None:
    timing = trial(variant(), min_speedup=None, time_limit_s=3, folder=tmp_path).timing
    assert launches(timing) == [1, 2, 3]
    assert timing.seconds >= timing.time_limit_s
    starts = [next(pair.at_ms for pair in timing.pairs if pair.launch == number) for number in (1, 2, 3)]
    assert starts[0] == 0
    assert starts[1] >= 1000
    assert starts[2] >= starts[1] + 1000
    moments = [pair.at_ms for pair in timing.pairs]
    assert moments == sorted(moments)


def test_what_is_shown_pair_by_pair_is_what_the_record_says(variant: Callable[..., Variant], tmp_path: Path) -> None:
    seen: list[float] = []

    class Sees(Listener):
        def pairs(self, count: int, seconds: float, speedup: float) -> None:
            seen.append(speedup)

    done = trial(variant(), min_speedup=0.5, time_limit_s=20, folder=tmp_path, listener=Sees(), launches_at_least=3)
    assert launches(done.timing) == [1, 2, 3]
    assert seen == [pair.reference_ns / pair.variant_ns for pair in done.timing.pairs]
    assert done.outcome(0.5) == "pass"


def test_a_block_is_as_long_as_it_has_to_be(variant: Callable[..., Variant], tmp_path: Path) -> None:
    """Ten milliseconds of timed calls, however short a call is, after those that warm up."""
    timing = timed(variant(), tmp_path)
    for pair in timing.pairs:
        assert min(pair.reference_block_ns, pair.variant_block_ns) >= 10_000_000
        assert min(pair.reference_warming_ns, pair.variant_warming_ns) >= 3_000_000
        # Rounded to whole nanoseconds of a call.
        own_ns = pair.reference_block_ns - pair.reference_delayed_ns
        assert abs(pair.reference_ns * pair.reference_calls - own_ns) <= pair.reference_calls
        own_ns = pair.variant_block_ns - pair.variant_delayed_ns
        assert abs(pair.variant_ns * pair.variant_calls - own_ns) <= pair.variant_calls


def measured_in_three_launches(runner: Runner, variant: Variant) -> MeasuredCase:
    assert variant.recipe is not None
    case = PlannedCase(id="id", model="m", recipe=variant.recipe.text, limits=(), batch_size=1)
    return runner.measure(case, variant, lambda samples, call: True)


def test_further_launches_load_the_saved_variant_and_the_data_no_more(
    variant: Callable[..., Variant], runner: Runner, tmp_path: Path
) -> None:
    case = measured_in_three_launches(runner, variant(recipe="int8-dynamic"))
    assert case.error is None
    assert case.timing is not None
    assert launches(case.timing) == [1, 2, 3]
    made = (tmp_path / "made").read_text().split()
    assert made.count("data") == 2, "read once, and its beginning again"
    assert made.count("model") == 3 + 1, "the original in each launch, the variant only once"
    assert case.variant is not None
    assert case.variant.notes == ()


def test_a_variant_that_does_not_come_back_as_it_was_is_made_anew_and_says_so(
    variant: Callable[..., Variant], runner: Runner, tmp_path: Path
) -> None:
    case = measured_in_three_launches(runner, variant("forgetful", recipe="int8-dynamic"))
    assert case.error is None
    assert case.variant is not None
    (note,) = case.variant.notes
    assert note.startswith("saved and loaded again it is not the same model: its answers differ")
    assert case.variant.observations is not None
    assert (case.variant.observations.reloads, case.variant.observations.reload_error) == (False, None)
    assert (tmp_path / "made").read_text().split().count("model") == 3 + 3


def test_why_a_variant_could_not_be_loaded_again_is_recorded(variant: Callable[..., Variant]) -> None:
    context = WorkerContext(StepLimits(time_limit_s=1, step_limit_s=60), Silent())
    measured = Measured(variant("at_home", recipe="int8-dynamic"))
    try:
        context.start(measured)
        for operation in ("load", "optimize"):
            context.request(measured.worker, operation)
        seen: Observations = context.request(measured.worker, "observe")
        measured.measurement = Measurement("int8-dynamic", 1, 1, 1, None, 0, None, observations=seen)
        start_again(context, measured)
        seen = measured.measurement.observations or Observations()
    finally:
        context.discard(measured)
        context.close()
    assert (seen.reloads, seen.reload_error) == (False, "ImportError: no module named shop")


def test_an_original_that_is_another_model_in_the_next_launch_is_an_error(
    variant: Callable[..., Variant], runner: Runner
) -> None:
    case = measured_in_three_launches(runner, variant("model_of_its_process", recipe="int8-dynamic"))
    assert case.error is not None
    assert case.error.stage == "timing"
    assert case.error.message.startswith("the original was made again for another launch, and answers differently")


def test_no_saved_model_outlives_its_case(variant: Callable[..., Variant], runner: Runner) -> None:
    assert measured_in_three_launches(runner, variant(recipe="int8-dynamic")).error is None
    runner.forget_original()
    assert list(runner.new_file("none").parent.glob("*.pt")) == []


def test_the_next_case_finds_a_whole_original_after_a_launch_that_failed(
    variant: Callable[..., Variant], runner: Runner, tmp_path: Path
) -> None:
    """The factory works once, fails once, and then works again."""
    (tmp_path / "timed_user.py").write_text(
        SOURCE.replace(
            '    note("model")\n    torch.manual_seed(0)\n',
            '    note("model")\n'
            '    if open("made").read().split().count("model") == 3:\n'
            '        raise RuntimeError("the file server is away")\n',
        ),
        encoding="utf-8",
    )
    case = measured_in_three_launches(runner, variant(recipe="int8-dynamic"))
    assert case.error is not None
    assert "the file server is away" in case.error.message
    assert case.error.stage == "timing"
    assert measured_in_three_launches(runner, variant(recipe="low-rank(ratio=0.5)")).error is None


# --- threads, and the machine ----------------------------------------------------------------------------------------


def test_a_model_that_sets_the_threads_itself_is_refused(variant: Callable[..., Variant], tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed, match=r"threads: 1 was set, but 2 were in force after the original was timed"):
        timed(variant("sets_threads"), tmp_path)


def test_a_model_that_has_known_inputs_again_is_not_timed(variant: Callable[..., Variant], tmp_path: Path) -> None:
    with pytest.raises(
        WorkerFailed, match=r"^the original recognizes inputs by their address in memory, for longer than"
    ):
        timed(variant("knows_places"), tmp_path)


def test_an_engine_that_takes_more_threads_than_it_was_given_is_noticed(
    variant: Callable[..., Variant], tmp_path: Path
) -> None:
    timing = timed(variant("two_threads"), tmp_path)
    assert timing.conditions.reference.active_threads is not None
    assert timing.conditions.reference.active_threads >= 2
    assert any("threads though `threads` is 1" in text for text in oddities(timing))


def test_a_runtime_with_threads_of_its_own_is_noticed(tmp_path: Path) -> None:
    """ONNX Runtime with two threads, of which torch's setting knows nothing."""
    folder, models = str(Path(__file__).parents[3]), "tests.measuring.foreign_models"
    of = Variant(
        f"{models}:on_two_threads", None, None, None, f"{models}:many_inputs", MetricSpec(), (folder,), folder,
        batch_size=256,
    )  # fmt: skip
    timing = timed(of, tmp_path)
    assert timing.conditions.reference.active_threads == 2
    assert any("worked with 2 threads though `threads` is 1" in text for text in oddities(timing))


def test_a_thread_that_spins_while_its_worker_waits_is_noticed(variant: Callable[..., Variant], tmp_path: Path) -> None:
    timing = timed(variant("spinning"), tmp_path)
    assert any("cores busy when it was not its turn" in text for text in oddities(timing))


def test_a_well_behaved_model_has_no_oddities(variant: Callable[..., Variant], tmp_path: Path) -> None:
    timing = timed(variant(), tmp_path)
    assert oddities(timing) == []
    assert timing.conditions.reference.active_threads == 1


def test_a_machine_that_others_keep_busy_is_called_disturbed(variant: Callable[..., Variant], tmp_path: Path) -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(-(-system.cores() // 4))]
    try:
        timing = timed(variant(), tmp_path, min_speedup=1.0)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert any(text.startswith("other processes kept") for text in disturbances(timing))
