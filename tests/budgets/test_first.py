"""A first budgets file, of figures made by hand: what gets limits, what does not, and how the file is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_modelopt.budgets import first
from pytest_modelopt.budgets.file import load_budgets
from pytest_modelopt.budgets.first import Head, Outcome, render
from pytest_modelopt.record.model import Case, CaseError, ProcessMemory
from tests.budgets.answers_by_hand import answered
from tests.report.records_by_hand import MIB, case, measurement, timing

HEAD = Head(("first line",), "m", (("factory", "shop:net"), ("data", "shop:data")))
SAME = measurement("x")


def same(**changes: object) -> Case:
    """A variant that costs what the original costs."""
    return replace(case(variant=SAME), **changes)


def first_limits(of: Case, disturbed: str = "") -> tuple[tuple[str, str], ...]:
    return first.first_limits(Outcome("x", of, "", disturbed), 1)


def why_not(of: Case, disturbed: str = "") -> str:
    return first.why_not(Outcome("x", of, "", disturbed), 1)


def test_limits_with_headroom() -> None:
    """2 MiB, 1 MiB; 1.278x as fast for certain (4/3 less 4.1%): half of the gain.

    2 of 400 lost from 90%: 3 may be, and 5% more errors.
    """
    of = answered(400, lost=2, timing=timing(200, 4_000_000, 3_000_000))
    assert of.variant is not None
    of = replace(of, variant=replace(of.variant, weights_bytes=2 * MIB, call_peak_bytes=0, size_bytes=MIB))
    assert first_limits(of) == (
        ("max_memory", "2.1 MiB"),
        ("max_size", "1.05 MiB"),
        ("min_speedup", "1.13x"),
        ("max_accuracy_drop", "0.75 pp"),
        ("min_accuracy", "88.97%"),
    )
    assert why_not(of) == ""


def test_a_speedup_that_is_hardly_one_gets_no_limit() -> None:
    """Of 1.19x for certain (read: 1.24x) half of the gain is no tenth, of 1.21x (read: 1.26x) it is.

    In a case that gains nothing else that decides.
    """
    slower = same(timing=timing(200, 4_000_000, 3_226_000))
    assert [name for name, _ in first_limits(slower)] == ["max_memory", "max_size", "min_accuracy"]
    assert why_not(slower) == "neither clearly smaller nor clearly faster than the original"
    faster = same(timing=timing(200, 4_000_000, 3_174_000))
    assert dict(first_limits(faster))["min_speedup"] == "1.1x"
    assert why_not(faster) == ""


def test_nothing_is_demanded_of_a_speed_that_was_disturbed() -> None:
    of = same(timing=timing(200, 4_000_000, 3_000_000))
    assert "min_speedup" in dict(first_limits(of))
    assert "min_speedup" not in dict(first_limits(of, "others kept 2 of 2 cores busy"))
    assert why_not(of, "others kept 2 of 2 cores busy") == (
        "not clearly smaller than the original, and timed on a disturbed machine: others kept 2 of 2 cores busy"
    )
    small = replace(case(), timing=of.timing)
    text = render(HEAD, [Outcome("bf16", small, "", "others\nwere busy")], 1)
    assert "        # no min_speedup, since it was timed on a disturbed machine: others were busy\n" in text


@pytest.mark.parametrize(
    ("memory", "size", "pays"),
    [(4, 4, False), (3.9, 4, False), (3.8, 4, True), (4, 3.8, True), (4, 3.9, False), (9, 1, True)],
)
def test_a_twentieth_of_memory_or_size_pays(memory: float, size: float, pays: bool) -> None:
    original = measurement(None, weights=4_000_000, peak=0, size=4_000_000)
    variant = measurement("x", weights=int(memory * 10**6), peak=0, size=int(size * 10**6))
    assert (why_not(case(original=original, variant=variant)) == "") == pays


def test_memory_of_processes_gets_more_room() -> None:
    process = {"process_memory": ProcessMemory((90, 100, 95), "memray")}
    of = case(
        original=replace(SAME, process_memory=ProcessMemory((400,), "memray")),
        variant=replace(SAME, **process, runtime="ONNX Runtime"),
    )
    assert dict(first_limits(of))["max_memory"] == "115 B"


def test_a_wrong_variant_and_one_in_error() -> None:
    small = measurement("x", size=MIB)
    of = answered(400, lost=20)
    assert of.variant is not None
    smaller = replace(of, variant=replace(of.variant, size_bytes=MIB))
    assert why_not(smaller) == "", "5 points are the most"
    of = answered(400, lost=21)
    assert why_not(of) == "wrong: its score dropped by 5.25 pp"
    for score, wrong in ((19.0, ""), (18.9, "wrong: its score dropped by 1.1")):
        metric = {"metric": "shop:r2", "original": measurement(None, score=20.0)}
        assert why_not(case(**metric, variant=replace(small, score=score))) == wrong
    error = case(error=CaseError("optimize", "it changed nothing"))
    assert why_not(error) == "it changed nothing"
    assert first_limits(error) == ()


def test_a_metric_of_its_own() -> None:
    """20 and 19.5: 0.5 has dropped, 0.525 may; the floor leaves a twentieth."""
    of = case(metric="shop:r2", original=measurement(None, score=20.0), variant=measurement("x", score=19.5))
    limits = dict(first_limits(of))
    assert (limits["max_accuracy_drop"], limits["min_accuracy"]) == ("0.525", "18.52")
    even = case(metric="sqnr", original=measurement(None, score=None), variant=measurement("x", score=30.0))
    assert "max_accuracy_drop" not in dict(first_limits(even))
    assert dict(first_limits(even))["min_accuracy"] == "28.5"


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
    assert [limit.name for limit in entry.limits] == ["max_memory", "max_size", "min_accuracy"]
    assert max(map(len, file.read_text().splitlines())) < 260


def test_the_file_by_hand() -> None:
    outcomes = [
        Outcome("int8-dynamic", case(), "memory 2 MiB"),
        Outcome("bf16", case(error=CaseError("load", "cannot\nrun")), "memory -"),
        Outcome("fp16", same(), "memory 8 MiB"),
        Outcome("compile", None, "not tried"),
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
        "        min_accuracy: 97.37%",
        "      # bf16: left out: cannot run",
        "      # fp16: left out: neither clearly smaller nor clearly faster than the original",
        "      #   (memory 8 MiB)",
        "      compile: # not tried",
    ]
