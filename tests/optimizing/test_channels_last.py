"""channels-last: which convolutions really work in it, and that nothing outside of the model can tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.optimizing.apply import Optimization, RecipeDidNothing, optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from tests.optimizing.recipe_models import KINDS, TRAPS, apply, make, outputs, relative_error, run, saved_and_loaded

ROUNDING = 1e-5
"""Relative to the largest answer: some hundred float32 products summed in another order, by another kernel."""


def optimized(model: nn.Module, inputs: Any) -> Optimization:
    torch.manual_seed(0)
    return optimize(model.eval(), parse("channels-last").steps, Context(inputs, None, seed=0))


def covered(optimization: Optimization) -> set[str]:
    return {layer.name for layer in optimization.coverage.layers if layer.changed_bytes}


@pytest.mark.parametrize("kind", [kind for kind in (*KINDS, *TRAPS) if kind != "cnn"])
def test_a_model_without_such_convolutions_is_an_error_with_names(kind: str) -> None:
    with pytest.raises(
        RecipeDidNothing, match=r"channels-last changed nothing: the model holds .*; channels-last changes Conv2d"
    ):
        apply("channels-last", *make(kind))


def test_all_convolutions_of_a_cnn_work_in_it_and_no_number_changes() -> None:
    model, inputs = make("cnn")
    original = run(model, inputs)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimization = optimized(model, inputs)
    assert relative_error(run(model, inputs), original) < ROUNDING
    assert torch.equal(run(saved_and_loaded(optimization.model), inputs), run(model, inputs))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    convolutions = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert covered(optimization) == convolutions
    for name, module in model.named_modules():
        if name in convolutions:
            assert seen_format(optimization.model, module, inputs) is torch.channels_last


def seen_format(model: nn.Module, module: nn.Module, inputs: Any) -> torch.memory_format:
    """The memory format of what `module` answers within `model`, where only one fits."""
    found = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: found.append(output.detach()))
    run(model, inputs)
    hook.remove()
    (output,) = found
    assert output.is_contiguous() != output.is_contiguous(memory_format=torch.channels_last)
    return torch.contiguous_format if output.is_contiguous() else torch.channels_last


def test_kernels_of_one_pixel_follow_their_input() -> None:
    """Their weights fit both formats, so their strides cannot tell."""
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    assert covered(optimized(model, torch.randn(2, 3, 8, 8))) == {"0", "1", "2"}


def test_what_comes_after_a_reshape_is_seen_as_it_is() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
            self.unused = nn.Conv2d(8, 8, 3)

        def forward(self, x: torch.Tensor) -> Any:
            return self.again(self.first(x).contiguous())

    optimization = optimized(Patches(), torch.randn(2, 3, 8, 8))
    assert covered(optimization) == {"first"}
    notes = " | ".join(optimization.notes)
    assert "1 Conv2d (144 B) left as they are: they answer in the contiguous format all the same" in notes
    assert (
        f"1 Conv2d ({(8 * 8 * 9 + 8) * 4 / 1024:.2f} KiB) left as they are: the forward pass never calls them" in notes
    )


@pytest.mark.parametrize(
    ("make_model", "shape"),
    [
        (lambda: nn.Sequential(nn.Conv3d(2, 4, 3), nn.ReLU(), nn.ConvTranspose3d(4, 3, 2)), (2, 2, 5, 5, 5)),
        (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 3, 2)), (2, 2, 6, 6)),
        (lambda: nn.Conv2d(2, 4, 3), (2, 2, 6, 6)),
    ],
)
def test_answers_leave_contiguous_as_before(make_model: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model, inputs = make_model().eval(), torch.randn(shape)
    original = run(model, inputs)
    optimization = optimized(model, inputs)
    for variant in (optimization.model, saved_and_loaded(optimization.model)):
        answer = run(variant, inputs)
        assert answer.is_contiguous()
        assert original.stride() == answer.stride()
        assert relative_error(answer, original) < ROUNDING
    assert optimization.coverage.share == 1


class Maps(nn.Module):
    """Answers in all forms: a contiguous map, a transposed view, a vector, a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3)

    def forward(self, image: torch.Tensor, scale: torch.Tensor | None = None) -> dict[str, Any]:
        x = self.layer(image) if scale is None else self.layer(image) * scale
        return {"map": x, "view": [x.transpose(2, 3)], "vector": x.mean((2, 3)), "number": 3}


def test_nested_answers_and_keyword_inputs_keep_their_layouts() -> None:
    torch.manual_seed(0)
    model, inputs = Maps().eval(), {"image": torch.randn(2, 3, 8, 8), "scale": torch.randn(2, 1, 1, 1)}
    original = run(model, inputs)
    answer = run(optimized(model, inputs).model, inputs)
    assert relative_error(answer, original) < ROUNDING
    assert answer["number"] == 3
    contiguous = [tensor.is_contiguous() for tensor in outputs(original)]
    assert contiguous == [True, False, True]
    assert all(new.is_contiguous() for new, was in zip(outputs(answer), contiguous, strict=True) if was)


def test_a_single_image_without_a_batch_and_another_batch_size_work() -> None:
    model, inputs = make("cnn")
    one, many = torch.randn(1, 3, 16, 16), torch.randn(7, 3, 16, 16)
    expected = [run(model, one), run(model, many)]
    variant = optimized(model, inputs).model
    assert relative_error(run(variant, one), expected[0]) < ROUNDING
    assert relative_error(run(variant, many), expected[1]) < ROUNDING


def test_16_bits_are_taken() -> None:
    model, inputs = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).bfloat16(), torch.randn(2, 3, 8, 8).bfloat16()
    original = run(model, inputs)
    optimization = optimized(model, inputs)
    assert relative_error(run(optimization.model, inputs), original) < 2**-7  # one rounding of bfloat16
    assert covered(optimization) == {"0"}


def test_a_model_that_is_in_it_already_is_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with pytest.raises(RecipeDidNothing, match="they work in channels-last already"):
        optimized(model, torch.randn(2, 3, 8, 8))


def test_a_view_that_needs_the_old_format_is_named_with_its_line() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 4)

        def forward(self, x: torch.Tensor) -> Any:
            x = self.layer(x)
            return self.head(x.view(len(x), -1))

    with pytest.raises(
        RecipeError, match=r"does not run in this memory format \(test_channels_last.py:\d+: `return self.head\(x.view"
    ):
        optimized(Views(), torch.randn(2, 3, 8, 8))


def test_int8_static_and_pruning_can_follow_it() -> None:
    for second in ("int8-static", "prune-structured"):
        model, inputs = make("cnn")
        original = run(model, inputs)
        optimization = apply(f"channels-last + {second}", model, inputs)
        answer = run(optimization.model, inputs)
        assert answer.shape == original.shape
        if second == "int8-static":
            assert relative_error(answer, original) < 0.06
        assert torch.equal(run(saved_and_loaded(optimization.model), inputs), answer)


def test_two_steps_cover_what_either_of_them_did() -> None:
    """channels-last works on convolutions, low-rank on the Linear layers beside them."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 64), nn.LayerNorm(64))
    inputs = torch.randn(2, 3, 8, 8)
    torch.manual_seed(0)
    optimization = apply("channels-last + low-rank", model.eval(), inputs)
    by_name = {layer.name: layer for layer in optimization.coverage.layers}
    convolution, linear = (8 * 3 * 9 + 8) * 4, 64 * 288 * 4
    assert (by_name["0"].changed_bytes, by_name["3"].changed_bytes) == (convolution, linear)
    assert by_name["4"].changed_bytes == 0
    assert [step.changed_bytes for step in optimization.coverage.steps] == [convolution, linear]
    assert optimization.coverage.changed_bytes == convolution + linear
