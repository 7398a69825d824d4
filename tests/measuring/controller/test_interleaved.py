"""Comparisons of one model whose launches take turns, with real workers."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from pytest_modelopt.measuring.controller.runner import Request, Runner, StepLimits
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.plugin.progress import Silent
from pytest_modelopt.results.case import MeasuredCase, PlannedCase
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.timed_pairs import TimedCall
from pytest_modelopt.statistics.samples import Samples

SOURCE = """
import os
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 512), nn.Linear(512, 4)
    def forward(self, x):
        return self.second(torch.relu(self.first(x)))

class Dies(Net):
    '''Of low rank it ends its process when it is called, once it is told to.'''
    def forward(self, x):
        if os.path.exists("dies") and not hasattr(self.first, "weight"):
            os._exit(3)
        return super().forward(x)

def model():
    torch.manual_seed(0)
    return Net().eval()

def dies():
    torch.manual_seed(0)
    return Dies().eval()

def data():
    return torch.randn(100, 64, generator=torch.Generator().manual_seed(1)), torch.arange(100) % 4
"""
RECIPES = ("int8-dynamic", "prune-unstructured(ratio=0.5)", "low-rank(ratio=0.5)")


class Steps(Silent):
    """Notes which case is timed; `before` is called with the notes so far."""

    def __init__(self) -> None:
        self.timed: list[str] = []
        self.before: Callable[[list[str]], None] = lambda timed: None

    def step(self, case: str, text: str) -> None:
        if text == "timing in pairs":
            self.before(self.timed)
            self.timed.append(case)


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def runner(steps: Steps) -> Iterator[Runner]:
    made = Runner(StepLimits(time_limit_s=1, step_limit_s=60), steps)
    yield made
    made.close()


def in_turns(runner: Runner, asked: list[Request]) -> dict[str, MeasuredCase]:
    found: dict[str, MeasuredCase] = {}
    runner.measure_in_turns(asked, found)
    return found


def stays_open(samples: Samples, call: TimedCall) -> bool:
    return True


def requests(folder: Path, model: str = "model") -> list[Request]:
    """A case for each recipe, whose limits stay open."""
    (folder / "of_turns.py").write_text(SOURCE, encoding="utf-8")
    found = []
    for recipe in RECIPES:
        planned = PlannedCase(id=recipe, model="m", recipe=recipe, limits=(), batch_size=1)
        variant = Variant(
            model=f"of_turns:{model}",
            recipe=parse(recipe),
            data="of_turns:data",
            calibration=None,
            example_inputs=None,
            metric=MetricSpec(),
            import_paths=(str(folder),),
            working_directory=str(folder),
        )
        found.append(Request(planned, variant, stays_open))
    return found


def launches(case: MeasuredCase) -> list[int]:
    assert case.error is None, case.error
    assert case.timing is not None
    return sorted({pair.launch for pair in case.timing.pairs})


def exact(side: Measurement | None) -> Measurement:
    assert side is not None
    return replace(side, seconds={}, observations=None)


def test_launches_take_turns_and_figures_are_those_of_cases_measured_alone(
    runner: Runner, steps: Steps, tmp_path: Path
) -> None:
    asked = requests(tmp_path)[:2]
    found = in_turns(runner, asked)
    assert steps.timed == 3 * [f"m/{recipe}" for recipe in RECIPES[:2]]
    assert [launches(found[recipe]) for recipe in RECIPES[:2]] == [[1, 2, 3], [1, 2, 3]]
    runner.forget_original()
    assert not [file.name for file in runner.new_file("any").parent.glob("*.pt")], "nothing of it is left"
    steps.timed.clear()
    shortly = [replace(each, variant=replace(each.variant, time_limit_s=0.001)) for each in asked]
    short = in_turns(runner, shortly)
    assert steps.timed == [f"m/{recipe}" for recipe in RECIPES[:2]], "what has ended waits for no other launch"
    alone = runner.measure(shortly[0].planned, shortly[0].variant, stays_open)
    for case in (*short.values(), alone):
        assert exact(found[case.id].variant) == exact(case.variant)
        assert exact(found[case.id].reference) == exact(case.reference)
        assert (found[case.id].coverage, found[case.id].agreement) == (case.coverage, case.agreement)


def test_earlier_runs_of_the_same_programs_belong_to_a_comparison(runner: Runner, tmp_path: Path) -> None:
    """The project's code is part of the programs: the last run has the weights of the others, and another forward."""
    (request, *_) = requests(tmp_path)
    variant = replace(request.variant, time_limit_s=60.0)
    looked_at: list[int] = []

    def is_decided(samples: Samples, call: TimedCall) -> bool:
        looked_at.append(0 if samples.earlier is None else samples.earlier.freedom)
        return False

    found = [runner.measure(request.planned, variant, is_decided) for _ in range(3)]
    (tmp_path / "of_turns.py").write_text(SOURCE.replace("torch.relu(", "torch.relu(1 * "), encoding="utf-8")
    runner.forget_original()
    found.append(runner.measure(request.planned, variant, is_decided))
    timings = [case.timing for case in found if case.timing is not None]
    assert [timing.earlier and timing.earlier.runs for timing in timings] == [None, None, 2, 3]
    assert looked_at == [0, 0, 1, 2], "limits are decided with it while the pairs are taken"
    (file,) = (Path(os.environ["XDG_CACHE_HOME"]) / "pytest-modelopt" / "timings").glob("*.json")
    assert sorted(Counter(programs for programs, *_ in json.loads(file.read_text("utf-8"))).values()) == [1, 3]


def test_a_case_whose_file_has_gone_is_measured_anew(runner: Runner, steps: Steps, tmp_path: Path) -> None:
    asked = requests(tmp_path)[:2]

    def remove_models(timed: list[str]) -> None:
        if len(timed) == 1:  # before the first launch of the second case, while the first one waits
            for file in runner.new_file("any").parent.glob("model-*.pt"):
                file.unlink()

    steps.before = remove_models
    found = in_turns(runner, asked)
    first, second = (f"m/{recipe}" for recipe in RECIPES[:2])
    assert steps.timed == [first, second, *3 * [first], *2 * [second]]
    assert [launches(found[recipe]) for recipe in RECIPES[:2]] == [[1, 2, 3], [1, 2, 3]]


def test_a_case_does_not_wait_where_the_disk_has_no_room(
    runner: Runner, steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40 - 1000, 1000))
    in_turns(runner, requests(tmp_path)[:2])
    assert [case for case, _ in groupby(steps.timed)] == [f"m/{recipe}" for recipe in RECIPES[:2]]
    assert len(steps.timed) > 2


def test_a_variant_that_dies_in_a_later_launch_is_its_own_case_in_error(
    runner: Runner, steps: Steps, tmp_path: Path
) -> None:
    def tell(timed: list[str]) -> None:
        if len(timed) == 2:  # before the first launch of the last case, of which all else is measured
            (tmp_path / "dies").touch()

    steps.before = tell
    asked = requests(tmp_path, "dies")
    found = in_turns(runner, [asked[2], *asked[:2]])
    error = found[RECIPES[2]].error
    assert error is not None
    assert error.stage == "timing"
    assert "died" in error.message
    assert [launches(found[recipe]) for recipe in RECIPES[:2]] == [[1, 2, 3], [1, 2, 3]]


def test_what_interrupts_it_leaves_the_cases_as_far_as_they_were_measured(
    runner: Runner, steps: Steps, tmp_path: Path
) -> None:
    def interrupt(timed: list[str]) -> None:
        if len(timed) == 1:
            raise KeyboardInterrupt

    steps.before = interrupt
    found: dict[str, MeasuredCase] = {}
    with pytest.raises(KeyboardInterrupt):
        runner.measure_in_turns(requests(tmp_path), found)
    assert list(found) == [RECIPES[0]]
    assert launches(found[RECIPES[0]]) == [1]
    assert found[RECIPES[0]].variant is not None
