"""Head against base everywhere else: JUnit properties, annotations, progress lines, notes and sentences."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_modelopt.judging.judge import judge
from pytest_modelopt.plugin.progress import case_line
from pytest_modelopt.reporting import github_annotations
from pytest_modelopt.reporting.failure_text import explain
from pytest_modelopt.reporting.item import Item
from pytest_modelopt.reporting.junit import properties
from pytest_modelopt.reporting.markdown import render
from pytest_modelopt.reporting.sentences import case_items, items
from pytest_modelopt.reporting.terminal import lines
from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.results.base import Against, Base, BaseStatus, Loosening
from pytest_modelopt.results.case import ORIGINAL, Case, CaseError
from pytest_modelopt.results.merging import merge
from pytest_modelopt.results.timed_pairs import WorkerUse
from tests.reporting.against_by_hand import AGAINST, GREW, LOOSENED, SAME, SLOWER, against, pull_request
from tests.reporting.records_by_hand import MIB, QUIET, case, limit, measurement, record, verdict


def _texts(told: list[Item]) -> list[str]:
    return [f"{item.label} {item.text}" for item in told]


# --- JUnit -----------------------------------------------------------------------------------------------------------


def test_properties_say_what_became_of_the_figures_since_the_base() -> None:
    changed = against(
        before=measurement("x", weights=5 * MIB, peak=3 * MIB, size=4 * MIB, score=0.75),
        after=measurement("x", weights=6 * MIB, peak=4 * MIB, size=3 * MIB, score=0.5),
        timed=SLOWER,
        agreement=Agreement(360, 90, 0, 91),
    )
    assert dict(properties(changed)) == {
        "modelopt.model": "digits-vit",
        "modelopt.recipe": "int8-dynamic",
        "modelopt.base": "0f1e2d3c4b5a",
        "modelopt.base_status": "compared",
        "modelopt.memory_growth": 0.25,
        "modelopt.size_growth": -0.25,
        "modelopt.slowdown": pytest.approx(0.25),
        "modelopt.loss": 0.25,
        "modelopt.changed_answers": 91,
    }
    alone = dict(properties(replace(changed, recipe=ORIGINAL)))
    assert {name: alone[f"modelopt.{name}"] for name in ("memory_bytes", "size_bytes", "latency_s", "score")} == {
        "memory_bytes": 10 * MIB,
        "size_bytes": 3 * MIB,
        "latency_s": pytest.approx(0.005),
        "score": 0.5,
    }
    new = replace(against(status="new"), variant=None)
    assert dict(properties(new)) == {
        "modelopt.model": "digits-vit",
        "modelopt.recipe": "int8-dynamic",
        "modelopt.base": "0f1e2d3c4b5a",
        "modelopt.base_status": "new",
    }


# --- annotations and progress ----------------------------------------------------------------------------------------


def test_a_notice_stands_where_a_limit_is_less_strict_and_an_error_where_one_is_broken() -> None:
    told = pull_request(GREW, told=replace(AGAINST, loosened=(LOOSENED,)))
    error, notice = github_annotations.annotations(told, workspace="/w", rootdir="/w/sub")
    assert error.startswith(
        "::error file=sub/budgets.yaml,line=31,title=digits-vit/int8-dynamic%3A max_size_growth is broken::"
        "max_size_growth 2%25: "
    )
    assert notice == (
        "::notice file=sub/budgets.yaml,line=12,title=digits-vit/int8-dynamic%3A max_memory is less strict than at the "
        "base::digits-vit/int8-dynamic: max_memory 3 MiB -> 4 MiB (relaxed, +33%25) (budgets.yaml:12)"
    )
    forbidden = github_annotations.annotations(replace(told, no_loosening=True), workspace="/w", rootdir="/w/sub")
    assert [line.partition(" ")[0] for line in forbidden] == ["::error"] * 3
    assert notice.replace("::notice", "::error") in forbidden


def test_what_no_job_measured_is_an_error_of_the_whole() -> None:
    merged = merge([("a", replace(pull_request(against()), collected=("a::b",)))])
    assert github_annotations.annotations(merged, workspace="/w", rootdir="/w") == [
        "::error title=1 planned case measured by no job::1 planned case was measured by no job: a::b"
    ]


def test_a_line_of_progress_names_the_base() -> None:
    assert case_line(against()) == "modelopt: digits-vit/int8-dynamic against 0f1e2d3c4b5a: timing 10.0 s (200 pairs)"
    assert case_line(against(status="failed", why="ImportError: x")) == (
        "modelopt: digits-vit/int8-dynamic against 0f1e2d3c4b5a: no base, ImportError: x"
    )
    assert (
        case_line(replace(against(timed=None)))
        == "modelopt: digits-vit/int8-dynamic against 0f1e2d3c4b5a: not measured"
    )


# --- sentences and notes ---------------------------------------------------------------------------------------------


def test_an_error_says_which_comparison_it_is_of() -> None:
    (told,) = case_items(replace(against(), error=CaseError("compare", "other shapes")), strict=False)
    assert told.text == (
        "digits-vit/int8-dynamic against 0f1e2d3c4b5a: error while comparing it with the base: other shapes"
    )
    (told,) = case_items(case(error=CaseError("compare", "other shapes")), strict=False)
    assert told.text == "digits-vit/int8-dynamic: error while comparing it with the original: other shapes"


UNDECIDED = verdict(limit("max_size_growth", 0.1, "10%"), "inconclusive")


@pytest.mark.parametrize(
    ("of", "told"),
    [
        (against(status="new", why="m/r is new."), "NOTE {}: m/r is new, so nothing of it is judged"),
        (against(status="new"), "NOTE {}: it is new, so nothing of it is judged"),
        (
            against(status="failed", why="ImportError: x"),
            "NOTE {}: the base fails here, too, so what changed is not known (ImportError: x)",
        ),
        (
            against(status="unusable", why="Git LFS pointers"),
            "NOTE {}: the base could not be brought to run (Git LFS pointers)",
        ),
        (  # the verdict says why
            against(status="failed", why="x", verdicts=(UNDECIDED,)),
            "INCONCLUSIVE digits-vit/int8-dynamic: max_size_growth 10% is inconclusive: for a reason. "
            "(budgets.yaml:23)",
        ),
        (
            replace(against(status="new"), error=CaseError("load", "no")),
            "ERROR {}: error while loading the model or its data: no",
        ),
    ],
)
def test_why_there_is_no_base_is_said_once(of: Case, told: str) -> None:
    name = "digits-vit/int8-dynamic against 0f1e2d3c4b5a"
    assert _texts(case_items(of, strict=False)) == [told.format(name)]


def test_of_a_base_that_was_compared_nothing_is_said() -> None:
    assert case_items(against(), strict=False) == []


def test_notes_say_which_side_they_are_about() -> None:
    spinning = replace(QUIET, reference=WorkerUse(active_threads=1, idle_cores=0.9))
    told = items(
        pull_request(
            against(
                before=measurement("int8-dynamic", notes=("in training mode",), unmeasured={"timing": "no clock"}),
                after=measurement("int8-dynamic", notes=("in eval mode",)),
                timed=replace(SAME, conditions=spinning),
            )
        )
    )
    texts = [item.text for item in told]
    assert "digits-vit (int8-dynamic at 0f1e2d3c4b5a): in training mode" in texts
    assert "digits-vit (int8-dynamic): in eval mode" in texts
    assert "digits-vit (int8-dynamic at 0f1e2d3c4b5a): timing was not measured: no clock" in texts
    assert [
        text for text in texts if "digits-vit/int8-dynamic against 0f1e2d3c4b5a: the base kept 0.9 cores busy" in text
    ]


def _without_base(recipe: str, *limits: str, status: BaseStatus = "unusable", why: str = "no weights") -> Case:
    made = against(recipe, status=status, why=why, limits=tuple(limit(name, 0.1, "10%") for name in limits))
    return judge(replace(made, variant=None), timed_limits=0)


def test_one_cause_is_told_once_for_all_limits_and_recipes_of_a_model() -> None:
    both = ("max_size_growth", "max_memory_growth")
    cases = [_without_base(recipe, *both) for recipe in (ORIGINAL, "bf16", "int8-dynamic")]
    other = replace(_without_base("bf16", *both), model="speech", id="budgets.yaml::speech::bf16")
    told = [item for item in items(pull_request(*cases, other)) if item.severity == "error"]
    assert [item.title for item in told] == [
        "digits-vit/original and bf16, int8-dynamic: 2 limits were not measured",
        "speech/bf16: 2 limits were not measured",
    ]
    assert told[0].text == (
        "digits-vit/original and bf16, int8-dynamic: max_size_growth, max_memory_growth were not measured, which "
        "counts as broken: the base 0f1e2d3c4b5a could not be brought to run: no weights. (budgets.yaml:23)"
    )
    record = pull_request(*cases)
    assert render(record).count("no weights") == 1
    assert " ".join(text for text, _ in lines(record, 300)).count("no weights") == 1
    assert explain(cases[1], strict=False).count("no weights") == 1


def test_causes_that_differ_are_each_told() -> None:
    cases = [
        _without_base(ORIGINAL, "max_size_growth", why="no weights"),
        _without_base("bf16", "max_size_growth", why="no module"),
        _without_base("int8-dynamic", "max_size_growth", status="failed"),
        _without_base("fp16", "max_size_growth", status="unpaired"),
    ]
    told = items(pull_request(*cases))
    assert [(item.label, item.title.partition(":")[0]) for item in told] == [
        ("FAIL", "digits-vit/original"),
        ("FAIL", "digits-vit/bf16"),
        ("INCONCLUSIVE", "digits-vit/int8-dynamic"),
        ("INCONCLUSIVE", "digits-vit/fp16"),
    ]


def test_the_first_line_says_what_no_count_says() -> None:
    """Nothing but a loosened limit makes the run red."""
    loosened = Loosening("m/bf16", "max_size", "relaxed", "1 MiB", "2 MiB", "+100%", "budgets.yaml", 3)
    against = Against("revision", "HEAD", "0" * 40, "1" * 40, True, loosened=(loosened,))
    made = replace(record(case(limits=())), against=against, no_loosening=True)
    assert lines(made, 120)[0][0].startswith("modelopt: FAILED. 1 case: ")
    assert lines(replace(made, no_loosening=False), 120)[0][0].startswith("modelopt: passed. 1 case: ")


def test_a_base_that_did_not_run_is_explained_once() -> None:
    base = Base("1a2b3c4d5e6f", "unusable", "files that git ignores are missing: models/best.pt")
    limits = (limit("max_size_growth", 0.05, "5%"),)
    red = judge(replace(case(limits=limits), reference=None, base=base), timed_limits=0)
    whole, short = explain(red, strict=False), explain(red, strict=False, first="m/original against 1a2b3c4d5e6f")
    assert "models/best.pt" in whole
    assert "models/best.pt" not in short
    assert "as in m/original against 1a2b3c4d5e6f" in short


def test_the_terminal_shows_what_changed_and_under_v_all_rows() -> None:
    """As the comment does: what holds and is what it was at the base has no row."""
    told = pull_request(against(ORIGINAL), GREW, against("bf16"))
    short, whole = ("\n".join(text for text, _ in lines(told, 100, verbose=is_all)) for is_all in (False, True))
    rows = ("original", "bf16")
    assert [f" {name} " in whole for name in rows] == [True, True]
    assert [f" {name} " in short for name in rows] == [False, False]
    assert "✗ FAIL   int8-dynamic" in short
    assert "(-v: 2 cases that hold and did not change" in short
    assert "did not change" not in whole
    same = "\n".join(text for text, _ in lines(pull_request(against("bf16")), 100))
    assert "Nothing changed: 1 variant was compared with the base" in same
    assert "verdict " not in same
