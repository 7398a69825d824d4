"""Earlier runs of the same comparison: their spread by hand, what is kept, and files that are none of ours."""

from __future__ import annotations

import json
import math
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.measuring.controller.timing import earlier_runs
from pytest_modelopt.measuring.controller.timing.earlier_runs import Comparison, known, note
from pytest_modelopt.results.timed_pairs import EarlierRuns, Timing
from tests.reporting.records_by_hand import timing

HERE = Comparison("place", "programs")
EXPLAINED_RATIO, EXPLAINED_LATENCY = 1e-4, 2.56e-4
"""Of ten seconds without any spread: a tenth of the prior's variance, 5% (8%) squared, of which 6 of 15 parts are
left by then."""


def read(speedup: float, latency_ns: int = 1_000_000) -> dict[Any, Timing]:
    return {"whole": timing(200, round(speedup * latency_ns), latency_ns)}


def same(found: EarlierRuns | None, expected: EarlierRuns) -> bool:
    """Whether they differ by as much; how they follow the original is tested by itself."""
    return found is not None and astuple(found)[:4] == astuple(expected)[:4]


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


def test_how_the_figures_follow_the_original_from_run_to_run(folder: Path) -> None:
    """Three runs: in the second one the original takes 30% longer and the variant 10%."""
    for speedup, latency_ns in ((2.0, 1_000_000), (2.0 * 1.3 / 1.1, 1_100_000), (2.0, 1_000_000)):
        note(HERE, read(speedup, latency_ns))
    found = known(HERE, "whole")
    assert found is not None
    of_original, of_variant = math.log(1.3), math.log(1.1)
    third = 2 / 3  # of (0, a, 0) and (0, b, 0) from their means: a * b times this
    assert found.original == pytest.approx(third * of_original**2 - 2 * EXPLAINED_LATENCY, rel=1e-5)
    together = third * (of_original - of_variant) * of_original - 2 * EXPLAINED_LATENCY
    assert found.speedup_with_original == pytest.approx(together, rel=1e-5)
    assert found.latency_with_original == pytest.approx(third * of_variant * of_original, rel=1e-5)
    assert found.fastest_s == pytest.approx(2e-3, rel=1e-5)


def test_how_figures_follow_a_state_belongs_to_the_programs_of_now(folder: Path) -> None:
    for programs, latency_ns in (("before", 1_000_000), ("before", 2_000_000), ("now", 3_000_000)):
        note(Comparison("place", programs), read(2.0, latency_ns))
    before, now, new = (known(Comparison("place", each), "whole") for each in ("before", "now", "new"))
    assert before is not None
    assert now is not None
    assert new is not None
    assert (before.own, now.own, new.own) == (2, 1, 0)
    assert before.original == pytest.approx(math.log(2) ** 2 / 2, rel=0.01)
    assert (now.original, new.original) == (0.0, 0.0)
    assert before.fastest_s == pytest.approx(2e-3)
    assert now.fastest_s == pytest.approx(6e-3)
    assert new.fastest_s is None
    assert before.latency == now.latency == new.latency, "by how much runs differ is asked of all"


def test_the_canary_beside_the_fastest_run_is_kept(folder: Path) -> None:
    for latency_ns, canary_ns in ((1_100_000, 30_000), (1_000_000, 20_000), (1_200_000, 40_000)):
        [(call, made)] = read(2.0, latency_ns).items()
        note(HERE, {call: replace(made, pairs=tuple(replace(pair, canary_ns=canary_ns) for pair in made.pairs))})
    found = known(HERE, "whole")
    assert found is not None
    assert found.canary_at_fastest_ns == pytest.approx(20_000)


def test_runs_that_differ_by_no_more_than_each_explains_add_nothing(folder: Path) -> None:
    for speedup in (2.0, 2.001, 2.0):
        note(HERE, read(speedup))
    assert same(known(HERE, "whole"), EarlierRuns(3, 2, 0.0, 0.0))


def test_a_change_of_the_programs_is_no_difference_between_runs(folder: Path) -> None:
    for programs, speedup in (("before", 1.0), ("before", 1.0), ("after", 3.0), ("after", 3.0), ("later", 9.0)):
        note(Comparison("place", programs), read(speedup))
    assert same(known(HERE, "whole"), EarlierRuns(4, 2, 0.0, 0.0))
    assert known(Comparison("elsewhere", "before"), "whole") is None


def test_the_oldest_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earlier_runs, "MOST_RUNS", 3)
    for speedup in (1.0, 1.5, 1.5, 1.5):
        note(HERE, read(speedup))
    assert same(known(HERE, "whole"), EarlierRuns(3, 2, 0.0, 0.0))
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
        json.dumps([["programs", "whole", 0.5, 0.1, "x", 0.1, 0.5, 0.1, 10.0]] * 2),
        json.dumps([["programs", "whole", 0.5, -0.1, 0.5, 0.1, 0.5, 0.1, 10.0]] * 2),
        json.dumps([["programs", "whole", 0.5, 0.1, 0.5, 0.1, 0.5, 0.1, -10.0]] * 2),
        json.dumps([["programs", "whole", sign * 1e300, 0.1, 0.5, 0.1, 0.5, 0.1, 10.0] for sign in (1, -1)]),
        '[["programs", "whole", NaN, 0.1, 0.5, 0.1, 0.5, 0.1, 10.0]]',
        '[["programs", "whole", 0.5, 0.1, 0.5, 0.1, Infinity, 0.1, 10.0]]',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_none_of_ours_says_nothing_and_is_replaced(text: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "place.json").write_text(text, encoding="utf-8")
    assert known(HERE, "whole") is None
    for _ in range(2):
        note(HERE, read(2.0))
    assert same(known(HERE, "whole"), EarlierRuns(2, 1, 0.0, 0.0))


def test_what_cannot_be_kept_is_not_known(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("no folder", encoding="utf-8")
    for _ in range(2):
        note(HERE, read(2.0))
    assert known(HERE, "whole") is None
