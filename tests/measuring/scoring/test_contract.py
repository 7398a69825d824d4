"""Outputs of a call held against the targets of the data before anything is measured: certain errors only."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torchmetrics import classification, regression

from pytest_modelopt.measuring.protocol import KnownTargets, VariantError
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.bench import Bench
from pytest_modelopt.measuring.worker.data.known_targets import MOST_CLASSES
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Applied, Context, Recipe
from pytest_modelopt.optimizing.registry import RECIPES
from pytest_modelopt.results.metric import MetricSpec
from tests.measuring.contract import known, misfit

LABELS = known(torch.tensor([0, 3]), torch.tensor([9, 7, 9]))


def test_targets_of_all_batches_are_known_in_short() -> None:
    assert LABELS is not None
    assert (LABELS.shape, LABELS.dtype, str(LABELS)) == ((), "int64", "(examples,) int64, from 0 to 9")
    assert LABELS.named is not None
    assert dict(zip(*LABELS.named, strict=True)) == {0: 0, 3: 1, 9: 2, 7: 3}
    assert [LABELS.first_outside(classes) for classes in (10, 9, 3)] == [None, (9, 2), (3, 1)]
    assert LABELS.first_outside(7, ignored=(9,)) == (7, 3)
    values = known(torch.rand(4, 2))
    assert values is not None
    assert (values.named, str(values)) == (None, "(examples, 2) float32")


@pytest.mark.parametrize(
    ("targets", "inputs"),
    [
        ((torch.tensor([0]), torch.tensor([0.5])), ()),
        ((torch.zeros(2, 3), torch.zeros(2, 4)), ()),
        ((["text", "more"],), ()),
        ((torch.tensor([1, 2]), torch.tensor([8])), (torch.zeros(2, 5), torch.zeros(1, 9))),
        ((torch.tensor([1, 2]),), (["text", "more"],)),
    ],
    ids=["types differ", "shapes differ", "no tensors", "inputs of several sizes", "inputs without sizes"],
)
def test_nothing_is_known_of_targets_that_differ_or_of_inputs_of_several_sizes(targets: Any, inputs: Any) -> None:
    """A model may point to a position in its input: of a longer one it has more answers."""
    assert known(*targets, inputs=inputs) is None


def test_more_whole_numbers_than_there_are_classes_are_no_classes() -> None:
    many = known(torch.arange(MOST_CLASSES + 1))
    assert many is not None
    assert many.named is None
    assert misfit("accuracy", torch.zeros(2, 7), many) == ""


@pytest.mark.parametrize(
    ("outputs", "targets", "told"),
    [
        (torch.zeros(2, 10), LABELS, ""),
        (torch.full((2, 10), torch.nan), LABELS, ""),  # scoring says so, which knows the example
        (torch.zeros(2, 1000), LABELS, ""),
        (torch.zeros(2, 8), known(torch.tensor([0, 1])), ""),
        ({"logits": torch.zeros(2, 10), "loss": torch.zeros(())}, LABELS, ""),
        ((torch.zeros(2, 7), torch.zeros(2, 10)), LABELS, ""),  # which one is scored cannot be told here
        (
            torch.zeros(2, 7),
            LABELS,
            "target 9 of example 2 is not one of the model's 7 classes: the model answers (2, 7) float32, and the "
            "targets of the data are (examples,) int64, from 0 to 9",
        ),
        (types.SimpleNamespace(logits=torch.zeros(2, 7)), LABELS, "target 9 of example 2 is not one of the model's 7"),
        ((torch.zeros(2, 7), torch.zeros(2, 5, 5)), LABELS, "target 9 of example 2 is not one of the model's 7"),
        (torch.zeros(2, 10), known(torch.tensor([1, -100])), "target -100 of example 1 is not one of the model's 10"),
        (
            torch.zeros(2, 10),
            known(torch.rand(3)),
            "accuracy needs outputs of shape (examples, classes) and integer targets of shape (examples,), but the "
            "model answers (2, 10) float32, and the targets of the data are (examples,) float32; for another task",
        ),
        (torch.zeros(2, 10), known(torch.zeros(3, 2, dtype=torch.int64)), "accuracy needs outputs of shape"),
        (torch.zeros(2, 10, 4), LABELS, "accuracy needs outputs of shape"),
    ],
)
def test_accuracy_is_asked_for_classes(outputs: Any, targets: KnownTargets, told: str) -> None:
    found = misfit("accuracy", outputs, targets)
    assert found is not None
    assert found.startswith(told)
    assert bool(found) is bool(told)


@pytest.mark.parametrize(
    ("metric", "outputs", "targets", "told"),
    [
        (regression.MeanSquaredError(), torch.zeros(2), known(torch.rand(4)), ""),
        (regression.MeanSquaredError(num_outputs=3), torch.zeros(1, 3), known(torch.rand(4, 3)), ""),
        (
            regression.MeanSquaredError(),
            torch.zeros(2, 1),
            known(torch.rand(4)),
            "the metric `MeanSquaredError` does not take the outputs: the model answers (2, 1) float32, and the "
            "targets of the data are (examples,) float32",
        ),
        (regression.R2Score(), torch.zeros(1), known(torch.rand(4)), ""),
        (regression.TweedieDevianceScore(power=2), torch.ones(2), known(torch.rand(4)), ""),
        (classification.MulticlassF1Score(num_classes=10), torch.zeros(1, 10), LABELS, ""),
        (
            classification.MulticlassF1Score(num_classes=10),
            torch.zeros(1, 7),
            LABELS,
            "the metric `MulticlassF1Score(num_classes=10)` does not take the outputs: the model answers (1, 7)",
        ),
        (
            classification.MulticlassF1Score(num_classes=7),
            torch.zeros(1, 7),
            LABELS,
            "target 9 of example 2 is not one of the 7 classes of the metric",
        ),
        (
            classification.MulticlassF1Score(num_classes=10, ignore_index=-100),
            torch.zeros(2, 10),
            known(torch.tensor([1, -100])),
            "",
        ),
        (classification.MultilabelAccuracy(num_labels=4), torch.zeros(2, 4), known(torch.ones(3, 4).long()), ""),
        (
            classification.MultilabelAccuracy(num_labels=4),
            torch.zeros(2, 3),
            known(torch.ones(3, 4).long()),
            "the metric `MultilabelAccuracy(num_labels=4)` does not take the outputs: the model answers (2, 3) float32",
        ),
        (classification.BinaryAccuracy(), torch.zeros(2), known(torch.tensor([0, 1])), ""),
        (
            classification.BinaryAccuracy(),
            torch.zeros(2, 1),
            known(torch.tensor([0, 1])),
            "the metric `BinaryAccuracy`",
        ),
    ],
)
def test_torchmetrics_is_asked_for_shapes(metric: Any, outputs: torch.Tensor, targets: Any, told: str) -> None:
    found = misfit(metric, outputs, targets)
    assert found is not None
    assert found.startswith(told)
    assert bool(found) is bool(told)


class Own(regression.MeanSquaredError):
    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        raise AssertionError("a class of the project is not called for a question")


F1, ERROR = classification.MulticlassF1Score(num_classes=10), regression.MeanSquaredError


@pytest.mark.parametrize(
    ("metric", "targets", "of_one", "of_two"),
    [
        ("accuracy", LABELS, (10,), (2, 10)),
        ("accuracy", LABELS, (), (2,)),
        (F1, LABELS, (10,), (2, 10)),
        (ERROR(), known(torch.rand(4)), (), (2,)),
        (ERROR(num_outputs=1), known(torch.rand(4, 1)), (1,), (2, 1)),  # squeeze(0)
        (ERROR(num_outputs=3), known(torch.rand(4, 3)), (3,), (2, 3)),
    ],
)
def test_a_call_of_one_example_whose_sizes_of_1_are_dropped_says_nothing(
    metric: Any, targets: KnownTargets, of_one: tuple[int, ...], of_two: tuple[int, ...]
) -> None:
    """The measured call has one example unless another number is stated; scoring has 64 in each."""
    assert misfit(metric, torch.zeros(of_one), targets, examples=1) == ""
    assert bool(misfit(metric, torch.zeros(of_two), targets, examples=2)) is (
        of_two == (2,) and isinstance(metric, str)
    )


OTHER_FORMS: dict[str, Callable[[], Any]] = {
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(3), torch.zeros(5)]),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(2, 10), 1.0, 0, torch.quint8),
    "a row for each part of an example": lambda: torch.zeros(20, 7),
    "boxes": lambda: [{"boxes": torch.zeros(5, 4), "scores": torch.zeros(5)}] * 2,
    "texts": lambda: ["one", "two"],
    "nothing": lambda: None,
}


@pytest.mark.parametrize("form", OTHER_FORMS)
@pytest.mark.filterwarnings("ignore")
def test_outputs_of_other_forms_are_left_to_scoring(form: str) -> None:
    for metric in ("accuracy", F1):
        assert misfit(metric, OTHER_FORMS[form](), LABELS, examples=2) == ""


def test_a_k_of_all_classes_is_told_as_such() -> None:
    told = "top-7 is right whatever a model of 7 classes answers; write a K below 7 (the model answers (2, 7)"
    assert str(misfit("top-7", torch.zeros(2, 7), LABELS)).startswith(told)


def test_nothing_is_asked_of_what_the_project_wrote() -> None:
    assert misfit(Own(), torch.zeros(2, 9), known(torch.rand(4))) == ""
    assert misfit(lambda outputs, targets: 0.0, torch.zeros(2, 7), LABELS) is None
    assert misfit("accuracy", torch.zeros(2, 7), LABELS, prepare=lambda outputs, targets: None) is None
    assert misfit("agreement", torch.zeros(2, 7), LABELS) is None


# --- in the worker ---------------------------------------------------------------------------------------------------

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    calls = 0
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(3, classes)
    def forward(self, x):
        Net.calls += 1
        return self.head(x)

def model():
    return Net(10).eval()

def of_seven():
    return Net(7).eval()

def data():
    return torch.zeros(20, 3), torch.arange(20) % 10

def inputs():
    return torch.zeros(2, 3)
"""


class DropsClasses(Recipe):
    recipe_name: ClassVar[str] = "drops-classes"
    summary: ClassVar[str] = "for tests"

    def apply(self, model: Any, context: Context) -> Applied:
        model.head = nn.Linear(3, 7)
        return Applied(model)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    """Makes a Bench in this process that has read its data, and loads the model."""
    (tmp_path / "contract_user.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(RECIPES, "drops-classes", DropsClasses)
    folder, threads = str(tmp_path), torch.get_num_threads()

    def make(model: str, inputs: str | None = None, recipe: str | None = None) -> Bench:
        name, steps = f"contract_user:{model}", parse(recipe) if recipe else None
        source = None if inputs is None else f"contract_user:{inputs}"
        variant = Variant(name, steps, "contract_user:data", None, source, MetricSpec(), (folder,), folder)
        found = Bench(variant).read(str(tmp_path / f"examples of {model} {recipe}"))
        sys.modules["contract_user"].Net.calls = 0
        made = Bench(variant)
        made.load(examples=found)
        return made

    yield make
    sys.modules.pop("contract_user", None)
    torch.set_num_threads(threads)


TOLD = "target 7 of example 7 is not one of the model's 7 classes: the model answers (1, 7) float32, and the targets of"


def test_a_factory_and_a_recipe_are_held_against_the_data(bench: Callable[..., Bench]) -> None:
    """By the answer of the one call that is made there anyway: another one counts in models that remember calls."""
    with pytest.raises(VariantError, match=re.escape(TOLD)):
        bench("of_seven")
    assert sys.modules["contract_user"].Net.calls == 1
    made = bench("model", recipe="drops-classes")
    with pytest.raises(VariantError, match=re.escape(TOLD)):
        made.optimize()


def test_inputs_of_the_projects_own_say_nothing_of_the_data(bench: Callable[..., Bench]) -> None:
    """Their answers may have other sizes. Scoring says it then."""
    made = bench("of_seven", inputs="inputs")
    with pytest.raises(VariantError, match=r"target 7 of example 7 is not one of the model's 7 classes$"):
        made.score()
