"""Answers in the report: which examples changed, which slices lost most, and that no slice can name its way out."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from pytest_modelopt.judging.judge import judge
from pytest_modelopt.reporting import github_annotations, junit
from pytest_modelopt.reporting.detail_columns import legend
from pytest_modelopt.reporting.failure_text import explain
from pytest_modelopt.reporting.markdown import render
from pytest_modelopt.reporting.sentences import items
from pytest_modelopt.reporting.table import blocks
from pytest_modelopt.reporting.terminal import lines
from pytest_modelopt.results.answers import Agreement, Changed, Interval, Repeat, Slices
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.json import dumps, loads
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.verdicts import Finding
from tests.reporting import drawn_tables
from tests.reporting.drawn_tables import table
from tests.reporting.hostile_texts import HOSTILE
from tests.reporting.records_by_hand import case, limit, measurement, record

FLIPS = limit("max_flips", 0.0, "0%")

# Example 17 is right at first, 40 at last, 41 never.
CHANGED = Changed((17, 40, 41), (3, 7, 2), (3, 1, 5), (5, 7, 8))


def changed(of: Changed | None = CHANGED, *limits: Any, metric: str = "accuracy", **fields: Any) -> Case:
    made = case(metric=metric, agreement=Agreement(360, 1, 1, 3, of), limits=limits or (FLIPS,))
    return judge(replace(made, **fields), timed_limits=0)


def many(count: int) -> Changed:
    return Changed(tuple(range(count)), (0,) * count, (0,) * count, (1,) * count)


def terminal(told: Record) -> list[str]:
    return [text.strip() for text, _ in lines(told, 400, verbose=True)]


LINE = (
    "changed (1 right to wrong, 1 wrong to right): example 17 (target 3): 3 -> 5; example 40 (target 7): 1 -> 7; "
    "example 41 (target 2): 5 -> 8"
)


def test_under_a_broken_limit_about_answers_the_examples_stand() -> None:
    of = changed()
    told = terminal(record(of))
    assert told[told.index(LINE) - 2].startswith("FAIL digits-vit/int8-dynamic: max_flips 0% is broken")
    assert told[told.index(LINE) - 1].startswith("Next: ")
    assert f"  {LINE}" in explain(of, strict=False).split("\n")


@pytest.mark.parametrize("bound", [limit("max_size", 1.0, "1 B"), limit("max_flips", 0.5, "50%")])
def test_under_other_limits_and_kept_ones_they_do_not(bound: Any) -> None:
    of = changed(CHANGED, bound)
    assert LINE not in terminal(record(of))
    assert "example" not in explain(of, strict=False)


def test_a_warning_and_an_undecided_limit_show_them_too() -> None:
    assert LINE in terminal(record(changed(CHANGED, replace(FLIPS, level="warn"))))
    assert LINE in terminal(record(changed(CHANGED, limit("max_flips", 0.009, "0.9%"), inference="population")))


def test_they_are_said_once_for_several_limits() -> None:
    of = changed(CHANGED, FLIPS, limit("min_accuracy", 1.0, "100%"))
    assert terminal(record(of)).count(LINE) == 1
    assert explain(of, strict=False).count(LINE) == 1


def test_of_many_the_first_ten_are_shown() -> None:
    told = next(line for line in terminal(record(changed(many(12)))) if line.startswith("changed ("))
    assert told.count("example ") == 10
    assert told.endswith("example 9 (target 0): 0 -> 1; and 2 more in the record")


def test_data_without_labels_has_no_targets() -> None:
    of = changed(replace(CHANGED, target=None), metric="agreement")
    assert any(line.startswith("changed: example 17: 3 -> 5; example 40: 1 -> 7") for line in terminal(record(of)))
    assert details(render(record(of)))[0] == ["example", "before", "after"]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def details(markdown: str) -> list[list[str]]:
    """The rows of the folded tables of answers, headers and rules included."""
    others = ("Environment", "intervals, coverage", "<summary>more about")
    (folded,) = [part for part in markdown.split("<details>")[1:] if not any(text in part for text in others)]
    return [cells(line) for line in folded.split("\n") if line.startswith("|")]


def test_markdown_has_a_table_of_them_with_what_each_means() -> None:
    markdown = render(record(changed()))
    assert details(markdown)[:1] + details(markdown)[2:] == [
        ["example", "target", "before", "after", "what it means"],
        ["17", "3", "3", "5", "right to wrong"],
        ["40", "7", "1", "7", "wrong to right"],
        ["41", "2", "5", "8", "both wrong"],
    ]
    summary = "digits-vit/int8-dynamic: 3 of 360 predictions changed: 1 right to wrong, 1 wrong to right"
    assert f"<details><summary>{summary}</summary>" in markdown
    assert "example 17" not in markdown, "the table says it"


def test_a_case_that_holds_has_its_table_too_and_one_without_changes_has_none() -> None:
    assert len(details(render(record(changed(CHANGED, limit("max_flips", 0.5, "50%")))))) == 5
    for nothing in (None, Changed((), (), (), ())):
        assert "predictions changed" not in render(record(changed(nothing)))


def test_the_table_of_many_says_how_many_more_there_are() -> None:
    markdown = render(record(changed(many(1300))))
    assert len(details(markdown)) == 12
    assert "\n\nand 1,290 more in the record\n\n</details>" in markdown


def test_what_a_first_prediction_means_is_said_where_it_decides_alone() -> None:
    """Among five guesses the target may be, whatever stands first."""
    assert details(render(record(changed(metric="top-5"))))[0] == ["example", "target", "before", "after"]


SLICED = Slices(
    ("0", "1", "2", "3", "4", "5", "6", "7"),
    True,
    (40, 40, 40, 40, 40, 40, 40, 80),
    (0.05, 0.1, 0.0, 0.025, 0.075, 0.125, 0.15, 0.1),
    (2, 4, 1, 1, 3, 5, 7, 8),
    (0, 0, 1, 0, 0, 0, 1, 0),
)


def test_the_five_worst_slices_stand_in_the_details() -> None:
    markdown = render(record(changed(None, slices=SLICED)))
    assert details(markdown)[:1] + details(markdown)[2:] == [
        ["slice", "examples", "right to wrong", "wrong to right", "drop"],
        ["class 6", "40", "7", "1", "15.0 pp"],
        ["class 5", "40", "5", "0", "12.5 pp"],
        ["class 7", "80", "8", "0", "10.0 pp"],
        ["class 1", "40", "4", "0", "10.0 pp"],
        ["class 4", "40", "3", "0", "7.5 pp"],
    ]
    assert "\n\nand 2 more in the record\n\n" in markdown


def test_slices_that_lost_nothing_are_not_worth_a_table() -> None:
    gained = Slices(("a", "b"), False, (180, 180), (0.0, -0.01), (0, 0), (0, 2))
    assert "the worst slices" not in render(record(changed(None, slices=gained)))


def test_slices_of_another_metric_have_a_drop_only() -> None:
    slices = Slices(("day", "night", "dusk"), False, (300, 120, 4), (0.004, 0.031, None))
    told = replace(case(metric="m:loss", higher_is_better=False), slices=slices)
    markdown = render(record(told))
    assert "<summary>digits-vit/int8-dynamic: the worst slices</summary>" in markdown
    assert details(markdown)[2:] == [["slice night", "120", "0.031"], ["slice day", "300", "0.004"]]


@pytest.mark.parametrize("hostile", [*HOSTILE, "x" * 5000, "\ud800"])
def test_no_name_of_a_slice_becomes_structure(hostile: str) -> None:
    def told(name: str) -> Record:
        slices = Slices((name, "b"), False, (180, 180), (0.5, 0.1), (90, 18), (0, 0))
        bounds = (limit("max_slice_drop", 0.05, "5 pp"), limit("max_accuracy_drop", 0.5, "50 pp"))
        return record(changed(CHANGED, *bounds, slices=slices))

    harmless, markdown = render(told("x")), render(told(hostile))
    for structure in "<>`*\\~|[":
        assert markdown.replace("<!-- -->", "").count(structure) == harmless.count(structure), structure
    assert len(markdown.split("\n")) == len(harmless.split("\n"))
    for line in (*terminal(told(hostile)), *github_annotations.annotations(told(hostile), workspace=None, rootdir="/")):
        assert len(line) < 2000
        assert line.isprintable()


def scored(metric: str) -> Record:
    """Scores that differ, so that they have a column."""
    return record(case(metric=metric, variant=measurement("int8-dynamic", score=0.9)))


def test_a_metric_cannot_break_the_header() -> None:
    for metric in ("a|b", "x" * 40, "<b>", "", "shop.metrics:mean_error"):
        assert "score" in table(scored(metric))
        assert re.search(r"\| +score \|", render(scored(metric)))


@pytest.mark.parametrize("metric", ["accuracy", "top-5", "agreement", "sqnr", "WordErrorRate"])
def test_a_short_metric_is_the_header_of_its_scores(metric: str) -> None:
    assert metric in table(scored(metric))
    assert f" {metric} |" in render(scored(metric))


def test_the_upper_end_of_an_interval_stands_beside_the_drop() -> None:
    of = replace(
        case(
            metric="m:loss",
            higher_is_better=False,
            reference=measurement(None, score=2.0),
            variant=measurement("r", score=2.5),
        ),
        interval=Interval(0.4, 0.6213),
    )
    assert drawn_tables.details(record(of))["drop"] == ("0.5 (< 0.62)",)
    assert legend(blocks(record(of))[0]).endswith("; drop: with its 95% bound")
    judged = record(replace(of, inference="population"))
    assert legend(blocks(judged)[0]).endswith("; drop: with its 95% bound, which limits are judged by")


def test_counts_and_the_worst_slice_are_properties_of_the_test() -> None:
    found = dict(junit.properties(changed(CHANGED, slices=SLICED)))
    assert (found["modelopt.right_to_wrong"], found["modelopt.wrong_to_right"]) == (1, 1)
    assert found["modelopt.worst_slice_drop"] == pytest.approx(0.15)
    assert "modelopt.worst_slice_drop" not in dict(junit.properties(case()))


# --- notes -----------------------------------------------------------------------------------------------------------


def varying(**fields: Any) -> Case:
    return replace(case(), variant=replace(measurement("int8-dynamic"), repeat=Repeat(360, 0.97, 12)), **fields)


def test_a_variant_that_does_not_repeat_itself_is_told_where_no_limit_is_near() -> None:
    (item,) = items(record(varying()))
    assert (item.severity, item.text) == (
        "info",
        "digits-vit (int8-dynamic): answers differently each time: 12 of 360 predictions changed between two passes "
        "over the same examples; its score and flips are those of the first pass",
    )
    found = Finding("answers-vary", {"sides": ["variant"]}, ("score",), is_note=True)
    (item,) = items(record(varying(findings=(found,))))
    assert item.text.startswith(
        "digits-vit/int8-dynamic: the variant answered the same inputs differently in two calls"
    )
    assert item.text.endswith(" 12 of 360 predictions of the variant changed (3.33%)")


def test_slices_that_are_too_small_are_told_though_their_limit_holds() -> None:
    slices = Slices(("0", "1"), True, (3, 357), (0.0, 0.0), (0, 0), (0, 0))
    bound = limit("max_slice_drop", 0.05, "5 pp")
    (item,) = items(record(changed(None, bound, slices=slices)))
    assert (item.severity, item.label) == ("info", "NOTE")
    assert item.text == (
        "digits-vit/int8-dynamic: max_slice_drop holds, but 1 of 2 slices has so few examples that a single one is "
        "more than 5 pp, so a drop of 0 there proves nothing: class 0 (3)"
    )
    enough = replace(slices, examples=(20, 340))
    assert items(record(changed(None, bound, slices=enough))) == []


def test_slices_that_nobody_asked_for_are_not_told_as_missing() -> None:
    bare = replace(measurement("int8-dynamic"), unmeasured={"slices": "no targets", "timing": "no clock"})
    assert [item.text for item in items(record(case(variant=bare)))] == [
        "digits-vit (int8-dynamic): timing was not measured: no clock"
    ]


def test_what_explains_a_score_is_told_under_its_slices() -> None:
    slices = Slices(("0", "1"), True, (180, 180), (0.5, 0.0), (90, 0), (0, 0))
    found = Finding("calibration saw 8 examples", {}, ("score", "predictions"))
    of = replace(changed(None, limit("max_slice_drop", 0.05, "5 pp"), slices=slices), findings=(found,))
    assert "calibration saw 8 examples" in terminal(record(of))


def test_a_record_alone_is_judged_again_for_the_population() -> None:
    bounds = (limit("max_accuracy_drop", 0.005, "0.5 pp"), limit("max_slice_drop", 0.5, "50 pp"))
    of = changed(CHANGED, *bounds, slices=SLICED, inference="population")
    (read,) = loads(dumps(record(of))).cases
    assert judge(replace(read, verdicts=()), timed_limits=0).verdicts == of.verdicts
    assert [verdict.outcome for verdict in of.verdicts] == ["inconclusive", "pass"]
    assert render(record(read)) == render(record(of))
