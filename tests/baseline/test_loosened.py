"""What head states less strictly than the base: relaxed, removed, waived, downgraded, each as one entry."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.baseline.loosened import loosened, loosened_from_record, removed_cases, removed_from_record
from pytest_modelopt.config.loader import BudgetsFile, load_budgets
from pytest_modelopt.results.base import Base
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.record import Target
from pytest_modelopt.results.verdicts import Limit
from tests.reporting.records_by_hand import ENVIRONMENT, case, record

TODAY = datetime.date(2026, 11, 26)

START = """\
version: 1
models:
  vit:
    factory: shop:model
    data: shop:data
"""
"""A model's own lines begin in line 6."""


def load(folder: Path, text: str) -> BudgetsFile:
    path = folder / "budgets.yaml"
    path.write_text(text, encoding="utf-8")
    return load_budgets(path, relative_to=folder, expired="keep", today=TODAY)


def entries(folder: Path, base: str, head: str) -> list[tuple[object, ...]]:
    """Case, limit, kind, old, new, by how much, line."""
    found = loosened(load(folder, base), load(folder, head))
    assert {each.file for each in found} <= {"budgets.yaml"}
    return [(each.case, each.limit, each.kind, each.old, each.new, each.by, each.line) for each in found]


def one_limit(text: str, metric: str = "accuracy") -> str:
    return f"{START}    metric: {metric}\n    recipes:\n      int8-dynamic:\n        {text}\n"


def of_base(text: str) -> str:
    return f"{START}    recipes:\n      int8-dynamic:\n    regression: {{{text}}}\n"


RELAXED = [
    ("max_memory: 3 MiB", "max_memory: 4 MiB", "+33.3%"),
    ("max_size: 0 B", "max_size: 4 MiB", "4 MiB, was 0"),
    ("max_process_memory: 100 B", "max_process_memory: 101 B", "+1%"),
    ("min_memory_reduction: 60%", "min_memory_reduction: 50%", "10 pp"),
    ("min_size_reduction: 0.6", "min_size_reduction: 0.595", "0.5 pp"),
    ("min_speedup: 1.5x", "min_speedup: 1.2x", "0.3x less"),
    ("min_speedup: +50%", "min_speedup: 1.2", "0.3x less"),
    ("max_latency: 4 ms", "max_latency: 5 ms", "+25%"),
    ("max_accuracy_drop: 0.5 pp", "max_accuracy_drop: 1 pp", "0.5 pp"),
    ("min_accuracy: 97%", "min_accuracy: 96.5%", "0.5 pp"),
    ("max_slice_drop: 5 pp", "max_slice_drop: 7 pp", "2 pp"),
    ("max_flips: 2%", "max_flips: 3%", "1 pp"),
    ("min_coverage: 90%", "min_coverage: 80%", "10 pp"),
]


@pytest.mark.parametrize(("strict", "loose", "by"), RELAXED, ids=[row[0] for row in RELAXED])
def test_a_limit_that_allows_more_is_relaxed_and_one_that_allows_less_is_not(
    tmp_path: Path, strict: str, loose: str, by: str
) -> None:
    (name, old), (_, new) = (text.split(": ") for text in (strict, loose))
    told = ("vit/int8-dynamic", name, "relaxed", old, new, by, 9)
    assert entries(tmp_path, one_limit(strict), one_limit(loose)) == [told]
    assert entries(tmp_path, one_limit(loose), one_limit(strict)) == []
    assert entries(tmp_path, one_limit(strict), one_limit(strict)) == []


@pytest.mark.parametrize(
    ("strict", "loose", "by"),
    [
        ("max_memory_growth: 2%", "max_memory_growth: 3%", "1 pp"),
        ("max_size_growth: 0%", "max_size_growth: 150%", "150 pp"),
        ("max_accuracy_loss: 0.5 pp", "max_accuracy_loss: 0.7 pp", "0.2 pp"),
        ("max_slowdown: 10%", "max_slowdown: 15%", "5 pp"),
    ],
)
def test_a_limit_against_the_base_is_listed_for_the_original_and_for_every_recipe(
    tmp_path: Path, strict: str, loose: str, by: str
) -> None:
    (name, old), (_, new) = (text.split(": ") for text in (strict, loose))
    told = (name, "relaxed", old, new, by, 8)
    assert entries(tmp_path, of_base(strict), of_base(loose)) == [("vit/int8-dynamic", *told), ("vit/original", *told)]
    assert entries(tmp_path, of_base(loose), of_base(strict)) == []


def test_an_entry_stands_where_head_states_it(tmp_path: Path) -> None:
    moved = waived().replace("models:", "\n\nmodels:")
    assert [row[6] for row in entries(tmp_path, one_limit("min_speedup: 2x"), moved)] == [11, 13]


def test_the_same_value_in_other_words_is_not_looser(tmp_path: Path) -> None:
    assert entries(tmp_path, one_limit("max_memory: 1 MiB"), one_limit("max_memory: 1024 KiB")) == []
    assert entries(tmp_path, one_limit("min_speedup: 1.2x"), one_limit("min_speedup: +20%")) == []


def test_a_metrics_own_unit_is_kept(tmp_path: Path) -> None:
    old, new = (one_limit(f"max_accuracy_drop: {value}", "shop:error") for value in ("1.5", "2"))
    assert entries(tmp_path, old, new) == [("vit/int8-dynamic", "max_accuracy_drop", "relaxed", "1.5", "2", "0.5", 9)]


def test_the_floor_of_a_score_turns_around_with_the_metric_and_is_listed_where_nobody_knows(tmp_path: Path) -> None:
    metric = "{name: shop:error, higher_is_better: false}"
    old, new = (one_limit(f"min_accuracy: {value}", metric) for value in ("3", "4"))
    assert [row[5] for row in entries(tmp_path, old, new)] == ["1"]
    assert entries(tmp_path, new, old) == []
    old, new = (one_limit(f"min_accuracy: {value}", "shop:error") for value in ("3", "4"))
    unsure = "1, and whether higher is better is not known"
    assert [row[5] for row in entries(tmp_path, old, new)] == [unsure]
    assert [row[5] for row in entries(tmp_path, new, old)] == [unsure]
    assert entries(tmp_path, old, old) == []
    base, head = load(tmp_path, old), load(tmp_path, new)
    assert loosened(base, head, {"vit": True}) == ()
    assert [each.by for each in loosened(base, head, {"vit": False})] == ["1"]


def test_a_limit_that_is_gone_is_removed_and_stands_where_its_case_does(tmp_path: Path) -> None:
    base = one_limit("{max_memory: 3 MiB, max_flips: 2%}").replace("        {", "        <<: {")
    assert entries(tmp_path, base, one_limit("max_memory: 3 MiB")) == [
        ("vit/int8-dynamic", "max_flips", "removed", "2%", "removed", "", 8)
    ]
    assert entries(tmp_path, one_limit("max_memory: 3 MiB"), base) == []


TWO_MODELS = f"""{START}    recipes:
      low-rank: {{max_size: 1 MiB}}
      int8-dynamic: {{max_size: 1 MiB}}
    regression: {{max_slowdown: 10%}}
  speech:
    factory: shop:model
    data: shop:data
    recipes:
      int8-dynamic: {{max_flips: 2%}}
    regression: {{max_size_growth: 1%}}
"""


def test_every_limit_of_a_case_or_a_model_that_is_gone_is_removed(tmp_path: Path) -> None:
    head = (
        f"{START}    recipes:\n      low-rank(ratio=0.50): {{max_size: 1 MiB}}\n    regression: {{max_slowdown: 10%}}\n"
    )
    assert entries(tmp_path, TWO_MODELS, head) == [
        ("speech/int8-dynamic", "max_flips", "removed", "2%", "removed", "", 1),
        ("speech/int8-dynamic", "max_size_growth", "removed", "1%", "removed", "", 1),
        ("speech/original", "max_size_growth", "removed", "1%", "removed", "", 1),
        ("vit/int8-dynamic", "max_size", "removed", "1 MiB", "removed", "", 1),
        ("vit/int8-dynamic", "max_slowdown", "removed", "10%", "removed", "", 1),
    ]
    base, now = load(tmp_path, TWO_MODELS), load(tmp_path, head)
    assert removed_cases(base, now) == ("speech/int8-dynamic", "speech/original", "vit/int8-dynamic")
    assert removed_cases(now, base) == removed_cases(base, base) == ()
    without = load(tmp_path, TWO_MODELS.replace("    regression: {max_size_growth: 1%}\n", ""))
    assert removed_cases(base, without) == ()
    assert removed_cases(without, now) == ("speech/int8-dynamic", "vit/int8-dynamic")


def test_a_limit_of_level_warn_is_a_downgrade_beside_a_looser_value(tmp_path: Path) -> None:
    old, new = "max_memory: 3 MiB", "max_memory: {limit: 6 MiB, level: warn}"
    relaxed = ("vit/int8-dynamic", "max_memory", "relaxed", "3 MiB", "6 MiB", "+100%", 9)
    warn = ("vit/int8-dynamic", "max_memory", "warn", "3 MiB", "6 MiB (warn)", "", 9)
    assert entries(tmp_path, one_limit(old), one_limit(new)) == [relaxed, warn]
    same = "max_memory: {limit: 3 MiB, level: warn}"
    assert entries(tmp_path, one_limit(old), one_limit(same)) == [(*warn[:4], "3 MiB (warn)", "", 9)]
    assert entries(tmp_path, one_limit(same), one_limit(old)) == []
    assert entries(tmp_path, one_limit(same), one_limit(same)) == []


def test_a_change_of_what_a_limit_is_about_is_a_relaxation_of_limits_on_answers(tmp_path: Path) -> None:
    def about(inference: str) -> str:
        own = one_limit("{max_memory: 3 MiB, max_flips: 2%, min_accuracy: 97%}").replace("        {", "        <<: {")
        return own.replace(
            "    metric", f"    inference: {inference}\n    regression: {{max_accuracy_loss: 1 pp}}\n    metric"
        )

    assert [(*row[:5], row[5]) for row in entries(tmp_path, about("population"), about("set"))] == [
        ("vit/int8-dynamic", "max_accuracy_loss", "relaxed", "population", "set", ""),
        ("vit/int8-dynamic", "max_flips", "relaxed", "population", "set", ""),
        ("vit/int8-dynamic", "min_accuracy", "relaxed", "population", "set", ""),
        ("vit/original", "max_accuracy_loss", "relaxed", "population", "set", ""),
    ]
    kinder = entries(tmp_path, about("set"), about("population"))  # what is broken may be inconclusive, which is green
    assert [row[:5] for row in kinder] == [
        ("vit/int8-dynamic", "max_accuracy_loss", "relaxed", "set", "population"),
        ("vit/int8-dynamic", "max_flips", "relaxed", "set", "population"),
        ("vit/int8-dynamic", "min_accuracy", "relaxed", "set", "population"),
        ("vit/original", "max_accuracy_loss", "relaxed", "set", "population"),
    ]


def test_another_metric_makes_the_same_words_another_limit(tmp_path: Path) -> None:
    limits = "{max_accuracy_drop: 1 pp, max_flips: 2%}"
    old, new = (one_limit(limits, metric).replace("        {", "        <<: {") for metric in ("accuracy", "top-5"))
    assert entries(tmp_path, old, new) == [
        (
            "vit/int8-dynamic",
            "max_accuracy_drop",
            "relaxed",
            "1 pp of accuracy",
            "1 pp of top-5",
            "another metric",
            9,
        )
    ]


# --- waivers ---------------------------------------------------------------------------------------------------------


def waived(until: str = "2027-01-31", rest: str = "", limit: str = "min_speedup: 1.5x") -> str:
    case_and_limit = f"case: vit/int8-dynamic, limit: {limit.split(':')[0]}"
    return f"{one_limit(limit)}waivers:\n- {{{case_and_limit}, until: {until}, reason: slow{rest}}}\n"


def changes(folder: Path, base: str, head: str) -> list[tuple[object, ...]]:
    return [row[2:] for row in entries(folder, base, head)]


def test_a_new_waiver_is_listed_with_its_reason_and_how_far_its_ceiling_goes(tmp_path: Path) -> None:
    plain = one_limit("min_speedup: 1.5x")
    assert changes(tmp_path, plain, waived()) == [("waived", "1.5x", "waived until 2027-01-31: slow", "", 11)]
    assert changes(tmp_path, plain, waived(rest=", ceiling: 1.2x")) == [
        ("waived", "1.5x", "waived until 2027-01-31 up to 1.2x: slow", "0.3x less", 11)
    ]
    assert changes(tmp_path, waived(), plain) == []
    assert changes(tmp_path, waived(), waived()) == []


def test_a_waiver_with_a_ceiling_that_the_old_limit_allowed_loosens_nothing(tmp_path: Path) -> None:
    plain = one_limit("min_speedup: 1.2x")
    assert changes(tmp_path, plain, waived(rest=", ceiling: 1.3x")) == []
    assert changes(tmp_path, plain, waived(rest=", ceiling: 1.2x")) == []
    assert [row[0] for row in changes(tmp_path, plain, waived(rest=", ceiling: 1.1x"))] == ["waived"]
    longer = waived("2028-01-31", ", ceiling: 1.3x")
    assert changes(tmp_path, waived(limit="min_speedup: 1.2x"), longer) == []


def test_a_waiver_of_a_limit_that_is_new_itself_loosens_nothing(tmp_path: Path) -> None:
    head = waived().replace("        min", "        max_flips: 2%\n        min")
    assert changes(tmp_path, one_limit("max_flips: 2%"), head) == []


def test_a_waiver_that_runs_longer_or_accepts_more_is_listed(tmp_path: Path) -> None:
    old = waived(rest=", ceiling: 1.2x")
    was = "waived until 2027-01-31 up to 1.2x"
    assert changes(tmp_path, old, waived("2027-02-01", ", ceiling: 1.2x")) == [
        ("waived", was, "waived until 2027-02-01 up to 1.2x: slow", "1 day longer", 11)
    ]
    assert changes(tmp_path, old, waived(rest=", ceiling: 1.1x")) == [
        ("waived", was, "waived until 2027-01-31 up to 1.1x: slow", "ceiling 0.1x less", 11)
    ]
    assert changes(tmp_path, old, waived("2028-01-31")) == [
        ("waived", was, "waived until 2028-01-31: slow", "365 days longer, without a ceiling", 11)
    ]
    for stricter in (waived("2027-01-30", ", ceiling: 1.2x"), waived(rest=", ceiling: 1.3x"), old):
        assert changes(tmp_path, old, stricter) == []
    assert changes(tmp_path, waived(), old) == []


def test_a_waiver_of_the_base_that_has_run_out_is_compared_all_the_same(tmp_path: Path) -> None:
    assert changes(tmp_path, waived("2026-01-31"), waived()) == [
        ("waived", "waived until 2026-01-31", "waived until 2027-01-31: slow", "365 days longer", 11)
    ]


def test_entries_come_by_case_then_by_limit_then_by_kind(tmp_path: Path) -> None:
    old = f"{START}    recipes:\n      low-rank: {{min_speedup: 2x, max_flips: 1%}}\n      bf16: {{max_size: 1 B}}\n"
    new = (
        f"{START}    recipes:\n      low-rank: {{min_speedup: {{limit: 1x, level: warn}}, max_flips: 2%}}\n"
        "      bf16:\nwaivers: [{case: vit/low-rank, limit: min_speedup, until: 2027-01-31, reason: slow}]\n"
    )
    assert [row[:3] for row in entries(tmp_path, old, new)] == [
        ("vit/bf16", "max_size", "removed"),
        ("vit/low-rank(ratio=0.5)", "max_flips", "relaxed"),
        ("vit/low-rank(ratio=0.5)", "min_speedup", "relaxed"),
        ("vit/low-rank(ratio=0.5)", "min_speedup", "waived"),
        ("vit/low-rank(ratio=0.5)", "min_speedup", "warn"),
    ]


# --- a saved record as the base --------------------------------------------------------------------------------------


def limit(name: str, value: float, text: str) -> Limit:
    return Limit(name, value, text, "error", "old.yaml", 7)


def saved(recipe: str, *limits: Limit, **changed: Any) -> Case:
    made = case(recipe, "vit", limits=limits)
    return replace(made, id=f"budgets.yaml::vit::{recipe}", **changed)


def test_the_limits_of_a_saved_record_are_a_base_too(tmp_path: Path) -> None:
    base = record(
        saved("int8-dynamic", limit("max_size", 1, "1 B"), limit("min_accuracy", 3, "3"), inference="population"),
        saved(
            "int8-dynamic",
            limit("max_slowdown", 0.1, "10%"),
            base=Base("1a2b", "failed"),
            inference="population",
            metric=None,
        ),
        saved("original", limit("max_slowdown", 0.1, "10%"), base=Base("1a2b", "new")),
        saved("bf16", limit("unknown", 1, "1")),
        saved("fp16"),
    )
    head = load(
        tmp_path,
        f"{START}    metric: shop:error\n    recipes:\n      int8-dynamic: {{max_size: 2 B, min_accuracy: 4}}\n"
        "    regression: {max_slowdown: 20%}\n",
    )
    told = [
        (each.case, each.limit, each.kind, each.old, each.new, each.by) for each in loosened_from_record(base, head)
    ]
    assert told == [
        ("vit/int8-dynamic", "max_size", "relaxed", "1 B", "2 B", "+100%"),
        ("vit/int8-dynamic", "max_slowdown", "relaxed", "10%", "20%", "10 pp"),
        ("vit/int8-dynamic", "min_accuracy", "relaxed", "population", "set", ""),
        ("vit/original", "max_slowdown", "relaxed", "10%", "20%", "10 pp"),
    ]
    assert removed_from_record(base, head) == ("vit/bf16", "vit/fp16")
    floor = saved("int8-dynamic", limit("min_accuracy", 3, "3"), higher_is_better=False)
    lower = record(floor, replace(floor, limits=(), metric=None))
    assert [each.by for each in loosened_from_record(lower, head)] == ["1"]
    unknown = record(saved("int8-dynamic", limit("min_accuracy", 3, "3"), metric=None))
    assert ["not known" in each.by for each in loosened_from_record(unknown, head)] == [True]


def test_cases_of_tests_are_no_part_of_the_budgets_file(tmp_path: Path) -> None:
    of_test = replace(saved("bf16", limit("max_size", 1, "1 B")), id="tests/test_a.py::test_b[x]")
    head = load(tmp_path, one_limit("max_size: 1 B"))
    assert loosened_from_record(record(of_test), head) == ()
    assert removed_from_record(record(of_test), head) == ()


# --- how a limit is measured -----------------------------------------------------------------------------------------


LIMITS_OF_ALL_KINDS = (
    "max_memory: 3 MiB, max_size: 3 MiB, max_latency: 4 ms, min_speedup: 1.5x, min_accuracy: 97%, max_slice_drop: 5 pp"
)


def measured(defaults: str = "", own: str = "", top: str = "") -> str:
    text = START.replace("models:", f"{top}defaults: {{{defaults}}}\nmodels:")
    return f"{text}{own}    recipes:\n      int8-dynamic: {{{LIMITS_OF_ALL_KINDS}, regression: {{max_slowdown: 9%}}}}\n"


@pytest.mark.parametrize(
    ("was", "now", "limits"),
    [
        (
            {"defaults": "batch_size: 8"},
            {"defaults": "batch_size: 4"},
            ["max_latency", "max_memory", "max_slowdown", "min_speedup"],
        ),
        ({"defaults": "batch_size: 4"}, {"defaults": "batch_size: 8"}, ["max_slowdown", "min_speedup"]),
        ({"defaults": "threads: 1"}, {"defaults": "threads: 2"}, ["max_latency", "max_slowdown", "min_speedup"]),
        ({"defaults": "time_limit: 20 s"}, {"defaults": "time_limit: 1 s"}, "max_latency max_slowdown min_speedup"),
        ({"defaults": "time_limit: 1 s"}, {"defaults": "time_limit: 20 s"}, []),
        ({"defaults": "step_limit: 9 s"}, {"defaults": "step_limit: 8 s"}, []),
        ({}, {"own": "    slices: shop:slices\n"}, ["max_slice_drop"]),
        ({"top": "base_setup: [make]\n"}, {"top": "base_setup: [cp, a, b]\n"}, ["max_slowdown"]),
    ],
)
def test_a_limit_that_is_measured_otherwise_may_be_less_strict(
    tmp_path: Path, was: dict[str, str], now: dict[str, str], limits: list[str] | str
) -> None:
    found = [row for row in entries(tmp_path, measured(**was), measured(**now)) if row[0] == "vit/int8-dynamic"]
    assert [row[1] for row in found] == (limits.split() if isinstance(limits, str) else limits)
    assert {row[2] for row in found} <= {"relaxed"}


def test_what_is_measured_otherwise_is_told(tmp_path: Path) -> None:
    (row,) = entries(tmp_path, one_limit("min_accuracy: 97%"), one_limit("min_accuracy: 97%").replace(":data", ":easy"))
    assert row[3:6] == ("97% at data shop:data", "97% at data shop:easy", "another data")
    base, head = (measured(f"time_limit: {value}") for value in ("20 s", "10 ms"))
    assert next(row[3:6] for row in entries(tmp_path, base, head)) == (
        "4 ms at time_limit 20 s",
        "4 ms at time_limit 10 ms",
        "another time_limit",
    )


# --- workloads -------------------------------------------------------------------------------------------------------


def pointed(workloads: str, limits: str = "max_memory: 3 MiB") -> str:
    stated = f"    workloads: {{{workloads}}}\n" if workloads else ""
    return f"{START}{stated}    recipes:\n      int8-dynamic: {{{limits}}}\n"


@pytest.mark.parametrize(
    ("base", "head", "loosened_rows", "removed"),
    [
        ("a: {batch_size: 2}, b: {batch_size: 8}", "a: {batch_size: 2}", [("@ b", "removed")], ["@ b"]),
        ("a: {batch_size: 2, max_size: 1 B}", "a: {batch_size: 2, max_size: 2 B}", [("@ a", "relaxed")], []),
        ("a: {batch_size: 2, max_size: 1 B}", "a: {batch_size: 2}", [("@ a", "removed")], []),
        ("a: {batch_size: 8}", "a: {batch_size: 2}", [("@ a", "relaxed")], []),
        ("a: {batch_size: 8}", "c: {batch_size: 8}", [], []),  # another name, and the same call
        ("a: {batch_size: 8}", "c: {batch_size: 2}", [("@ a", "removed")], ["@ a"]),
        ("", "a: {batch_size: 2}, b: {batch_size: 1}", [], []),  # as it was is b
        ("", "a: {batch_size: 2}, b: {batch_size: 3}", [], []),  # more memory under the same limit
        ("a: {batch_size: 1}, b: {batch_size: 8}", "", [("@ b", "removed")], ["@ b"]),
    ],
)
def test_a_workload_that_is_gone_or_kinder_is_looser(
    tmp_path: Path, base: str, head: str, loosened_rows: list[tuple[str, str]], removed: list[str]
) -> None:
    rows = [(str(row[0]), row[2]) for row in entries(tmp_path, pointed(base), pointed(head))]
    assert rows == [(f"vit/int8-dynamic {name}", kind) for name, kind in loosened_rows]
    gone = removed_cases(load(tmp_path, pointed(base)), load(tmp_path, pointed(head)))
    assert gone == tuple(f"vit/int8-dynamic {name}" for name in removed)


@pytest.mark.parametrize(
    ("base", "head", "told"),
    [
        (
            "threads: 1",
            "batch_size: 1",
            ["3 MiB at example_inputs shop:some", "3 MiB at example_inputs the first of shop:some"],
        ),
        (
            "batch_size: 1",
            "threads: 1",
            ["3 MiB at example_inputs the first of shop:some", "3 MiB at example_inputs shop:some"],
        ),
        ("threads: 1", "threads: 1, max_size: 1 B", []),
    ],
)
def test_a_call_with_some_of_the_inputs_is_not_the_one_with_all_of_them(
    tmp_path: Path, base: str, head: str, told: list[str]
) -> None:
    def stated(point: str) -> str:
        inputs = "    example_inputs: shop:some\n    workloads:"
        return pointed(f"a: {{{point}}}").replace("    workloads:", inputs)

    assert [list(row[3:5]) for row in entries(tmp_path, stated(base), stated(head))] == ([told] if told else [])


# --- targets ---------------------------------------------------------------------------------------------------------


def at_target(targets: str, limits: str, of_model: str = "") -> str:
    return f"version: 1\ntargets: {{{targets}}}\nmodels:\n  vit:\n    factory: shop:model\n    data: shop:data\n" + (
        f"    targets: {{{of_model}}}\n    recipes:\n      int8-dynamic: {{{limits}}}\n"
    )


ARM = "arm: {architecture: aarch64}"
AT_ARM = "arm: {max_size: 1 B}"


@pytest.mark.parametrize(
    ("base", "head", "found"),
    [
        (
            (ARM, "", AT_ARM),
            (ARM, "", "arm: {max_size: 2 B}"),
            [("vit/int8-dynamic", "max_size on arm", "relaxed", "2 B")],
        ),
        ((ARM, "", AT_ARM), (ARM, ""), [("vit/int8-dynamic", "max_size on arm", "removed", "removed")]),
        ((ARM, "", AT_ARM), (ARM, "max_size: 3 B"), [("vit/int8-dynamic", "max_size on arm", "relaxed", "3 B")]),
        ((ARM, "", AT_ARM), (ARM, "max_size: 1 B"), []),  # it holds there, too
        ((ARM, "max_size: 1 B"), (ARM, "max_size: 1 B", "arm: {max_size: 2 B}"), []),  # the stricter one holds
        ((ARM, "max_size: 1 B", "arm: {max_size: 2 B}"), (ARM, "max_size: 1 B", "arm: {max_size: 3 B}"), []),
        (
            (ARM, "max_size: 1 B", "arm: {max_size: 2 B}"),
            (ARM, "", "arm: {max_size: 2 B}"),
            [("vit/int8-dynamic", "max_size", "removed", "removed")],
        ),
        (
            (ARM, "", AT_ARM),
            ("x: {cores: 2}", "", "x: {max_size: 1 B}"),
            [("vit/int8-dynamic", "max_size on arm", "removed", "removed")],
        ),
        (
            ("arm: {architecture: aarch64, required: true}", ""),
            (ARM, ""),
            [("target arm", "required", "relaxed", "false")],
        ),
        (
            ("arm: {architecture: aarch64, required: true}", ""),
            ("x: {cores: 2}", ""),
            [("target arm", "required", "relaxed", "no such target")],
        ),
        (
            (ARM, ""),
            ("arm: {architecture: aarch64, cores: 64}", ""),
            [("target arm", "machines", "relaxed", "aarch64, 64 cores")],
        ),
        ((ARM, ""), ("arm: {architecture: aarch64, required: true}", ""), []),
    ],
)
def test_what_holds_on_a_target_is_compared_there(
    tmp_path: Path, base: tuple[str, ...], head: tuple[str, ...], found: list[tuple[str, ...]]
) -> None:
    rows = entries(tmp_path, at_target(*base), at_target(*head))
    assert [(row[0], row[1], row[2], row[4]) for row in rows] == found


def test_a_record_is_compared_with_what_holds_on_its_machine(tmp_path: Path) -> None:
    stated = Limit("max_size", 1.0, "1 B", "error", "budgets.yaml", 7)
    arm = replace(ENVIRONMENT, architecture="aarch64")
    of_arm = record(case("int8-dynamic", "vit", limits=(stated,)), environment=arm)
    assert loosened_from_record(of_arm, load(tmp_path, at_target(ARM, "", AT_ARM))) == ()
    whole = replace(
        of_arm, cases=(of_arm.cases[0], case("int8-dynamic", "vit", machine=1)), other_machines=(ENVIRONMENT,)
    )
    assert loosened_from_record(whole, load(tmp_path, at_target(ARM, "", AT_ARM))) == ()
    required = replace(of_arm, targets=(Target("arm", "aarch64", is_required=True),))
    [gone] = loosened_from_record(required, load(tmp_path, at_target(ARM, "", AT_ARM)))
    assert (gone.case, gone.limit, gone.new) == ("target arm", "required", "false")
    [found] = loosened_from_record(of_arm, load(tmp_path, at_target("x: {cores: 999}", "", "x: {max_size: 1 B}")))
    assert found.kind == "removed"
