"""What a worker sees of real models: each fault that the doctor knows is planted, and seen as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from pytest_modelopt.diagnosis.empty_comparison import compares_nothing
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.bench import Bench
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Applied, Context, Recipe
from pytest_modelopt.optimizing.registry import RECIPES
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.metric import MetricSpec

SOURCE = """
import torch
from torch import nn

INPUTS = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(120) % 3

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5)).eval()

def constant():
    made = model()
    with torch.no_grad():
        made[2].weight.zero_()
        made[2].bias.copy_(torch.tensor([0., 0., 1., 0., 0.]))
    return made

class Fickle(nn.Linear):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5)

def fickle():
    return Fickle(4, 5).eval()

class AlwaysTraining(nn.Linear):
    def train(self, mode=True):
        return super().train(True)

def always_training():
    return nn.Sequential(AlwaysTraining(4, 5)).eval()

def data():
    return INPUTS, TARGETS

def held_out():
    return INPUTS[:64] + 1, torch.zeros(64, dtype=torch.long)

def one_and_the_same():
    return INPUTS[:1].repeat(10, 1) + 1, torch.zeros(10, dtype=torch.long)

class Stepping(nn.Module):
    '''Hands the compiled part a number that it guards on, another one every thousand calls.'''
    def __init__(self):
        super().__init__()
        self.calls = 0
        self.layer = nn.Linear(4, 5)
        self.compiled = torch.compile(lambda x, step: self.layer(x) * (1 + step), backend="eager", dynamic=False)
    def forward(self, x):
        self.calls += 1
        return self.compiled(x, self.calls // 1000)

def stepping():
    return Stepping().eval()
"""


class SetsThreads(Recipe):
    """Changes a weight, and leaves the process with another number of threads and another precision."""

    recipe_name: ClassVar[str] = "sets-threads"
    summary: ClassVar[str] = "for tests"

    def apply(self, model: nn.Module, context: Context) -> Applied:
        torch.set_num_threads(2)
        torch.set_float32_matmul_precision("medium")
        with torch.no_grad():
            next(model.parameters()).add_(1)
        return Applied(model)


class Claims(Recipe):
    """Does nothing, and says that it reached everything."""

    recipe_name: ClassVar[str] = "claims"
    summary: ClassVar[str] = "for tests"

    def apply(self, model: nn.Module, context: Context) -> Applied:
        return Applied(model, reached=frozenset({""}))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    """A loaded and scored Bench in this process, with a fresh copy of the user's module."""
    (tmp_path / "observed_user.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for recipe in (SetsThreads, Claims):
        monkeypatch.setitem(RECIPES, recipe.recipe_name, recipe)
    before = torch.get_num_threads()

    def make(model: str = "model", recipe: str | None = None, calibration: str | None = None) -> Bench:
        folder = str(tmp_path)
        variant = Variant(
            f"observed_user:{model}",
            parse(recipe) if recipe else None,
            "observed_user:data",
            f"observed_user:{calibration}" if calibration else None,
            None,
            MetricSpec(),
            (folder,),
            folder,
        )
        made = Bench(variant)
        made.load()
        if recipe is not None:
            made.optimize()
        made.score()
        return made

    yield make
    sys.modules.pop("observed_user", None)
    torch.set_num_threads(before)
    torch.set_float32_matmul_precision("highest")


# --- through the operations of a worker ------------------------------------------------------------------------------


def test_a_sound_model_shows_nothing(bench: Callable[..., Bench]) -> None:
    found = bench().observe()
    assert found.unobserved == {}
    assert (found.training_modules, found.compiled, found.varies) == (0, False, False)
    assert (found.matrix_weights, found.zero_weights) == (4 * 8 + 8 * 5, 0)
    assert found.float_bytes == {"float32": 4 * (4 * 8 + 8 + 8 * 5 + 5)}
    assert (found.masked_weights, found.fake_quantizers, found.packed_modules, found.torchao_tensors) == (0, 0, 0, 0)
    assert (found.untied, found.narrow_layers, found.derived_layers) == ((), {}, {})
    assert found.target_classes == 3
    assert found.predicted_classes is not None
    assert 1 <= found.predicted_classes <= 5
    assert found.calibration is None
    assert found.first_call_s is not None
    assert found.first_call_s > 0
    assert found.settings is not None
    assert found.settings["threads"] == "1"


def test_the_same_model_has_the_same_digest_and_another_one_has_not(bench: Callable[..., Bench]) -> None:
    first, again, other = bench().observe(), bench().observe(), bench("constant").observe()
    assert (first.digest, first.answers) == (again.digest, again.answers)
    assert first.digest is not None
    assert len({first.digest, other.digest}) == len({first.answers, other.answers}) == 2


def test_one_class_for_every_example(bench: Callable[..., Bench]) -> None:
    found = bench("constant").observe()
    assert (found.target_classes, found.predicted_classes, found.most_predicted) == (3, 1, 120)


def test_answers_that_vary(bench: Callable[..., Bench]) -> None:
    assert bench("fickle").observe().varies is True


def test_modules_that_refuse_to_leave_training(bench: Callable[..., Bench]) -> None:
    assert bench("always_training").observe().training_modules == 1


def test_settings_that_a_recipe_leaves_behind(bench: Callable[..., Bench]) -> None:
    before, after = bench().observe().settings, bench(recipe="sets-threads").observe().settings
    assert before is not None
    assert after is not None
    assert {name: (before[name], after[name]) for name in before if before[name] != after[name]} == {
        "threads": ("1", "2"),
        "float32 matmul precision": ("highest", "medium"),
    }


def test_a_recipe_that_only_claims_is_caught(bench: Callable[..., Bench]) -> None:
    def measured(recipe: str | None) -> Measurement:
        seen_there = bench(recipe=recipe).observe()
        return Measurement(recipe, 1, 1, 1, 1.0, 120, "f", observations=seen_there)

    original = measured(None)
    for recipe, is_caught in (("claims", True), ("int8-dynamic", False), ("prune-unstructured(ratio=0.5)", False)):
        case = Case(
            id="id",
            model="m",
            recipe=recipe,
            metric="accuracy",
            limits=(),
            batch_size=1,
            reference=original,
            variant=measured(recipe),
        )
        assert compares_nothing(case) is is_caught


@pytest.mark.parametrize(("calibration", "examples", "looked_at"), [("held_out", 64, 64), ("one_and_the_same", 1, 10)])
def test_what_calibration_took(bench: Callable[..., Bench], calibration: str, examples: int, looked_at: int) -> None:
    found = bench(recipe="int8-static", calibration=calibration).observe().calibration
    assert found is not None
    assert (found.batches, found.examples, found.looked_at) == (1, examples, looked_at)
    assert found.classes == (0,)
    (ranges,) = found.ranges  # one_and_the_same holds four numbers, which few of the 120 others keep to
    assert ranges.examples == 120
    assert (ranges.outside == 0) == (calibration == "held_out")


def test_calibration_data_that_no_recipe_took_is_not_looked_at(bench: Callable[..., Bench]) -> None:
    assert bench(recipe="int8-dynamic", calibration="held_out").observe().calibration is None


def test_graphs_that_are_compiled_while_blocks_are_timed(bench: Callable[..., Bench]) -> None:
    for model, compiles in (("model", False), ("stepping", True)):
        made = bench(model)
        made.prepare_timing()
        for _ in range(20):
            made.block()
        assert bool(made.usage().compilations) is compiles
