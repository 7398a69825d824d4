"""A first budgets file, of figures made by hand: what gets limits, what does not, and how the file is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.config.loader import load_budgets
from pytest_modelopt.editing import first_budgets
from pytest_modelopt.editing.first_budgets import Head, Outcome, render
from pytest_modelopt.results.answers import Interval
from pytest_modelopt.results.candidate import Candidate
from pytest_modelopt.results.case import Case, CaseError
from pytest_modelopt.results.measurement import ProcessMemory
from pytest_modelopt.results.source import ProgramSource
from tests.judging.answers_by_hand import answered
from tests.reporting.records_by_hand import MIB, case, measurement, timing

HEAD = Head(("first line",), "m", (("factory", "shop:net"), ("data", "shop:data")))
SAME = measurement("x")


def same(**changes: Any) -> Case:
    """A variant that costs what the original costs."""
    return replace(case(variant=SAME), **changes)


def first_limits(of: Case) -> dict[str, str]:
    return dict(first_budgets.first_limits(Outcome("x", of), 1))


def why_not(of: Case) -> str:
    return first_budgets.why_not(Outcome("x", of), 1)


def test_limits_with_room() -> None:
    """2 MiB, 1 MiB; 1.278x as fast for certain (4/3 less 4.1%): half of the gain.

    2 of 400 lost from 90%: 5 may be, which leaves 88.75%.
    """
    of = answered(400, lost=2, timing=timing(200, 4_000_000, 3_000_000))
    assert of.variant is not None
    of = replace(of, variant=replace(of.variant, weights_bytes=2 * MIB, call_peak_bytes=0, size_bytes=MIB))
    assert list(first_limits(of).items()) == [
        ("max_memory", "2.1 MiB"),
        ("max_size", "1.05 MiB"),
        ("min_speedup", "1.13x"),
        ("max_accuracy_drop", "1.25 pp"),
        ("min_accuracy", "88.75%"),
    ]
    assert why_not(of) == ""


def test_limits_on_answers_are_those_that_other_examples_keep_too() -> None:
    """6 of 400 lost there: 9 may be, 2.25 pp of 90%. What is counted in bytes is that of the case itself."""
    one, other = answered(400, lost=2), answered(400, lost=6)
    assert other.variant is not None
    other = replace(other, variant=replace(other.variant, size_bytes=3 * MIB))
    for case_, also, size in ((one, other, "4.2 MiB"), (other, one, "3.15 MiB")):
        limits = dict(first_budgets.first_limits(Outcome("x", case_, also=also), 1))
        found = [limits[name] for name in ("max_accuracy_drop", "min_accuracy", "max_size")]
        assert found == ["2.25 pp", "87.75%", size]


@pytest.mark.parametrize(
    ("examples", "lost", "won", "drop", "floor"),
    [
        (200, 0, 0, "1.5 pp", "88.5%"),
        (200, 0, 10, "1.5 pp", "88.5%"),  # 5 points better: what is better than the original may become like it
        (200, 1, 0, "2 pp", "88%"),
        (10_000, 400, 0, "4.2 pp", "85.8%"),  # 5% of what was lost are more than three examples
        (12, 0, 0, "25 pp", "65%"),
    ],
)
def test_the_bound_on_the_drop_and_the_floor_say_the_same(
    examples: int, lost: int, won: int, drop: str, floor: str
) -> None:
    limits = first_limits(answered(examples, lost=lost, won=won))
    assert (limits["max_accuracy_drop"], limits["min_accuracy"]) == (drop, floor)


def test_of_too_few_examples_nothing_is_demanded() -> None:
    of = answered(11)
    assert not {"max_accuracy_drop", "min_accuracy"} & set(first_limits(of))
    assert first_budgets.why_no_answers([Outcome("x", of)]).startswith(
        "there are 11 examples, so that a single one is 9%: give"
    )
    assert first_budgets.why_no_answers([Outcome("x", answered(12)), Outcome("y", of)]) == ""


def test_of_an_original_that_is_worth_nothing_no_answers_are_demanded() -> None:
    of = answered(400, score=0.0)
    assert "min_accuracy" not in first_limits(of)
    why = first_budgets.why_no_answers([Outcome("x", of)])
    assert why.startswith("the original itself scores 0%, the worst")
    assert f"    # No limits on the answers: {why[:30]}" in render(HEAD, [Outcome("x", of)], 1)


@pytest.mark.parametrize(
    ("variant_ns", "demanded"),
    [
        (3_516_000, None),  # reads 1.138x, certain is 1.091x
        (3_478_000, "1.05x"),  # reads 1.150x, certain is 1.102x: half of the gain
        (1_000_000, "2.41x"),  # reads 4x, certain is 3.834x
    ],
)
def test_a_speedup_pays_by_the_certain_end_of_its_interval(variant_ns: int, demanded: str | None) -> None:
    of = same(timing=timing(200, 4_000_000, variant_ns))
    assert first_limits(of).get("min_speedup") == demanded
    not_worth = "it saves less than 10% (or 1 KiB) of memory and of size, and is not 1.1x as fast for certain"
    assert why_not(of) == ("" if demanded else not_worth)


@pytest.mark.parametrize(
    ("memory", "size", "pays"),
    [(4, 4, False), (3.64, 4, False), (3.6, 4, True), (4, 3.6, True), (4, 3.64, False), (9, 1, True)],
)
def test_a_tenth_of_memory_or_size_pays(memory: float, size: float, pays: bool) -> None:
    original = measurement(None, weights=4_000_000, peak=0, size=4_000_000)
    variant = measurement("x", weights=int(memory * 10**6), peak=0, size=int(size * 10**6))
    assert (why_not(case(reference=original, variant=variant)) == "") == pays


def test_a_few_bytes_do_not_pay() -> None:
    reference, variant = measurement(None, weights=72, peak=0), measurement("x", weights=48, peak=0)
    assert why_not(case(reference=reference, variant=variant)).startswith("it saves less than 10% (or 1 KiB)")


def test_what_it_saves_does_not_pay_for_more_than_twice_the_time() -> None:
    """0.21x for certain, 0.49x, which may be 0.51x, and 0.51x."""
    for slow_ns in (2_100_000, 4_900_000):
        assert why_not(case(timing=timing(200, slow_ns, 10_000_000))) == (
            "it takes more than 2 times as long as the original"
        )
    assert why_not(case(timing=timing(200, 5_100_000, 10_000_000))) == ""


def test_memory_of_processes_pays_by_the_worst_of_its_runs() -> None:
    """100 to 104 kB against 90 to 93: at worst 7% less, at best 13.5%."""
    sides = {"reference": (100_000, 104_000, 102_000), "variant": (90_000, 93_000, 91_000)}
    of = same(**{side: replace(SAME, process_memory=ProcessMemory(peaks, "memray")) for side, peaks in sides.items()})
    assert of.variant is not None
    of = replace(of, variant=replace(of.variant, runtime="ONNX Runtime"))
    assert why_not(of).startswith("it saves less than 10%")
    better = (
        replace(of.variant, process_memory=ProcessMemory((80_000, 90_000, 85_000), "memray")) if of.variant else None
    )
    assert why_not(replace(of, variant=better)) == ""


def test_memory_of_processes_gets_more_room() -> None:
    of = case(
        reference=replace(SAME, process_memory=ProcessMemory((400,), "memray")),
        variant=replace(SAME, process_memory=ProcessMemory((90, 100, 95), "memray"), runtime="ONNX Runtime"),
    )
    assert first_limits(of)["max_memory"] == "115 B"


def test_a_wrong_variant_and_one_in_error() -> None:
    small = measurement("x", size=MIB)
    of = answered(400, lost=20)
    assert of.variant is not None
    smaller = replace(of, variant=replace(of.variant, size_bytes=MIB))
    assert why_not(smaller) == "", "5 points are the most"
    of = answered(400, lost=21)
    assert why_not(of) == "its score dropped by 5.25 pp"
    for score, wrong in ((19.0, ""), (18.9, "its score dropped by 1.1")):
        of = case(metric="shop:r2", reference=measurement(None, score=20.0), variant=replace(small, score=score))
        assert why_not(of) == wrong
    error = case(error=CaseError("optimize", "it changed nothing"))
    assert why_not(error) == "it changed nothing"
    assert first_limits(error) == {}
    untried = Outcome("x", None, untried="time was over")
    assert first_budgets.why_not(untried, 1) == "time was over"


def own(before: float | None, after: float, examples: int = 360, **changes: Any) -> Case:
    """Scores of a metric of the project's own."""
    made = case(
        reference=replace(measurement(None, score=before), examples=examples),
        variant=replace(measurement("x", score=after), examples=examples),
        metric="shop:own",
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("of", "drop", "floor"),
    [
        (own(20.0, 19.5), "0.667", "19.33"),  # three of 360 examples are 1/120 of 20
        (own(0.9, 0.9 - 0.0001, 200), "0.0136", "0.8864"),
        (
            own(20.0, 19.5, interval=Interval(0.2, 1.2)),
            "1.2",
            "18.8",
        ),  # what other examples may show
        (own(20.0, 21.0, 420), "0.15", "19.85"),  # better than the original
        (own(2.0, 2.1, 300, higher_is_better=False), "0.121", "2.121"),
    ],
)
def test_a_metric_of_its_own(of: Case, drop: str, floor: str) -> None:
    limits = first_limits(of)
    assert (limits["max_accuracy_drop"], limits["min_accuracy"]) == (drop, floor)


def test_a_metric_that_gives_the_original_no_score_gets_a_floor() -> None:
    even = replace(own(None, 30.0), metric="sqnr")
    assert "max_accuracy_drop" not in first_limits(even)
    assert first_limits(even)["min_accuracy"] == "28.5"


@pytest.mark.parametrize("name", ["m", "yes", "1e3", "null", "a: b", "# a", "é", "'q", '"', "- x", "m # n", "~"])
@pytest.mark.parametrize("defaults", [(), (("time_limit", "3 s"),)])
def test_whatever_is_said_the_file_checks(tmp_path: Path, name: str, defaults: tuple[tuple[str, str], ...]) -> None:
    """Messages of a worker become one comment line each."""
    hostile = "no\n    max_size: 1 B\r\n\x1b[31m\u2028- x \ud800 \ufffe: y" + 500 * "z"
    head = replace(HEAD, name=name, defaults=defaults, comments=(hostile,))
    outcomes = [
        Outcome("prune-structured(ratio=0.5, keep='a,b.*') + int8-dynamic", case(), hostile),
        Outcome("bf16", case(error=CaseError("load", hostile)), ""),
        Outcome("fp16", same(), hostile),
    ]
    file = tmp_path / "budgets.yaml"
    file.write_text(render(head, outcomes, 1), encoding="utf-8")
    (entry,) = load_budgets(file, relative_to=tmp_path).cases
    assert entry.name == f"{name}/prune-structured(ratio=0.5, keep='a,b.*')+int8-dynamic"
    assert [limit.name for limit in entry.limits] == ["max_memory", "max_size", "max_accuracy_drop", "min_accuracy"]


def test_no_cause_is_cut_short() -> None:
    cause = " ".join(f"word{number}" for number in range(200))
    lines = render(HEAD, [Outcome("bf16", case(error=CaseError("load", cause)))], 1).splitlines()
    assert max(map(len, lines)) <= 120
    start = lines.index("    data: shop:data") + 1
    said = " ".join(line.strip().removeprefix("#").strip() for line in lines[start:])
    assert said == f"bf16: left out: {cause}"


def test_files_stand_below_candidates_and_where_no_recipe_is_left_there_is_no_key_for_them(tmp_path: Path) -> None:
    outcomes = [Outcome("a.onnx", case(), file="dist/a.onnx"), Outcome("bf16", case(error=CaseError("load", "no")))]
    text = render(HEAD, [Outcome("b.onnx", None, untried="late", file="dist/b.onnx"), *outcomes], 1)
    lines = [line.strip() for line in text.splitlines()]
    assert "recipes:" not in lines
    assert lines[lines.index("candidates:") + 1 :][:3] == ["a.onnx:", "file: dist/a.onnx", "max_memory: 2.1 MiB"]
    assert lines[-2:] == ["# not tried, since late: b.onnx", "# bf16: left out: no"]
    file = tmp_path / "budgets.yaml"
    file.write_text(text, encoding="utf-8")
    (entry,) = load_budgets(file, relative_to=tmp_path).cases
    assert entry.candidate == Candidate("a.onnx", ProgramSource("dist/a.onnx"))


def test_the_file_by_hand() -> None:
    outcomes = [
        Outcome("int8-dynamic", case(), "memory 2 MiB"),
        Outcome("bf16", case(error=CaseError("load", "cannot\nrun")), "memory -"),
        Outcome("fp16", same(), "memory 8 MiB"),
        Outcome("compile", None),
        Outcome("low-rank(ratio=0.5)", None, untried="the time was over"),
        Outcome("litert", None, untried="the time was over"),
    ]
    assert render(HEAD, outcomes, 1).splitlines() == [
        "# first line",
        "version: 1",
        "models:",
        "  m:",
        "    factory: shop:net",
        "    data: shop:data",
        "    recipes:",
        "      int8-dynamic: # memory 2 MiB",
        "        max_memory: 2.1 MiB",
        "        max_size: 1.05 MiB",
        "        max_accuracy_drop: 0.834 pp",
        "        min_accuracy: 96.66%",
        "      # bf16: left out: cannot run",
        "      # fp16: left out: it saves less than 10% (or 1 KiB) of memory and of size, and is not 1.1x as fast for "
        "certain",
        "      #   (memory 8 MiB)",
        "      compile:",
        "      # not tried, since the time was over: low-rank(ratio=0.5), litert",
    ]
