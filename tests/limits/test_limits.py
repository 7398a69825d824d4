"""The catalogue of limits: complete, in order, and each read and shown in its own unit."""

from __future__ import annotations

import pytest

from pytest_modelopt.limits.catalogue import (
    LIMITS,
    is_looser,
    merge,
    misfit,
    misplaced,
    parse_level,
    parse_value,
    unknown_limit,
)
from pytest_modelopt.limits.units import UnitError
from pytest_modelopt.results.metric import MetricSpec, in_unit_interval
from pytest_modelopt.results.verdicts import Limit

CATALOGUE = [
    ("max_memory", "exact", "max", "3 MiB", 3145728.0),
    ("min_memory_reduction", "exact", "min", "60%", 0.6),
    ("max_process_memory", "exact", "max", "80 MiB", 83886080.0),
    ("max_size", "exact", "max", "1 kB", 1000.0),
    ("min_size_reduction", "exact", "min", "5%", 0.05),
    ("min_speedup", "timed", "min", "1.3x", 1.3),
    ("max_latency", "timed", "max", "5 ms", 0.005),
    ("max_p95_latency", "timed", "max", "8 ms", 0.008),
    ("max_load_time", "timed", "max", "1.5 s", 1.5),
    ("min_load_speedup", "timed", "min", "2x", 2.0),
    ("max_first_token_latency", "timed", "max", "80 ms", 0.08),
    ("min_prefill_speedup", "timed", "min", "1.1x", 1.1),
    ("min_decode_speedup", "timed", "min", "1.2x", 1.2),
    ("max_cache_memory", "exact", "max", "24 MiB", 24 * 1024.0**2),
    ("max_accuracy_drop", "exact", "max", "1 pp", 0.01),
    ("min_accuracy", "exact", "min", "97%", 0.97),
    ("max_slice_drop", "exact", "max", "5 pp", 0.05),
    ("max_flips", "exact", "max", "2%", 0.02),
    ("min_coverage", "exact", "min", "90%", 0.9),
    ("max_memory_growth", "exact", "max", "2%", 0.02),
    ("max_size_growth", "exact", "max", "2%", 0.02),
    ("max_accuracy_loss", "exact", "max", "0.5 pp", 0.005),
    ("max_slowdown", "timed", "max", "10%", 0.1),
]


def limit(name: str, text: str, line: int = 1) -> Limit:
    return Limit(name, 0.0, text, "error", "budgets.yaml", line)


def test_the_catalogue_has_every_limit_in_order_with_a_sentence_each() -> None:
    assert [(kind.name, "timed" if kind.is_timed else "exact", kind.direction) for kind in LIMITS.values()] == [
        row[:3] for row in CATALOGUE
    ]
    assert all(name == kind.name and kind.meaning.endswith(".") for name, kind in LIMITS.items())


@pytest.mark.parametrize(("name", "text", "value"), [(row[0], row[3], row[4]) for row in CATALOGUE])
def test_each_limit_is_read_in_its_unit(name: str, text: str, value: float) -> None:
    read = parse_value(name, text, unit_interval=True)
    assert read == value
    assert isinstance(read, float)


@pytest.mark.parametrize(
    ("name", "value", "unit_interval", "expected"),
    [
        ("max_memory", 3145728.0, None, "3 MiB"),
        ("min_memory_reduction", 0.6, None, "60%"),
        ("max_accuracy_drop", 0.01, True, "1 pp"),
        ("max_accuracy_drop", 2.5, None, "2.5"),
        ("min_accuracy", 0.972, True, "97.2%"),
        ("min_accuracy", -1.25, False, "-1.25"),
        ("min_speedup", 1.3, None, "1.3x"),
        ("max_latency", 0.005, None, "5 ms"),
    ],
)
def test_each_limit_is_shown_in_its_unit(name: str, value: float, unit_interval: bool | None, expected: str) -> None:
    assert LIMITS[name].format(value, unit_interval=unit_interval) == expected


def test_a_limit_that_does_not_exist_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnitError, match="unknown limit 'max_memroy'; did you mean 'max_memory'"):
        parse_value("max_memroy", "6 MiB")
    assert "the valid ones are max_memory" in unknown_limit("colour")


@pytest.mark.parametrize("raw", ["warning", None, True, 3, ["warn"]])
def test_a_level_is_error_or_warn_and_nothing_else(raw: object) -> None:
    assert (parse_level("error"), parse_level("warn")) == ("error", "warn")
    with pytest.raises(UnitError, match="warn"):
        parse_level(raw)


def test_only_shares_are_known_to_lie_between_0_and_1() -> None:
    assert in_unit_interval("accuracy") is True
    assert in_unit_interval("top-5") is True
    assert in_unit_interval("agreement") is True
    assert in_unit_interval("cosine") is False
    assert in_unit_interval("sqnr") is False
    assert in_unit_interval(None) is None
    assert in_unit_interval("shop.metrics:mean_error") is None


def test_the_closest_statement_of_a_limit_wins_key_by_key() -> None:
    far = (limit("min_speedup", "1.1x", 1), limit("max_memory", "6 MiB", 2))
    near = (limit("max_flips", "2%", 8), limit("max_memory", "3 MiB", 9))
    assert [(one.name, one.line) for one in merge([near, far])] == [
        ("max_memory", 9),
        ("min_speedup", 1),
        ("max_flips", 8),
    ]
    assert merge([]) == ()


def test_a_drop_of_1_is_refused_once_the_metric_turns_out_to_be_accuracy() -> None:
    stated = limit("max_accuracy_drop", "1")
    assert "write 1 pp" in str(misfit(stated, "accuracy"))
    assert misfit(stated, "shop.metrics:mean_error") is None
    assert misfit(limit("max_accuracy_drop", "1 pp"), "accuracy") is None
    assert misfit(limit("max_memory", "4096"), "accuracy") is None


def test_only_what_grew_since_the_base_may_be_more_than_the_whole() -> None:
    wholes = {row[0] for row in CATALOGUE if row[3].endswith("%") and row[0] != "min_accuracy"}
    growing = {name for name in wholes if LIMITS[name].may_exceed_the_whole}
    assert growing == {"max_memory_growth", "max_size_growth", "max_slowdown"}
    assert {parse_value(name, "150%") for name in growing} == {1.5}
    for name in wholes - growing:
        with pytest.raises(UnitError):
            parse_value(name, "150%")


def test_nothing_drops_from_an_original_that_has_no_score_of_its_own() -> None:
    assert "nothing can drop" in str(misfit(limit("max_accuracy_drop", "1"), "sqnr"))
    assert misfit(limit("min_accuracy", "30"), "sqnr") is None
    assert misfit(limit("max_accuracy_drop", "1"), "cosine") is None


@pytest.mark.parametrize(
    ("metric", "is_measured"), [("accuracy", True), ("top-5", True), ("agreement", True), ("perplexity", False)]
)
def test_flips_and_classes_need_a_metric_that_is_right_or_wrong(metric: str, is_measured: bool) -> None:
    for name in ("max_flips", "max_slice_drop"):
        assert (LIMITS[name].never_measured(MetricSpec(metric), None, "set") == "") == is_measured


def test_slices_of_another_metric_are_judged_on_the_examples_only() -> None:
    slices, metric = LIMITS["max_slice_drop"], MetricSpec("perplexity")
    assert slices.never_measured(metric, "shop.data:kinds", "set") == ""
    assert "single slices get no interval" in slices.never_measured(metric, "shop.data:kinds", "population")


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_is_looser_on_its_own_side(name: str) -> None:
    is_max = name.startswith("max")
    assert is_looser(name, 0.6, 0.5, higher_is_better=True) is is_max
    assert is_looser(name, 0.5, 0.6, higher_is_better=True) is not is_max
    assert is_looser(name, 0.5, 0.5, higher_is_better=None) is False
    is_floor_of_score = name == "min_accuracy"  # a ceiling of a metric that is better when it is lower
    assert is_looser(name, 0.6, 0.5, higher_is_better=False) is (is_max or is_floor_of_score)
    assert is_looser(name, 0.6, 0.5, higher_is_better=None) is (None if is_floor_of_score else is_max)


@pytest.mark.parametrize("row", CATALOGUE, ids=[row[0] for row in CATALOGUE])
def test_a_limit_on_the_wrong_side_of_regression_is_told_where_it_belongs(
    row: tuple[str, str, str, str, float],
) -> None:
    is_of_base = row[0] in ("max_memory_growth", "max_size_growth", "max_accuracy_loss", "max_slowdown")
    assert misplaced(row[0], below_regression=is_of_base) == ""
    told = misplaced(row[0], below_regression=not is_of_base)
    assert ("move it below `regression:`" if is_of_base else "move it below `budget:`") in told
