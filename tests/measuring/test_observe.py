"""What a worker sees of real models: each fault that the doctor knows is planted, and seen as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from pytest_modelopt.diagnosis.empty_comparison import compares_nothing
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker import observe, settings
from pytest_modelopt.measuring.worker.bench import Bench
from pytest_modelopt.optimizing.recipe import Applied, Context, Recipe
from pytest_modelopt.optimizing.registry import RECIPES
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.observations import Observations

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
            recipe,
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


def seen(model: nn.Module, example: torch.Tensor, ties: observe.Ties = ()) -> Observations:
    found = observe.observe(model, lambda: model(example), {}, ties, {})
    assert found.unobserved == {}
    return found


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
    assert found == bench().observe().__class__(**vars(found))


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


# --- on models made by hand ------------------------------------------------------------------------------------------


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)).eval()


X = torch.ones(2, 16)


def test_masks_until_they_are_made_permanent() -> None:
    model = mlp()
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    found = seen(model, X)
    assert (found.masked_weights, found.mask_bytes) == (1, 16 * 32 * 4)
    assert found.zero_weights == 256
    prune.remove(model[0], "weight")
    found = seen(model, X)
    assert (found.masked_weights, found.mask_bytes, found.zero_weights) == (0, 0, 256)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_sparse_weights_are_no_dense_zeros() -> None:
    model = mlp()
    with torch.no_grad():
        model[0].weight[:16] = 0
    model[0].weight = nn.Parameter(model[0].weight.detach().to_sparse_csr(), requires_grad=False)
    found = observe.observe(model, lambda: model(X), {}, (), {})
    assert (found.matrix_weights, found.zero_weights) == (32 * 8, 0)


def test_modules_that_imitate_quantization() -> None:
    from torch.ao.quantization import FakeQuantize, MinMaxObserver

    model = nn.Sequential(nn.Linear(16, 8), FakeQuantize(), MinMaxObserver()).eval()
    # FakeQuantize holds an observer of its own.
    assert seen(model, X).fake_quantizers == 3


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated", "ignore:`isinstance")
def test_a_graph_of_pt2e_and_whether_it_is_compiled() -> None:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(mlp(), (X,)).module(), quantizer)
    prepared(X)
    model = convert_pt2e(prepared)
    found = observe.observe(model, lambda: model(X), {}, (), {})
    # Each of two Linear layers: its input is quantized and dequantized, its weight dequantized.
    assert found.quantize_nodes == 6
    assert found.compiled is False
    assert seen(mlp(), X).quantize_nodes == 0


def test_weights_of_torchao() -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = mlp()
    quantize_(model, Int8WeightOnlyConfig(version=2))
    found = observe.observe(model, lambda: model(X), {}, (), {})
    assert (found.torchao_tensors, found.compiled, found.digest) == (2, False, None)
    assert found.float_bytes == {"float32": 4 * (32 + 8)}


def test_packed_layers_are_counted_once_each() -> None:
    from torch.ao.quantization import quantize_dynamic

    from pytest_modelopt.optimizing.quantization import torch_ao

    with torch_ao.quiet():
        model = quantize_dynamic(nn.Sequential(mlp(), nn.LSTM(8, 4)).eval(), {nn.Linear, nn.LSTM})
    assert observe.observe(model, lambda: None, {}, (), {}).packed_modules == 3


class Own(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.inner(x))


class CompilesLater(nn.Module):
    """A wrapper of its own, in which no module is compiled that anybody could find."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.run: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.run is None:
            self.run = torch.compile(lambda x: self.inner(x), backend="eager")
        return self.run(x)


@pytest.mark.parametrize("how", ["torch.compile", "module.compile", "forward", "wrapper"])
def test_compiled_models_in_each_of_their_forms(how: str) -> None:
    torch.compiler.reset()  # else a function compiled eight times by earlier tests is never compiled again
    model: Any = mlp()
    assert seen(model, X).compiled is False
    if how == "torch.compile":
        model = torch.compile(model, backend="eager")
    elif how == "module.compile":  # which torch passes over for a class of its own, as Sequential is
        model = Own(model)
        model.compile(backend="eager")
    elif how == "wrapper":
        model = CompilesLater(model)
    else:
        model.forward = torch.compile(model.forward, backend="eager")
    assert observe.observe(model, lambda: model(X), {}, (), {}).compiled is True
    assert seen(mlp(), X).compiled is False, "the compiler is imported, and this model does not use it"


def test_the_fused_path_of_an_encoder() -> None:
    def encoder(**changes: Any) -> nn.Module:
        return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, **changes).eval()

    sequence = torch.ones(1, 3, 16)
    assert seen(encoder(), sequence).fused_layers == 1
    assert seen(encoder(activation=nn.SiLU()), sequence).fused_layers == 0
    assert seen(encoder().train(), sequence).fused_layers == 0


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight
        self.once = self.again = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.again(self.once(self.embed(x))))


def test_weights_that_were_tied_and_are_not() -> None:
    tokens, model = torch.zeros(1, 3, dtype=torch.long), Tied().eval()
    ties = observe.ties(model)
    assert ties == (("embed.weight", "head.weight"),), "a module under two names is no tie"
    assert seen(model, tokens, ties).untied == ()
    compiled: Any = torch.compile(model, backend="eager")
    assert observe.observe(compiled, lambda: None, {}, ties, {}).untied == ()
    model.head.weight = nn.Parameter(model.head.weight.detach().clone())
    found = seen(model, tokens, ties)
    assert (found.untied, found.untied_bytes) == (("embed.weight = head.weight",), 50 * 16 * 4)


def test_weights_side_by_side_in_one_storage_are_not_tied() -> None:
    """So cuDNN lays the weights of a recurrent layer."""
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    whole = torch.randn(2, 8, 8)
    for layer, weight in zip(model, whole, strict=True):
        layer.weight.data = weight
    assert observe.ties(model) == ()


def test_packing_one_of_two_tied_layers_unties_them() -> None:
    from torch.ao.quantization import quantize_dynamic

    from pytest_modelopt.optimizing.quantization import torch_ao

    model = Tied().eval()
    ties = observe.ties(model)
    with torch_ao.quiet():
        packed = quantize_dynamic(model, {nn.Linear})
    found = seen(packed, torch.zeros(1, 3, dtype=torch.long), ties)
    assert (found.untied, found.untied_bytes) == (("embed.weight = head.weight",), 50 * 16)


def test_layers_of_one_output_and_no_head() -> None:
    class Headless(nn.Linear):
        num_heads = 0

    model = nn.Sequential(nn.Conv2d(2, 1, 1), nn.Flatten(), nn.Linear(16, 1), Headless(1, 4)).eval()
    assert seen(model, torch.ones(1, 2, 4, 4)).narrow_layers == {"0": 1, "2": 1, "3": 0}


def test_layers_that_were_derived_by_name_and_torchs_own_are_none() -> None:
    class Mine(nn.Linear):
        pass

    class Padded(nn.Conv2d):
        pass

    class PaddedTwice(Padded):
        pass

    class Body(nn.Sequential):
        pass

    model = Body(Mine(16, 16), nn.Linear(16, 8), nn.MultiheadAttention(8, 2), PaddedTwice(1, 1, 1)).eval()
    torch.nn.utils.parametrizations.weight_norm(model[1])
    found = observe.observe(model, lambda: None, {}, (), {})
    assert found.derived_layers == {"Mine": "Linear", "PaddedTwice": "Conv2d"}


def test_memory_format_and_dtypes() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Linear(2, 2).double(), nn.Linear(2, 2).bfloat16())
    model[0].to(memory_format=torch.channels_last)
    found = observe.observe(model, lambda: None, {}, (), {})
    assert found.channels_last_weights == 1
    assert found.float_bytes == {"float32": 4 * (4 * 4 * 9 + 4), "float64": 8 * 6, "bfloat16": 2 * 6}


def test_a_look_that_fails_costs_nothing_and_is_said() -> None:
    def fails() -> None:
        raise RuntimeError("no answer\ntoday")

    found = observe.observe(mlp(), fails, {"target_classes": 3}, (), {"ties": "seen before"})
    assert found.unobserved.pop("compiled", why := "RuntimeError: no answer today") == why  # if it was imported
    assert found.unobserved == {"answers": why, "ties": "seen before"}
    assert (found.varies, found.matrix_weights, found.target_classes) == (None, 16 * 32 + 32 * 8, 3)


def test_what_a_recipe_patched_and_put_back_is_no_setting_of_its_own() -> None:
    import torch._inductor.config as inductor

    before = settings.settings()
    with inductor.patch(freezing=True):
        assert settings.settings()["inductor freezing"] == "True"
    assert settings.settings() == before
