"""What benchmarks/ counts and keeps. No benchmark runs here, and no time is asserted anywhere."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from benchmarks import common, confirmed, explore, other_plugins, rounds, scale, traps
from benchmarks.common import Row, Store
from benchmarks.plugin_uses import USES
from pytest_modelopt.optimizing.apply import optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context
from tests.reporting.records_by_hand import case, measurement, record

SETTINGS = {"benchmark": "false_alarms", "seed": 1}


@pytest.mark.parametrize(
    ("hits", "trials", "told"),
    [(81, 263, "30.8% (25.5-36.6%)"), (15, 148, "10.1% (6.2-16.0%)"), (0, 20, "0.0% (0.0-16.1%)"), (0, 0, "-")],
)
def test_shares_are_told_with_the_published_wilson_intervals(hits: int, trials: int, told: str) -> None:
    """Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3."""
    assert common.share_text(hits, trials) == told


def test_a_line_that_an_interruption_cut_off_is_forgotten_and_the_others_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    Store(path).append({"kind": "comparison", "round": 0})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"kind": "comp')
    resumed = Store(path)
    resumed.append({"kind": "comparison", "round": 1})
    assert [row["round"] for row in Store(path).of_kind("comparison")] == [0, 1]


def test_results_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    Store(path).append({"kind": "run", "settings": SETTINGS})
    with pytest.raises(SystemExit, match="choose another --out"):
        Store(path).begin(SETTINGS | {"seed": 2})


def test_a_table_counts_failures_and_shows_how_far_an_identical_copy_was_misread() -> None:
    question = rounds.Question("false_alarms", slowdown=0.0, limits=(0.10,), rounds=3, fail_means="false failures")
    rows = [_row("fail", 0.13), _row("inconclusive", 0.02), _row("pass", -0.15)]
    (line,) = rounds.table(question, rows)
    assert (line["comparisons"], line["false failures"], line["inconclusive"]) == (3, 1, 1)
    assert (line["median error"], line["worst error"]) == ("13.0%", "-15.0%")


def _row(outcome: str, slowdown: float) -> Row:
    return {"method": "ours", "outcomes": {"10%": outcome}, "slowdown": slowdown, "wall_s": 1.0, "timing_s": 1.0}


def test_the_load_ends_with_the_benchmark() -> None:
    with common.machine("processor") as load:
        assert load is not None
        assert load.poll() is None
    assert load.poll() is not None


@pytest.mark.parametrize(
    ("places", "dominated"),
    [
        ([], 0.0),
        ([(0.5, 0.0, 0.5)], 0.5 * 0.1 * 0.5),
        ([(0.5, 0.0, 0.5), (0.75, 0.05, 0.75)], 0.5 * 0.1 * 0.5),  # one covers the other
        ([(0.5, 0.05, 0.5), (0.25, 0.075, 0.75)], 0.5 * 0.05 * 0.5 + 0.75 * 0.025 * 0.25 - 0.5 * 0.025 * 0.25),
        ([(0.5, 0.1, 0.5), (1.0, 0.0, 0.5)], 0.0),  # at the end of the box
    ],
)
def test_the_volume_that_places_dominate_is_that_of_the_union_of_boxes(
    places: list[explore.Place], dominated: float
) -> None:
    for given in (places, places[::-1]):
        assert explore.volume(given, (1.0, 0.1, 1.0)) == pytest.approx(dominated, abs=1e-12)


def test_the_share_that_is_reached_is_by_the_figures_of_the_exhaustive_search() -> None:
    def row(recipe: str, memory: float | None, drop: float) -> Row:
        return {"recipe": recipe, "memory": memory, "drop": drop, "speedup": 0.5}

    known = {each["recipe"]: each for each in (row("a", 0.5, -0.01), row("b", 0.25, 0.05))}
    assert explore.reached([row("a", 0.4, 0.0), row("b", None, 0.0)], known) == pytest.approx(1.0)
    # of 0.5 * 0.1 + 0.75 * 0.05 - 0.5 * 0.05
    assert explore.reached([row("b", 0.25, 0.05)], known) == pytest.approx(0.0375 / 0.0625)
    assert explore.reached([], known) == 0.0


def test_an_original_that_was_measured_again_for_another_case_is_counted() -> None:
    once, again = ({"load": seconds} for seconds in (0.25, 0.5))
    first, second = (replace(measurement(None), seconds=seconds) for seconds in (once, again))
    cases = [case("bf16", "a", reference=first), case("fp16", "a", reference=first), case("bf16", "b", reference=first)]
    assert scale.originals(record(*cases)) == {"a": 1, "b": 1}
    assert scale.originals(record(*cases, case("fp16", "b", reference=second))) == {"a": 1, "b": 2}
    assert scale.makers("a 1\na 2\nb 3\na 1\n") == {"a": 2, "b": 1}


def test_seconds_and_bytes_of_each_further_case() -> None:
    assert scale.slope([7.0, 32.0, 57.0]) == pytest.approx(25 / len(scale.RECIPES))
    assert scale.growth([0, 5000, *range(10_000, 18_000, 1000)]) == pytest.approx(1000), "after the first fifth"


def test_the_page_on_other_plugins_shows_the_rows_that_were_run() -> None:
    """`nox -s plugins` writes both."""
    page = other_plugins.PAGE.read_text(encoding="utf-8")
    rows = other_plugins.read_rows()
    assert other_plugins.with_table(page) == page
    assert {row["package"] for row in rows} == {use.package for use in USES}
    assert not [row for row in rows if row["differs"]]


def test_of_searches_that_time_nothing_size_is_the_third_figure() -> None:
    assert explore.place_of({"memory": 0.5, "drop": -0.01, "size": 0.25}) == (0.5, 0.0, 0.25)
    assert explore.place_of({"memory": 0.5, "drop": 0.0, "size": None}) is None


def test_broken_limits_are_counted_apart_from_timed_ones() -> None:
    kept = {"max_size 4 MiB": "pass", "max_accuracy_drop 1 pp": "pass", "min_speedup 1.3x": "fail"}
    rows = [{"outcomes": kept}, {"outcomes": kept | {"max_size 4 MiB": "fail"}}]
    assert confirmed._counted(rows, is_timed=False) == "3 pass, 1 fail"
    assert confirmed._counted(rows, is_timed=True) == "2 fail"
    lines = ["    recipes:", "        min_speedup: 1.3x", "        max_size: 4 MiB"]
    assert [confirmed._is_timed(line) for line in lines] == [False, True, False]


@pytest.mark.parametrize("name", ["digits-vit", "spoken-digits", "documents-gpt"])
def test_a_trap_changes_no_answer_until_its_layer_is_quantized(name: str, one_thread: None) -> None:
    """Of the models of the example; of the last one, whose other layers cost some answers, too, it is most of them."""
    trap = traps.TRAPS[name]
    module, _, function = trap.data.partition(":")
    data = getattr(importlib.import_module(module), function)()
    inputs = (data if isinstance(data, torch.Tensor) else data[0])[:100]

    def answers(recipe: str) -> torch.Tensor:
        model = traps.planted(name)
        if recipe:
            model = optimize(model, parse(recipe).steps, Context(inputs[:1], None, 0)).model
        with torch.no_grad():
            return cast("torch.Tensor", model(inputs).argmax(1))

    with torch.no_grad():
        original = trap.load()(inputs).argmax(1)
    assert torch.equal(answers(""), original)
    expressions = ("int8-dynamic", f"int8-dynamic(keep='{trap.layer}')")
    broken, kept = (int((answers(each) != original).sum()) for each in expressions)
    assert broken >= 6
    assert kept <= broken // 3
