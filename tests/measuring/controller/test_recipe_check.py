"""`check_recipe`: a recipe that keeps its promises, and for each promise one that breaks it."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import nn

from pytest_modelopt import Applied, Context, Recipe, RecipeError
from pytest_modelopt.optimizing.registry import RECIPES
from pytest_modelopt.testing import check_recipe


class Round(Recipe):
    """Keeps every promise; each of the others breaks one."""

    recipe_name: ClassVar[str] = "round"
    summary: ClassVar[str] = "rounds the weights of Linear"
    changes: ClassVar[tuple[str, ...]] = ("Linear",)
    step: float = Field(default=0.01, gt=0)

    def apply(self, model: nn.Module, context: Context) -> Applied:
        for module in model.modules():
            if type(module) is nn.Linear:
                module.weight.data = (module.weight.data / self.step).round() * self.step
        return Applied(model)


class SaysNothing(Round):
    def apply(self, model: nn.Module, context: Context) -> Applied:
        return Applied(model)


class RefusesWithoutReason(Round):
    def apply(self, model: nn.Module, context: Context) -> Applied:
        raise RecipeError


class RefusesAll(Round):
    def apply(self, model: nn.Module, context: Context) -> Applied:
        raise RecipeError("it needs a model of two towers")


class Raises(Round):
    def apply(self, model: nn.Module, context: Context) -> Applied:
        raise KeyError("towers")


class ReturnsTheModel(Round):
    def apply(self, model: nn.Module, context: Context) -> Any:
        return model


class Breaks(Round):
    def apply(self, model: nn.Module, context: Context) -> Applied:
        return Applied(nn.Sequential(nn.Linear(3, 3), model))


class DrawsAnew(Round):
    def apply(self, model: nn.Module, context: Context) -> Applied:
        generator = torch.Generator()
        generator.seed()
        for module in model.modules():
            if type(module) is nn.Linear:
                module.weight.data = torch.randn(module.weight.shape, generator=generator)
        return Applied(model)


class PatchesTheClass(Round):
    def apply(self, model: nn.Module, context: Context) -> Applied:
        nn.ReLU.forward = lambda self, x: x  # type: ignore[method-assign, assignment]
        return super().apply(model, context)


class LeavesASetting(Round):
    def apply(self, model: nn.Module, context: Context) -> Applied:
        torch.set_float32_matmul_precision("medium")
        return super().apply(model, context)


class WritesIntoTheInputs(Round):
    def apply(self, model: nn.Module, context: Context) -> Applied:
        assert isinstance(context.example_inputs, torch.Tensor)
        context.example_inputs.zero_()
        return super().apply(model, context)


class ClaimsToReach(Round):
    def apply(self, model: nn.Module, context: Context) -> Applied:
        return Applied(model, reached=frozenset({"0"}))


class ReachesNowhere(Round):
    def apply(self, model: nn.Module, context: Context) -> Applied:
        return Applied(super().apply(model, context).model, reached=frozenset({"tower"}))


class NamesOtherLayers(Round):
    changes: ClassVar[tuple[str, ...]] = ("LSTM", "GRU")


class CannotBeWritten(Round):
    steps: tuple[float, ...] = ()


class ForgetsAParameter(Round):
    def canonical(self) -> str:
        return self.recipe_name


class ImportsMore(Round):
    def apply(self, model: nn.Module, context: Context) -> Applied:
        import numpy  # noqa: F401

        return super().apply(model, context)


class Declares(ImportsMore):
    requires: ClassVar[tuple[str, ...]] = ("numpy",)


class LacksAPackage(Round):
    extra: ClassVar[str | None] = "towers"
    requires: ClassVar[tuple[str, ...]] = ("two_towers",)


class HoldsALock(Round):
    def apply(self, model: nn.Module, context: Context) -> Applied:
        model.lock = threading.Lock()  # type: ignore[assignment]
        return super().apply(model, context)


class Forgets(nn.Sequential):
    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.get_parameter("0.weight").zero_()


class LeavesOneThatForgets(Round):
    def apply(self, model: nn.Module, context: Context) -> Applied:
        rounded: Any = super().apply(model, context).model
        return Applied(Forgets(*rounded))


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two of the recipes change the whole process."""
    precision = torch.get_float32_matmul_precision()
    monkeypatch.setattr(nn.ReLU, "forward", nn.ReLU.forward)
    yield
    torch.set_float32_matmul_precision(precision)


def test_a_recipe_that_keeps_its_promises_passes_and_leaves_the_process_as_it_was() -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    check_recipe(Round(step=0.05), models=("mlp", "lstm"))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert "round" not in RECIPES


def test_what_it_imports_may_be_declared() -> None:
    check_recipe(Declares(), models=("mlp",))


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (SaysNothing(), "on the mlp: it changes nothing and does not say why"),
        (RefusesWithoutReason(), "its RecipeError says nothing: say why not"),
        (RefusesAll(), "applied to none of the models, so nothing else was checked: mlp: it needs a model of two"),
        (Raises(), "apply() raises KeyError: 'towers'; raise a RecipeError"),
        (ReturnsTheModel(), "apply() returns Sequential, and not pytest_modelopt.Applied"),
        (Breaks(), "after round the model no longer runs on its example inputs"),
        (DrawsAnew(), "another variant when it is applied again with the same seed"),
        (PatchesTheClass(), "it changes a model that it was not given"),
        (LeavesASetting(), "it changes a setting of the whole process: float32 matmul precision"),
        (WritesIntoTheInputs(), "it writes into the inputs that it is given"),
        (ClaimsToReach(), "it claims to reach 0, and the model is as it was"),
        (ReachesNowhere(), "`reached` names tower, which the model that it was given does not have"),
        (NamesOtherLayers(), "it changes weights of Linear, and `changes` names LSTM, GRU only"),
        (CannotBeWritten(steps=(0.5, 0.25)), "round: 'round(steps=(0.5, 0.25))', its expression, cannot be read: "),
        (ForgetsAParameter(step=0.5), "round: 'round', its expression, is read as other parameters"),
        (ImportsMore(), "it imports numpy, which `requires` does not name"),
        (LacksAPackage(), "round cannot be checked on this machine: round needs two_towers: run `pip install"),
        (HoldsALock(), "in a worker, as in a run: the model cannot be saved"),
        (LeavesOneThatForgets(), "saved and loaded in another process, the variant answers differently"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Recipe) else "",
)
def test_a_broken_promise_is_told_in_one_sentence(recipe: Recipe, told: str) -> None:
    with pytest.raises(AssertionError) as error:
        check_recipe(recipe, models=("mlp",))
    assert str(error.value).startswith("round")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_recipe_and_no_model_is_refused() -> None:
    with pytest.raises(TypeError, match="an object of a recipe class, such as MyRecipe"):
        check_recipe(Round)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no model 'tower'; its models are mlp, cnn, lstm, attention"):
        check_recipe(Round(), models=("tower",))
