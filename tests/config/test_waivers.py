"""Waivers as budgets.yaml states them: at which limit each stands, and each mistake with its line."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Literal

import pytest

from pytest_modelopt.config.loader import BudgetsFile, load_budgets
from pytest_modelopt.config.problems import BudgetsError, Problem
from pytest_modelopt.results.verdicts import Waiver

TODAY = datetime.date(2026, 11, 26)

HEAD = """\
version: 1
models:
  vit:
    factory: shop:model
    data: shop:data
    budget: {max_accuracy_drop: 1 pp, max_flips: 2%}
    recipes:
      int8-dynamic: {min_speedup: 1.3x, max_memory: 3 MiB}
      low-rank: {min_speedup: 1.1x}
    regression: {max_slowdown: 10%}
  speech:
    factory: shop:model
    data: shop:data
    metric: shop:error
    recipes:
      low-rank: {min_accuracy: 3, max_accuracy_drop: 0.5}
waivers:
"""
"""The first waiver stands in line 18."""


def load(
    folder: Path, text: str, expired: Literal["refuse", "keep"] = "refuse", today: datetime.date = TODAY
) -> BudgetsFile:
    path = folder / "budgets.yaml"
    path.write_text(text, encoding="utf-8")
    return load_budgets(path, relative_to=folder, expired=expired, today=today)


def problems(folder: Path, text: str) -> tuple[Problem, ...]:
    with pytest.raises(BudgetsError) as refusal:
        load(folder, text)
    return refusal.value.problems


def row(about: str = "case: vit/int8-dynamic, limit: min_speedup", until: str = "2027-01-31", rest: str = "") -> str:
    return f"- {{{about}, until: {until}, reason: slow{rest}}}\n"


# --- the file --------------------------------------------------------------------------------------------------------


def test_a_waiver_stands_at_the_limit_of_the_one_case_that_it_is_about(tmp_path: Path) -> None:
    text = f"""{HEAD}  - case: vit/low-rank( ratio = 0.5 )
    limit: max_flips
    until: 2027-01-31
    reason: >
      many   words,
      over lines
    ceiling: 5%
    owner: "@ada"
"""
    budgets = load(tmp_path, text)
    waiver = Waiver("2027-01-31", "many words, over lines", "budgets.yaml", 18, "@ada", 0.05, "5%")
    found = {
        (each.name, limit.name): limit.waiver
        for each in budgets.cases
        for limit in (*each.limits, *each.regression)
        if limit.waiver is not None
    }
    assert found == {("vit/low-rank(ratio=0.5)", "max_flips"): waiver}
    assert [(each.case, each.limit, each.waiver) for each in budgets.waivers] == [
        ("vit/low-rank(ratio=0.5)", "max_flips", waiver)
    ]
    assert budgets.cases[0].model.regression[0].waiver is None


def test_a_limit_against_the_base_is_waived_for_the_original_or_for_a_recipe_alone(tmp_path: Path) -> None:
    waivers = row("case: vit/original, limit: max_slowdown") + row("case: vit/low-rank, limit: max_slowdown")
    budgets = load(tmp_path, HEAD + waivers)
    first, second, _ = budgets.cases
    (of_original,) = budgets.models[0].regression
    assert of_original.waiver == Waiver("2027-01-31", "slow", "budgets.yaml", 18)
    assert (first.regression[0].waiver, second.regression[0].waiver) == (
        None,
        Waiver("2027-01-31", "slow", "budgets.yaml", 19),
    )
    assert first.model.regression[0] == of_original
    assert [each.case for each in budgets.waivers] == ["vit/original", "vit/low-rank(ratio=0.5)"]


@pytest.mark.parametrize("empty", ["", " []", " ~"])
def test_no_waivers_are_no_problem(tmp_path: Path, empty: str) -> None:
    assert load(tmp_path, HEAD.removesuffix("\n") + empty + "\n").waivers == ()


def test_the_last_day_still_holds_and_the_next_one_is_an_error(tmp_path: Path) -> None:
    assert load(tmp_path, HEAD + row(until="2026-11-26")).waivers
    assert load(tmp_path, HEAD + row(until="2001-01-31"), today=datetime.date(2001, 1, 31)).waivers
    (problem,) = problems(tmp_path, HEAD + row(until="2026-11-25", rest=', owner: "@ada"'))
    assert str(problem) == (
        "budgets.yaml:18: waiver 1, of min_speedup of vit/int8-dynamic, expired on 2026-11-25 (reason: slow; owner: "
        "@ada): fix what breaks the limit and remove the waiver, or give it a later `until` and a reason that holds"
    )


def test_an_expired_waiver_of_a_base_is_kept(tmp_path: Path) -> None:
    assert load(tmp_path, HEAD + row(until="2020-01-01"), "keep").waivers[0].waiver.until == "2020-01-01"


def test_without_a_day_given_it_is_todays(tmp_path: Path) -> None:
    path = tmp_path / "budgets.yaml"
    path.write_text(HEAD + row(until="2020-01-01"), encoding="utf-8")
    with pytest.raises(BudgetsError, match="expired on 2020-01-01"):
        load_budgets(path, relative_to=tmp_path)
    path.write_text(HEAD + row(until="9999-12-31"), encoding="utf-8")
    assert load_budgets(path, relative_to=tmp_path).waivers


MISTAKES = [
    (row("case: vit, limit: min_speedup"), ["case of waiver 1: 'vit' names no case", "`model/recipe`"]),
    (row("case: vit/, limit: min_speedup"), ["case of waiver 1: 'vit/' names no case"]),
    (row("case: 3, limit: min_speedup"), ["case of waiver 1: 3 names no case"]),
    (
        row("case: vti/int8-dynamic, limit: min_speedup"),
        ["case of waiver 1: there is no model 'vti'; did you mean"],
    ),
    (
        row("case: vit/int8-dynmic, limit: min_speedup"),
        ["case of waiver 1: unknown recipe 'int8-dynmic'; did"],
    ),
    (row("case: vit/orignal, limit: max_slowdown"), ["unknown recipe 'orignal'", "; did you mean 'original'?"]),
    (row(rest=", owner: @ada"), ["character '@' that cannot start", "put quotes around text that begins with `@`"]),
    (row().replace("slow", "a: b"), ["got ':' in column", "put quotes around text that contains `: `"]),
    (
        row('case: "vit/low-rank(ratio=0.6)", limit: min_speedup'),
        ["vit has no recipe 'low-rank(ratio=0.6)'; did you"],
    ),
    (row('case: "vit/bf16", limit: min_speedup'), ["vit has no recipe 'bf16'"]),
    (
        row("case: vit/low-rank, limit: max_memory"),
        ["waiver 1: vit/low-rank(ratio=0.5) states no max_memory"],
    ),
    (
        row("case: vit/low-rank, limit: min_sped"),
        ["limit of waiver 1: unknown limit 'min_sped'; did you"],
    ),
    (row("case: vit/low-rank, limit: 3"), ["limit of waiver 1: 3 is not the name of a limit"]),
    (
        row("case: vit/original, limit: min_speedup"),
        ["vit/original states no min_speedup", "ones are max_slowdown"],
    ),
    (
        row("case: speech/original, limit: max_slowdown"),
        ["speech/original states no", "below `original:` and `regression:`"],
    ),
    (row("case: vit/low-rank"), ["waiver 1 has no `limit`; add `limit:` with the name of the limit"]),
    (row("limit: max_flips"), ["waiver 1 has no `case`; add `case: model/recipe`"]),
    (row(until="soon"), ["until of waiver 1: 'soon' is not a date; write year, month and day, as `2027-01-31`"]),
    (row(until="20270131"), ["until of waiver 1: 20270131 is not a date"]),
    (row(until="2027-02-30"), ["until of waiver 1: there is no day '2027-02-30'"]),
    (row(until="2027-01-31 10:00"), ["until of waiver 1: '2027-01-31 10:00' is not a date"]),
    (row(until=""), ["until of waiver 1: nothing is not a date"]),
    (
        "- {case: vit/low-rank, limit: max_flips, reason: x}\n",
        ["waiver 1 has no `until`; add `until:` with the last"],
    ),
    ("- {case: vit/low-rank, limit: max_flips, until: 2027-01-31}\n", ["waiver 1 has no `reason`; add `reason:`"]),
    (row().replace("slow", "'  '"), ["reason of waiver 1: '  ' is no text"]),
    (row().replace("slow", "7"), ["reason of waiver 1: 7 is no text"]),
    (row().replace("slow", "x" * 501), ["reason of waiver 1", "longer than 500 characters"]),
    (row().replace("slow", '"a\\u202eb"'), ["reason of waiver 1", "invisible character"]),
    (row(rest=", owner: "), ["owner of waiver 1: nothing is no text"]),
    (row(rest=f", owner: {'y' * 101}"), ["owner of waiver 1", "longer than 100"]),
    (row(rest=", untl: 3"), ["waiver 1: unknown key 'untl'; did you mean 'until'?"]),
    (row(rest=", ceiling: 1.3x"), ["ceiling of waiver 1: '1.3x' is not looser than the limit, 1.3x"]),
    (row(rest=", ceiling: 1.4x"), ["ceiling of waiver 1: '1.4x' is not looser"]),
    (row(rest=", ceiling: 5 MiB"), ["ceiling of waiver 1: '5 MiB' has a unit that does not fit"]),
    (row(rest=", ceiling: yes"), ["ceiling of waiver 1: true is no value of a limit"]),
    (row(rest=", ceiling: "), ["ceiling of waiver 1: nothing is no value of a limit"]),
    (row("case: vit/low-rank, limit: max_flips", rest=", ceiling: 1%"), ["'1%' is not looser than the limit, 2%"]),
    (row("case: vit/low-rank, limit: max_accuracy_drop", rest=", ceiling: 2"), ["ceiling of waiver 1: 2 would allow"]),
    (row("case: speech/low-rank, limit: min_accuracy", rest=", ceiling: 3"), ["3 is not looser than the limit, 3"]),
    ("- 3\n", ["waiver 1: a mapping is needed here", "3"]),
    ("  a: b\n", ["waivers: a list is needed here"]),
]


@pytest.mark.parametrize(("text", "phrases"), MISTAKES, ids=[phrases[0] for _, phrases in MISTAKES])
def test_each_mistake_is_named_with_its_line_and_the_way_out(tmp_path: Path, text: str, phrases: list[str]) -> None:
    (problem,) = problems(tmp_path, HEAD + text)
    assert problem.line == (17 if text.startswith("  a: b") else 18)
    assert all(phrase in problem.message for phrase in phrases), problem.message
    assert problem.message.isprintable()


def test_a_sentence_that_a_comment_cuts_off_is_found_by_its_bracket(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, HEAD + row().replace("slow", "see #3"))
    assert "in column 1 (the bracket opens in line 18); close the bracket, and put quotes around" in problem.message
    assert "text that contains `: `, ` #` or `,`" in problem.message


def test_an_issue_that_yaml_takes_for_a_comment_is_found(tmp_path: Path) -> None:
    rows = "- case: vit/low-rank\n  limit: max_flips\n  until: 2999-01-01\n  reason: {}\n"
    (problem,) = problems(tmp_path, HEAD + rows.format("wider head, see #123 and #124"))
    assert (problem.line, problem.message.partition(";")[0]) == (
        21,
        "reason of waiver 1: YAML takes '#123' for a comment, and the reason ends before it",
    )
    meant = ("wider head # 123", "wider head #no", "'wider head' #123", '"see #123"', "see#123", "|\n    a\n  #123")
    for reason in meant:
        assert load(tmp_path, HEAD + rows.format(reason)).waivers


def test_all_mistakes_are_said_at_once_with_those_of_the_rest_of_the_file(tmp_path: Path) -> None:
    text = (
        HEAD.replace("1.3x", "30%") + row(until="2026-01-01") + row() + row("case: vit/bf16, limit: x", rest=", o: 1")
    )
    assert [(problem.line, problem.message.split(":")[0]) for problem in problems(tmp_path, text)] == [
        (8, "min_speedup of vit/int8-dynamic"),
        (18, "waiver 1, of min_speedup of vit/int8-dynamic, expired on 2026-01-01 (reason"),
        (19, "waiver 2 is about min_speedup of vit/int8-dynamic again, as in line 18; keep one"),
        (20, "limit of waiver 3"),
        (20, "waiver 3"),
        (20, "case of waiver 3"),
    ]


def test_the_same_limit_in_two_spellings_of_one_recipe_is_waived_twice(tmp_path: Path) -> None:
    text = (
        HEAD + row("case: vit/low-rank, limit: max_flips") + row('case: "vit/low-rank(ratio=0.50)", limit: max_flips')
    )
    (problem,) = problems(tmp_path, text)
    assert (problem.line, "again, as in line 18" in problem.message) == (19, True)


def test_a_ceiling_is_read_in_the_metric_of_its_model_and_an_unknown_direction_allows_both(tmp_path: Path) -> None:
    about = "case: speech/low-rank, limit: min_accuracy"
    assert load(tmp_path, HEAD + row(about, rest=", ceiling: 4")).waivers[0].waiver.ceiling == 4
    assert load(tmp_path, HEAD + row(about, rest=", ceiling: 2")).waivers[0].waiver.ceiling == 2
    lower = HEAD.replace("shop:error", "{name: shop:error, higher_is_better: false}")
    assert load(tmp_path, lower + row(about, rest=", ceiling: 4")).waivers[0].waiver.ceiling == 4
    (problem,) = problems(tmp_path, lower + row(about, rest=", ceiling: 2"))
    assert "2 is not looser than the limit, 3" in problem.message
    higher = HEAD.replace("    metric: shop:error\n", "").replace("min_accuracy: 3", "min_accuracy: 97%")
    higher = higher.replace("max_accuracy_drop: 0.5}", "max_accuracy_drop: 0.005}")
    assert load(tmp_path, higher + row(about, rest=", ceiling: 90%")).waivers[0].waiver.ceiling == 0.9
    assert problems(tmp_path, higher + row(about, rest=", ceiling: 98%"))


def test_a_ceiling_is_held_against_the_limit_that_counts_for_the_case(tmp_path: Path) -> None:
    own = HEAD.replace("low-rank: {min_speedup: 1.1x}", "low-rank: {max_flips: 5%}")  # and 2% below `budget`
    assert load(tmp_path, own + row("case: vit/low-rank, limit: max_flips", rest=", ceiling: 6%")).waivers
    (problem,) = problems(tmp_path, own + row("case: vit/low-rank, limit: max_flips", rest=", ceiling: 4%"))
    assert "'4%' is not looser than the limit, 5%" in problem.message
    of_base = HEAD.replace("low-rank: {min_speedup: 1.1x}", "low-rank: {regression: {max_slowdown: 5%}}")
    assert load(tmp_path, of_base + row("case: vit/low-rank, limit: max_slowdown", rest=", ceiling: 6%")).waivers
