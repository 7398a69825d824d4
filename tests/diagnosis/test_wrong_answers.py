"""The answers are wrong: each fault is planted by hand and found, alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_modelopt.results.answers import Agreement, Slices
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.observations import Spread
from tests.diagnosis.cases_by_hand import (
    SETTINGS,
    Told,
    only,
    original_with,
    rules,
    sound,
    told,
    variant_with,
)
from tests.reporting.records_by_hand import ENVIRONMENT, limit

ANSWERS = ("score", "predictions")
OLD = replace(ENVIRONMENT, cpu="Old CPU", cpu_flags=("avx2",))
DROP = limit("max_accuracy_drop", 0.01, "1 pp")


def by_class(of: Case, *columns: tuple[int, int, int], names: tuple[str, ...] | None = None) -> Case:
    """`of`, and for each class, or slice by name: examples, right to wrong, wrong to right."""
    examples, lost, won = (tuple(column) for column in zip(*columns, strict=True))
    drops = tuple((less - more) / count for count, less, more in columns)
    titles = names or tuple(map(str, range(len(columns))))
    return replace(
        of,
        agreement=Agreement(sum(examples), sum(lost), sum(won), sum(lost) + sum(won)),
        slices=Slices(titles, names is None, examples, drops, lost, won),
    )


def flipped(flips: int = 40, lost: int = 40, won: int = 0) -> Agreement:
    return Agreement(360, lost, won, flips)


def test_pruning_without_training_names_the_parameter_that_trains() -> None:
    def scored(recipe: str, score: float) -> Case:
        of = sound(recipe)
        assert of.variant is not None
        return replace(of, variant=replace(of.variant, score=score))

    finding = only(scored("prune-structured(ratio=0.5) + int8-dynamic", 0.815))
    assert (finding.rule, finding.explains, finding.is_note) == ("untrained", ANSWERS, False)
    assert finding.text == (
        "nothing was trained after prune-structured: train what is left, by `finetune=package.module:function` in the "
        "recipe (called with the model and batches of `calibration`), or take a milder setting of the recipe"
    )
    zeroes = only(scored("prune-unstructured(ratio=0.5)", 0.815))
    assert zeroes.text == (
        "nothing was trained after prune-unstructured, which takes no `finetune`: set fewer weights to zero, or let "
        "your own training do it and gate its model as a candidate; prune-structured trains what is left, by "
        "`finetune=package.module:function`"
    )
    both = only(scored("prune-structured(ratio=0.5) + prune-unstructured(ratio=0.5)", 0.815))
    assert both.text.startswith("nothing was trained after prune-structured: train what is left")
    for fine in (
        scored("prune-structured(ratio=0.5)", 0.975),
        scored("prune-unstructured(ratio=0.5)", 0.975),
        scored("prune-structured(finetune='shop:train', ratio=0.5)", 0.815),
        scored("somebodys-recipe", 0.815),
    ):
        assert rules(fine) == []


def test_products_that_overflow() -> None:
    of = variant_with("onnxruntime-int8-static")
    assert of.variant is not None
    on_runtime = replace(of, variant=replace(of.variant, runtime="ONNX Runtime"), agreement=flipped())
    finding = next(each for each in [*_all(on_runtime)] if each.rule == "int8-saturation")
    assert finding.explains == ANSWERS
    assert finding.text.startswith("11.1% of the predictions changed, and Old CPU has no VNNI: there ONNX Runtime adds")
    assert "reduce_range" in finding.text
    for fine in (
        replace(on_runtime, agreement=flipped(10, 10)),
        replace(on_runtime, agreement=None),
        replace(on_runtime, variant=replace(of.variant, runtime="LiteRT")),
        replace(of, agreement=flipped()),
        replace(on_runtime, recipe="onnxruntime"),
    ):
        assert "int8-saturation" not in rules(fine, OLD)
    assert "int8-saturation" not in rules(on_runtime, ENVIRONMENT)


def _all(of: Case) -> list[Told]:
    return told(of, OLD)


def test_onednn_in_torch_does_not_halve_the_range() -> None:
    settings = SETTINGS | {"quantized engine": "onednn"}
    of = original_with(variant_with(packed_modules=1, settings=settings), settings=settings)
    assert "int8-saturation" in rules(replace(of, agreement=flipped()), OLD)
    assert "int8-saturation" not in rules(replace(variant_with(packed_modules=1), agreement=flipped()), OLD)


COLLAPSED = ((100, 0, 6), (100, 0, 6), (100, 20, 0), (100, 0, 6))


def test_a_class_that_collapsed_under_a_fine_total() -> None:
    """Of 400 examples 20 are lost and 18 won, 0.5 points in all; but all that was lost is of class 2."""
    of = by_class(sound(limits=(DROP,)), *COLLAPSED)
    finding = next(each for each in _all(of) if each.rule == "slice-collapse")
    assert (finding.explains, finding.is_note) == (ANSWERS, True)
    assert finding.text.startswith(
        "class 2 lost 20 of 100 examples and won 0 (20 pp), more than max_accuracy_drop 1 pp though the total holds "
        "it: the others make up for it; look at these classes before you ship, and bound them with `max_slice_drop`"
    )


def test_a_slice_that_the_project_names_is_told_by_its_name() -> None:
    of = by_class(sound(limits=(DROP,)), *COLLAPSED, names=("day", "dusk", "night", "dawn"))
    (finding,) = [each for each in _all(of) if each.rule == "slice-collapse"]
    assert finding.text.startswith("slice night lost 20 of 100 examples and won 0 (20 pp)")
    assert "look at these slices" in finding.text


def test_of_slices_that_collapsed_the_worst_is_told_first() -> None:
    """Of 500 examples 50 are lost and 48 won."""
    rows = ((100, 20, 0), (100, 0, 16), (100, 30, 0), (100, 0, 16), (100, 0, 16))
    (finding,) = [each for each in _all(by_class(sound(limits=(DROP,)), *rows)) if each.rule == "slice-collapse"]
    assert finding.text.startswith(
        "class 2 lost 30 of 100 examples and won 0 (30 pp) and class 0 lost 20 of 100 examples and won 0 (20 pp), more"
    )


def test_what_a_limit_judges_is_no_finding() -> None:
    of = by_class(sound(limits=(DROP, limit("max_slice_drop", 0.3, "30 pp"))), *COLLAPSED)
    assert "slice-collapse" not in rules(of)


@pytest.mark.parametrize(
    "columns",
    [
        ((100, 1, 0), (100, 2, 0), (100, 0, 1)),  # 2 of 100 is no evidence for more than 1 point
        ((5, 1, 0), (200, 0, 1), (200, 0, 0)),  # 20 points, of five examples
        ((100, 20, 0), (100, 20, 0), (100, 0, 0)),  # the total is not fine
        # Alone, 4 of 100 would be evidence at 95% for more than 1 point; as the worst of ten classes it is not.
        ((100, 4, 0), *(9 * ((100, 0, 1),))),
    ],
)
def test_chance_and_a_broken_total_are_no_collapse(columns: tuple[tuple[int, int, int], ...]) -> None:
    assert "slice-collapse" not in rules(by_class(sound(limits=(DROP,)), *columns))


def test_without_a_limit_there_is_nothing_that_a_class_lost_more_than() -> None:
    assert "slice-collapse" not in rules(by_class(sound(), *COLLAPSED))


def test_many_changes_behind_an_equal_score() -> None:
    of = sound(agreement=flipped(42, 12, 11))
    finding = only(of)
    assert (finding.rule, finding.explains, finding.is_note) == ("churn", ANSWERS, False)
    assert finding.text.startswith(
        "42 of 360 predictions changed (11.7%) though the score hardly did: 12 from right to wrong, 11 from wrong to "
        "right and 19 from one wrong answer to another"
    )
    assert "from one wrong answer" not in only(replace(of, metric="top-5")).text, "an answer may stay right"
    assert only(replace(of, limits=(DROP,))).is_note
    assert not only(replace(of, limits=(DROP, limit("max_flips", 0.2, "20%")))).is_note


def test_few_changes_and_one_sided_ones_are_no_churn() -> None:
    assert rules(sound(agreement=flipped(10, 5, 5))) == []
    assert rules(sound(agreement=flipped(42, 30, 2))) == []
    assert rules(sound(agreement=flipped(180, 99, 64))) == [], "35 of 360 examples lost are not hardly any"
    assert rules(sound(agreement=Agreement(0, 0, 0, 0))) == []


FULL = Spread(values=3600, distinct=3500, deviation=2.0, extremes=2)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (
            FULL,
            replace(FULL, distinct=4, extremes=1800),
            "the variant's scores take 4 values only, among 3,600, and the original's 3,500: thresholds",
        ),
        (
            FULL,
            replace(FULL, extremes=3000),
            "the variant's scores are saturated: 83.3% of them are the smallest or the largest one, and 0.0556% of",
        ),
        (
            FULL,
            replace(FULL, deviation=0.1),
            "the variant's scores have lost their spread: their standard deviation is 0.1, and the original's 2: ",
        ),
        (
            FULL,
            replace(FULL, distinct=1, deviation=0.0),
            "take 1 value only, among 3,600, and the original's 3,500 and",
        ),
    ],
)
def test_scores_of_which_little_is_left(before: Spread, after: Spread, told: str) -> None:
    finding = only(original_with(variant_with(spread=after), spread=before))
    assert (finding.rule, finding.explains, finding.is_note) == ("scores-flattened", ANSWERS, True)
    assert told in finding.text
    assert finding.text.endswith("; leave the layer that makes them in floating point, or calibrate on other examples")


def test_flat_scores_after_pruning_are_not_those_of_a_coarse_number() -> None:
    pruned = variant_with("prune-structured(ratio=0.5)", spread=replace(FULL, deviation=0.1))
    text = only(original_with(pruned, spread=FULL)).text
    assert text.endswith("; leave the layer that makes them as it is (`keep=`), or take a milder setting of the recipe")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, FULL),
        (FULL, None),
        (FULL, FULL),
        (FULL, replace(FULL, distinct=200)),  # int8 outputs
        (replace(FULL, distinct=4), replace(FULL, distinct=4)),
        (replace(FULL, extremes=3000), replace(FULL, extremes=3100)),
        (FULL, replace(FULL, deviation=0.5)),
        (replace(FULL, values=40), replace(FULL, values=40, distinct=3)),
    ],
)
def test_scores_as_the_original_has_them_are_no_finding(before: Spread | None, after: Spread | None) -> None:
    assert rules(original_with(variant_with(spread=after), spread=before)) == []


def test_layers_through_which_nothing_passes() -> None:
    finding = only(variant_with("prune-structured(ratio=0.99)", narrow_layers={"body.0": 1}))
    assert (finding.rule, finding.explains, finding.is_note) == ("over-pruned", ANSWERS, True)
    assert finding.text.startswith("1 layer has one output or head left at most: body.0 (1)")
    assert rules(original_with(variant_with(narrow_layers={"body.0": 1}), narrow_layers={"body.0": 1})) == []
    assert rules(variant_with(narrow_layers={"body.0.first": 1})) == [], "made by the recipe: a rank, not a layer"


def test_a_variant_that_is_another_one_when_loaded_again() -> None:
    finding = only(variant_with(reloads=False))
    assert (finding.rule, finding.explains) == ("does-not-reload", ("size", "process_memory", "timing"))
    assert "not its state_dict alone" in finding.text
    assert "does not answer as before" in finding.text
    assert rules(variant_with(reloads=None)) == []


def not_reloaded(why: str) -> Case:
    return variant_with(reloads=False, reload_error=why)


def test_a_file_that_could_not_be_imported_is_no_other_model() -> None:
    finding = only(not_reloaded("ModuleNotFoundError: No module named 'shop.layers'"))
    assert (finding.rule, finding.explains) == ("does-not-reload", ("size", "process_memory", "timing"))
    assert finding.text == (
        "saved, it could not be loaded in a fresh process (ModuleNotFoundError: No module named 'shop.layers'), "
        "so whether it answers as before is unknown: what its classes are defined in must be importable under the "
        "same name wherever it is loaded, from the repository or an installed package"
    )
    text = only(not_reloaded("the worker ended with SIGSEGV\nTraceback")).text
    assert text.endswith("(the worker ended with SIGSEGV), so whether it answers as before is unknown")
