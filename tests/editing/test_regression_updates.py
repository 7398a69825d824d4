"""Limits against a base, which `update` finds in a file and leaves alone unless it is asked to set them, too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_modelopt.config.document import read_document
from pytest_modelopt.config.loader import BudgetsFile, load_budgets
from pytest_modelopt.editing.limit_updates import Settings, update
from pytest_modelopt.editing.yaml_positions import Stated, stated_limits
from pytest_modelopt.results.base import Base
from pytest_modelopt.results.target import fingerprint_of
from pytest_modelopt.results.verdicts import Limit, Reason, Verdict
from tests.reporting.records_by_hand import ENVIRONMENT, MIB, case, limit, measurement, record

TEXT = """version: 1
models:
  m:
    factory: shop:net
    data: shop:data
    recipes:
      int8-dynamic:
        max_memory: 3 MiB
        regression: {max_memory_growth: 3%}
      bf16: {}
    regression:
      max_memory_growth: 2%
      max_size_growth: {limit: 4%, level: warn}
"""


def growth(text: str, value: float, line: int, name: str = "max_memory_growth") -> Limit:
    return limit(name, value, text, line)


def read(tmp_path: Path, text: str = TEXT) -> tuple[BudgetsFile, tuple[Stated, ...]]:
    path = tmp_path / "budgets.yaml"
    path.write_text(text)
    budgets = load_budgets(path, relative_to=tmp_path)
    return budgets, tuple(stated_limits(budgets, read_document(path, "budgets.yaml")))


def test_where_they_stand(tmp_path: Path) -> None:
    """A recipe's own limit is before its model's, which others and the original share."""
    _, stated = read(tmp_path)
    told = [
        (each.case, each.limit.name, each.is_regression, TEXT[each.place.start : each.place.end])
        for each in stated
        if each.place is not None
    ]
    assert told == [
        ("m/int8-dynamic", "max_memory", False, "3 MiB"),
        ("m/int8-dynamic", "max_memory_growth", True, "3%"),
        ("m/int8-dynamic", "max_size_growth", True, "4%"),
        ("m/original", "max_memory_growth", True, "2%"),
        ("m/original", "max_size_growth", True, "4%"),
        ("m/bf16", "max_memory_growth", True, "2%"),
        ("m/bf16", "max_size_growth", True, "4%"),
    ]


def test_they_are_left_unless_they_are_asked_for(tmp_path: Path) -> None:
    """And a case of head against its base says nothing about the limits of head against its original."""
    budgets, stated = read(tmp_path)
    (memory,) = budgets.cases[0].limits
    against = replace(
        case(model="m", variant=measurement("x", weights=9 * MIB)),
        base=Base("1a2b", "compared"),
        limits=budgets.cases[0].regression,
        verdicts=(Verdict(budgets.cases[0].regression[0], "inconclusive", 0.0, Reason("measured")),),
    )
    alone = case(model="m", verdicts=(Verdict(memory, "pass", 2.0 * MIB, Reason("measured")),))
    done = update(budgets, stated, record(against, alone), Settings())
    assert ([change.text for change in done.changes], done.left, done.rules) == (["2.1 MiB"], (), 3)
    done = update(budgets, stated, record(against), Settings(regression=True))
    assert [(left.limit.name, left.why) for left in done.left] == [
        ("max_memory", "m/int8-dynamic is not in the record"),
        ("max_memory_growth", "is inconclusive for m/int8-dynamic"),
        ("max_memory_growth", "m/bf16 is not in the record"),
        ("max_size_growth", "m/bf16 is not in the record"),
    ]


def test_what_grew_by_more_than_it_was_can_be_allowed(tmp_path: Path) -> None:
    """From 2 MiB to 5 MiB it grew by 150%: with 5% more, 5.25 MiB, it is 162.5%."""
    budgets, stated = read(tmp_path)
    grown = replace(
        case(
            "bf16",
            "m",
            reference=measurement("bf16", weights=MIB, peak=MIB),
            variant=measurement("bf16", weights=4 * MIB, peak=MIB),
        ),
        base=Base("1a2b", "compared"),
        limits=(budgets.cases[1].regression[0],),
        verdicts=(Verdict(budgets.cases[1].regression[0], "fail", 1.5, Reason("measured")),),
    )
    done = update(
        budgets,
        tuple(each for each in stated if each.case == "m/bf16"),
        record(grown),
        Settings(loosen=True, regression=True),
    )
    assert [change.text for change in done.changes] == ["163%"]


OF_TARGETS = """version: 1
targets:
  server: {instructions: avx512_vnni}
  arm: {architecture: aarch64, max_memory: 4 MiB}
models:
  m:
    factory: shop:net
    data: shop:data
    recipes:
      int8-dynamic: {max_memory: 3 MiB, targets: {server: {max_memory: 2 MiB}}}
"""


def test_a_limit_at_a_target_is_set_to_what_was_measured_there(tmp_path: Path) -> None:
    """On the server 2 MiB hold, on the Arm machine the 3 MiB of everywhere, which are stricter than its own 4."""
    budgets, stated = read(tmp_path, OF_TARGETS)
    [entry] = budgets.cases
    places = [(each.limit.text, each.place and OF_TARGETS[each.place.start : each.place.end]) for each in stated]
    assert places == [("3 MiB", "3 MiB"), ("2 MiB", "2 MiB"), ("4 MiB", "4 MiB")]
    arm = replace(ENVIRONMENT, architecture="aarch64", cpu_flags=())
    cases = []
    for number, (machine, peak) in enumerate([(ENVIRONMENT, 1.0), (arm, 2.0)]):
        [bound] = entry.limits_on(fingerprint_of(machine))
        kept = Verdict(bound, "pass", peak * MIB, Reason("measured"))
        variant = measurement("int8-dynamic", peak=int(peak * MIB), weights=0)
        cases.append(replace(case(model="m", verdicts=(kept,), variant=variant), machine=number))
    found = update(budgets, stated, record(*cases, other_machines=(arm,)), Settings())
    assert [(change.limit.text, change.text) for change in found.changes] == [
        ("3 MiB", "2.1 MiB"),
        ("2 MiB", "1.05 MiB"),
    ]
    [left] = found.left
    assert (left.limit.text, left.why) == (
        "4 MiB",
        "holds of m/int8-dynamic on no machine of the record, or a stricter one does",
    )
