"""Numbers that several parameters share: found by where they lie in memory, and the same for all who ask."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.worker import observe
from pytest_modelopt.measuring.worker.files.size import saved_bytes
from pytest_modelopt.measuring.worker.memory.tensor_meter import weights_bytes
from pytest_modelopt.optimizing.apply import RecipeDidNothing, optimize
from pytest_modelopt.optimizing.coverage import compare, snapshot
from pytest_modelopt.optimizing.modules.multiply_adds import multiply_adds
from pytest_modelopt.optimizing.modules.shared_tensors import shared_bytes, sharing, tied_parameters
from pytest_modelopt.optimizing.quantization.int8_dynamic import Int8Dynamic
from pytest_modelopt.optimizing.recipe import Applied, Context, Recipe
from tests.optimizing.recipe_models import apply, relative_error, run

WORDS, WIDTH, FLOAT32 = 600, 64, 4


class Speller(nn.Module):
    """Scores words by the vectors that it reads them with."""

    def __init__(self, tie: Callable[[nn.Embedding, nn.Linear], Any], with_middle: bool = True) -> None:
        super().__init__()
        self.read = nn.Embedding(WORDS, WIDTH)
        self.middle = nn.Linear(WIDTH, WIDTH) if with_middle else nn.Tanh()
        self.score = nn.Linear(WIDTH, WORDS, bias=False)
        tie(self.read, self.score)

    def forward(self, words: torch.Tensor) -> Any:
        return self.score(self.middle(self.read(words).mean(1)).tanh())


def one_object(read: nn.Embedding, score: nn.Linear) -> None:
    score.weight = read.weight


def one_storage(read: nn.Embedding, score: nn.Linear) -> None:
    score.weight = nn.Parameter(read.weight)


def slices(read: nn.Embedding, score: nn.Linear) -> None:
    """The scores use all rows of a larger table but the first ten, the embedding all but the last ten."""
    table = torch.randn(WORDS + 10, WIDTH)
    read.weight, score.weight = nn.Parameter(table[:WORDS]), nn.Parameter(table[10:])


def detached(read: nn.Embedding, score: nn.Linear) -> None:
    score.weight = nn.Parameter(read.weight.detach().view(WORDS, WIDTH)[:])


TIES = {"one object": one_object, "one storage": one_storage, "detached view": detached, "slices": slices}
WORDS_READ = torch.randint(0, WORDS, (6, 5), generator=torch.Generator().manual_seed(0))


def make(tie: str, with_middle: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return Speller(TIES[tie], with_middle).eval()


def test_shared_bytes_are_those_of_the_elements_in_common() -> None:
    table = torch.randn(8, 6)
    assert shared_bytes(table, table) == 8 * 6 * FLOAT32
    assert shared_bytes(table[:5], table[3:]) == 2 * 6 * FLOAT32
    assert shared_bytes(table[:, :3], table[:, 3:]) == 0
    assert shared_bytes(table[:, :4], table[:, 2:]) == 8 * 2 * FLOAT32
    assert shared_bytes(table.t(), table) == 8 * 6 * FLOAT32
    assert shared_bytes(table[::2], table[1::2]) == 0
    assert shared_bytes(table, table.clone()) == 0
    assert shared_bytes(table, table.view(torch.int32)[:1]) == 6 * FLOAT32


def test_groups_are_found_through_what_lies_between() -> None:
    table = torch.randn(9, 4)
    tensors = [table[:4], torch.randn(3), table[3:7], table[6:], torch.randn(9, 4), torch.empty(0)]
    assert list(sharing(tensors)) == [[0, 2, 3]]


def test_weights_side_by_side_in_one_storage_share_nothing() -> None:
    table = torch.randn(2 * WIDTH, WIDTH)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))
    model[0].weight, model[1].weight = nn.Parameter(table[:WIDTH]), nn.Parameter(table[WIDTH:])
    assert tied_parameters(model) == set()
    assert observe.ties(model) == ()
    assert apply("int8-dynamic", model.eval(), torch.randn(2, WIDTH)).coverage.changed_bytes == 2 * WIDTH**2 * FLOAT32


@pytest.mark.parametrize("tie", TIES)
def test_all_who_ask_find_the_tie(tie: str) -> None:
    model: Any = make(tie)
    assert tied_parameters(model) == ({id(model.read.weight)} if tie == "one object" else set())
    assert observe.ties(model) == (("read.weight", "score.weight"),)
    table = (WORDS + (10 if tie == "slices" else 0)) * WIDTH * FLOAT32
    middle = (WIDTH + 1) * WIDTH * FLOAT32
    assert snapshot(model).weight_bytes == table + middle
    assert weights_bytes(model) == table + middle
    assert table + middle < saved_bytes(model) < table + middle + 10_000


@pytest.mark.parametrize(
    "expression",
    ["int8-dynamic", "int8-static", "prune-unstructured(ratio=0.05)", "low-rank", "torchao-int8-weight-only"],
)
def test_recipes_leave_an_object_of_two_modules_alone_and_the_model_gets_no_larger(expression: str) -> None:
    model = make("one object")
    before, size = weights_bytes(model), saved_bytes(model)
    optimization = apply(expression.replace("low-rank", "low-rank(energy=0.3)"), model, WORDS_READ)
    changed = {layer.name for layer in optimization.coverage.layers if layer.changed_bytes}
    assert changed == {"middle"}
    assert any("shares their weight" in note for note in optimization.notes)
    assert weights_bytes(optimization.model) <= before
    if expression.startswith("prune"):
        assert saved_bytes(optimization.model) == size


@pytest.mark.parametrize("tie", ["one storage", "detached view", "slices"])
def test_what_replaces_one_of_two_parameters_unties_them_and_the_table_is_held_beside(tie: str) -> None:
    model = make(tie)
    before = weights_bytes(model)
    optimization = apply("int8-dynamic", model, WORDS_READ)
    packed = WORDS * WIDTH  # a byte each, and nothing of the table goes, since the embedding holds it
    assert before + packed - 4 * WIDTH**2 < weights_bytes(optimization.model) < before + packed + 20_000
    assert not any("shares their weight" in note for note in optimization.notes)


@pytest.mark.parametrize("tie", TIES)
def test_weight_only_packs_both_holders_together(tie: str) -> None:
    model = make(tie)
    original = run(make(tie), WORDS_READ)
    variant = apply("int8-weight-only", model, WORDS_READ).model
    assert relative_error(run(variant, WORDS_READ), original) < 0.03
    tables = 2 if tie == "slices" else 1
    row = WIDTH + FLOAT32
    assert weights_bytes(variant) == (tables * WORDS + WIDTH) * row + WIDTH * FLOAT32


class PacksAll(Recipe):
    """A project's own recipe, which does not look for ties."""

    recipe_name = "packs-all"
    summary = "packs each Linear"

    def apply(self, model: nn.Module, context: Context) -> Applied:
        from torch.ao.quantization import quantize_dynamic

        from pytest_modelopt.optimizing.quantization import torch_ao

        with torch_ao.quiet():
            return Applied(quantize_dynamic(model, {nn.Linear}))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("with_middle", [True, False])
@pytest.mark.parametrize("tie", ["one object", "one storage", "detached view"])
def test_the_work_of_a_layer_that_was_untied_is_that_of_a_changed_one(tie: str, with_middle: bool) -> None:
    model = make(tie, with_middle)
    ties, before = observe.ties(model), weights_bytes(model)
    optimization = optimize(model, [PacksAll()], Context(WORDS_READ, None, seed=0))
    layers = {layer.name: layer for layer in optimization.coverage.layers}
    assert layers["read"].changed_bytes == 0
    assert layers["score"].changed_multiply_adds == layers["score"].multiply_adds == 6 * WORDS * WIDTH
    assert optimization.coverage.multiply_adds_share == 1
    assert weights_bytes(optimization.model) > before - (WIDTH * WIDTH * 3 if with_middle else 0)
    facts = observe._ties(optimization.model, ties)
    assert facts["untied"] == ("read.weight = score.weight",)


def test_a_partial_overlap_is_counted_once_and_each_part_where_it_changed() -> None:
    model: Any = make("slices")
    before, counted = snapshot(model), multiply_adds(model, WORDS_READ)
    model.score.weight = nn.Parameter(model.score.weight.detach() * 2)
    layers = {layer.name: layer for layer in compare(before, model, frozenset(), counted)}
    assert (layers["read"].weight_bytes, layers["read"].changed_bytes) == (WORDS * WIDTH * FLOAT32, 0)
    assert (layers["score"].weight_bytes, layers["score"].changed_bytes) == (10 * WIDTH * FLOAT32,) * 2
    assert layers["score"].changed_multiply_adds == layers["score"].multiply_adds > 0


@pytest.mark.parametrize("tie", ["one object", "one storage", "detached view"])
def test_what_is_cast_stays_tied(tie: str) -> None:
    variant = apply("bf16", make(tie), WORDS_READ).model
    assert weights_bytes(variant) == (WORDS + WIDTH + 1) * WIDTH * 2


def test_convolutions_stay_tied_in_channels_last() -> None:
    model: Any = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    model[1].weight = nn.Parameter(model[0].weight)
    apply("channels-last", model.eval(), torch.randn(2, 8, 9, 9))
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert weights_bytes(model) == (8 * 8 * 9 + 2 * 8) * FLOAT32


def test_a_head_that_is_the_only_linear_is_changed_or_says_why_it_stays() -> None:
    with pytest.raises(RecipeDidNothing, match="another module shares their weight"):
        apply(Int8Dynamic.recipe_name, make("one object", with_middle=False), WORDS_READ)
    apply(Int8Dynamic.recipe_name, make("one storage", with_middle=False), WORDS_READ)  # is no error: it did something


@pytest.mark.parametrize("expression", ["int8-dynamic", "int8-weight-only", "low-rank(ratio=0.5)"])
@pytest.mark.parametrize("is_whole", [False, True])
def test_a_compiled_layer_runs_as_what_it_was_replaced_by_and_the_float_one_is_gone(
    expression: str, is_whole: bool
) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(128, 128).eval(), torch.randn(8, 128)
    in_float, weight = run(layer, x), weakref.ref(layer.weight)
    compiled: Any = torch.compile(layer, backend="eager")
    model: Any = compiled if is_whole else nn.Sequential(compiled, nn.ReLU())
    variant = apply(expression, model, x).model
    del layer, compiled, model
    replaced = variant if is_whole else variant.get_submodule("0")
    answers = run(replaced, x)
    assert 1e-4 < relative_error(answers, in_float) < 1
    assert torch.equal(answers, run(replaced._orig_mod, x))
    gc.collect()
    assert weight() is None


def in_a_buffer(model: nn.Module, weight: torch.Tensor) -> None:
    model.register_buffer("table", weight)


def in_an_attribute(model: nn.Module, weight: torch.Tensor) -> None:
    model.table = weight


def in_a_list(model: nn.Module, weight: torch.Tensor) -> None:
    model.table = {"a.b": 1, "words": [None, weight]}  # type: ignore[assignment]


class Reader(nn.Module):
    """Reads words from a tensor that is no parameter, and shares its numbers with the layer that scores them."""

    def __init__(self, hold: Callable[[nn.Module, torch.Tensor], None]) -> None:
        super().__init__()
        self.middle, self.score = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        hold(self, self.score.weight.detach())

    def forward(self, words: torch.Tensor) -> Any:
        table: Any = self.table
        table = table["words"][1] if isinstance(table, dict) else table
        return self.score(self.middle(nn.functional.embedding(words, table).mean(1)).tanh())


@pytest.mark.parametrize(
    ("hold", "name"),
    [(in_a_buffer, "table"), (in_an_attribute, "table"), (in_a_list, "table[words][1]")],
)
def test_numbers_that_a_tensor_beside_the_parameters_goes_on_to_hold_are_no_changed_ones(
    hold: Callable[[nn.Module, torch.Tensor], None], name: str
) -> None:
    model = Reader(hold).eval()
    table, middle = WORDS * WIDTH * FLOAT32, WIDTH * WIDTH * FLOAT32
    ties = observe.ties(model)
    assert ties == (("score.weight", name),)
    assert snapshot(model).weight_bytes == weights_bytes(model) == table + middle + WIDTH * FLOAT32
    assert observe._ties(model, ties)["untied"] == ()
    optimization = apply("int8-dynamic", model, WORDS_READ)
    sizes = {layer.name: (layer.weight_bytes, layer.changed_bytes) for layer in optimization.coverage.layers}
    assert sizes == {"": (table, 0), "middle": (middle + WIDTH * FLOAT32, middle), "score": (0, 0)}
    assert optimization.coverage.multiply_adds_share == 1
    assert weights_bytes(optimization.model) > table + WORDS * WIDTH
    assert observe._ties(optimization.model, ties)["untied"] == (f"score.weight = {name}",)


def test_a_buffer_that_is_cast_with_its_parameter_is_changed_and_stays_tied() -> None:
    model = Reader(in_a_buffer).eval()
    ties = observe.ties(model)
    optimization = apply("bf16", model, WORDS_READ)
    assert optimization.coverage.share == 1
    assert observe._ties(optimization.model, ties)["untied"] == ()


def test_tensors_that_share_nothing_and_those_that_torch_makes_anew_are_no_weights() -> None:
    model = nn.Sequential(nn.utils.spectral_norm(nn.Linear(8, 8)), nn.LSTM(8, 8), nn.BatchNorm1d(8))
    model.anchor = [parameter.detach().clone() for parameter in model.parameters()]  # type: ignore[assignment]
    assert snapshot(model).weight_bytes == sum(parameter.nbytes for parameter in model.parameters())
    assert observe.ties(model) == ()
