"""The table of head against base: each cell, and what counts as a change, as computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_modelopt.reporting.changes import changes, compared
from pytest_modelopt.reporting.table import Block, blocks
from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.results.base import Base
from pytest_modelopt.results.case import ORIGINAL, Case, CaseError
from pytest_modelopt.results.measurement import Measurement, ProcessMemory
from pytest_modelopt.results.timed_pairs import Timing
from tests.reporting.against_by_hand import BASE, GREW, SLOWER, against, pull_request
from tests.reporting.drawn_tables import details, table
from tests.reporting.records_by_hand import ENVIRONMENT, MIB, case, limit, measurement, timing, verdict


def _block(*cases: Case) -> Block:
    (block,) = blocks(pull_request(*cases))
    return block


def _table(*cases: Case) -> dict[str, tuple[str, ...]]:
    return table(pull_request(*cases))


def test_every_cell_of_a_compared_case() -> None:
    changed = against(
        "int8-dynamic",
        before=measurement("int8-dynamic", weights=5 * MIB, peak=3 * MIB, size=4 * MIB, score=0.986),
        after=measurement("int8-dynamic", weights=6 * MIB, peak=4 * MIB, size=3 * MIB, score=0.982),
        timed=SLOWER,
        agreement=Agreement(1000, 12, 8, 22),
        verdicts=(
            verdict(limit("max_memory_growth", 0.3, "30%"), "pass", 0.25),
            verdict(limit("max_slowdown", 0.1, "10%"), "fail", 0.25),
        ),
    )
    block = _block(against(ORIGINAL), changed)
    assert block.title == "digits-vit against 0f1e2d3c4b5a"
    assert block.conditions == (
        "accuracy on 360 examples; memory and latency of batch 1, 1 thread; 0f1e2d3c4b5a -> head"
    )
    assert _table(against(ORIGINAL), changed) == {
        "verdict": ("no limits", "✗ FAIL"),
        "recipe": ("original", "int8-dynamic"),
        "memory": ("8 MiB", "8 -> 10 MiB"),
        "size": ("4 MiB", "4 -> 3 MiB"),
        "accuracy": ("97.5%", "98.6 -> 98.2%"),
        "flips": ("0.0%", "2.2%"),
        "memory growth": ("-", "25 of 30%"),
        "latency": ("4 -> 4 ms", "4 -> 5 ms"),
        "slowdown": ("-", "✗ 25 of 10%"),
    }
    assert details(pull_request(against(ORIGINAL), changed)) == {
        "verdict": ("no limits", "✗ FAIL"),
        "recipe": ("original", "int8-dynamic"),
        "memory": ("8 MiB (0%)", "10 MiB (+25%)"),
        "size": ("4 MiB (0%)", "3 MiB (-25%)"),
        "loss": ("0.0 pp (< 0.75)", "0.4 pp (< 1.2)"),
        "flips": ("0 / 360", "22 / 1000"),
        "latency": ("4 -> 4 ms", "4 -> 5 ms"),
        "slowdown": ("0.00% [-5.36%, +4.30%]", "+25.00% [+18.30%, +30.37%]"),
    }


def test_what_has_not_changed_since_the_base_has_no_column() -> None:
    assert list(_table(against())) == ["verdict", "recipe"]
    smaller = against(before=measurement(None, size=4 * MIB), after=measurement(None, size=3 * MIB))
    assert list(_table(smaller)) == ["verdict", "recipe", "size"]


def test_a_gain_is_told_as_one_and_faster_is_less() -> None:
    made = against(
        before=measurement(None, score=0.9),
        after=measurement(None, score=0.9014),
        timed=timing(200, 4_000_000, 3_200_000),  # 4 ms at the base, 3.2 ms at head
    )
    assert (_table(made)["latency"], _table(made)["accuracy"]) == (("4.0 -> 3.2 ms",), ("90.00 -> 90.14%",))
    found = details(pull_request(made))
    assert (found["slowdown"], found["loss"]) == (("-20.0% [-24.3%, -16.6%]",), ("-0.14 pp (< 0.75)",))


def test_a_metric_that_is_better_when_lower_loses_when_it_rises() -> None:
    made = against(before=measurement(None, score=12.0), after=measurement(None, score=12.5), agreement=None)
    found = replace(made, metric="my:perplexity", higher_is_better=False)
    assert _table(found)["score"] == ("12.0 -> 12.5",)
    assert details(pull_request(found))["loss"] == ("0.5",)
    assert "flips" not in details(pull_request(found))


@pytest.mark.parametrize(
    ("pairs", "told"),
    [  # the ends of test_table.py, turned around: 1 / 0.984 and 1 / 0.691
        (3, "+25%"),
        (4, "+25.00% [+1.61%, +44.65%]"),
        (200, "+25.0% [+18.3%, +30.4%]"),
    ],
)
def test_the_interval_of_a_slowdown_has_the_smaller_end_first_and_too_few_pairs_have_none(
    pairs: int, told: str
) -> None:
    made = pull_request(against(timed=timing(pairs, 4_000_000, 5_000_000)))
    assert details(made)["slowdown"] == (told,)


def test_a_difference_too_small_for_a_share_is_told_in_bytes() -> None:
    for more, told in ((4, "64 MiB (+4 B)"), (-12, "64 MiB (-12 B)")):
        made = against(before=measurement(None, size=64 * MIB), after=measurement(None, size=64 * MIB + more))
        assert _table(made)["size"] == details(pull_request(made))["size"] == (told,)


def test_without_a_base_there_is_nothing_to_tell_but_why() -> None:
    bound = limit("max_size_growth", 0.02, "2%")
    cases = (
        against("a", status="new"),
        against("b", status="failed", verdicts=(verdict(bound, "inconclusive"),)),
        against("c", status="unusable", verdicts=(verdict(bound, "not measured"),)),
        against("d", status="failed"),
        replace(against("e"), error=CaseError("load", "no")),
        against("f", status="new", limits=(bound,)),
        against("g", status="unusable"),
        against("h", status="unpaired"),
    )
    found = _table(*cases)
    assert found["verdict"] == (
        "new",
        "no base",
        "✗ FAIL",
        "no base",
        "✗ ERROR",
        "new",
        "no base",
        "not compared",
    )
    assert found["size growth"] == ("-", "? - of 2%", "✗ - of 2%", "-", "-", "-", "-", "-")
    strict = replace(pull_request(cases[1]), strict=True)
    assert table(strict)["verdict"] == ("✗ FAIL",)


def test_a_block_is_red_where_one_of_its_rows_is() -> None:
    assert _block(against(ORIGINAL), GREW).is_red
    assert not _block(against(ORIGINAL)).is_red


def test_cases_with_a_base_have_blocks_of_their_own_and_no_original_of_the_others() -> None:
    told = blocks(pull_request(case("a"), against("a"), case("b"), against("b")))
    assert [(block.title, [row.recipe for row in block.rows]) for block in told] == [
        ("digits-vit", ["original", "a", "b"]),
        ("digits-vit against 0f1e2d3c4b5a", ["a", "b"]),
    ]


def test_each_machine_has_its_own_tables_and_each_says_which_it_is() -> None:
    other = replace(ENVIRONMENT, cpu="Other CPU", cpu_capability="AVX2")
    gpu = replace(ENVIRONMENT, gpu="H100, CUDA 13")
    told = replace(
        pull_request(
            case("a"),
            replace(case("a", reference=measurement(None, size=MIB)), machine=1),
            replace(against("a"), machine=1),
            replace(case("a"), machine=2),
            replace(case("a"), machine=3),
        ),
        other_machines=(other, gpu, None),
    )
    found = blocks(told)
    assert [block.title for block in found] == [
        "digits-vit on machine 1 (Example CPU, AVX512)",
        "digits-vit on machine 2 (Other CPU, AVX2)",
        "digits-vit against 0f1e2d3c4b5a on machine 2 (Other CPU, AVX2)",
        "digits-vit on machine 3 (H100, CUDA 13, Example CPU, AVX512)",
        "digits-vit on machine 4 (unknown: nothing was measured there)",
    ]
    assert table(told, 1)["memory"] == ("8 MiB", "2 MiB")
    assert "size" not in table(told, 1), "1 MiB on both sides of that machine"


def test_two_bases_are_two_tables() -> None:
    told = pull_request(against("a"), replace(against("b"), base=Base("saved.json", "compared")))
    assert [block.title for block in blocks(told)] == [
        "digits-vit against 0f1e2d3c4b5a",
        "digits-vit against saved.json",
    ]


# --- what changed ----------------------------------------------------------------------------------------------------


def _process(*peaks: int) -> Measurement:
    return replace(measurement(None), runtime="LiteRT", process_memory=ProcessMemory(peaks, "memray"))


@pytest.mark.parametrize(
    ("of", "found"),
    [
        (against(), ()),
        (against(before=measurement(None, weights=MIB), after=measurement(None, weights=MIB + 1)), ("memory",)),
        (against(before=measurement(None, size=MIB), after=measurement(None, size=MIB - 1)), ("size",)),
        (against(before=measurement(None, score=0.975), after=measurement(None, score=0.976)), ("score",)),
        (against(before=measurement(None, score=0.1 + 0.2), after=measurement(None, score=0.3)), ()),  # rounding
        (against(agreement=Agreement(360, 0, 0, 1)), ("answers",)),
        (against(agreement=Agreement(360, 1, 0, 0)), ("answers",)),
        (against(agreement=Agreement(360, 0, 1, 0)), ("answers",)),
        (against(timed=SLOWER), ("latency",)),
        (against(timed=timing(200, 4_000_000, 3_000_000)), ("latency",)),
        (against(timed=timing(200, 4_000_000, 4_040_000)), ()),  # 1%, within the interval
        (against(timed=timing(0)), ()),
        (against(before=_process(90, 100, 110), after=_process(105, 120, 130)), ()),  # the runs overlap
        (against(before=_process(90, 100, 110), after=_process(111, 120, 130)), ("memory",)),
        (against(before=_process(90, 100, 110), after=_process(70, 80, 89)), ("memory",)),
        (against(before=_process(90, 100, 110), after=_process()), ("memory",)),  # head lost it
        (against(before=_process(), after=_process(90)), ()),  # the base has none to compare with
        (against(before=measurement(None, score=None)), ()),
        (against(after=measurement(None, score=None)), ("score",)),
        (against(status="failed"), ()),
    ],
)
def test_a_figure_of_the_base_that_is_another_at_head_has_changed(of: Case, found: tuple[str, ...]) -> None:
    assert changes(of, 1) == found


def test_what_the_base_does_not_have_is_not_compared() -> None:
    assert compared(against()) == ("memory", "size", "score", "answers", "latency")
    assert compared(against(before=measurement(None, score=None), agreement=None, timed=None)) == ("memory", "size")
    assert compared(against(status="new")) == ()


@pytest.mark.parametrize("timed", [SLOWER, None])
def test_no_latency_without_pairs(timed: Timing | None) -> None:
    assert ("latency" in _table(against(timed=timed))) == (timed is not None)


def test_a_base_has_the_name_that_the_record_gives_it() -> None:
    (block,) = blocks(pull_request(replace(against(), base=Base(f"x\n{BASE}", "compared"))))
    assert block.title == f"digits-vit against x {BASE}"


def test_a_new_variant_stands_in_the_table_of_its_model() -> None:
    """It was not measured at the base, so its case knows no metric."""
    new = replace(against("fresh", status="new"), metric=None)
    block = _block(new, against("a"))
    assert [row.recipe for row in block.rows] == ["fresh", "a"]
    assert block.metric == "accuracy"
    assert block.conditions.startswith("accuracy on ")
