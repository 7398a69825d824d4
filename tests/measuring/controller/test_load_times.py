"""Load times and single calls: fresh processes in turns that load what was saved and answer, where a limit asks."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_modelopt.measuring.controller.runner import Runner, StepLimits
from pytest_modelopt.measuring.controller.timing import best_state, load_times
from pytest_modelopt.measuring.controller.timing.load_times import MOST_PAIRS
from pytest_modelopt.measuring.controller.timing.paired_timing import TimingPlan
from pytest_modelopt.measuring.controller.worker_context import Measured, WorkerContext
from pytest_modelopt.measuring.protocol import FirstAnswer, Sample
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.memory.process_memory import import_libraries
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.plugin.progress import Silent
from pytest_modelopt.results.case import MeasuredCase, PlannedCase
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.timed_pairs import Timing
from pytest_modelopt.results.verdicts import Limit
from pytest_modelopt.statistics.samples import MIN_PAIRS

SOURCE = """
import time
import torch
from torch import nn

def note(what):
    with open("log", "a") as log:
        log.write(what + "\\n")

class SlowToLoad(nn.Linear):
    def __setstate__(self, state):
        note("loading")
        time.sleep(0.03)
        super().__setstate__(state)

    def forward(self, x):
        note("calling")
        time.sleep(0.001)
        return super().forward(x)

class Forgetful(nn.Linear):
    '''What it was told after it was made is not saved.'''
    scale = 1.0
    def forward(self, x):
        return super().forward(x) * self.scale
    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "scale"}

def slow():
    torch.manual_seed(0)
    return SlowToLoad(64, 10).eval()

def forgetful():
    made = Forgetful(64, 10).eval()
    made.scale = 3.0
    return made

def inputs():
    return torch.ones(1, 64)
"""
RECIPE = "prune-unstructured(ratio=0.5)"


@pytest.fixture
def variant(tmp_path: Path) -> Callable[[str], Variant]:
    (tmp_path / "loaded_user.py").write_text(SOURCE, encoding="utf-8")
    return lambda model: Variant(
        model=f"loaded_user:{model}",
        recipe=parse(RECIPE),
        data=None,
        calibration=None,
        example_inputs="loaded_user:inputs",
        metric=MetricSpec(),
        import_paths=(str(tmp_path),),
        working_directory=str(tmp_path),
    )


@pytest.fixture
def runner() -> Iterator[Runner]:
    made = Runner(StepLimits(time_limit_s=0.001, step_limit_s=60), Silent())
    yield made
    made.close()


def measured(runner: Runner, of: Variant, *limits: str) -> MeasuredCase:
    stated = tuple(Limit(name, 1.0, "1 s", "error", "budgets.yaml", 1) for name in limits)
    case = PlannedCase(id="id", model="m", recipe=of.label, limits=stated, batch_size=1, threads=1)
    return runner.measure(case, of, lambda _samples, _call: False)


def test_fresh_processes_load_and_answer_in_turns(
    runner: Runner, variant: Callable[[str], Variant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sleeps 31 ms between the start of loading and its answer. One process of each side is not counted, and each
    loads and calls once."""
    load = runner._timing.load

    def load_alone(*arguments: Any) -> Timing | None:
        (tmp_path / "log").unlink()
        found = load(*arguments)
        (tmp_path / "log").rename(tmp_path / "kept")
        return found

    monkeypatch.setattr(runner._timing, "load", load_alone)
    case = measured(runner, variant("slow"), "max_load_time", "max_p95_latency")
    assert case.error is None
    assert case.loading is not None
    (pair,) = case.loading.pairs
    assert min(pair.reference_block_ns, pair.variant_block_ns) >= 31_000_000
    assert (pair.launch, pair.reference_calls, pair.variant_calls) == (1, 1, 1)
    assert pair.canary_ns > 0
    lines = (tmp_path / "kept").read_text(encoding="utf-8").split()
    of_answers = 2 * ["calling"]  # of the workers that stand, with which those of the fresh ones are compared
    assert sorted(lines) == sorted([*of_answers, *((2 + 2) * ["loading", "calling"])])

    assert case.timing is not None
    assert len(case.timing.variant_calls_ns) == len(case.timing.pairs)
    assert {len(calls) for calls in case.timing.variant_calls_ns} == {10}
    assert all(call >= 1_000_000 for calls in case.timing.variant_calls_ns for call in calls)


def test_a_saved_model_that_answers_otherwise_has_no_load_time(
    runner: Runner, variant: Callable[[str], Variant]
) -> None:
    """And single calls are timed only where a limit asks for them."""
    case = measured(runner, variant("forgetful"), "min_load_speedup")
    assert case.error is None
    assert case.loading is None
    assert case.variant is not None
    why = "the original has no load time: saved and loaded again it answers differently"
    assert why in case.variant.unmeasured["loading"]
    assert case.timing is not None
    assert case.timing.variant_calls_ns == ()


@pytest.mark.parametrize(("closed_after", "pairs"), [(MIN_PAIRS, MIN_PAIRS), (MIN_PAIRS + 1, 8), (99, MOST_PAIRS)])
def test_the_processes_go_on_until_it_is_decided(
    monkeypatch: pytest.MonkeyPatch, closed_after: int, pairs: int
) -> None:
    """It is looked at where the number of pairs has doubled, and each side keeps its own figures in any order."""
    sides = [load_times._Side(Measured(None), {}, Sample("", array("d")), False) for _ in range(2)]  # type: ignore[arg-type]

    def first_answer(context: object, side: object, plan: object) -> FirstAnswer:
        return FirstAnswer(1000 if side is sides[0] else 200, 100, 7, Sample("", array("d")))

    monkeypatch.setattr(load_times, "_first_answer", first_answer)
    monkeypatch.setattr(best_state, "note_canary", lambda work, canary_ns: canary_ns)
    context = WorkerContext(StepLimits(30, 60), Silent())
    plan = TimingPlan(30, 60, seed=1, threads=1)
    timing = load_times._time(context, sides[0], sides[1], plan, lambda timing: len(timing.pairs) < closed_after, 0.0)
    assert len(timing.pairs) == pairs
    assert {(pair.reference_ns, pair.variant_ns) for pair in timing.pairs} == {(900, 100)}
    assert {pair.variant_first for pair in timing.pairs} == {True, False}
    assert timing.conditions.canary_at_best_ns == 7


def test_modules_that_the_saved_file_names_are_imported_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_alone.py").write_text("from torch import nn\nclass Mine(nn.Linear): ...\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import mine_alone  # type: ignore[import-not-found]

    size.save(mine_alone.Mine(2, 2), tmp_path / "model.pt")
    monkeypatch.delitem(sys.modules, "mine_alone")
    import_libraries(tmp_path / "model.pt", None)
    assert "mine_alone" not in sys.modules, "of a model's memory its own modules are part"
    import_libraries(tmp_path / "model.pt", None, and_project=True)
    assert sys.modules.pop("mine_alone") is not mine_alone
    assert torch.__name__ in sys.modules
