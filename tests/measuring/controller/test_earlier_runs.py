"""Earlier runs of the same comparison: their spread by hand, what is kept, and files that are none of ours."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.measuring.controller.timing import earlier_runs
from pytest_modelopt.measuring.controller.timing.earlier_runs import Comparison, known, note
from pytest_modelopt.results.timed_pairs import EarlierRuns, Timing
from pytest_modelopt.statistics.timing import CANARY_TOLERANCE
from tests.reporting.records_by_hand import timing

HERE = Comparison("place", "programs")
EXPLAINED_RATIO, EXPLAINED_LATENCY = 1e-4, 2.56e-4
"""Of ten seconds without any spread: a tenth of the prior's variance, 5% (8%) squared, of which 6 of 15 parts are
left by then."""


def read(speedup: float, latency_ns: int = 1_000_000) -> dict[Any, Timing]:
    return {"whole": timing(200, round(speedup * latency_ns), latency_ns)}


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pytest-modelopt" / "timings"


def test_what_differs_beyond_what_each_run_explains(folder: Path) -> None:
    assert known(HERE, "whole") is None
    note(HERE, read(2.0))
    assert known(HERE, "whole") is None, "one run shows nothing"
    note(HERE, read(2.2))
    note(HERE, read(2.0, latency_ns=1_100_000))
    found = known(HERE, "whole")
    assert found is not None
    assert (found.runs, found.freedom) == (3, 2)
    deviations = math.log(1.1) ** 2 * 2 / 3  # of (0, a, 0) from its mean: both figures differ in one run of three
    assert found.speedup == pytest.approx(deviations - 2 * EXPLAINED_RATIO)
    assert found.latency == pytest.approx(deviations - 2 * EXPLAINED_LATENCY)
    assert known(HERE, "decode") is None
    note(Comparison("short", "programs"), {"whole": timing(3)})
    assert [file.name for file in folder.iterdir()] == ["place.json"], "three pairs say nothing"
    assert known(None, "whole") is None


def test_how_far_the_machine_was_from_its_best_state_in_each_run(folder: Path) -> None:
    """Three runs: at the best state of 20,000 ns and twice beyond the tolerance; the second one of another speedup."""
    for speedup, canary_ns in ((2.0, 20_000), (2.4, 30_000), (2.0, 25_000)):
        [(call, made)] = read(speedup).items()
        note(HERE, {call: replace(made, pairs=tuple(replace(pair, canary_ns=canary_ns) for pair in made.pairs))})
    found = known(HERE, "whole", 20_000)
    assert found is not None
    slow = [0.0, math.log(1.5) - CANARY_TOLERANCE, math.log(1.25) - CANARY_TOLERANCE]
    mean = sum(slow) / 3
    assert found.slowness == pytest.approx(sum((each - mean) ** 2 for each in slow))
    assert found.speedup_with_slowness == pytest.approx(math.log(1.2) * (slow[1] - mean))
    assert found.latency_with_slowness == pytest.approx(0.0)
    unknown = known(HERE, "whole", None)
    assert unknown is not None
    assert (unknown.slowness, unknown.speedup_with_slowness) == (0.0, 0.0)


def test_runs_that_differ_by_no_more_than_each_explains_add_nothing(folder: Path) -> None:
    for speedup in (2.0, 2.001, 2.0):
        note(HERE, read(speedup))
    assert known(HERE, "whole") == EarlierRuns(3, 2, 0.0, 0.0)


def test_a_change_of_the_programs_is_no_difference_between_runs(folder: Path) -> None:
    for programs, speedup in (("before", 1.0), ("before", 1.0), ("after", 3.0), ("after", 3.0), ("later", 9.0)):
        note(Comparison("place", programs), read(speedup))
    assert known(HERE, "whole") == EarlierRuns(4, 2, 0.0, 0.0)
    assert known(Comparison("elsewhere", "before"), "whole") is None


def test_the_oldest_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earlier_runs, "MOST_RUNS", 3)
    for speedup in (1.0, 1.5, 1.5, 1.5):
        note(HERE, read(speedup))
    assert known(HERE, "whole") == EarlierRuns(3, 2, 0.0, 0.0)
    monkeypatch.setattr(earlier_runs, "MOST_FILES", 2)
    for place in ("second", "third"):
        note(Comparison(place, "programs"), read(1.0))
    assert len(list(folder.iterdir())) == 2
    assert not (folder / "place.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        '[["programs", "whole", 1, 2]]',
        json.dumps([["programs", "whole", 0.5, 0.1, 0.5, 0.1]] * 2),
        json.dumps([["programs", "whole", 0.5, 0.1, "x", 0.1, 10.0]] * 2),
        json.dumps([["programs", "whole", 0.5, -0.1, 0.5, 0.1, 10.0]] * 2),
        json.dumps([["programs", "whole", 0.5, 0.1, 0.5, 0.1, -10.0]] * 2),
        json.dumps([["programs", "whole", sign * 1e300, 0.1, 0.5, 0.1, 10.0] for sign in (1, -1)]),
        '[["programs", "whole", NaN, 0.1, 0.5, 0.1, 10.0], ["programs", "whole", Infinity, 0.1, 0.5, 0.1, 10.0]]',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_none_of_ours_says_nothing_and_is_replaced(text: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "place.json").write_text(text, encoding="utf-8")
    assert known(HERE, "whole") is None
    for _ in range(2):
        note(HERE, read(2.0))
    assert known(HERE, "whole") == EarlierRuns(2, 1, 0.0, 0.0)


def test_what_cannot_be_kept_is_not_known(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("no folder", encoding="utf-8")
    for _ in range(2):
        note(HERE, read(2.0))
    assert known(HERE, "whole") is None
