"""What there is to say: each fault with its place, its likely cause, and nothing twice."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from pytest_modelopt.reporting import github_annotations
from pytest_modelopt.reporting.failure_text import explain, in_short
from pytest_modelopt.reporting.markdown import render
from pytest_modelopt.reporting.messages.findings import MESSAGES
from pytest_modelopt.reporting.messages.next_steps import ONLY_EXPLAINS
from pytest_modelopt.reporting.sentences import items, items_by_case
from pytest_modelopt.reporting.terminal import lines
from pytest_modelopt.results.case import Case, CaseError, Expected
from pytest_modelopt.results.measurement import Coverage, LayerCoverage, RecipeStep
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.verdicts import Finding
from tests.reporting.against_by_hand import AGAINST
from tests.reporting.records_by_hand import MIB, broken, case, limit, measurement, record, verdict


def test_a_run_in_which_all_is_well_says_nothing() -> None:
    assert items(record(case(verdicts=(verdict(limit("max_memory", MIB, "1 MiB"), "pass"),)))) == []


def test_a_broken_limit_names_its_place_and_by_how_much() -> None:
    (item,) = items(record(broken("int8-dynamic", measured=3.75 * MIB)))
    assert (item.severity, item.label, item.file, item.line) == ("error", "FAIL", "budgets.yaml", 23)
    assert item.title == "digits-vit/int8-dynamic: max_memory is broken"
    assert item.text.endswith("25% more than the limit. (budgets.yaml:23)")
    assert item.excess == 0.25


def test_the_level_and_strict_decide_how_loud_it_is() -> None:
    hard, soft = limit("min_speedup", 1.5, "1.5x"), limit("max_latency", 0.01, "10 ms", level="warn")
    told = record(case(verdicts=(verdict(hard, "inconclusive", 1.5), verdict(soft, "fail", 0.02))))
    assert [(item.severity, item.label) for item in items(told)] == [("warning", "INCONCLUSIVE"), ("warning", "WARN")]
    strict = record(*told.cases, strict=True)
    assert [(item.severity, item.label) for item in items(strict)] == [("error", "FAIL"), ("warning", "WARN")]


def test_a_limit_that_nobody_judged_is_told() -> None:
    (item,) = items(record(case(limits=(limit("max_memory", MIB, "1 MiB"),))))
    assert item.severity == "error"
    assert (
        item.text
        == "digits-vit/int8-dynamic: max_memory 1 MiB was not judged, which counts as broken. (budgets.yaml:23)"
    )


def test_a_waived_limit_is_told_but_is_no_warning() -> None:
    (item,) = items(record(case(verdicts=(verdict(limit("max_memory", MIB, "1 MiB"), "waived"),))))
    assert (item.severity, item.label, item.why) == ("info", "NOTE", ())


def test_the_likely_cause_counts_what_the_recipe_left_alone() -> None:
    coverage = Coverage(
        layers=(
            LayerCoverage("a", "Linear", 6 * MIB, 6 * MIB),
            LayerCoverage("n", "Absent", 0, 0),
            LayerCoverage("b", "MultiheadAttention", MIB, 0),
            LayerCoverage("c", "MultiheadAttention", MIB, 0),
            LayerCoverage("d", "Dropout", 0, 0),
        ),
        steps=(RecipeStep("int8-dynamic", 6 * MIB, 8 * MIB, ("packed for x86",)),),
    )
    bound = limit("max_memory", MIB, "1 MiB")
    (item,) = items(record(case(verdicts=(verdict(bound, "fail", 2 * MIB),), coverage=coverage)))
    assert item.why == (
        "int8-dynamic changed 75% of the weight bytes; left alone: 2 MultiheadAttention (2 MiB)",
        "int8-dynamic: packed for x86",
    )


def test_what_a_finding_says_of_layers_is_not_said_again_by_the_coverage() -> None:
    """The doctor's sentence names the layers that were left alone, under a limit on what it explains."""
    layers = (LayerCoverage("a", "Linear", 6 * MIB, 6 * MIB), LayerCoverage("b", "Conv2d", 2 * MIB, 0))
    kind = {"type": "Conv2d", "layers": 1, "weight_bytes": 2 * MIB, "weight_share": 0.25, "multiply_adds_share": None}
    found: dict[str, Any] = {
        "types": [{**kind, "derived_from": None, "changed_by": ["int8-static"]}],
        "recipes": ["int8-dynamic"],
        "changes": ["Linear"],
    }
    left_alone = Finding("left-alone", found, ("size",))
    for name, rest in (("max_size", ""), ("min_accuracy", "; left alone: 1 Conv2d (2 MiB)")):
        notes = ("1 Conv2d (2 MiB) left in floating point", "packed for x86")
        coverage = Coverage(layers, (RecipeStep("int8-dynamic", 6 * MIB, 8 * MIB, notes),))
        made = case(verdicts=(verdict(limit(name, 1.0, "1 B"), "fail", 2.0),), coverage=coverage)
        (item,) = items(record(replace(made, findings=(left_alone,))))
        assert item.why == (
            f"int8-dynamic changed 75% of the weight bytes{rest}",
            *(("int8-dynamic: 1 Conv2d (2 MiB) left in floating point",) if rest else ()),
            "int8-dynamic: packed for x86",
        )
        assert ("1 Conv2d (2 MiB" in item.told_below[0]) == (name == "max_size")


def test_under_each_red_sentence_stands_one_thing_to_do() -> None:
    """What was found, or the next step for that kind of limit; what is not decided says itself what it takes."""
    explore = "pytest-modelopt explore MODEL"
    steps = {
        "max_memory": f"look for a recipe with a smaller peak: {explore}",
        "min_speedup": f"look for a recipe with faster calls on this machine: {explore}",
        "max_flips": "take a milder setting of the recipe, or see which layers cost the answers: "
        f"{explore} --sensitivity",
        "max_size_growth": "look for it in what changed since the base; where it is meant, waive it or",
    }
    for name, step in steps.items():
        (item,) = items(record(case(verdicts=(verdict(limit(name, 1.0, "1"), "fail", 2.0),))))
        accept = "state another limit"
        end = accept if name == "max_size_growth" else f"where this is good enough, {accept}"
        assert item.told_below == (f"Next: {step}{' ' if name == 'max_size_growth' else '; '}{end}",)
    of_file = case(verdicts=(verdict(limit("max_size", 1.0, "1"), "fail", 2.0),))
    (item,) = items(record(replace(of_file, id="budgets.yaml::digits-vit::int8-dynamic")))
    assert item.told_below[0].startswith(
        "Next: look for a recipe with smaller files: pytest-modelopt explore digits-vit; "
    )
    (item,) = items(record(case(verdicts=(verdict(limit("max_flips", 1.0, "1"), "not measured"),))))
    assert item.told_below == ("Next: give it what it lacks, or take the limit away",)
    (item,) = items(record(case(verdicts=(verdict(limit("min_speedup", 1.0, "1"), "inconclusive", 1.0),))))
    assert item.told_below == ()


@pytest.mark.parametrize(
    ("name", "value", "text", "measured", "told"),
    [
        ("max_memory", MIB, "1 MiB", 1.0676 * MIB, "max_memory 1 MiB: 1.07 MiB (+6.8%)"),
        ("min_speedup", 1.3, "1.3x", 1.01, "min_speedup 1.3x: 1.01x (-22%)"),
        ("min_memory_reduction", 0.6, "60%", 0.45, "min_memory_reduction 60%: 45% (-15 pp)"),
        ("max_accuracy_drop", 0.01, "1 pp", 0.16, "max_accuracy_drop 1 pp: 16 pp (+15 pp)"),
        ("max_memory", MIB, "1 MiB", MIB + 1, "max_memory 1 MiB: 1.000001 MiB (+0.000095%)"),
    ],
)
def test_a_broken_limit_in_short(name: str, value: float, text: str, measured: float, told: str) -> None:
    one = case(verdicts=(verdict(limit(name, value, text), "fail", measured, "measured"),))
    assert in_short([one], strict=False) == told
    other = replace(one, id="another", recipe="bf16")
    both = in_short([one, case("fine"), other], strict=False)
    assert both == f"digits-vit/int8-dynamic: {told}; digits-vit/bf16: {told}"


def test_the_multiply_adds_of_what_was_changed_are_told_where_they_were_counted() -> None:
    layers = (LayerCoverage("a", "Linear", 250, 250, 4, 4), LayerCoverage("b", "Conv2d", 750, 750, 996, 0))
    bound = limit("max_memory", MIB, "1 MiB")
    (item,) = items(record(case(verdicts=(verdict(bound, "fail", 2 * MIB),), coverage=Coverage(layers, ()))))
    assert item.why == ("int8-dynamic changed 100% of the weight bytes and 0.4% of the multiply-adds",)


FOUND = (
    Finding("of the memory", {}, ("memory", "size")),
    Finding("of the score", {}, ("score",), is_note=True),
    Finding("of the timing", {}, ("timing",)),
)


def test_a_finding_stands_under_the_limits_whose_figure_it_explains() -> None:
    memory, size, drop = (
        limit("max_memory", MIB, "1 MiB"),
        limit("max_size", MIB, "1 MiB"),
        limit("min_accuracy", 1, "1"),
    )
    verdicts = (verdict(memory, "fail", 2.0), verdict(size, "not measured"), verdict(drop, "inconclusive", 1.0))
    told = items(record(replace(case(verdicts=verdicts), findings=FOUND)))
    assert [item.found for item in told] == [("of the memory",), ("of the memory",), ("of the score",)]


def test_a_red_case_says_once_where_it_is_explained() -> None:
    verdicts = (
        verdict(limit("min_accuracy", 1, "1"), "fail", 0.5, "measured"),
        verdict(limit("max_size", MIB, "1 MiB"), "fail", 2, "measured"),
    )
    of_size, of_score = Finding("size-in-file", {}, ("size",)), Finding("untrained", {"recipes": ["x"]}, ("score",))
    explained = [
        (case(verdicts=verdicts), "measured"),
        (replace(case(verdicts=verdicts), findings=(of_size, of_score)), "untrained"),
        (replace(case(verdicts=verdicts), findings=(of_size,)), "measured"),
        (replace(case(verdicts=verdicts[::-1]), findings=(of_size, of_score)), "size-in-file"),
        (replace(case(verdicts=verdicts), findings=FOUND), "measured"),  # of another version, or of a stranger
    ]
    for of, code in explained:
        told = explain(of, strict=False).splitlines()
        addresses = [line for line in told if "://" in line]
        assert addresses == [f"  see https://pytest-modelopt.readthedocs.io/en/latest/troubleshooting/#{code}"]
        assert told[-1] == addresses[0]


def test_a_finding_is_told_once_where_a_case_is_read_as_a_whole() -> None:
    memory, size = limit("max_memory", MIB, "1 MiB"), limit("max_size", MIB, "1 MiB")
    of = replace(case(verdicts=(verdict(memory, "fail", 2.0), verdict(size, "fail", 2.0))), findings=FOUND[:1])
    assert explain(of, strict=False).splitlines().count("  of the memory") == 1
    shown = [text.strip() for text, _ in lines(record(of), 160)]
    assert shown.count("of the memory") == 1
    above = shown[shown.index("of the memory") - 1]
    assert above.startswith("FAIL digits-vit/int8-dynamic: max_size"), "under the last limit of it, for both"
    assert render(record(of)).count("- of the memory") == 1


def test_a_finding_that_only_explains_leaves_the_next_step_to_say_and_comes_last() -> None:
    layer = {"type": "Conv2d", "layers": 1, "weight_bytes": 2 * MIB, "weight_share": 0.25, "multiply_adds_share": None}
    types: Any = [{**layer, "derived_from": None, "changed_by": ["int8-static"]}]
    why = Finding("size-in-file", {"no_tensor_bytes": 512, "other_no_tensor_bytes": 256}, ("size",))
    way = Finding("left-alone", {"types": types, "recipes": ["int8-dynamic"], "changes": ["Linear"]}, ("size",))
    broken_size = case(verdicts=(verdict(limit("max_size", 1.0, "1 B"), "fail", 2.0),))
    (item,) = items(record(replace(broken_size, findings=(why,))))
    assert item.told_below[0].startswith("of the saved file what is no tensor in it")
    assert item.told_below[1].startswith("Next: look for a recipe with smaller files")
    (item,) = items(record(replace(broken_size, findings=(why, way))))
    assert item.told_below[0].startswith("1 Conv2d (2 MiB")
    assert len(item.told_below) == 2
    assert MESSAGES.keys() >= ONLY_EXPLAINS


def test_of_a_case_whose_limits_hold_only_what_matters_is_a_note() -> None:
    held = verdict(limit("min_accuracy", 1, "1"), "pass")
    (item,) = items(record(replace(case(verdicts=(held,)), findings=FOUND)))
    assert (item.severity, item.label, item.text) == ("info", "NOTE", "digits-vit/int8-dynamic: of the score")
    waived = verdict(limit("min_accuracy", 1, "1"), "waived")
    assert [each.text for each in items(record(replace(case(verdicts=(waived,)), findings=FOUND)))][-1] == item.text
    told = [text for text, _ in lines(record(replace(case(verdicts=(held,)), findings=FOUND)), 160)]
    assert "NOTE digits-vit/int8-dynamic: of the score" in told


def test_what_could_not_be_looked_at_is_said() -> None:
    blind = replace(measurement("a"), observations=Observations(unobserved={"ties": "RuntimeError: no"}))
    (item,) = items(record(case("a", variant=blind)))
    assert item.text == "digits-vit (a): what the doctor looks at (ties) was not measured: RuntimeError: no"


def test_layers_changed_in_part_many_types_and_idle_steps_are_told() -> None:
    layers = [LayerCoverage(f"l{n}", f"Type{n}", (9 - n) * 1024, 0) for n in reversed(range(6))]
    coverage = Coverage(
        layers=(*layers, LayerCoverage("half", "Conv2d", 2048, 1024)),
        steps=(RecipeStep("first", 1024, 2048), RecipeStep("second", 0, 2048)),
    )
    bound = limit("max_memory", MIB, "1 MiB")
    told = record(case("first + second", verdicts=(verdict(bound, "fail", 2 * MIB),), coverage=coverage))
    assert items(told)[0].why == (
        "first + second changed 2.44% of the weight bytes; left alone: 1 Type0 (9 KiB), 1 Type1 (8 KiB), "
        "1 Type2 (7 KiB), 1 Type3 (6 KiB), 2 other (9 KiB); changed in part: 1 Conv2d (1 KiB)",
        "the step second changed nothing",
    )


def test_an_error_says_what_was_being_done_and_what_the_worker_printed() -> None:
    error = CaseError("load", "no such file\nlooked in a/b", "line 1\n\x1b[31mline 2\x1b[0m\n")
    (item,) = items(record(case(error=error, limits=(limit("max_memory", MIB, "1 MiB", line=9),))))
    assert (item.label, item.line, item.excess) == ("ERROR", 9, math.inf)
    assert item.text == "digits-vit/int8-dynamic: error while loading the model or its data: no such file"
    assert item.why == ("looked in a/b",)
    assert item.output == ("line 1", "line 2")


def test_cases_that_were_not_run_are_named() -> None:
    (item,) = items(record(case(), planned=("x", "y")))
    assert (item.severity, item.text) == ("error", "2 planned cases were not run: x, y")
    (item,) = items(record(case(), planned=tuple(f"c{n}" for n in range(12)), complete=False))
    assert item.text.startswith("12 planned cases were not run: c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 2 more; ")
    assert "interrupted" in item.text


def test_an_interrupted_run_says_so_even_if_no_case_is_missing() -> None:
    (item,) = items(record(case(), complete=False))
    assert item.text.startswith("the run was interrupted")


def test_a_note_about_a_model_is_said_once_with_its_variants() -> None:
    note = "was in training mode; it was put into eval mode"
    original = measurement(None, notes=(note,), unmeasured={"timing": "no clock"})
    variant = measurement("a", notes=(note,))
    told = items(record(case("a", reference=original, variant=variant), case("b", reference=original)))
    assert [(item.severity, item.text) for item in told] == [
        ("info", f"digits-vit (original, a): {note}"),
        ("info", "digits-vit (original): timing was not measured: no clock"),
    ]


# --- an error that several cases share -------------------------------------------------------------------------------

NO_FILE = CaseError(
    "load", "the original cannot be measured: FileNotFoundError: best.pt\nthe file is\nmissing", "loading"
)


def failed(recipe: str, model: str = "digits-vit", error: CaseError = NO_FILE) -> Case:
    return case(recipe, model, reference=None, error=error)


def three() -> Record:
    """Two alike, one of another model, one with another output."""
    other = replace(NO_FILE, output="loading again")
    return record(failed("a"), failed("b"), failed("c", "other"), failed("d", error=other))


def test_an_error_is_told_with_the_first_case_that_has_it() -> None:
    of = three()
    first, second, *others = items_by_case(of, of.cases)
    title = "digits-vit/a and b: error while loading the model or its data"
    message = "the original cannot be measured: FileNotFoundError: best.pt"
    (item,) = first
    assert (item.title, item.text, item.why, item.output) == (
        title, f"{title}: {message}", ("the file is", "missing"), ("loading",),
    )  # fmt: skip
    assert (item.severity, item.label, second) == ("error", "ERROR", [])
    assert [told[0].text.split(":")[0] for told in others] == ["other/c", "digits-vit/d"]


@pytest.mark.parametrize("of", [three(), replace(three(), against=AGAINST)], ids=["run", "pull request"])
def test_every_report_tells_it_once(of: Record) -> None:
    """Of four cases: once for the first two, and for each of the others."""
    forms = {
        "markdown": render(of),
        "terminal": "\n".join(text for text, _ in lines(of, 300)),
        "annotations": "\n".join(github_annotations.annotations(of, workspace=None, rootdir=".")),
    }
    assert {name: text.count("FileNotFoundError: best.pt") for name, text in forms.items()} == dict.fromkeys(forms, 3)
    assert forms["markdown"].count("**ERROR** digits-vit/a and b: error while loading the model or its data") == 1


def test_what_was_expected_to_fail_is_not_what_others_are_as() -> None:
    xfailed = replace(failed("a"), expected=Expected("xfailed", "known"))
    of = record(xfailed, failed("b"), failed("c"))
    assert [item.label for item in items(of)] == ["NOTE", "ERROR"]
    assert items(of)[1].text.startswith("digits-vit/b and c: error while loading")


def test_the_same_error_on_two_machines_is_told_on_each() -> None:
    of = record(failed("a"), replace(failed("a"), machine=1), replace(failed("b"), machine=1))
    of = replace(of, other_machines=(of.environment,))
    assert [item.title.split(":")[0] for item in items(of)] == ["digits-vit/a", "digits-vit/a and b"]
    assert [item.title.endswith("on machine 2") for item in items(of)] == [False, True]


def test_a_failed_test_has_a_line_of_its_own() -> None:
    title = "digits-vit/b: error while loading the model or its data"
    message = "the original cannot be measured: FileNotFoundError: best.pt"
    assert explain(failed("b"), strict=False, first="digits-vit/a") == f"{title}: {message} (as in digits-vit/a)"
    assert in_short([failed("b")], strict=False) == f"error while loading the model or its data: {message}"
    assert explain(failed("b"), strict=False).splitlines() == [
        f"{title}: {message}",
        "  Next: correct that (see the worker's last output, too), then run this case alone: "
        'pytest --modelopt "budgets.yaml::digits-vit/b"',
        "  the file is",
        "  missing",
        "  see https://pytest-modelopt.readthedocs.io/en/latest/troubleshooting/#error-load",
        "  the worker's last output:",
        "    loading",
    ]
