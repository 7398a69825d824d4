"""Waivers: what budgets.yaml may state, what they make of a verdict, and which ones of a record are needed."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from pytest_modelopt.config.loader import BudgetsFile, load_budgets
from pytest_modelopt.config.problems import BudgetsError, Problem
from pytest_modelopt.judging.judge import judge
from pytest_modelopt.judging.waivers import waiver_uses
from pytest_modelopt.limits.catalogue import is_open
from pytest_modelopt.reporting.messages.waivers import format_waiver_use
from pytest_modelopt.results.base import Base
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.outcome import case_outcome, is_red, warnings
from pytest_modelopt.results.verdicts import Limit, Waiver
from pytest_modelopt.statistics.timing import Samples
from tests.judging.judged import Told
from tests.judging.judged import judged as judged_limit
from tests.reporting.records_by_hand import MIB, case, measurement, record, timing, variant_changed

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


# --- verdicts --------------------------------------------------------------------------------------------------------

WAIVER = Waiver("2027-01-31", "the new head is larger.", "budgets.yaml", 40, "@ada")


def limit(name: str, value: float, text: str = "L", waiver: Waiver | None = WAIVER) -> Limit:
    return Limit(name, value, text, "error", "budgets.yaml", 23, waiver)


def up_to(ceiling: float, text: str = "C") -> Waiver:
    return replace(WAIVER, ceiling=ceiling, ceiling_text=text)


def judged(of: Case, *limits: Limit) -> Case:
    return judge(replace(of, limits=limits), timed_limits=1)


def verdict(of: Case, only: Limit) -> Told:
    return judged_limit(of, only, timed_limits=1)


CASE = case(variant=measurement("int8-dynamic", size=2 * MIB), timing=timing())
"""2 MiB of 4; the original's calls take 4 ms and the variant's 5 ms, so the speedup is 0.8, in three launches."""
AT_BASE = replace(CASE, base=Base("1a2b3c4d5e6f", "compared"))
"""Head is half as large as its base, and takes 1.25 times as long."""


def test_a_broken_limit_is_waived_and_the_sentence_says_until_when_why_who_and_what_was_found() -> None:
    told = verdict(CASE, limit("max_size", MIB, "1 MiB"))
    assert (told.outcome, told.is_red, told.measured) == ("waived", False, 2 * MIB)
    assert told.sentence == (
        "digits-vit/int8-dynamic: max_size 1 MiB is waived until 2027-01-31, owner @ada: the new head is larger. "
        "(budgets.yaml:40) It is broken: 2 MiB measured, 100% more than the limit. (budgets.yaml:23)"
    )


def test_a_kept_limit_passes_as_if_there_were_no_waiver() -> None:
    told = verdict(CASE, limit("max_size", 2 * MIB))
    assert told.outcome == "pass"
    assert told.sentence == verdict(CASE, limit("max_size", 2 * MIB, waiver=None)).sentence


def test_the_lack_of_a_figure_is_not_waived() -> None:
    told = verdict(variant_changed(CASE, size_bytes=None), limit("max_size", MIB))
    assert (told.outcome, told.is_red) == ("not measured", True)


@pytest.mark.parametrize(("ceiling", "outcome"), [(2 * MIB, "waived"), (2 * MIB - 1, "fail")])
def test_a_waiver_accepts_up_to_its_ceiling(ceiling: int, outcome: str) -> None:
    told = verdict(CASE, limit("max_size", MIB, "1 MiB", up_to(ceiling, "1.9 MiB")))
    assert (told.outcome, told.is_red) == (outcome, outcome == "fail")
    if outcome == "waived":
        assert " max_size 1 MiB is waived up to 1.9 MiB until 2027-01-31, owner" in told.sentence
    else:
        assert told.sentence == (
            "digits-vit/int8-dynamic: max_size 1 MiB is broken: 2 MiB measured, 100% more than the limit. "
            "(budgets.yaml:23) The ceiling 1.9 MiB of its waiver is broken, too: it is waived up to there only, until "
            "2027-01-31, owner @ada: the new head is larger. (budgets.yaml:40)"
        )


@pytest.mark.parametrize(
    ("of", "name", "value", "kept", "broken"),
    [
        (CASE, "min_speedup", 1.5, 0.7, 1.0),
        (CASE, "max_latency", 0.001, 0.006, 0.004),
        (AT_BASE, "max_slowdown", 0.01, 0.35, 0.15),
        (AT_BASE, "max_memory_growth", 0.0, 9.0, None),
        (CASE, "min_size_reduction", 0.9, 0.5, 0.51),
    ],
)
def test_it_holds_for_exact_and_timed_limits_against_the_original_and_the_base(
    of: Case, name: str, value: float, kept: float, broken: float | None
) -> None:
    grown = variant_changed(of, weights_bytes=8 * MIB) if name == "max_memory_growth" else of
    assert verdict(grown, limit(name, value, waiver=None)).outcome == "fail"
    assert verdict(grown, limit(name, value)).outcome == "waived"
    assert verdict(grown, limit(name, value, waiver=up_to(kept))).outcome == "waived"
    if broken is not None:
        assert verdict(grown, limit(name, value, waiver=up_to(broken))).outcome == "fail"


def test_an_undecided_limit_is_waived_unless_its_ceiling_is_broken() -> None:
    """From 0.767x to 0.845x: the limit is inside, and of the ceilings one below it, one inside, and one above."""
    assert verdict(CASE, limit("min_speedup", 0.8, waiver=None)).outcome == "inconclusive"
    told = verdict(CASE, limit("min_speedup", 0.8))
    assert (told.outcome, "It is inconclusive: " in told.sentence) == ("waived", True)
    assert verdict(CASE, limit("min_speedup", 0.8, waiver=up_to(0.76))).outcome == "waived"
    assert verdict(CASE, limit("min_speedup", 0.8, waiver=up_to(0.78))).outcome == "waived"
    assert verdict(CASE, limit("min_speedup", 0.8, waiver=up_to(2.0))).outcome == "inconclusive"


def test_a_case_whose_limits_are_waived_is_not_red_even_under_strict() -> None:
    done = judged(CASE, limit("max_size", MIB), limit("min_speedup", 1.5))
    assert [each.outcome for each in done.verdicts] == ["waived", "waived"]
    assert case_outcome(done, strict=True) == "pass"
    assert not is_red(done, strict=True)
    assert warnings(done) == 0
    warned = judged(CASE, replace(limit("max_size", MIB), level="warn"))
    assert (warned.verdicts[0].outcome, warnings(warned)) == ("waived", 0)


@pytest.mark.parametrize(
    ("stated", "waiver", "goes_on"),
    [
        (1.5, None, False),
        (1.5, WAIVER, False),
        (1.5, up_to(0.5), False),
        (1.5, up_to(0.8), True),  # the ceiling is undecided
        (0.8, None, True),
        (0.8, WAIVER, True),
        (0.8, up_to(0.5), True),  # its ceiling is kept, and whether the limit itself is nobody knows yet
    ],
)
def test_a_waived_limit_is_timed_until_it_and_its_ceiling_are_decided(
    stated: float, waiver: Waiver | None, goes_on: bool
) -> None:
    assert CASE.timing is not None
    samples = Samples.of(CASE.timing.pairs)
    assert is_open([limit("min_speedup", stated, waiver=waiver)], samples, timed_limits=1) == goes_on


# --- which ones are needed -------------------------------------------------------------------------------------------


def test_a_record_tells_which_waivers_are_used_unused_exceeded_or_unknown() -> None:
    first = judged(
        CASE,
        limit("max_size", MIB, "1 MiB"),
        limit("max_memory", 100 * MIB, "100 MiB"),
        limit("min_size_reduction", 0.9, "90%", up_to(0.8, "80%")),
        limit("max_flips", 0.1, "10%"),
        limit("min_speedup", 9.0, waiver=None),
    )
    failed = judge(replace(case("low-rank", limits=(limit("max_size", 1),)), error=None, variant=None), timed_limits=0)
    told = waiver_uses(record(first, failed))
    assert [(each.case, each.limit.name, each.state, each.waiver) for each in told] == [
        ("digits-vit/int8-dynamic", "max_size", "used", WAIVER),
        ("digits-vit/int8-dynamic", "max_memory", "unused", WAIVER),
        ("digits-vit/int8-dynamic", "min_size_reduction", "exceeded", up_to(0.8, "80%")),
        ("digits-vit/int8-dynamic", "max_flips", "unknown", WAIVER),
        ("digits-vit/low-rank", "max_size", "unknown", WAIVER),
    ]
    assert format_waiver_use(told[1]) == (
        "The waiver of max_memory 100 MiB of digits-vit/int8-dynamic until 2027-01-31, owner @ada: the new head is "
        "larger. (budgets.yaml:40) The limit holds without it: remove it."
    )
    assert [format_waiver_use(each).rpartition(") ")[2] for each in told[::2]] == [
        "It is used.",
        "Its ceiling 80% is broken.",
        "Whether it is needed is not known: the limit was not judged.",
    ]


def test_a_waiver_that_one_of_several_machines_needs_is_used() -> None:
    here = judged(CASE, limit("max_size", MIB))
    there = judged(replace(CASE, machine=1, variant=measurement("int8-dynamic", size=MIB)), limit("max_size", MIB))
    assert [each.outcome for each in (*here.verdicts, *there.verdicts)] == ["waived", "pass"]
    for cases in ((here, there), (there, here)):
        assert [each.state for each in waiver_uses(record(*cases))] == ["used"]
    assert [each.state for each in waiver_uses(record(there, there))] == ["unused"]


def test_a_record_without_waivers_tells_none() -> None:
    assert waiver_uses(record(judged(CASE, limit("max_size", MIB, waiver=None)))) == ()
