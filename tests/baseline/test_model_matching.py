"""Which model and recipe of the base is which of head's: renamed models, other parameters, and what nobody can tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_modelopt.baseline.loosened import loosened, removed_cases
from pytest_modelopt.baseline.model_matching import Pairs, format_pairs, matched, pairs_of, recipe_pairs
from pytest_modelopt.baseline.saved_record import SavedBase
from pytest_modelopt.config.loader import BudgetsFile, load_budgets
from pytest_modelopt.results.case import Case, next_stage
from pytest_modelopt.results.verdicts import Limit
from tests.reporting.records_by_hand import ENVIRONMENT, case, measurement, record


def file(tmp_path: Path, **models: str) -> BudgetsFile:
    """Models by name: 'FACTORY DATA' and what else there is to say, such as 'f d recipes: {bf16: {}}'."""
    text = "version: 1\nmodels:\n"
    for name, stated in models.items():
        factory, data, more = (*stated.split(" ", 2), "")[:3]
        more = more or "recipes: {bf16: {}}"
        text += f"  {name}: {{factory: 'shop:{factory}', data: 'shop:{data}', {more}}}\n"
    path = tmp_path / "budgets.yaml"
    path.write_text(text, encoding="utf-8")
    return load_budgets(path, relative_to=tmp_path)


MODELS: dict[str, tuple[dict[str, str], dict[str, str], dict[str, str], dict[str, tuple[str, ...]]]] = {
    "renamed": ({"a": "f d"}, {"b": "f d"}, {"b": "a"}, {}),
    "another factory": ({"a": "f d"}, {"b": "g d"}, {"b": "a"}, {}),
    "other data": ({"a": "f d"}, {"b": "f e"}, {"b": "a"}, {}),
    "another one": ({"a": "f d"}, {"b": "g e"}, {}, {"b": ("a",)}),
    "a new one": ({"a": "f d"}, {"a": "f d", "b": "f d"}, {}, {}),
    "two of two": ({"a": "f d", "b": "g d"}, {"x": "g d", "y": "f d"}, {"x": "b", "y": "a"}, {}),
    "renamed beside a new one": ({"a": "f d"}, {"x": "f d", "y": "g d"}, {"x": "a"}, {}),
    "the recipes tell": (
        {"a": "f d recipes: {bf16: {}}", "b": "f d recipes: {fp16: {}}"},
        {"x": "f d recipes: {fp16: {}}", "y": "f d recipes: {bf16: {}}"},
        {"x": "b", "y": "a"},
        {},
    ),
    "the metric tells": (
        {"a": "f d metric: top-5, recipes: {bf16: {}}", "b": "f d"},
        {"x": "f d", "y": "f d metric: top-5, recipes: {bf16: {}}"},
        {"x": "b", "y": "a"},
        {},
    ),
    "nothing tells": ({"a": "f d", "b": "f d"}, {"x": "f d", "y": "f d"}, {}, {"x": ("a", "b"), "y": ("a", "b")}),
    "one became two": ({"a": "f d"}, {"x": "f d", "y": "f d"}, {}, {"x": ("a",), "y": ("a",)}),
    "its name is given to another": ({"a": "f d"}, {"a": "small d", "b": "f d"}, {"b": "a"}, {}),
    "its factory is another": ({"a": "f d"}, {"a": "g d", "b": "h d"}, {}, {}),
}


@pytest.mark.parametrize("way", MODELS)
def test_models_that_went_and_came(tmp_path: Path, way: str) -> None:
    before, after, models, unsure = MODELS[way]
    found = pairs_of(file(tmp_path, **before), file(tmp_path, **after))
    assert (dict(found.models), dict(found.unsure_models)) == (models, unsure)


@pytest.mark.parametrize(
    ("base", "head", "same", "unsure"),
    [
        (["prune-structured(ratio=0.5)"], ["prune-structured(ratio=0.501)"], [(0, 0)], []),
        (["low-rank(ratio=0.5)+int8-dynamic"], ["low-rank(energy=0.9)+int8-dynamic"], [(0, 0)], []),
        (["low-rank(ratio=0.5)"], ["low-rank(ratio=0.5)+int8-dynamic"], [], []),
        (["bf16"], ["fp16"], [], []),
        (["low-rank(ratio=0.5)"], ["low-rank(ratio=0.5)", "low-rank(ratio=0.6)"], [], []),
        (
            ["low-rank(ratio=0.5)", "low-rank(ratio=0.8)"],
            ["low-rank(ratio=0.79)", "low-rank(ratio=0.51)"],
            [(0, 1), (1, 0)],
            [],
        ),
        (["low-rank(ratio=0.5)"], ["low-rank(ratio=0.6)", "low-rank(ratio=0.51)"], [(1, 0)], []),
        (
            ["low-rank(ratio=0.5)"],
            ["low-rank(energy=0.8)", "low-rank(energy=0.9)"],
            [],
            [0, 1],
        ),
    ],
)
def test_recipes_with_the_same_steps_and_other_parameters(
    base: list[str], head: list[str], same: list[tuple[int, int]], unsure: list[int]
) -> None:
    found, unknown = recipe_pairs(base, head)
    assert found == {head[ours]: base[theirs] for ours, theirs in same}
    assert list(unknown) == [head[index] for index in unsure]


def test_the_most_alike_are_the_same_and_one_is_never_paired_twice() -> None:
    def likeness(was: int, now: int) -> tuple[float, ...] | None:
        return None if now == 9 else (-abs(was - now),)

    assert matched([1, 5, 20], [6, 2, 9, 30], likeness) == ({6: 5, 2: 1, 30: 20}, {})
    assert matched([1, 3], [2], likeness) == ({}, {2: (1, 3)})


def test_limits_are_held_against_those_of_the_same_model_by_another_name(tmp_path: Path) -> None:
    stated = "recipes: {low-rank(ratio=0.5): {max_size: 1 MiB}, bf16: {max_size: 1 MiB}}"
    base = file(tmp_path, a=f"f d {stated}")
    other = stated.replace("0.5", "0.51")
    head = file(tmp_path, b=f"f d {other.replace('bf16: {max_size: 1 MiB}', 'bf16: {max_size: 2 MiB}')}")
    pairs = pairs_of(base, head)
    assert pairs.at_base("b", "low-rank(ratio=0.51)") == ("a", "low-rank(ratio=0.5)")
    assert pairs.at_base("b", None) == ("a", None)
    named = pairs.as_head_calls(base, head)
    assert [(each.case, each.old, each.new) for each in loosened(named, head)] == [("b/bf16", "1 MiB", "2 MiB")]
    assert removed_cases(named, head) == ()
    assert [text.partition(" of ")[0] for text in format_pairs(pairs, "0f1e")] == [
        "b is compared with a",
        "b/low-rank(ratio=0.51) is compared with a/low-rank(ratio=0.5)",
    ]
    same = file(tmp_path, b=f"f d {other}")
    assert loosened(pairs.as_head_calls(base, same), same) == ()


def test_a_name_that_is_given_to_another_model_keeps_its_limits_for_both(tmp_path: Path) -> None:
    strict, loose = "recipes: {bf16: {max_size: 1 MiB}}", "recipes: {bf16: {max_size: 9 MiB}}"
    base = file(tmp_path, a=f"f d {strict}")
    head = file(tmp_path, a=f"small d {strict}", b=f"f d {loose}")
    named = pairs_of(base, head).as_head_calls(base, head)
    assert [(each.case, each.new) for each in loosened(named, head)] == [("b/bf16", "9 MiB")]
    assert Pairs().as_head_calls(base, head) == base


def test_a_saved_record_is_compared_by_the_same_rule(tmp_path: Path) -> None:
    def of(recipe: str, model: str, fingerprint: str = "00ff", size: int = 7) -> Case:
        side = replace(measurement(recipe, size=size), data_fingerprint=fingerprint)
        made = case(recipe, model, reference=replace(measurement(None), data_fingerprint=fingerprint), variant=side)
        return replace(made, id=f"budgets.yaml::{model}::{recipe}", threads=1)

    saved = record(of("low-rank(ratio=0.5)", "a"))
    head = file(tmp_path, b="f d recipes: {low-rank(ratio=0.51): {}}")
    renamed = SavedBase(saved, "saved.json", head).compared(of("low-rank(ratio=0.51)", "b"), ENVIRONMENT)
    assert renamed.base is not None
    assert renamed.base.status == "compared"
    assert "b/low-rank(ratio=0.51) is compared with a/low-rank(ratio=0.5) of saved.json" in renamed.base.notes[0]
    against = SavedBase(saved, "saved.json", head).against(head, [next_stage(Case, renamed)])
    assert (against.removed, against.loosened) == ((), ())
    strict = replace(saved.cases[0], limits=(Limit("max_size", 2.0**20, "1 MiB", "error", "budgets.yaml", 5),))
    looser = file(tmp_path, b="f d recipes: {low-rank(ratio=0.51): {max_size: 9 MiB}}")
    against = SavedBase(record(strict), "saved.json", looser).against(looser, [next_stage(Case, renamed)])
    assert [(each.case, each.new) for each in against.loosened] == [("b/low-rank(ratio=0.51)", "9 MiB")]
    against = SavedBase(saved, "saved.json", head).against(head, [])
    assert against.removed == ("a/low-rank(ratio=0.5)",), "whose data was not seen is not known"
    other = SavedBase(saved, "saved.json", head).compared(of("low-rank(ratio=0.51)", "b", "beef"), ENVIRONMENT)
    assert other.base is not None
    assert other.base.status == "unpaired"
    both = file(tmp_path, a="f d recipes: {low-rank(ratio=0.5): {}}", b="f d recipes: {low-rank(ratio=0.51): {}}")
    new = SavedBase(saved, "saved.json", both).compared(of("low-rank(ratio=0.51)", "b"), ENVIRONMENT)
    assert new.base is not None
    assert new.base.status == "new"
