"""Models that torch.jit or torch.export has sealed: measured as originals, and refused with the reason."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.controller.preloading import PRELOAD
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.memory.tensor_meter import weights_bytes
from pytest_modelopt.measuring.worker.observe import observe
from pytest_modelopt.measuring.worker.source_loading import Loader, load_model
from pytest_modelopt.optimizing.modules.sealed import WAY_OUT, in_training, put_into_eval_mode
from pytest_modelopt.optimizing.recipe import RecipeError
from pytest_modelopt.results.metric import MetricSpec
from tests.optimizing.recipe_models import apply, relative_error, run

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated")

X = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
WEIGHTS = 4 * (64 * 128 + 128 + 128 * 10 + 10)


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)).eval()


def scripted() -> Any:
    return torch.jit.script(plain())


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
        super().__init__(Variant("shop:model", None, None, None, None, MetricSpec(), (".",), "."))
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


def send_sizes(connection: Connection, folder: Path) -> None:
    """Of each as it is counted, and as it is written. To be called in a process of its own."""
    found = []
    for make in SCRIPTS:
        model = make()
        size.save(model, folder / "model.pt")
        found.append((size.saved_bytes(model), (folder / "model.pt").stat().st_size))
    connection.send(found)


def test_torchscript_is_sized_as_it_is_saved_in_every_process(tmp_path: Path) -> None:
    """Not within one: torch numbers the classes of all that it has made, and each digit is written."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    runs = []
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=send_sizes, args=(theirs, tmp_path))
        process.start()
        theirs.close()
        runs.append(ours.recv())
        process.join()
    assert runs[0] == runs[1]
    assert len(runs[0]) == len(SCRIPTS)
    assert all(WEIGHTS < counted == written < WEIGHTS + 20_000 for counted, written in runs[0])


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


NOTHING = (("compile", "changed nothing"), ("low-rank", "changed nothing"))


def test_a_part_in_torchscript_is_named_where_a_recipe_fails_on_it() -> None:
    for recipe, what in (("onnxruntime", "cannot be applied"), ("litert", "cannot be applied"), *NOTHING):
        with pytest.raises(RecipeError) as error:
            apply(recipe, Holds(scripted()).eval(), X)
        assert str(error.value) == (
            f"{recipe} {what}: `inner` is a TorchScript module (torch.jit.script, trace or freeze), whose layers can "
            f"be neither traced nor replaced: {WAY_OUT}"
        )
    layers = apply("int8-dynamic", Holds(scripted()).eval(), X).coverage.layers
    assert [layer.name for layer in layers if layer.changed_bytes] == ["head"]


def test_an_exported_program_is_converted_and_its_multiply_adds_are_not_told() -> None:
    optimization = apply("onnxruntime", exported(), X)
    assert relative_error(run(optimization.model, X), run(plain(), X)) < 1e-5
    assert (optimization.coverage.share, optimization.coverage.multiply_adds) == (1, 0)


@pytest.mark.parametrize(
    ("count", "names"), [(2, "`0` and `1` are each"), (3, "`0`, `1` and `2` are"), (5, "`0`, `1`, `2` and 2 more are")]
)
def test_several_parts_are_told_together(count: int, names: str) -> None:
    with pytest.raises(RecipeError, match=f"^int8-dynamic changed nothing: {names} .* replaced: return the model"):
        apply("int8-dynamic", nn.Sequential(*(torch.jit.script(nn.Linear(64, 64)) for _ in range(count))), X)


@pytest.mark.parametrize("make", [exported, lambda: Holds(exported())])
@pytest.mark.parametrize(
    ("recipe", "what"),
    [
        ("low-rank", "changed nothing"),
        ("channels-last", "changed nothing"),
        ("prune-structured", "cannot be applied"),
        ("openvino", "cannot be applied"),
        ("litert", "cannot be applied"),
    ],
)
def test_what_is_advised_for_an_exported_program_works(recipe: str, what: str, make: Callable[[], nn.Module]) -> None:
    with pytest.raises(RecipeError) as error:
        apply(recipe, make(), X)
    model = make()
    assert str(error.value) == (
        f"{recipe} {what}: {'the model' if not isinstance(model, Holds) else '`inner`'} is the module of an exported "
        f"program (torch.export), whose layers are operators in its graph: {WAY_OUT}, or take compile or onnxruntime, "
        "which take an exported program as it is"
    )


@pytest.mark.parametrize("recipe", ["onnxruntime", "compile"])
@pytest.mark.parametrize("make", [exported, lambda: Holds(exported())])
def test_the_recipes_that_take_an_exported_program_do(recipe: str, make: Callable[[], nn.Module]) -> None:
    model = put_into_eval_mode(make())
    expected = run(model, X)
    assert relative_error(run(apply(recipe, model, X).model, X), expected) < 1e-5


def test_what_a_recipe_says_of_its_options_stays_beside_what_seals_the_model() -> None:
    with pytest.raises(RecipeError, match=r"nosuch.*; `inner` is a TorchScript module"):
        apply("prune-structured(keep='nosuch')", Holds(scripted()).eval(), X)


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


def test_a_model_that_was_compiled_in_place_is_compiled_already() -> None:
    model = InPlace().eval()
    model.compile()
    with pytest.raises(RecipeError) as error:
        apply("compile", model, X)
    assert str(error.value) == (
        "compile changed nothing: the model is compiled already, by its method `compile()`, and torch.compile leaves "
        "that as it is; return the model from the factory without it"
    )


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
