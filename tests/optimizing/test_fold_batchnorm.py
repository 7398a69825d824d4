"""fold-batchnorm: the same answers without the batch norms, and untouched what cannot be folded soundly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.optimizing.apply import Optimization, RecipeDidNothing, optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from tests.optimizing.recipe_models import KINDS, TRAPS, apply, make, relative_error, run, saved_and_loaded

ROUNDING = 1e-5
"""Relative to the largest answer: the layers round a little differently."""


def optimized(model: nn.Module, inputs: Any) -> Optimization:
    return optimize(model.eval(), parse("fold-batchnorm").steps, Context(inputs, None, seed=0))


def trained(model: nn.Module) -> Any:
    """Batch norms as they are after training: new ones do nothing, so that to lose one would go unnoticed."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is not None and module.running_var is not None:
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model.eval()


def norms_of(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("kind", [kind for kind in (*KINDS, *TRAPS) if kind != "cnn"])
def test_a_model_without_batch_norms_is_an_error_with_names(kind: str) -> None:
    """It is not told that layers are lacking which the model has."""
    with pytest.raises(RecipeDidNothing, match=r"^fold-batchnorm changed nothing: the model holds ") as caught:
        apply("fold-batchnorm", *make(kind))
    assert "; the model holds no batch norm" in str(caught.value)
    assert "fold-batchnorm changes" not in str(caught.value)


def test_a_cnn_keeps_its_class_and_its_answers_and_loses_its_batch_norms() -> None:
    model, inputs = make("cnn")
    trained(model)
    original = run(model, inputs)
    optimization = optimized(model, inputs)
    assert optimization.model is model
    assert not norms_of(model)
    assert relative_error(run(model, inputs), original) < ROUNDING
    assert torch.equal(run(saved_and_loaded(model), inputs), run(model, inputs))
    covered = {layer.name for layer in optimization.coverage.layers if layer.changed_bytes}
    folded = {f"block{block}.{layer}{number}" for block in (1, 2) for layer in ("conv", "norm") for number in (1, 2)}
    assert covered == folded
    assert optimization.notes == ()


PAIRS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6)), (4, 3, 9)),
    "Conv2d": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)), (4, 3, 7, 7)),
    "Conv2d in groups": (lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8)), (4, 4, 7, 7)),
    "Conv3d": (lambda: nn.Sequential(nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4)), (2, 2, 5, 5, 5)),
    "ConvTranspose1d": (lambda: nn.Sequential(nn.ConvTranspose1d(3, 6, 3), nn.BatchNorm1d(6)), (4, 3, 9)),
    "ConvTranspose2d": (lambda: nn.Sequential(nn.ConvTranspose2d(5, 5, 3), nn.BatchNorm2d(5)), (4, 5, 7, 7)),
    "ConvTranspose3d": (lambda: nn.Sequential(nn.ConvTranspose3d(2, 4, 3), nn.BatchNorm3d(4)), (2, 2, 5, 5, 5)),
    "Linear": (lambda: nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6)), (4, 8)),
    "not affine": (lambda: nn.Sequential(nn.Linear(8, 6, bias=False), nn.BatchNorm1d(6, affine=False)), (4, 8)),
    "not affine Conv2d": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, affine=False)), (4, 3, 7, 7)),
    "reflected borders": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6, eps=0.1)),
        (4, 3, 7, 7),
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_every_pair_gives_the_answers_of_both(pair: str) -> None:
    torch.manual_seed(0)
    make_model, shape = PAIRS[pair]
    model, inputs = trained(make_model()), torch.randn(shape)
    model[0].requires_grad_(False)
    original = run(model, inputs)
    kind = type(model[0])
    optimized(model, inputs)
    assert type(model[0]) is kind
    assert type(model[1]) is nn.Identity
    assert relative_error(run(model, inputs), original) < ROUNDING
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_kept(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    make_model, shape = PAIRS["Conv2d"]
    model, inputs = trained(make_model()).to(dtype), torch.randn(shape).to(dtype)
    exact = run(trained(make_model()).to(dtype).double().eval(), inputs.double()) if dtype is torch.float64 else None
    original = run(model, inputs)
    optimized(model, inputs)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    # a weight, a product, a sum and the norm are each rounded once
    assert relative_error(run(model, inputs), original) < 8 * torch.finfo(dtype).eps
    assert exact is None or exact.dtype is torch.float64


def test_the_folded_weights_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    model = trained(nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6, eps=1e-3)))
    norm, weight, bias = model[1], model[0].weight.detach().double(), model[0].bias.detach().double()
    scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + 1e-3)
    expected = (bias - norm.running_mean.double()) * scale + norm.bias.detach().double()
    optimized(model, torch.randn(4, 8))
    assert torch.allclose(model[0].weight.double(), weight * scale[:, None], rtol=1e-6, atol=0)
    assert torch.allclose(model[0].bias.double(), expected, rtol=1e-6, atol=1e-7)


# --- what must be left alone -----------------------------------------------------------------------------------------


class Net(nn.Module):
    """One pair that can be folded, and beside it what `forward` of a subclass does with `layer` and `norm`."""

    def __init__(self) -> None:
        super().__init__()
        self.good, self.good_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.layer, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.rest(self.good_norm(self.good(x)))

    def rest(self, x: torch.Tensor) -> Any:
        return self.norm(self.layer(x))


class AnswerUsedTwice(Net):
    def rest(self, x: torch.Tensor) -> Any:
        x = self.layer(x)
        return self.norm(x) + x


class LayerCalledTwice(Net):
    def rest(self, x: torch.Tensor) -> Any:
        return self.norm(self.layer(self.layer(x)))


class NormCalledTwice(Net):
    """One batch norm for two convolutions."""

    def rest(self, x: torch.Tensor) -> Any:
        return self.norm(self.layer(x)) + self.norm(x)


class AfterAnActivation(Net):
    def rest(self, x: torch.Tensor) -> Any:
        return self.norm(torch.relu(self.layer(x)))


class Functional(Net):
    def rest(self, x: torch.Tensor) -> Any:
        return self.norm(nn.functional.conv2d(x, self.layer.weight, self.layer.bias))


class NeverCalled(Net):
    def rest(self, x: torch.Tensor) -> Any:
        return self.layer(x)


class ReadsTheWeights(Net):
    def rest(self, x: torch.Tensor) -> Any:
        return self.norm(self.layer(x)) + self.layer.weight.sum()


class ReadsTheNorm(Net):
    def rest(self, x: torch.Tensor) -> Any:
        return self.norm(self.layer(x)) + self.norm.bias.sum()


class WithoutStatistics(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)


class Mine(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Subclass(Net):
    def __init__(self) -> None:
        super().__init__()
        self.layer = Mine(3, 3, 1)


class MyNorm(nn.BatchNorm2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class SubclassOfTheNorm(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = MyNorm(3)


class Tied(Net):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(3, 3, 1)
        self.other.weight = self.layer.weight

    def rest(self, x: torch.Tensor) -> Any:
        return self.norm(self.layer(x)) + self.other(x)


class Hooked(Net):
    def __init__(self) -> None:
        super().__init__()
        self.layer.register_forward_hook(lambda module, inputs, output: output + 1)


class WeightNorm(Net):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1))


class GroupsTransposed(Net):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(3, 3, 1, groups=3)  # type: ignore[assignment]


class OverTime(Net):
    """Linear answers (batch, time, features), and the batch norm takes time for its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(16, 16), nn.BatchNorm1d(16)  # type: ignore[assignment]

    def rest(self, x: torch.Tensor) -> Any:
        return self.norm(self.layer(x.flatten(2).repeat(1, 6, 1)[:, :16]))


LEFT_ALONE = {
    AnswerUsedTwice: "the answer of the layer before them is used elsewhere, too",
    LayerCalledTwice: "the layer before them is called more than once",
    NormCalledTwice: "they are called more than once",
    AfterAnActivation: "they follow relu, not exactly a convolution or Linear called as a module",
    Functional: "they follow conv2d, not exactly a convolution or Linear called as a module",
    NeverCalled: "the forward pass never calls them as a module of their own",
    ReadsTheWeights: "the code also reads the weights of the layer before them",
    ReadsTheNorm: "the code also reads the weights of these",
    WithoutStatistics: "they keep no running statistics",
    Subclass: "they follow Mine, not exactly a convolution or Linear",
    SubclassOfTheNorm: "not exactly nn.BatchNorm1d",
    Tied: "the layer before them has weights that another module shares",
    Hooked: "the layer before them has forward hooks",
    WeightNorm: "they follow ParametrizedConv2d, not exactly",
    GroupsTransposed: "the transposed convolution before them has groups",
    OverTime: "they normalize another dimension than the outputs of the layer before them",
}


@pytest.mark.parametrize("kind", LEFT_ALONE, ids=lambda kind: kind.__name__)
def test_what_cannot_be_folded_is_left_alone_and_named(kind: type[Net]) -> None:
    torch.manual_seed(0)
    model, inputs = trained(kind()), torch.randn(16, 3, 4, 4)
    original = run(model, inputs)
    norm, weight = model.norm, model.layer.weight.detach().clone()
    optimization = optimized(model, inputs)
    assert type(model.good_norm) is nn.Identity
    assert model.norm is norm
    assert torch.equal(model.layer.weight, weight)
    assert relative_error(run(model, inputs), original) < ROUNDING
    note, *tied = optimization.notes
    assert len(tied) == (kind is Tied)
    assert all("share" in each and "stays as it is" in each for each in tied)
    assert LEFT_ALONE[kind] in note
    assert "left as they are" in note


def test_a_model_that_cannot_be_traced_is_named_with_its_line() -> None:
    class Branches(Net):
        def rest(self, x: torch.Tensor) -> Any:
            if x.sum() > 0:
                return self.norm(self.layer(x))
            return x

    with pytest.raises(
        RecipeError,
        match=r"torch.fx can trace.* \(test_fold_batchnorm.py:\d+: `if x.sum\(\) > 0:`\).*compile\(freezing",
    ):
        optimized(Branches(), torch.randn(2, 3, 4, 4))


def test_what_changes_the_answers_all_the_same_is_put_back_and_named() -> None:
    class Looks(Net):
        def rest(self, x: torch.Tensor) -> Any:
            return self.norm(self.layer(x)) * (2 if isinstance(self.norm, nn.BatchNorm2d) else 1)

    model, inputs = trained(Looks()), torch.randn(2, 3, 4, 4)
    original = run(model, inputs)
    optimization = optimized(model, inputs)
    assert type(model.norm) is nn.BatchNorm2d
    assert type(model.good_norm) is nn.Identity
    assert "left as they are: with them folded the answers differ by" in " ".join(optimization.notes)
    assert relative_error(run(model, inputs), original) < ROUNDING


def test_arguments_that_are_not_given_keep_their_defaults() -> None:
    class Optional(Net):
        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            x = super().forward(x)
            return x if mask is None else x * mask

    model, inputs = trained(Optional()), torch.randn(2, 3, 4, 4)
    original = run(model, inputs)
    optimized(model, inputs)
    assert not norms_of(model)
    assert relative_error(run(model, inputs), original) < ROUNDING
    mask = torch.zeros(2, 3, 4, 4)
    assert run(model, (inputs, mask)).abs().max() == 0


def test_a_batch_norm_under_two_names_is_replaced_under_both() -> None:
    model = nn.ModuleDict({"first": nn.Conv2d(3, 3, 1), "norm": nn.BatchNorm2d(3)})

    class Aliased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = model
            self.norm = model["norm"]

        def forward(self, x: torch.Tensor) -> Any:
            return self.norm(self.parts["first"](x))

    whole, inputs = trained(Aliased()), torch.randn(2, 3, 4, 4)
    original = run(whole, inputs)
    optimized(whole, inputs)
    assert type(whole.norm) is type(model["norm"]) is nn.Identity
    assert relative_error(run(whole, inputs), original) < ROUNDING


def test_int8_static_works_with_it_as_it_does_alone() -> None:
    answers = []
    for expression in ("int8-static", "fold-batchnorm + int8-static"):
        model, inputs = make("cnn")
        trained(model)
        original = run(model, inputs)
        optimization = apply(expression, model, inputs)
        answer = run(optimization.model, inputs)
        answers.append(relative_error(answer, original))
        assert torch.equal(run(saved_and_loaded(optimization.model), inputs), answer)
        assert not norms_of(optimization.model)
    assert max(answers) < 0.1


def test_folded_and_channels_last_covers_all_convolutions() -> None:
    model, inputs = make("cnn")
    trained(model)
    original = run(model, inputs)
    optimization = apply("fold-batchnorm + channels-last", model, inputs)
    assert relative_error(run(optimization.model, inputs), original) < ROUNDING
    untouched = {layer.name for layer in optimization.coverage.layers if not layer.changed_bytes}
    assert untouched == {"head"}
