"""Calibration data: what recipes took, and that they are not scored on what they were fitted to."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.protocol import Examples, VariantError
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.bench import Bench
from pytest_modelopt.measuring.worker.data.batches import batches
from pytest_modelopt.measuring.worker.data.calibration import CalibrationSeen
from pytest_modelopt.measuring.worker.data.examples import read
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Applied, Context, Recipe
from pytest_modelopt.optimizing.registry import RECIPES
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.observations import Ranges

INPUTS = torch.arange(300.0).reshape(100, 3)
CLASSES = torch.arange(100) % 4


@pytest.fixture
def evaluation(tmp_path: Path) -> Examples:
    return read(batches((INPUTS, CLASSES)), tmp_path / "file")


def watched(data: Any, evaluation: Examples | None = None, *, needs_targets: bool = False) -> CalibrationSeen:
    seen = CalibrationSeen(evaluation)
    for _ in seen.watch(batches(data, "calibration data", needs_targets=False), needs_targets=needs_targets):
        pass
    return seen


def test_held_out_data_is_counted() -> None:
    seen = CalibrationSeen(None)
    for size in (40, 80):  # two passes, the second of which draws more
        for _ in seen.watch(batches([(INPUTS[:40] + 1, CLASSES[:40]), (INPUTS[:40], CLASSES[:40])][: size // 40])):
            pass
    found = seen.calibration()
    assert found is not None
    assert (found.batches, found.looked_at, found.examples, found.constant) == (2, 120, 80, 0)
    assert found.classes == (0, 1, 2, 3)
    assert CalibrationSeen(None).calibration() is None


def test_numbers_of_evaluated_examples_are_compared_with_those_that_calibration_saw() -> None:
    seen = CalibrationSeen(None)
    for low in (-1.0, 0.0):  # together -1 to 1
        list(seen.watch(batches(torch.linspace(low, low + 1, 40).reshape(8, 5), needs_targets=False)))
    evaluated = torch.zeros(90, 5)
    evaluated[:30, 2], evaluated[30:35, 0], evaluated[35:45, 1] = 2.0, -2.5, 2.5  # beyond, by half of the width at most
    list(seen.evaluated(batches(evaluated, needs_targets=False)))
    found = seen.calibration()
    assert found is not None
    assert found.ranges == (Ranges("0", (-1.0, 1.0), (-2.5, 2.5), 15, 90),)


def test_only_numbers_that_both_have_are_compared() -> None:
    seen = CalibrationSeen(None)
    of = {"x": torch.ones(4, 2), "tokens": torch.ones(4, 2, dtype=torch.long), "gaps": torch.full((4, 1), math.nan)}
    list(seen.watch(batches([of], needs_targets=False)))
    list(seen.evaluated(batches([{**of, "y": torch.ones(4, 2)}], needs_targets=False)))
    found = seen.calibration()
    assert found is not None
    assert found.ranges == (Ranges("x", (1.0, 1.0), (1.0, 1.0), 0, 4),)
    untouched = CalibrationSeen(None)
    list(untouched.evaluated(batches([of], needs_targets=False)))
    assert untouched.calibration() is None


def test_examples_of_the_evaluation_data_are_refused_with_both_their_places(evaluation: Examples) -> None:
    held_out = INPUTS + 0.5
    mixed = torch.cat([held_out[:30], INPUTS[90:], held_out[30:60]])
    message = (
        "10 of the 40 examples in batch 1 of the calibration data are in the evaluation data, too: the first is "
        "example 30 there and example 90 of `data`"
    )
    seen = CalibrationSeen(evaluation)
    drawn = seen.watch(batches([(mixed[:30],), (mixed[30:],)], "calibration data", needs_targets=False))
    next(drawn)
    assert seen.refusal is None
    with pytest.raises(VariantError, match=re.escape(message)):
        next(drawn)
    assert "give `calibration` data that is held out" in str(seen.refusal)
    assert watched((held_out, CLASSES), evaluation).refusal is None
    assert watched((INPUTS.double(), CLASSES), evaluation).refusal is None


def test_other_targets_do_not_make_an_example_held_out(evaluation: Examples) -> None:
    with pytest.raises(VariantError, match="1 of the 1 examples in batch 0 of the calibration data"):
        watched((INPUTS[17:18], CLASSES[17:18] + 1), evaluation)


def test_more_examples_than_any_bound_are_compared(tmp_path: Path) -> None:
    inputs = torch.arange(30_000.0).reshape(-1, 1)
    evaluation = read(batches((inputs, torch.zeros(30_000))), tmp_path / "file")
    with pytest.raises(VariantError, match="example 24999 there and example 29999 of `data`"):
        watched(torch.cat([inputs[:24_999] - 0.5, inputs[29_999:]]), evaluation)


def test_a_recipe_that_trains_needs_targets_and_one_that_calibrates_does_not() -> None:
    message = "batch 0 of the calibration data has no targets, and the recipe trains with them: give (inputs, targets)"
    with pytest.raises(VariantError, match=re.escape(message)):
        watched(INPUTS, needs_targets=True)
    found = watched(INPUTS).calibration()
    assert found is not None
    assert found.classes is None
    assert watched((INPUTS, CLASSES), needs_targets=True).calibration() is not None


@pytest.mark.parametrize(
    ("inputs", "constant"),
    [
        (INPUTS, 0),
        (torch.arange(100.0).reshape(100, 1, 1).expand(100, 8, 8), 100),
        (torch.cat([torch.zeros(30, 3), INPUTS[30:]]), 30),
        (torch.arange(100.0).reshape(100, 1), 0),
        ({"tokens": INPUTS, "mask": torch.ones(100, 3)}, 0),
        ({"tokens": torch.zeros(100, 3), "mask": torch.ones(100, 3)}, 100),
        ({"tokens": torch.zeros(100, 3), "length": torch.arange(100)}, 100),
        (torch.ones(100, 3, dtype=torch.bool), 100),
        (torch.full((100, 3), torch.nan), 0),
    ],
)
def test_examples_of_one_single_value_are_counted(inputs: Any, constant: int) -> None:
    found = watched({"inputs": inputs} if isinstance(inputs, torch.Tensor) else inputs).calibration()
    assert found is not None
    assert (found.looked_at, found.constant) == (100, constant)


@pytest.mark.parametrize(
    "targets", [torch.arange(400).float(), torch.arange(400), ["a"] * 400, torch.zeros(400, 1, dtype=torch.long)]
)
def test_targets_that_are_no_classes_or_too_many_are_none(targets: Any) -> None:
    found = watched((INPUTS.repeat(4, 1), targets)).calibration()
    assert found is not None
    assert found.classes is None


# --- through the worker's operations ---------------------------------------------------------------------------------

SOURCE = """
import torch
from torch import nn

INPUTS = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(120) % 3

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5)).eval()

def data():
    return INPUTS, TARGETS

def held_out():
    return INPUTS + 1

def leaking():
    return torch.cat([INPUTS[:20] + 1, INPUTS[40:44]]), torch.zeros(24)

def train(model, batches):
    for inputs, targets in batches():
        pass
"""


class GoesOn(Recipe):
    """Draws calibration data, and takes no refusal for an answer."""

    recipe_name: ClassVar[str] = "goes-on"
    summary: ClassVar[str] = "for tests"

    def apply(self, model: nn.Module, context: Context) -> Applied:
        assert context.calibration is not None
        try:
            list(context.calibration())
        except Exception:
            with torch.no_grad():
                next(model.parameters()).add_(1)
        return Applied(model)


@pytest.fixture
def optimized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    (tmp_path / "calibrating_user.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(RECIPES, GoesOn.recipe_name, GoesOn)
    before = torch.get_num_threads()

    def make(recipe: str, calibration: str, *, is_scored: bool = True) -> Bench:
        folder, module = str(tmp_path), "calibrating_user"
        made = Bench(
            Variant(
                f"{module}:model",
                parse(recipe),
                f"{module}:data",
                f"{module}:{calibration}",
                None,
                MetricSpec(),
                (folder,),
                folder,
            )
        )
        made.load(examples=made.read(str(tmp_path / "file")) if is_scored else None)
        made.optimize()
        return made

    yield make
    sys.modules.pop("calibrating_user", None)
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "recipe",
    [
        "int8-static",
        "prune-structured(ratio=0.25)",  # which would keep its old statistics, and a note
        "prune-structured(ratio=0.25, finetune='calibrating_user:train')",
        "prune-structured(ratio=0.25, importance=taylor)",
        "goes-on",
    ],
)
def test_every_way_to_draw_calibration_data_is_watched(optimized: Callable[..., Bench], recipe: str) -> None:
    message = "4 of the 24 examples in batch 0 of the calibration data are in the evaluation data, too: the first is "
    with pytest.raises(VariantError, match=message + "example 20 there and example 40 of `data`"):
        optimized(recipe, "leaking")


@pytest.mark.parametrize(
    "recipe",
    [
        "prune-structured(ratio=0.25, finetune='calibrating_user:train')",
        "prune-structured(ratio=0.25, importance=taylor)",
    ],
)
def test_recipes_that_train_say_that_they_need_targets(optimized: Callable[..., Bench], recipe: str) -> None:
    with pytest.raises(VariantError, match=r"^batch 0 of the calibration data has no targets, and the recipe trains"):
        optimized(recipe, "held_out")


def test_calibration_needs_no_targets(optimized: Callable[..., Bench]) -> None:
    found = optimized("int8-static", "held_out").observe().calibration
    assert found is not None
    assert (found.batches, found.looked_at, found.classes) == (2, 120, None)


def test_where_nothing_was_read_nothing_is_compared(optimized: Callable[..., Bench]) -> None:
    assert optimized("int8-static", "leaking", is_scored=False).observe().calibration is not None
