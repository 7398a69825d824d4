"""What all converting recipes share: inputs from which a program for any size is made, and reasons in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.optimizing.apply import optimize
from pytest_modelopt.optimizing.describe import last_line, root_cause
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from pytest_modelopt.optimizing.runtimes.comparing import refuse_other_answers
from tests.optimizing.patched_models import Flipping, Plainly, make_patched
from tests.optimizing.recipe_models import apply, relative_error, run


class Pairs(nn.Module):
    """Takes tokens, and for each of them two features: sizes of which one is always twice the other."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.mix = nn.Linear(4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor, features: torch.Tensor) -> Any:
        mixed = self.mix(features.reshape(tokens.shape[0], tokens.shape[1], 4))
        return self.head((self.embed(tokens) + mixed).mean(1))


def pairs(examples: int, length: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    return {
        "tokens": torch.randint(0, 50, (examples, length), generator=generator),
        "features": torch.randn(examples, 2 * length, 2, generator=generator),
    }


LENGTHS = (1, 1, 7, 2, 12)


@pytest.mark.parametrize("form", [dict, tuple])
@pytest.mark.parametrize("recipe", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[::-1]], ids=["shortest first", "longest first"])
def test_a_model_is_converted_whatever_the_length_of_the_first_sentence(
    lengths: tuple[int, ...], recipe: str, form: Any
) -> None:
    torch.manual_seed(0)
    model = Pairs().eval()
    batches = [pairs(3, length) for length in lengths]
    given: list[Any] = [batch if form is dict else tuple(batch.values()) for batch in batches]
    first: Any = pairs(1, lengths[0]) if form is dict else tuple(pairs(1, lengths[0]).values())
    varying = (frozenset({1}), frozenset({1}))
    context = Context(first, None, seed=0, varying=lambda: varying, batches=lambda: iter([first, *given]))
    originals = [run(model, batch) for batch in given]
    variant = optimize(model, parse(recipe).steps, context).model
    for batch, original in zip(given, originals, strict=True):
        assert relative_error(run(variant, batch), original) < 1e-5


def test_where_no_batch_is_longer_the_examples_are_doubled() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    context = Context(torch.randn(1, 2, 1), None, seed=0, varying=lambda: (frozenset({2}),))
    inputs = torch.randn(3, 2, 5)
    original = run(model, inputs)
    variant = optimize(model, parse("onnxruntime").steps, context).model
    assert relative_error(run(variant, inputs), original) < 1e-5


class Wrapped(nn.Module):
    """Fails in the middle of what torch.export traces, in one of the ways in which models do."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.recurrent = nn.LSTM(8, 8, batch_first=True)
        self.way = way

    def forward(self, x: torch.Tensor) -> Any:
        if self.way == "length":
            return self.recurrent(x)[0]
        if self.way == "branch" and x.sum() > 0:
            return self.layer(x)
        if self.way == "index":
            return self.layer(x)[:, : int(x.argmax())]
        return self.layer(x)


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("length", r" is not: ConstraintViolationError: .* your code specialized it to be a constant \(7\)\."),
        ("branch", r" is not \(test_exporting\.py:\d+: `if self\.way .*\): Guard.*: Could not guard on data-dependent"),
        ("index", r" is not \(test_exporting\.py:\d+: .*argmax.*\): Guard.*: Could not extract specialized integer"),
    ],
)
def test_what_cannot_be_exported_is_told_by_its_root_without_advice(way: str, told: str) -> None:
    inputs = torch.randn(3, 7, 8)
    context = Context(inputs, None, seed=0, varying=lambda: (frozenset({1}),))
    with pytest.raises(
        RecipeError, match=f"^onnxruntime needs a model that torch.export can trace, and Wrapped{told}"
    ) as e:
        optimize(Wrapped(way).eval(), parse("onnxruntime").steps, context)
    assert not [
        word for word in ("draft_export", "TORCH_LOGS", "For more", "docs.google", "\n") if word in str(e.value)
    ]


def test_the_root_is_the_exception_that_torch_wrapped_and_not_one_of_the_models_own_chain() -> None:
    def raised(wrap: type[Exception]) -> Exception:
        table: dict[str, int] = {}
        try:
            try:
                table["weights"]
            except KeyError as key:
                raise ValueError("no table for this size\nFor more information, read the manual") from key
        except ValueError as error:
            try:
                raise wrap("exporting failed") from error
            except wrap as outer:
                return outer
        raise AssertionError("a table without entries has one")

    from torch._dynamo.exc import TorchDynamoException

    assert root_cause(raised(TorchDynamoException)) == "ValueError: no table for this size"
    assert root_cause(raised(RuntimeError)) == "RuntimeError: exporting failed"


@pytest.mark.parametrize("recipe", ["onnxruntime", "openvino", "litert", "torchao-pt2e-int8"])
def test_a_weight_with_arithmetic_of_its_own_is_named(recipe: str) -> None:
    model, inputs = make_patched("Linear", "none")
    model.layer.weight = Flipping(model.layer.weight.detach())
    told = rf"^{recipe}: converted, the model answers differently on .*`layer\.weight` \(a Flipping\)"
    with pytest.raises(RecipeError, match=told):
        apply(recipe, model, inputs)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize(
    ("recipe", "runtime"),
    [("onnxruntime", "ONNX"), ("onnxruntime-int8-dynamic", "ONNX"), ("openvino", "OpenVINO")],
)
def test_an_lstm_with_projections_is_named_with_what_takes_it(recipe: str, runtime: str) -> None:
    model, inputs = make_patched("LSTM with projections", "none")
    told = rf"^{recipe}: {runtime} has no LSTM with projections, and `layer` has `proj_size`: .*int8-dynamic"
    with pytest.raises(RecipeError, match=told):
        apply(recipe, model, inputs)
    apply("int8-dynamic", model, inputs)


class OneExample(nn.Module):
    """Gives its layer a single example without a batch dimension; what the layer answers has its steps first."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.before, self.layer, self.after = nn.Linear(12, 24), layer, nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.before(x)
        answer = self.layer(x, x, x) if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)
        return self.after(answer[0] if isinstance(answer, tuple) else answer)


UNBATCHED: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: nn.LSTM(24, 24),
    "GRU": lambda: nn.GRU(24, 24),
    "RNN": lambda: nn.RNN(24, 24),
    "MultiheadAttention": lambda: nn.MultiheadAttention(24, 4),
}
TAKES_ANY_LENGTH = [("openvino", "LSTM"), ("openvino", "GRU"), ("openvino", "MultiheadAttention")]
TOLD = [
    *((recipe, layer) for recipe in ("onnxruntime", "litert", "torchao-pt2e-int8") for layer in ("LSTM", "GRU", "RNN")),
    ("litert", "MultiheadAttention"),
]


@pytest.mark.parametrize(("recipe", "layer"), [*TAKES_ANY_LENGTH, *TOLD])
def test_an_example_without_a_batch_dimension_is_converted_for_any_length_or_told_with_its_layer(
    recipe: str, layer: str
) -> None:
    torch.manual_seed(0)
    model, longer = OneExample(UNBATCHED[layer]()).eval(), torch.randn(19, 12)
    expected = run(model, longer)
    if (recipe, layer) in TAKES_ANY_LENGTH:
        assert relative_error(run(apply(recipe, model, longer[:7]).model, longer), expected) < 1e-5
        return
    told = rf"^{recipe}: a converted program takes .*, and `layer` \({layer}\) gets one example without a batch dimen"
    with pytest.raises(RecipeError, match=told):
        apply(recipe, model, longer[:7])


@pytest.mark.parametrize(
    ("layer", "inputs", "name"),
    [
        (lambda: nn.Conv1d(2, 4, 3), torch.randn(2, 9), "the Conv1d"),
        (lambda: nn.Sequential(nn.Linear(6, 3)), torch.randn(6), "`0` (Linear)"),
        (lambda: nn.GRUCell(6, 3), torch.randn(6), "the GRUCell"),
    ],
)
@pytest.mark.parametrize("recipe", ["onnxruntime", "openvino"])
def test_layers_of_other_kinds_without_a_batch_dimension_are_told(
    recipe: str, layer: Callable[[], nn.Module], inputs: torch.Tensor, name: str
) -> None:
    with pytest.raises(RecipeError) as error:
        apply(recipe, layer().eval(), inputs)
    assert f", and {name} gets one example without a batch dimension" in str(error.value)


@pytest.mark.parametrize("recipe", ["onnxruntime", "torchao-pt2e-int8"])
def test_steps_in_the_first_dimension_are_told(recipe: str) -> None:
    model = nn.Sequential(nn.LSTM(8, 8), nn.Identity()).eval()
    with pytest.raises(RecipeError, match=r"The first dimension of each input is left open for the number of examples"):
        apply(recipe, model, torch.randn(5, 2, 8))


class Conditioned(nn.Linear):
    """Takes a vector that is no example, and decides something in Python."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        style = super().forward(self.bias)
        return x + style if float(x.sum()) > 0 else x


def test_another_reason_keeps_its_words_beside_a_vector_that_is_no_example() -> None:
    with pytest.raises(RecipeError, match=r"is not \(test_exporting\.py:\d+: `return x"):
        apply("onnxruntime", Conditioned(8, 8).eval(), torch.ones(2, 8))


def test_what_a_converted_program_fails_on_is_told() -> None:
    with pytest.raises(
        RecipeError, match=r"^litert: converted, the model fails on the example inputs: .*shapes cannot"
    ):
        refuse_other_answers(nn.Linear(8, 8), nn.Linear(7, 8), torch.randn(4, 8), "litert")


class Noisy(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + torch.rand_like(x)


class Padded(nn.Module):
    """At the padding torch's fused path answers 0, and the same layers step by step something else."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)

    def forward(self, x: torch.Tensor) -> Any:
        return self.encoder(x, src_key_padding_mask=x[..., 0] < 0)


def test_a_model_that_answers_at_random_is_not_judged() -> None:
    model = Noisy(8, 8).eval()
    refuse_other_answers(model, model, torch.randn(4, 8), "onnxruntime")
    with pytest.raises(RecipeError, match=r"by 100\.0% of the largest number; usually forward decides"):
        refuse_other_answers(nn.Linear(8, 8, bias=False), torch.zeros_like, torch.randn(4, 8), "onnxruntime")


def test_what_the_fused_path_leaves_out_at_padding_is_no_fault_of_the_conversion() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(4, 6, 8)
    inputs[..., 0] = torch.tensor([1.0, 1, 1, 1, -1, -1])  # the padding, at the end of each example
    apply("openvino", Padded().eval(), inputs)


def test_a_class_without_arithmetic_is_not_named() -> None:
    model, inputs = make_patched("Linear", "none")
    model.layer.weight = Plainly(model.layer.weight.detach())
    with pytest.raises(RecipeError, match="usually forward decides"):
        refuse_other_answers(model, lambda x: model(x) + 1, inputs, "onnxruntime")


def test_an_error_within_a_graph_is_told_without_the_graph() -> None:
    graph: Any = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 2)))
    with pytest.raises(RuntimeError, match="While executing") as raised:
        torch.fx.Interpreter(graph).run(torch.zeros(1, 3))
    assert last_line(raised.value) == "RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x3 and 4x2)"
