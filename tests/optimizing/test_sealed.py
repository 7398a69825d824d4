"""Models that torch.jit or torch.export has sealed: measured as originals, and refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from recipe_models import apply, relative_error, run
from torch import nn

from pytest_modelopt.measuring.worker import size
from pytest_modelopt.measuring.worker.loading import Loader, load_model
from pytest_modelopt.measuring.worker.memory.tensor_meter import weights_bytes
from pytest_modelopt.measuring.worker.observe import observe
from pytest_modelopt.optimizing.recipe import RecipeError
from pytest_modelopt.optimizing.sealed import in_training, put_into_eval_mode

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated")

X = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
WEIGHTS = 4 * (64 * 128 + 128 + 128 * 10 + 10)


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)).eval()


def scripted() -> Any:
    return torch.jit.script(plain())  # type: ignore[no-untyped-call]


def traced() -> Any:
    return torch.jit.trace(plain(), X)  # type: ignore[no-untyped-call]


def frozen() -> Any:
    return torch.jit.freeze(scripted())


def exported() -> nn.Module:
    return torch.export.export(plain(), (X,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()


SCRIPTS: list[Callable[[], nn.Module]] = [scripted, traced, frozen]


class Holds(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(10, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.inner(x)))  # type: ignore[no-any-return]


class Given(Loader):
    """Makes the model that it is given."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def make(self, source: Any, what: str) -> Any:
        return self._model


@pytest.mark.parametrize("make", [*SCRIPTS, exported])
def test_an_original_is_loaded_and_measured(make: Callable[[], nn.Module]) -> None:
    model, notes = load_model(Given(make()), "shop:model")
    assert notes == ()
    assert torch.equal(run(model, X), run(plain(), X))
    assert weights_bytes(model) == WEIGHTS
    seen = observe(model, lambda: run(model, X), {}, (), {})
    assert (seen.training_modules, seen.unobserved) == (0, {})


@pytest.mark.parametrize("make", SCRIPTS)
def test_torchscript_is_sized_as_it_is_saved(make: Callable[[], nn.Module]) -> None:
    assert WEIGHTS < size.saved_bytes(make()) == size.saved_bytes(make()) < WEIGHTS + 20_000


@pytest.mark.parametrize("make", [*SCRIPTS, exported])
def test_what_is_around_a_sealed_module_is_put_into_eval_mode(make: Callable[[], nn.Module]) -> None:
    model = Holds(make())
    inner = run(model.inner, X)
    assert in_training(model) == [model, model.drop, model.head]
    assert put_into_eval_mode(model) is model
    assert in_training(model) == []
    with torch.no_grad():
        assert torch.equal(run(model, X), model.head(inner))


@pytest.mark.parametrize("make", SCRIPTS)
@pytest.mark.parametrize("recipe", ["int8-dynamic", "int8-static", "prune-unstructured", "onnxruntime", "compile"])
def test_no_recipe_gives_advice_about_the_layers_of_torchscript(recipe: str, make: Callable[[], nn.Module]) -> None:
    with pytest.raises(RecipeError) as error:
        apply(recipe, make(), X)
    assert str(error.value) == (
        f"{recipe} cannot be applied: the model is a TorchScript module (torch.jit.script, trace or freeze), whose "
        "layers can be neither traced nor replaced; return the model from the factory as it is before that, and do "
        "that to what the recipe makes of it"
    )


def test_a_part_in_torchscript_is_named_where_a_recipe_fails_on_it() -> None:
    with pytest.raises(RecipeError, match=r"`inner` is a TorchScript module .*: return the model from the factory"):
        apply("onnxruntime", Holds(scripted()).eval(), X)
    layers = apply("int8-dynamic", Holds(scripted()).eval(), X).coverage.layers
    assert [layer.name for layer in layers if layer.changed_bytes] == ["head"]


def test_an_exported_program_is_converted_and_its_multiply_adds_are_not_told() -> None:
    optimization = apply("onnxruntime", exported(), X)
    assert relative_error(run(optimization.model, X), run(plain(), X)) < 1e-5
    assert (optimization.coverage.share, optimization.coverage.multiply_adds) == (1, 0)
    with pytest.raises(RecipeError, match=r"int8-dynamic changed nothing: .* is the module of an exported program"):
        apply("int8-dynamic", exported(), X)


def test_an_error_of_any_other_model_keeps_its_cause() -> None:
    with pytest.raises(RecipeError) as error:
        apply("int8-static", Branches(), X)
    assert error.value.__cause__ is not error.value
    assert type(error.value.__cause__).__name__ == "TraceError"


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if x.sum() > 0 else self.layer(-x)  # type: ignore[no-any-return]
