"""The table model: each cell as computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_modelopt.reporting.table import HEADERS, blocks
from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.results.case import CaseError
from pytest_modelopt.results.measurement import Coverage, LayerCoverage, Measurement
from tests.reporting.records_by_hand import MIB, broken, case, limit, measurement, record, timing, verdict


def test_every_cell_of_a_measured_case() -> None:
    measured = case(
        "int8-dynamic",
        verdicts=(verdict(limit("max_memory", 4 * MIB, "4 MiB"), "pass", 2 * MIB),),
        reference=measurement(None, weights=5 * MIB, peak=3 * MIB, size=4 * MIB, score=0.986),
        variant=measurement("int8-dynamic", weights=MIB, peak=MIB, size=3 * MIB, score=0.982),
        timing=timing(reference_ns=7_100_000, variant_ns=5_000_000),
        agreement=Agreement(1000, 12, 8, 22),  # Tango's bound for (12, 8, 1000), computed outside: 1.2026 points
        coverage=Coverage((LayerCoverage("a", "Linear", 1000, 750),), ()),
    )
    (block,) = blocks(record(measured))
    original, variant = block.rows
    assert (block.model, block.metric, block.is_red) == ("digits-vit", "accuracy", False)
    assert (
        block.conditions
        == "accuracy on 360 examples (drop: with its 95% bound); memory and latency of batch 1, 1 thread"
    )
    assert original.cells == ("original", "", "8 MiB", "4 MiB", "", "", "98.6%", "", "", "")
    assert variant.cells == (
        "int8-dynamic",
        "75%",
        "2 MiB (-75%)",
        "3 MiB (-25%)",
        "7.1 ms -> 5 ms",
        "1.42x [1.36, 1.5]",  # 10 segments without spread: -4.1% and +5.7%
        "98.2%",
        "0.4 pp (< 1.2)",
        "22 / 1000",
        "pass",
    )
    assert len(variant.cells) == len(HEADERS)
    assert block.headers == tuple("accuracy" if name == "score" else name for name in HEADERS)


def test_of_weight_bytes_and_of_multiply_adds() -> None:
    layers = (LayerCoverage("a", "Linear", 250, 250, 40, 40), LayerCoverage("b", "Conv2d", 750, 0, 9960, 0))
    (block,) = blocks(record(case(coverage=Coverage(layers, ())), case("other", coverage=Coverage(layers[:1], ()))))
    assert [row.changed for row in block.rows] == ["", "25% / 0.4%", "100% / 100%"]
    assert block.conditions.endswith("; changed: weight bytes / multiply-adds")


def test_growth_and_gain_have_their_signs() -> None:
    worse = case(
        reference=measurement(None, size=4 * MIB, score=0.9),
        variant=measurement("r", weights=4 * MIB, peak=4 * MIB, size=5 * MIB, score=0.9014),
    )
    row = blocks(record(worse))[0].rows[1]
    assert (row.memory, row.size, row.drop) == ("8 MiB (0%)", "5 MiB (+25%)", "-0.14 pp")


def test_a_gain_too_small_to_show_is_no_negative_zero() -> None:
    row = blocks(record(case(reference=measurement(None, score=0.1 + 0.2), variant=measurement("r", score=0.3))))[
        0
    ].rows[1]
    assert row.drop == "0 pp"
    gained = case(reference=measurement(None, score=0.3), variant=measurement("r", score=0.1 + 0.2))
    assert blocks(record(gained))[0].rows[1].drop == "0 pp"


def test_another_metric_has_four_significant_digits_and_its_own_direction() -> None:
    loss = case(
        metric="my_metrics:perplexity",
        higher_is_better=False,
        reference=measurement(None, score=12.34567),
        variant=measurement("r", score=12.84567),
    )
    original, variant = blocks(record(loss))[0].rows
    assert (original.score, variant.score, variant.drop) == ("12.35", "12.85", "0.5")


def test_what_was_not_measured_is_a_dash() -> None:
    bare = case(metric=None, reference=measurement(None, score=None), variant=measurement("r", score=None))
    block = blocks(record(bare))[0]
    original, variant = block.rows
    assert block.conditions == "no metric; memory of batch 1"
    assert original.cells == ("original", "", "8 MiB", "4 MiB", "", "", "-", "", "", "")
    assert variant.cells[4:] == ("-", "-", "-", "-", "-", "no limits")


def unscored(recipe: str | None, examples: int = 0, **unmeasured: str) -> Measurement:
    return replace(measurement(recipe, score=None, unmeasured=unmeasured), examples=examples)


def test_a_model_without_data_has_no_metric_in_its_heading() -> None:
    why = "no `data` was given"
    bare = case(reference=unscored(None, score=why), variant=unscored("r", score=why))
    block = blocks(record(bare))[0]
    assert block.conditions == "no data, so no score; memory of batch 1"
    assert "score" in block.headers
    assert "accuracy" not in block.headers
    mixed = blocks(record(case(), bare))[0]
    assert mixed.conditions.startswith("accuracy on 360 examples; ")


def test_an_original_that_could_not_be_scored_has_no_number_of_examples() -> None:
    """Its data was read, and nobody can say that there was none."""
    failed = case(reference=unscored(None), error=CaseError("score", "no such class"))
    assert blocks(record(failed))[0].conditions == "accuracy; memory of batch 1"
    nothing = case(reference=unscored(None, 360, score="sqnr is of the variants only"), metric="sqnr")
    assert blocks(record(nothing))[0].conditions.startswith("sqnr on 360 examples; ")


def test_a_case_in_error_has_dashes() -> None:
    failed = case(reference=None, error=CaseError("load", "no such file"))
    original, variant = blocks(record(failed))[0].rows
    assert original.cells == ("original", "", "-", "-", "", "", "-", "", "", "")
    assert variant.cells == ("int8-dynamic", *8 * ("-",), "error")


@pytest.mark.parametrize(
    ("pairs", "timed_limits", "shown"),
    [
        (3, 1, "0.8x"),
        (4, 1, "0.8x [0.691, 0.984]"),  # one segment: error 5.59%; t of 6 freedoms at 0.98 and 0.995: 2.612 and 3.707
        (200, 1, "0.8x [0.767, 0.845]"),  # ten: error 1.871%; t of 15 freedoms: 2.249 and 2.947
        (200, 10, "0.8x [0.767, 0.863]"),  # the risk of a false FAIL is shared among ten: t at 0.9995 is 4.073
        (2000, 1, "0.8x [0.79, 0.813]"),  # a hundred: error 0.610%; t of 105 freedoms: 2.079 and 2.623
    ],
)
def test_the_interval_is_that_of_the_segments_and_too_few_pairs_have_none(
    pairs: int, timed_limits: int, shown: str
) -> None:
    """Each pair reads 0.8x. The error comes from what a second is taken to spread by before anything is known: 5%."""
    told = replace(record(case(timing=timing(pairs))), timed_limits=timed_limits)
    assert blocks(told)[0].rows[1].speedup == shown


def test_a_timing_without_pairs_is_not_measured() -> None:
    row = blocks(record(case(timing=timing(0))))[0].rows[1]
    assert (row.latency, row.speedup) == ("-", "-")


def test_the_originals_latency_stands_with_each_comparison() -> None:
    """What the machine was doing meanwhile is in both latencies of a comparison, and not in those of another one."""
    told = record(
        case("a", timing=timing(reference_ns=4_000_000)), case("b", timing=timing(reference_ns=3_000_000)), case("c")
    )
    assert [row.latency for row in blocks(told)[0].rows] == ["", "4 ms -> 5 ms", "3 ms -> 5 ms", "-"]


def test_rows_keep_their_order_and_models_have_their_own_blocks() -> None:
    told = record(case("b", "two"), case("z", "one"), case("a", "two"), case("a", "two", metric="f1"))
    found = [(block.model, block.metric, [row.recipe for row in block.rows]) for block in blocks(told)]
    assert found == [
        ("two", "accuracy", ["original", "b", "a"]),
        ("one", "accuracy", ["original", "z"]),
        ("two", "f1", ["original", "a"]),
    ]


def test_every_verdict_has_its_words() -> None:
    bound, soft = limit("max_memory", MIB, "1 MiB"), limit("min_speedup", 1.5, "1.5x", level="warn")
    told = record(
        broken("broken"),
        case("undecided", verdicts=(verdict(bound, "inconclusive"),)),
        case("one", verdicts=(verdict(bound, "pass"), verdict(soft, "fail"))),
        case("two", verdicts=(verdict(soft, "fail"), verdict(replace(soft, name="max_size"), "not measured"))),
        case("let go", verdicts=(verdict(bound, "waived"),)),
        case("forgotten", limits=(bound,)),
    )
    block = blocks(told)[0]
    assert block.is_red
    assert [row.verdict for row in block.rows] == [
        "",
        "FAIL",
        "inconclusive",
        "pass, 1 warning",
        "pass, 2 warnings",
        "pass, 1 waived",
        "FAIL",
    ]
    assert blocks(replace(told, strict=True))[0].rows[2].verdict == "FAIL"


def test_a_name_cannot_break_a_row() -> None:
    block = blocks(record(case("int8\n\x1b[31m\u202edynamic", "a\r\nb")))[0]
    assert (block.model, block.rows[1].recipe) == ("a b", "int8 dynamic")
