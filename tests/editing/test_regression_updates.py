"""Limits against a base, which `update` finds in a file and leaves alone unless it is asked to set them, too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_modelopt.config.document import read_document
from pytest_modelopt.config.loader import BudgetsFile, CaseEntry, Defaults, ModelEntry
from pytest_modelopt.editing.limit_updates import Settings, update
from pytest_modelopt.editing.yaml_positions import Stated, stated_limits
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.results.base import Base
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.verdicts import Limit, Reason, Verdict
from tests.reporting.records_by_hand import MIB, case, limit, measurement, record

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


def read(tmp_path: Path) -> tuple[BudgetsFile, tuple[Stated, ...]]:
    """The file as it is read once it takes such limits."""
    path = tmp_path / "budgets.yaml"
    path.write_text(TEXT)
    shared = growth("2%", 0.02, 12), growth("4%", 0.04, 13, "max_size_growth")
    model = ModelEntry("m", "shop:net", "shop:data", None, None, MetricSpec(), 3, regression=shared)
    int8, bf16, own = parse("int8-dynamic"), parse("bf16"), (growth("3%", 0.03, 9),)
    cases = (
        CaseEntry(model, int8.text, (limit("max_memory", 3 * MIB, "3 MiB", 8),), 7, own, expression=int8),
        CaseEntry(model, bf16.text, (), 10, shared, expression=bf16),
    )
    budgets = BudgetsFile(path, Defaults(), (model,), cases)
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
