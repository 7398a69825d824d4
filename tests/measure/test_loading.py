"""One clear message for each mistake in a model, and in data that does not fit it."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.measure import batches, loading, quality
from pytest_modelopt.measure.device import Device
from pytest_modelopt.measure.replies import VariantError
from pytest_modelopt.measure.variant import Variant
from pytest_modelopt.metrics import MetricSpec

INPUTS = torch.arange(300.0).reshape(100, 3)
TARGETS = torch.arange(100) % 3

# --- the model -------------------------------------------------------------------------------------------------------


def loader(folder: Any) -> loading.Loader:
    variant = Variant("m:f", None, None, None, None, MetricSpec(), (str(folder),), str(folder))
    return loading.Loader(variant)


@pytest.fixture
def users_module(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    source = """
import torch
from torch import nn
def good(): return nn.Linear(2, 2).eval()
def training(): return nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
def state(): return nn.Linear(2, 2).state_dict()
def nothing(): pass
def a_class(): return nn.Linear
def needs(argument): return nn.Linear(2, 2)
def raises(): raise KeyError("epoch")
load_model = good
value = 3
"""
    (tmp_path / "users_models.py").write_text(source, encoding="utf-8")
    (tmp_path / "users_broken.py").write_text("import no_such_package\n", encoding="utf-8")
    (tmp_path / "users_syntax.py").write_text("def :\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("users_models:state", "returned a OrderedDict, not a torch.nn.Module (a state_dict? load it into the module"),
        ("users_models:nothing", "the model factory returned a NoneType, not a torch.nn.Module"),
        ("users_models:a_class", "returned a type, not a torch.nn.Module (a class: return an instance)"),
        ("users_models:needs", "raised TypeError"),
        ("users_models:needs", "a model factory is called without arguments"),
        ("users_models:raises", "model `users_models:raises` raised KeyError: 'epoch'"),
        ("users_models:load_modle", "`users_models` has no `load_modle`; did you mean `load_model`?"),
        ("users_models:value", "model `users_models:value` is a int, not a function that can be called"),
        ("no_such_module:f", "module `no_such_module` cannot be imported: ModuleNotFoundError"),
        ("users_broken:f", "No module named 'no_such_package'"),
        ("users_syntax:f", "importing `users_syntax` raised SyntaxError"),
    ],
)
def test_a_factory_that_gives_no_model_says_why(users_module: Any, factory: str, message: str) -> None:
    with pytest.raises(VariantError, match=re.escape(message)):
        loading.load_model(loader(users_module), factory)


def test_a_module_that_cannot_be_imported_says_where_it_was_looked_for(users_module: Any) -> None:
    with pytest.raises(VariantError, match=re.escape(f"(looked first in {users_module})")):
        loading.load_model(loader(users_module), "no_such_module:f")


def test_a_model_in_training_mode_is_put_into_eval_mode_and_it_is_said(users_module: Any) -> None:
    model, notes = loading.load_model(loader(users_module), "users_models:training")
    assert not any(module.training for module in model.modules())
    assert len(notes) == 1
    assert "was in training mode (3 modules) and put into eval mode" in notes[0]
    assert loading.load_model(loader(users_module), "users_models:good")[1] == ()


# --- answers ---------------------------------------------------------------------------------------------------------


class Table(nn.Module):
    """Answers with a fixed table of outputs, one row for each input index."""

    def __init__(self, outputs: torch.Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        return self.outputs[index]


def answer(outputs: torch.Tensor, targets: torch.Tensor, metric: Any = None) -> Any:
    data = (torch.arange(len(targets)), targets)
    return quality.answer(Table(outputs), batches.batches(data), metric, Device("cpu"))


def test_accuracy_counts_the_largest_output() -> None:
    outputs = torch.tensor([[1.0, 2.0], [5.0, -1.0], [0.0, 0.5], [3.0, 1.0]])
    answers = answer(outputs, torch.tensor([1, 0, 0, 1]))
    assert answers.score == 0.5
    assert list(answers.predictions) == [1, 0, 1, 0]
    assert answers.correct == bytes([1, 1, 0, 0])


def test_a_metric_of_the_project_sees_all_outputs_at_once() -> None:
    def rmse(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        assert outputs.shape == (130, 1)
        return ((outputs[:, 0] - targets) ** 2).mean().sqrt()

    answers = answer(torch.full((130, 1), 3.0), torch.zeros(130), rmse)
    assert answers.score == 3.0
    assert answers.predictions is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_not_finite_are_an_error_before_anything_is_made_of_them(bad: float) -> None:
    outputs = torch.zeros(100, 2)
    outputs[71, 1] = bad
    with pytest.raises(VariantError, match="outputs are not finite: 1 values are NaN or infinite, first in example 71"):
        answer(outputs, torch.zeros(100, dtype=torch.long))


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (torch.zeros(4), torch.zeros(4, dtype=torch.long), "accuracy needs outputs of shape (examples, classes)"),
        (torch.zeros(4, 2), torch.zeros(4), "targets (4,) float32"),
        (torch.zeros(4, 2), torch.tensor([0, 1, 2, 0]), "target 2 of example 2 is not one of the model's 2 classes"),
        (torch.zeros(4, 2), torch.tensor([0, 1, -1, 0]), "target -1 of example 2"),
    ],
)
def test_data_that_does_not_fit_the_metric_is_refused(
    outputs: torch.Tensor, targets: torch.Tensor, message: str
) -> None:
    with pytest.raises(VariantError, match=re.escape(message)):
        answer(outputs, targets)


def test_data_that_does_not_fit_the_model_names_the_shape() -> None:
    with pytest.raises(VariantError, match=re.escape("the model does not accept the data: RuntimeError: ")) as caught:
        quality.answer(nn.Linear(5, 2), batches.batches((INPUTS, TARGETS)), None, Device("cpu"))
    assert "(input (64, 3) float32)" in str(caught.value)


def test_a_metric_that_raises_or_is_not_finite_is_an_error() -> None:
    def broken(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        raise ZeroDivisionError("no positives")

    with pytest.raises(VariantError, match="the metric `broken` raised ZeroDivisionError: no positives"):
        answer(torch.zeros(4, 2), torch.zeros(4), broken)
    with pytest.raises(VariantError, match="returned nan, which is not a finite number"):
        answer(torch.zeros(4, 2), torch.zeros(4), lambda outputs, targets: math.nan)


def test_outputs_with_logits_are_understood_and_others_are_refused() -> None:
    class Wrapped(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return {"logits": x, "loss": torch.tensor(0.0)}

    class Beside(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return x, (x.unsqueeze(1), None)

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return [x, x]

    data = (torch.eye(3), torch.arange(3))
    for model in (Wrapped(), Beside()):
        assert quality.answer(model, batches.batches(data), None, Device("cpu")).score == 1.0
    with pytest.raises(VariantError, match="the model returned a list with 2 tensors of the shape"):
        quality.answer(Odd(), batches.batches(data), None, Device("cpu"))
