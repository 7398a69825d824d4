"""The table of a model: which columns there are, and each cell as computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_modelopt.reporting.detail_columns import legend
from pytest_modelopt.reporting.sections import details_section
from pytest_modelopt.reporting.table import blocks
from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.results.case import ORIGINAL, CaseError
from pytest_modelopt.results.measurement import Coverage, LayerCoverage, Measurement
from pytest_modelopt.results.observations import Observations, ProviderSession
from tests.reporting.drawn_tables import details, table
from tests.reporting.records_by_hand import (
    MIB,
    QUIET,
    broken,
    case,
    limit,
    measurement,
    record,
    timing,
    variant_changed,
    verdict,
)

MEASURED = case(
    "int8-dynamic",
    verdicts=(verdict(limit("max_memory", 4 * MIB, "4 MiB"), "pass", 2 * MIB),),
    reference=measurement(None, weights=5 * MIB, peak=3 * MIB, size=4 * MIB, score=0.986),
    variant=measurement("int8-dynamic", weights=MIB, peak=MIB, size=3 * MIB, score=0.982),
    timing=timing(reference_ns=7_100_000, variant_ns=5_000_000),
    agreement=Agreement(1000, 12, 8, 22),  # Tango's bound for (12, 8, 1000), computed outside: 1.2026 points
    coverage=Coverage((LayerCoverage("a", "Linear", 1000, 750),), ()),
)


def test_every_cell_of_a_measured_case() -> None:
    told = record(MEASURED)
    (block,) = blocks(told)
    assert (block.title, block.metric, block.is_red) == ("digits-vit", "accuracy", False)
    assert block.conditions == "accuracy on 360 examples; memory and latency of batch 1, 1 thread"
    assert table(told) == {
        "verdict": ("", "✓ pass"),
        "recipe": ("original", "int8-dynamic"),
        "memory": ("8 MiB", "2 of 4 MiB"),
        "size": ("4 MiB", "3 MiB"),
        "accuracy": ("98.6%", "98.2%"),
        "speedup": ("", "1.42x"),
    }


def test_coverage_intervals_bounds_and_flips_are_details() -> None:
    told = record(MEASURED)
    assert details(told) == {
        "verdict": ("✓ pass",),
        "recipe": ("int8-dynamic",),
        "changed": ("75%",),
        "memory": ("2 MiB (-75%)",),
        "size": ("3 MiB (-25%)",),
        "drop": ("0.4 pp (< 1.2)",),
        "flips": ("22 / 1000",),
        "latency": ("7.1 -> 5.0 ms",),
        "speedup": ("1.42x [1.36, 1.50]",),  # 10 segments without spread: -4.1% and +5.7%
    }
    assert legend(blocks(told)[0]) == "in brackets: the change from the original; drop: with its 95% bound"


def test_of_weight_bytes_and_of_multiply_adds() -> None:
    layers = (LayerCoverage("a", "Linear", 250, 250, 40, 40), LayerCoverage("b", "Conv2d", 750, 0, 9960, 0))
    told = record(case(coverage=Coverage(layers, ())), case("other", coverage=Coverage(layers[:1], ())))
    assert details(told)["changed"] == ("25% / 0.4%", "100% / 100%")
    assert legend(blocks(told)[0]).endswith("; changed: weight bytes / multiply-adds")


def test_how_much_of_a_session_each_provider_runs_stands_beside_the_coverage() -> None:
    """Of one whose counts a record makes up, nothing does."""

    def side(*operators: dict[str, int]) -> Measurement:
        sessions = tuple(ProviderSession("ONNX Runtime", ("X",), ("X",), each) for each in operators)
        return replace(measurement("r"), observations=Observations(sessions=sessions))

    split, whole = {"OwnExecutionProvider": 9, "CPUExecutionProvider": 3}, {"OwnExecutionProvider": 12}
    told = record(
        case("split", reference=side(whole), variant=side(split)),
        case("same", reference=side(split), variant=side(split)),
        case("two", reference=side(), variant=side(split, {}, {"Own": 9, "CPU": -1}, whole)),
        case("none", reference=side(whole), variant=side()),
        case("hostile", reference=side(), variant=side({"<img>\x1b[31m|": 1})),
    )
    assert details(told)["runs on"] == (
        "75% Own, 25% CPU (original: 100% Own)",
        "75% Own, 25% CPU",
        "75% Own, 25% CPU; 100% Own",
        "- (original: 100% Own)",
        "100% <img>|",
    )
    assert legend(blocks(told)[0]).endswith("; runs on: the share of a session's operators by provider")
    assert "<img>" not in "".join(section.text for block in blocks(told) for section in details_section(block))


def test_only_figures_that_carry_a_limit_or_have_changed_have_a_column() -> None:
    """Memory, size and score are the original's, and the interval of the speedup holds 1."""
    same = measurement("r")
    idle = case("r", variant=same, timing=timing(200, 4_000_000, 4_040_000), agreement=Agreement(360, 0, 0, 0))
    assert list(table(record(idle))) == ["verdict", "recipe"]
    smaller = case("r", variant=replace(same, size_bytes=MIB))
    assert list(table(record(smaller))) == ["verdict", "recipe", "size"]
    worse = case("r", variant=replace(same, score=0.97))
    assert list(table(record(worse))) == ["verdict", "recipe", "accuracy"]
    dropped = verdict(limit("max_accuracy_drop", 0.01, "1 pp"), "pass", 0.005)
    assert list(table(record(replace(worse, verdicts=(dropped,))))) == ["verdict", "recipe", "drop"], "one fact once"
    bounds = (
        limit("max_memory", 9 * MIB, "9 MiB"),
        limit("min_memory_reduction", 0.5, "50%"),
        limit("min_accuracy", 0.9, "90%"),
        limit("max_accuracy_drop", 0.01, "1 pp"),
        limit("max_flips", 0.02, "2%"),
        limit("min_speedup", 1.5, "1.5x"),
        limit("max_p95_latency", 0.1, "100 ms"),
    )
    limited = case("r", variant=same, verdicts=tuple(verdict(bound, "pass", bound.value) for bound in bounds))
    assert table(record(limited)) == {
        "verdict": ("", "✓ pass"),
        "recipe": ("original", "r"),
        "memory": ("8 MiB", "9 of 9 MiB"),
        "accuracy": ("97.5%", "90.0 of 90%"),
        "flips": ("", "2 of 2%"),
        "memory reduction": ("", "50 of 50%"),
        "drop": ("", "1 of 1 pp"),
        "speedup": ("", "1.5 of 1.5x"),
        "p95 latency": ("", "100 of 100 ms"),
    }


def test_what_is_not_kept_is_marked_in_its_cell_and_in_the_verdict() -> None:
    bound, soft = limit("max_memory", 3 * MIB, "3 MiB"), limit("max_memory", 3 * MIB, "3 MiB", level="warn")
    told = record(
        case("kept", verdicts=(verdict(bound, "pass", 2.5 * MIB),)),
        case("broken", verdicts=(verdict(bound, "fail", 3.5 * MIB),)),
        case("undecided", verdicts=(verdict(bound, "inconclusive", 3 * MIB),)),
        case("warned", verdicts=(verdict(soft, "fail", 3.5 * MIB),)),
        case("let go", verdicts=(verdict(bound, "waived", 3.5 * MIB),)),
        case("unknown", verdicts=(verdict(bound, "not measured"),)),
        case("forgotten", limits=(bound,)),
        case("free"),
    )
    assert blocks(told)[0].is_red
    assert table(told)["verdict"] == (
        "",
        "✓ pass",
        "✗ FAIL",
        "? inconclusive",
        "! warn",
        "✓ waived",
        "✗ FAIL",
        "✗ FAIL",
        "no limits",
    )
    assert table(told)["memory"] == (
        "8.0 MiB",
        "2.5 of 3 MiB",
        "✗ 3.5 of 3 MiB",
        "? 3.0 of 3 MiB",
        "! 3.5 of 3 MiB",
        "3.5 of 3 MiB waived",
        "✗ - of 3 MiB",
        "✗ - of 3 MiB",
        "2.0 MiB",
    )
    strict = table(replace(told, strict=True))
    assert (strict["verdict"][3], strict["memory"][3]) == ("✗ FAIL", "✗ 3.0 of 3 MiB")


def test_a_row_says_in_one_word_that_others_disturbed_its_timing() -> None:
    busy = timing(conditions=replace(QUIET, other_cores=0.97))
    told = record(case("a", timing=busy), case("b", timing=timing()), case("c"))
    assert table(told)["machine"] == ("", "busy", "", "")
    assert "machine" not in table(record(case("b", timing=timing())))


def test_growth_and_gain_have_their_signs() -> None:
    worse = case(
        reference=measurement(None, size=4 * MIB, score=0.9),
        variant=measurement("r", weights=4 * MIB, peak=4 * MIB, size=5 * MIB, score=0.9014),
    )
    found = details(record(worse))
    assert (found["memory"], found["size"], found["drop"]) == (("8 MiB (0%)",), ("5 MiB (+25%)",), ("-0.14 pp",))


def test_a_gain_too_small_to_show_is_no_negative_zero() -> None:
    for before, after in ((0.1 + 0.2, 0.3), (0.3, 0.1 + 0.2)):
        told = record(case(reference=measurement(None, score=before), variant=measurement("r", score=after)))
        assert details(told)["drop"] == ("0 pp",)


def test_another_metric_has_four_significant_digits_and_its_own_direction() -> None:
    loss = case(
        metric="my_metrics:perplexity",
        higher_is_better=False,
        reference=measurement(None, score=12.34567),
        variant=measurement("r", score=12.84567),
    )
    assert table(record(loss))["score"] == ("12.35", "12.85")
    assert details(record(loss))["drop"] == ("0.5",)


def test_what_was_not_measured_is_a_dash() -> None:
    bare = case(metric=None, reference=measurement(None, score=None), variant=measurement("r", score=None))
    bare = variant_changed(bare, size_bytes=None)
    assert blocks(record(bare))[0].conditions == "no metric; memory of batch 1"
    failed = replace(bare, error=CaseError("load", "it is gone"))
    assert blocks(record(failed))[0].conditions == "not scored; memory of batch 1", "its metric is not known"
    assert table(record(bare)) == {
        "verdict": ("", "no limits"),
        "recipe": ("original", "int8-dynamic"),
        "size": ("4 MiB", "-"),
    }


def unscored(recipe: str | None, examples: int = 0, **unmeasured: str) -> Measurement:
    return replace(measurement(recipe, score=None, unmeasured=unmeasured), examples=examples)


def test_a_model_without_data_has_no_metric_in_its_heading() -> None:
    why = "no `data` was given"
    bare = case(reference=unscored(None, score=why), variant=unscored("r", score=why))
    block = blocks(record(bare))[0]
    assert (block.conditions, block.score_name) == ("no data, so no score; memory of batch 1", "score")
    mixed = blocks(record(case(), bare))[0]
    assert mixed.conditions.startswith("accuracy on 360 examples; ")


def test_an_original_that_could_not_be_scored_has_no_number_of_examples() -> None:
    """Its data was read, and nobody can say that there was none."""
    failed = case(reference=unscored(None), error=CaseError("score", "no such class"))
    assert blocks(record(failed))[0].conditions == "accuracy; memory of batch 1"
    nothing = case(reference=unscored(None, 360, score="only variants have an sqnr"), metric="sqnr")
    assert blocks(record(nothing))[0].conditions.startswith("sqnr on 360 examples; ")


def test_a_case_in_error_has_dashes() -> None:
    failed = case("failed", reference=None, error=CaseError("load", "no such file"))
    told = table(record(failed, case("r")))
    assert [told[name] for name in ("verdict", "recipe", "memory", "size")] == [
        ("", "✗ ERROR", "no limits"),
        ("original", "failed", "r"),
        ("8 MiB", "-", "2 MiB"),
        ("4 MiB", "-", "1 MiB"),
    ]


def test_a_test_that_failed_before_it_named_a_recipe_has_no_table() -> None:
    failed = case("", model="test_it", reference=None, variant=None, error=CaseError("test", "no such name"))
    assert [block.title for block in blocks(record(failed, case("r")))] == ["digits-vit"]


@pytest.mark.parametrize("stage", ["test", "limits"])
def test_a_case_that_was_measured_keeps_its_figures_whatever_was_wrong_later(stage: str) -> None:
    """A limit in a unit that its metric does not have is a mistake of the budget, and blanks nothing."""
    bound = limit("max_memory", MIB, "1 MiB")
    made = replace(case("r", limits=(bound,)), error=CaseError(stage, "no"))  # type: ignore[arg-type]
    assert table(record(made))["memory"] == ("8 MiB", "2 MiB")
    assert table(record(made))["verdict"] == ("", "✗ ERROR")


@pytest.mark.parametrize(
    ("pairs", "timed_limits", "shown"),
    [
        (3, 1, "0.8x"),
        (4, 1, "0.800x [0.691, 0.984]"),  # one segment: error 5.59%; t of 6 freedoms at 0.98 and 0.995: 2.612 and 3.707
        (200, 1, "0.800x [0.767, 0.845]"),  # ten: error 1.871%; t of 15 freedoms: 2.249 and 2.947
        (200, 10, "0.800x [0.767, 0.863]"),  # the risk of a false FAIL is shared among ten: t at 0.9995 is 4.073
        (2000, 1, "0.800x [0.790, 0.813]"),  # a hundred: error 0.610%; t of 105 freedoms: 2.079 and 2.623
    ],
)
def test_the_interval_is_that_of_the_segments_and_too_few_pairs_have_none(
    pairs: int, timed_limits: int, shown: str
) -> None:
    """Each pair reads 0.8x. The error comes from what a second is taken to spread by before anything is known: 5%."""
    told = replace(record(case(timing=timing(pairs))), timed_limits=timed_limits)
    assert details(told)["speedup"] == (shown,)


def test_a_timing_without_pairs_is_not_measured() -> None:
    untimed = record(case(timing=timing(0)))
    assert not {"latency", "speedup"} & {*table(untimed), *details(untimed)}


def test_the_originals_latency_stands_with_each_comparison() -> None:
    """What the machine was doing meanwhile is in both latencies of a comparison, and not in those of another one."""
    told = record(
        case("a", timing=timing(reference_ns=4_000_000)), case("b", timing=timing(reference_ns=3_000_000)), case("c")
    )
    assert details(told)["latency"] == ("4 -> 5 ms", "3 -> 5 ms", "-")
    bound = limit("max_latency", 0.01, "10 ms")
    limited = [replace(each, verdicts=(verdict(bound, "pass", 0.005),)) for each in told.cases[:2]]
    assert table(record(*limited, told.cases[2]))["latency"] == ("", "4 -> 5 of 10 ms", "3 -> 5 of 10 ms", "-")


def test_an_original_with_limits_of_its_own_has_its_verdict_and_its_latency() -> None:
    own = case(
        ORIGINAL,
        reference=measurement(None),
        variant=measurement(None),
        verdicts=(verdict(limit("max_latency", 0.004, "4 ms"), "fail", 0.005),),
        timing=timing(),
    )
    assert table(record(own, case("r"))) == {
        "verdict": ("✗ FAIL", "no limits"),
        "recipe": ("original", "r"),
        "memory": ("8 MiB", "2 MiB"),
        "size": ("4 MiB", "1 MiB"),
        "latency": ("✗ 5 of 4 ms", "-"),
    }


def test_rows_keep_their_order_and_models_have_their_own_blocks() -> None:
    told = record(case("b", "two"), case("z", "one"), case("a", "two"), case("a", "two", metric="f1"))
    found = [(block.title, block.metric, [row.recipe for row in block.rows]) for block in blocks(told)]
    assert found == [
        ("two", "accuracy", ["original", "b", "a"]),
        ("one", "accuracy", ["original", "z"]),
        ("two", "f1", ["original", "a"]),
    ]


def test_several_limits_that_warn_are_one_word() -> None:
    soft = limit("min_speedup", 1.5, "1.5x", level="warn")
    twice = (verdict(soft, "fail"), verdict(replace(soft, name="max_size"), "not measured"))
    assert table(record(case("two", verdicts=twice), broken("r")))["verdict"] == ("", "! warn", "✗ FAIL")


def test_a_name_cannot_break_a_row() -> None:
    block = blocks(record(case("int8\n\x1b[31m\u202edynamic", "a\r\nb")))[0]
    assert (block.title, block.rows[1].recipe) == ("a b", "int8 dynamic")
