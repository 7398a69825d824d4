"""The plot: in characters and as a picture, each candidate stands where its figures are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_modelopt.exploring.confirming import Confirmed
from pytest_modelopt.exploring.front_points import Point, points
from pytest_modelopt.exploring.front_svg import draw
from pytest_modelopt.exploring.front_text import plot_lines
from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.statistics.proportions import drop_bounds
from tests.exploring.candidates_by_hand import candidate, limits, trial

BOUNDS = limits(max_accuracy_drop="10 pp")
CASES = (
    replace(candidate("int8-dynamic", memory=2, lost=18, speedup=2.0), agreement=Agreement(360, 18, 0, 18)),
    candidate("bf16", memory=4, lost=0),
    candidate("fp16", memory=6, lost=9, speedup=1.0),  # dominated by bf16
    candidate("compile", memory=1, lost=90),  # breaks the limit
)


@pytest.fixture
def found() -> list[Point]:
    tried = [trial(case, order, BOUNDS) for order, case in enumerate(CASES)]
    anew = trial(candidate("bf16", memory=4, lost=3, speedup=1.5), 1, BOUNDS).case
    assert anew is not None
    return points(tried, [Confirmed(tried[1], anew, True)])


def test_points_have_the_figures_and_their_bounds(found: list[Point]) -> None:
    assert [point.recipe for point in found] == ["compile", "int8-dynamic", "bf16", "fp16"]
    assert [point.memory.at for point in found] == [0.125, 0.25, 0.5, 0.75]
    assert [point.is_front for point in found] == [False, True, True, False]
    assert [point.is_confirmed for point in found] == [False, False, True, False]
    dynamic, anew = found[1:3]
    assert dynamic.drop is not None
    assert dynamic.speed is not None
    assert (dynamic.drop.low, dynamic.drop.high) == drop_bounds(18, 0, 360)
    assert dynamic.drop.at == pytest.approx(0.05)
    assert dynamic.speed.at == pytest.approx(2.0)
    assert dynamic.speed.low < 2.0 < dynamic.speed.high
    assert anew.drop is not None
    assert anew.drop.at == pytest.approx(3 / 360)  # as it was measured anew


def test_in_characters_each_stands_at_its_memory_and_drop(found: list[Point]) -> None:
    lines = list(plot_lines(found))
    low, high = drop_bounds(18, 0, 360)  # the scale goes from 0 to the highest bound
    assert lines[0].startswith(f"   {100 * high:.2f} pp |")
    assert lines[12].startswith("      0 pp |")
    grid = [line[12:] for line in lines[:13]]
    row_a, row_b = 12 - round(12 * 0.05 / high), 12 - round(12 * (3 / 360) / high)
    assert [row for row, line in enumerate(grid) if "a" in line] == [row_a]
    assert grid[row_a].index("a") == 15  # a quarter of 60 columns
    assert [row for row, line in enumerate(grid) if "b" in line] == [row_b]
    assert grid[row_b].index("b") == 30
    bars = [row for row, line in enumerate(grid) if line[15:16] == "|"]
    assert bars == [row for row in range(13 - round(12 * low / high)) if row != row_a]
    assert "  a  int8-dynamic: 25% of the memory, 2x as fast" in lines
    assert "  b  bf16: 50% of the memory, 1.5x as fast, measured anew" in lines
    assert not list(plot_lines(found[1:2]))  # one alone is no front


def test_the_picture_names_the_front_and_repeats(found: list[Point], tmp_path: Path) -> None:
    draw(found, "m: what explore measured", tmp_path / "one.svg")
    draw(found, "m: what explore measured", tmp_path / "two.svg")
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "two.svg").read_text(encoding="utf-8")
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    for said in ("m: what explore measured", "int8-dynamic", "bf16", "measured anew", "front", "other"):
        assert said in shown
    assert "fp16" not in shown
    assert "memory of a call, % of the original's" in shown
