"""Layers that do not behave like their class: no recipe takes them for plain ones, and none fails because of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.parametrize import is_parametrized

from pytest_modelopt.optimizing.bisection import settle
from pytest_modelopt.optimizing.modules.own_behavior import own_behavior
from tests.optimizing.patched_models import LAYERS, PATCHES, Flipping, Plainly, flipped, make_patched
from tests.optimizing.recipe_models import apply, make, outputs, relative_error, run, saved_and_loaded

pytestmark = pytest.mark.filterwarnings(
    "ignore:`?torch.nn.utils.weight_norm`? is deprecated:FutureWarning",
    "ignore:LSTM with projections is not supported with oneDNN:UserWarning",
    "ignore:RNN module weights are not part of single contiguous chunk:UserWarning",
)

ROUNDING = 1e-4
INT8 = 0.03
"""Beside what the recipe costs on the model without the patch, relative to the largest answer."""
RECIPES = {
    "int8-dynamic": INT8,
    "int8-weight-only": INT8,
    "int8-static": INT8,
    "torchao-int8-weight-only": INT8,
    "torchao-int8-dynamic": INT8,
    "low-rank": ROUNDING,
    "sparse-csr": ROUNDING,
    "prune-unstructured(ratio=0.5)": ROUNDING,
    "fold-batchnorm": ROUNDING,
}
CHANGES_THE_FUNCTION = {"prune-unstructured(ratio=0.5)"}
"""Of layers whose weights are not easy: their cost is no rounding, and they replace no layer."""


@functools.cache
def cost_without_patch(expression: str, layer: str) -> float:
    model, inputs = make_patched(layer, "none")
    original = run(model, inputs)
    return relative_error(run(apply(expression, model, inputs).model, inputs), original)


OF_LINEAR = ("torchao-int8-weight-only", "torchao-int8-dynamic", "low-rank", "sparse-csr")
"""They touch no other layer: of these it is enough to see that they do not mind."""
CASES = [
    (expression, layer)
    for expression in RECIPES
    for layer in LAYERS
    if (expression != "fold-batchnorm" or layer.startswith("Conv"))
    and (expression not in OF_LINEAR or layer in ("Linear", "Conv2d", "LSTM"))
]


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize(("expression", "layer"), CASES)
def test_a_patched_model_costs_what_the_recipe_costs_without_the_patch(expression: str, layer: str, patch: str) -> None:
    model, inputs = make_patched(layer, patch)
    original = run(*make_patched(layer, patch))
    optimization = apply(expression, model, inputs)
    answers = run(optimization.model, inputs)
    if expression not in CHANGES_THE_FUNCTION or layer == "Linear":
        assert relative_error(answers, original) <= 3 * cost_without_patch(expression, layer) + RECIPES[expression]
    if any(map(is_parametrized, optimization.model.modules())):
        return  # torch refuses to save such a model
    again = run(saved_and_loaded(optimization.model), inputs)
    assert all(torch.equal(*pair) for pair in zip(outputs(again), outputs(answers), strict=True))


REMEDIES: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "weight_norm by hook": (nn.utils.weight_norm, 'torch.nn.utils.remove_weight_norm(layer, "weight")'),
    "spectral_norm by hook": (nn.utils.spectral_norm, 'torch.nn.utils.remove_spectral_norm(layer, "weight")'),
    "weight_norm": (
        parametrizations.weight_norm,
        'torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")',
    ),
    "spectral_norm": (
        parametrizations.spectral_norm,
        'torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")',
    ),
    "pruning mask": (
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),  # type: ignore[no-untyped-call]
        'torch.nn.utils.prune.remove(layer, "weight")',
    ),
}
REPLACING = [each for each in RECIPES if each.startswith(("int8", "torchao", "low", "sparse"))]


@pytest.mark.parametrize("kind", REMEDIES)
@pytest.mark.parametrize("expression", REPLACING)
def test_the_note_gives_the_line_that_makes_the_layer_a_plain_one(expression: str, kind: str) -> None:
    patch, line = REMEDIES[kind]
    model, x = make_patched("Linear", "none")
    patch(model.layer)
    left = apply(expression, model.eval(), x)
    (note,) = [note for note in left.notes if line in note]
    assert note.startswith("1 Linear (")
    assert [layer.changed_bytes for layer in left.coverage.layers if layer.name == "layer"] == [0]

    model, x = make_patched("Linear", "none")
    patch(model.layer)
    run(model.eval(), x)
    exec(line, {"torch": torch, "layer": model.layer})  # noqa: S102 - the line that the note gives
    changed = apply(expression, model, x)
    assert [layer.changed_bytes > 0 for layer in changed.coverage.layers if layer.name == "layer"] == [True]


@pytest.mark.parametrize("patch", ["own forward", "wrapped forward", "own _call_impl", "shadowed weight", "hook"])
@pytest.mark.parametrize("expression", ["int8-dynamic", "int8-weight-only", "int8-static", "low-rank", "sparse-csr"])
def test_a_layer_that_is_left_alone_is_said_to_be(expression: str, patch: str) -> None:
    optimization = apply(expression, *make_patched("Linear", patch))
    untouched = [layer.name for layer in optimization.coverage.layers if not layer.changed_bytes]
    assert "layer" in untouched
    assert "wide" not in untouched
    assert any(note.startswith("1 Linear (257 KiB) left") for note in optimization.notes)
    assert list(optimization.coverage.steps[0].unlike_class) == ["layer"]


@pytest.mark.parametrize("expression", RECIPES)
def test_of_plain_layers_nothing_is_said(expression: str) -> None:
    optimization = apply(expression, *make_patched("Conv2d", "none"))
    assert not optimization.coverage.steps[0].unlike_class


@pytest.mark.parametrize("patch", ["own forward", "hook", "weight_norm"])
def test_a_batch_norm_that_is_not_folded_for_it_names_the_patched_layer(patch: str) -> None:
    steps = apply("fold-batchnorm", *make_patched("Conv2d", patch)).coverage.steps
    assert list(steps[0].unlike_class) == ([] if patch == "weight_norm" else ["layer"])  # of another class by then


@pytest.mark.parametrize("part", ["linear1", "self_attn"])
@pytest.mark.parametrize("expression", ["int8-dynamic", "int8-weight-only", "torchao-int8-weight-only"])
def test_a_forward_that_the_fused_path_passes_by_does_not_take_effect(expression: str, part: str) -> None:
    model, x = make("encoder")
    patched = model.get_submodule(f"encoder.layers.0.{part}")
    before = patched.forward
    patched.forward = lambda *args, **kwargs: flipped(before(*args, **kwargs))
    original = run(model, x)
    optimization = apply(expression, model, x)
    assert relative_error(run(optimization.model, x), original) < 0.06
    assert any(
        "has a `forward` of its own, which torch's fused path does not call" in note for note in optimization.notes
    )


def test_a_patch_of_the_class_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.LSTM(64, 64))
    original = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: original(self, x).flip(-1))
    optimization = apply("int8-dynamic", model, torch.randn(2, 3, 64))
    assert "1 Linear (16.2 KiB) left as they are: the `forward` of torch's Linear was replaced" in optimization.notes[0]


def test_what_only_the_answers_show_is_found_on_the_measured_inputs() -> None:
    """The instance looks like any other of its class."""

    plain, other = nn.LSTM(8, 8), nn.LSTM(8, 8)
    other._flat_weights = [-weight for weight in other._flat_weights if weight is not None]
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    holder = nn.ModuleDict({"model": model, "plain": plain, "other": other})

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = holder

        def forward(self, x: torch.Tensor) -> Any:
            return plain(model(x))[0] + other(x)[0]

    found = own_behavior(Both().eval(), torch.randn(5, 8), [plain, other, model[0]])
    assert found == {other: "a plain layer with their weights gives other answers to what they get"}


def test_a_layer_with_which_the_model_does_not_run_is_left_alone_and_the_others_change() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.called = nn.ModuleList(nn.Linear(64, 64) for _ in range(5))
            self.read = nn.Linear(64, 64)

        def forward(self, x: torch.Tensor) -> Any:
            for layer in self.called:
                x = layer(x)
            return self.called[0](input=x) + x @ self.read.weight.t()

    optimization = apply("int8-dynamic", Reads(), torch.randn(2, 64))
    untouched = {layer.name for layer in optimization.coverage.layers if not layer.changed_bytes}
    assert untouched - {""} == {"called.0", "read"}
    assert any("call the layer in forward instead of reading its weight" in note for note in optimization.notes)


@pytest.mark.parametrize("bad", [set(), {3}, {0, 6}, set(range(7)), {2, 3, 4}])
def test_all_units_that_work_are_changed_and_no_others(bad: set[int]) -> None:
    changed: set[int] = set()
    refused = settle(range(7), changed.update, changed.difference_update, lambda: "broken" if changed & bad else "")
    assert changed == set(range(7)) - bad
    assert refused == dict.fromkeys(sorted(bad), "broken")


@pytest.mark.parametrize("expression", REPLACING)
def test_a_weight_with_arithmetic_of_its_own_stays_where_it_is(expression: str) -> None:
    model, x = make_patched("Linear", "none")
    model.layer.weight = Flipping(model.layer.weight.detach())
    original = run(model, x)
    optimization = apply(expression, model, x)
    assert relative_error(run(optimization.model, x), original) <= 0.06
    assert list(optimization.coverage.steps[0].unlike_class) == ["layer"]


class Doubling(nn.Linear):
    """What reads its weight gets another one."""

    def __getattr__(self, name: str) -> Any:
        found: Any = super().__getattr__(name)
        return 2 * found if name == "weight" else found


@pytest.mark.parametrize("expression", ["int8-dynamic", "int8-weight-only", "torchao-int8-weight-only"])
def test_a_weight_that_its_class_computes_stays_and_the_others_change(expression: str) -> None:
    model, inputs = make_patched("Linear", "none")
    model.layer.__class__ = Doubling
    original = run(model, inputs)
    optimization = apply(expression, model, inputs)
    assert relative_error(run(optimization.model, inputs), original) < 0.06
    assert [layer.name for layer in optimization.coverage.layers if not layer.changed_bytes] == ["layer"]


@pytest.mark.parametrize("expression", ["int8-dynamic", "int8-weight-only"])
def test_a_weight_whose_class_changes_nothing_is_taken(expression: str) -> None:
    model, x = make_patched("Linear", "none")
    model.layer.weight = Plainly(model.layer.weight.detach())
    assert not apply(expression, model, x).coverage.steps[0].unlike_class


@pytest.mark.parametrize("most_bytes", [0, 10**9])
def test_a_layer_is_compared_when_no_parent_is_at_work_any_more(
    monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    """As long as what is kept until then has room."""

    class Patching(nn.Sequential):
        def forward(self, x: torch.Tensor) -> Any:
            linear = F.linear
            try:
                F.linear = lambda *args: linear(*args).flip(-1)
                return super().forward(x)  # type: ignore[no-untyped-call]
            finally:
                F.linear = linear

    monkeypatch.setattr("pytest_modelopt.optimizing.modules.own_behavior.MOST_BYTES_OF_CALLS", most_bytes)
    layers = [nn.Linear(64, 64), nn.ReLU(inplace=True), nn.Linear(64, 64), nn.Linear(64, 64)]
    model = nn.Sequential(Patching(*layers[:3]), layers[3]).eval()
    found = own_behavior(model, torch.randn(6, 64), layers)
    assert list(found) == ([layers[0], layers[2]] if most_bytes else [])
