"""prune-structured: layers to keep, scores by Taylor expansion, training afterwards, and batch-norm statistics."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from pytest_modelopt.optimizing.apply import optimize
from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from tests.optimizing.recipe_models import CNN, Optimized, Recurrent, apply, make, relative_error, run, saved_and_loaded

Batches = list[tuple[Inputs, torch.Tensor]]


def pruned(expression: str, model: nn.Module, batches: Batches) -> Optimized:
    """With calibration data that has targets."""

    def training() -> Iterator[tuple[Inputs, torch.Tensor]]:
        return iter(batches)

    context = Context(batches[0][0], lambda: (x for x, _ in training()), seed=0, training=training)
    return cast("Optimized", optimize(model, parse(expression).steps, context))


def classes(inputs: Inputs, count: int, number: int = 2) -> Batches:
    generator = torch.Generator().manual_seed(3)
    shape = next(iter(inputs.values())).shape if isinstance(inputs, dict) else inputs.shape
    return [(inputs, torch.randint(0, count, shape[:1], generator=generator)) for _ in range(number)]


class TestKeep:
    def test_named_layers_and_those_that_share_their_width_are_spared(self) -> None:
        model, inputs = make("cnn")
        optimization = apply("prune-structured(ratio=0.5, keep='stem, block1.*')", model, inputs)
        assert model.stem.out_channels == 16
        assert model.depthwise.groups == model.block1.conv2.out_channels == model.block1.conv1.out_channels == 32
        assert model.block2.conv1.out_channels == 32
        assert "5 Conv2d (" in " ".join(optimization.notes)
        assert "they, or layers whose width they share, are named in keep" in " ".join(optimization.notes)

    def test_a_depthwise_convolution_is_spared_with_what_it_reads(self) -> None:
        model, inputs = make("cnn")
        apply("prune-structured(ratio=0.5, keep='*depthwise*')", model, inputs)
        assert (model.depthwise.groups, model.block1.conv2.out_channels) == (32, 32)
        assert (model.stem.out_channels, model.block1.conv1.out_channels) == (8, 16)

    def test_a_container_spares_all_within(self) -> None:
        model, inputs = make("encoder")
        apply("prune-structured(ratio=0.5, heads=true, keep='encoder.layers.0')", model, inputs)
        assert [layer.linear1.out_features for layer in model.encoder.layers] == [128, 64]
        assert [layer.self_attn.num_heads for layer in model.encoder.layers] == [4, 2]

    @pytest.mark.parametrize(
        ("keep", "told"),
        [
            ("block1.conv3", "keep names 'block1.conv3', and the model has no such module; the nearest name is"),
            ("stem,*.conv9", r"keep names '\*.conv9', and the model has no such module"),
        ],
    )
    def test_a_pattern_that_matches_nothing_is_an_error(self, keep: str, told: str) -> None:
        with pytest.raises(RecipeError, match=told):
            apply(f"prune-structured(keep='{keep}')", *make("cnn"))

    def test_the_nearest_name_is_told(self) -> None:
        with pytest.raises(RecipeError, match=r"the nearest name is 'block1.conv2'"):
            apply("prune-structured(keep='block1.conv2d')", *make("cnn"))


class TestExpressions:
    @pytest.mark.parametrize(
        ("text", "spelling"),
        [
            ("prune-structured(heads=true)", "prune-structured(ratio=0.3, heads=true)"),
            ("prune-structured(heads=false, batches=4)", "prune-structured(ratio=0.3)"),
            ("prune-structured(importance=taylor)", "prune-structured(ratio=0.3, importance=taylor)"),
            ("prune-structured(keep=stem)", "prune-structured(ratio=0.3, keep=stem)"),
            ('prune-structured(keep="stem,b.*")', "prune-structured(ratio=0.3, keep='stem,b.*')"),
            ("prune-structured(finetune='a.b:c')", "prune-structured(ratio=0.3, finetune='a.b:c')"),
        ],
    )
    def test_one_spelling(self, text: str, spelling: str) -> None:
        assert parse(text).text == spelling
        assert parse(spelling) == parse(text)

    @pytest.mark.parametrize("name", ["train", "a.b", "a:b:c", "a b:c", ":c", "a:", "1a:b", "a..b:c", "a:b()"])
    def test_a_function_is_named_by_module_and_name(self, name: str) -> None:
        with pytest.raises(RecipeError) as error:
            parse(f"prune-structured(finetune='{name}')")
        assert str(error.value) == (
            f"finetune of prune-structured: {name!r} names no function: write finetune='package.module:function'"
        )

    def test_empty_names_between_commas_are_told(self) -> None:
        with pytest.raises(RecipeError, match="keep of prune-structured: nothing stands before or after a comma"):
            parse("prune-structured(keep='stem,,head')")

    def test_other_mistakes(self) -> None:
        with pytest.raises(RecipeError, match="heads of prune-structured must be true or false, not 2"):
            parse("prune-structured(heads=2)")
        with pytest.raises(RecipeError, match="must be 'magnitude' or 'taylor', not 'tailor'"):
            parse("prune-structured(importance=tailor)")


class TestTaylor:
    def test_units_without_influence_on_the_loss_go_however_large_they_are(self) -> None:
        """Units that are never active have no gradient; magnitude would keep them, because they are the largest."""
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)).eval()
        dead = torch.randperm(64)[:24]
        alive = torch.ones(64, dtype=torch.bool).scatter_(0, dead, False)
        with torch.no_grad():
            model[0].weight[dead] *= 10
            model[0].bias[dead] = -1000
            model[2].weight[:, dead] *= 10
        inputs = torch.randn(32, 16)
        original, expected = run(model, inputs), model[0].weight.detach()[alive].clone()
        optimization = pruned("prune-structured(ratio=0.375, importance=taylor)", model, classes(inputs, 4))
        assert torch.equal(model[0].weight, expected)
        assert torch.allclose(run(model, inputs), original, atol=1e-5)
        assert "chosen by the gradients of 2 calibration batches (of 4 asked for" in optimization.notes[0]

    def test_scores_are_weight_times_gradient_of_all_batches(self) -> None:
        """The oracle: gradients by hand for one hidden layer, without autograd's accumulation."""
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 3)).eval()
        batches: Batches = [(torch.randn(6, 8), torch.randn(6, 3)) for _ in range(3)]
        first, second = model[0].weight.detach(), model[1].weight.detach()
        gradient_first, gradient_second = torch.zeros_like(first), torch.zeros_like(second)
        for x, y in batches[:2]:
            assert isinstance(x, torch.Tensor)
            hidden = x @ first.t() + model[0].bias.detach()
            error = 2 * (hidden @ second.t() + model[1].bias.detach() - y) / y.numel()
            gradient_second += error.t() @ hidden
            gradient_first += (error @ second).t() @ x
        scores = (first * gradient_first).abs().sum(1) + (second * gradient_second).abs().sum(0)
        kept = scores.argsort()[16:].sort().values
        expected = first[kept].clone()
        pruned("prune-structured(ratio=0.5, importance=taylor, batches=2)", model, batches)
        assert torch.equal(model[0].weight, expected)

    def test_heads_without_influence_go_first(self) -> None:
        model, inputs = make("attention")
        with torch.no_grad():
            model.qkv.weight.view(3, 4, 16, 64)[2, [1, 2]] = 0  # values of two heads
            model.qkv.bias.view(3, 4, 16)[2, [1, 2]] = 0
            model.qkv.weight.view(3, 4, 16, 64)[:2, [1, 2]] *= 5
            model.project.weight.view(64, 4, 16)[:, [1, 2]] = 0
        kept = model.qkv.weight.detach().view(3, 4, 16, 64)[0, [0, 3]].flatten(0, 1).clone()
        expression = "prune-structured(ratio=0.5, heads=true, importance=taylor, keep='embed,wide,head')"
        pruned(expression, model, classes(inputs, 5))
        assert torch.equal(model.qkv.weight[:32], kept)

    @pytest.mark.parametrize("kind", ["cnn", "encoder", "lstm", "dict output", "two inputs"])
    def test_no_gradient_is_left_behind_and_flags_stay(self, kind: str) -> None:
        model, inputs = make(kind)
        next(iter(model.parameters())).requires_grad_(False)
        frozen = next(name for name, _ in model.named_parameters())
        count = 10 if kind in ("cnn", "dict output", "two inputs") else 5
        variant = pruned("prune-structured(ratio=0.5, importance=taylor)", model, classes(inputs, count)).model
        assert all(parameter.grad is None for parameter in variant.parameters())
        flags = {name: parameter.requires_grad for name, parameter in variant.named_parameters()}
        assert [name for name, flag in flags.items() if not flag] == [frozen]
        assert not variant.training

    @pytest.mark.parametrize(
        ("outputs", "targets"),
        [
            (torch.randn(4, 6, 5), torch.randint(0, 5, (4, 6))),
            (torch.randn(4, 5, 6), torch.randint(0, 5, (4, 6))),
            (torch.randn(4, 1), torch.randn(4)),
            (torch.randn(4, 3), torch.randn(4, 3)),
        ],
    )
    def test_losses_of_sequences_and_of_numbers(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        from pytest_modelopt.optimizing.pruning.structured.taylor import loss_of

        if targets.is_floating_point():
            expected = (outputs.reshape(targets.shape) - targets).square().mean()
        else:
            scores = outputs if outputs.shape[-1] == 5 else outputs.transpose(1, 2)
            expected = -scores.log_softmax(-1).gather(-1, targets[..., None]).mean()
        assert torch.allclose(loss_of(outputs, targets), expected)

    def test_gradients_that_the_model_brought_along_do_not_count(self) -> None:
        answers = []
        for brought in (False, True):
            model, inputs = make("mlp")
            if brought:
                for parameter in model.parameters():
                    parameter.grad = torch.randn_like(parameter)
            variant = pruned("prune-structured(importance=taylor)", model, classes(inputs, 10)).model
            answers.append(run(variant, inputs))
        assert torch.equal(*answers)

    def test_without_targets_it_is_refused(self) -> None:
        with pytest.raises(RecipeError, match=r"importance=taylor\) needs calibration data with targets"):
            apply("prune-structured(importance=taylor)", *make("mlp"))

    @pytest.mark.parametrize(
        ("targets", "told"),
        [
            (torch.zeros(4, 7), r"outputs \(4, 10\) and targets \(4, 7\) float32 fit neither"),
            (torch.zeros(4, dtype=torch.bool), "bool fit neither"),
            (torch.full((4,), 99), "cannot compute gradients on calibration batch 1: IndexError"),
            (torch.full((4, 10), float("inf")), "the loss on calibration batch 1 is inf"),
        ],
    )
    def test_targets_that_do_not_fit_are_told(self, targets: torch.Tensor, told: str) -> None:
        model, inputs = make("mlp")
        with pytest.raises(RecipeError, match=told):
            pruned("prune-structured(importance=taylor)", model, [(inputs, targets)])

    def test_no_batch_and_no_tensor_are_told(self) -> None:
        model, inputs = make("mlp")
        empty = Context(inputs, lambda: iter([]), seed=0, training=lambda: iter([]))
        with pytest.raises(RecipeError, match="the calibration gave no batch"):
            optimize(model, parse("prune-structured(importance=taylor)").steps, empty)
        model, inputs = make("tuple output")
        with pytest.raises(RecipeError, match="returns a tuple without `logits`; use importance=magnitude"):
            pruned("prune-structured(importance=taylor)", model, classes(inputs, 10))


TRAINING = """
import random
import torch

modes, flags = [], []

def train(model, batches):
    modes.append((model.training, torch.is_grad_enabled()))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.2)
    for _ in range(50):
        for inputs, targets in batches():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()

def draws(model, batches):
    model[0].bias.data += torch.randn(()) + random.random()

def returns(model, batches):
    return torch.nn.Sequential(model)

def returns_a_number(model, batches):
    return 0.5

def fails(model, batches):
    raise KeyError("loss")

number = 3
"""


@pytest.fixture
def training_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "my_training.py").write_text(TRAINING, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_training", None)


@pytest.mark.usefixtures("training_module")
class TestFinetune:
    def test_the_smaller_model_is_trained_in_train_mode_and_left_in_eval_mode(self) -> None:
        model, inputs = make("mlp")
        batches = classes(inputs, 10)

        def loss(model: nn.Module) -> float:
            return sum(float(nn.functional.cross_entropy(run(model, x), y)) for x, y in batches)

        untrained = loss(pruned("prune-structured(ratio=0.5)", make("mlp")[0], batches).model)
        optimization = pruned("prune-structured(ratio=0.5, finetune='my_training:train')", model, batches)
        assert loss(optimization.model) < 0.5 * untrained
        assert optimization.model[0].out_features == 64
        assert sys.modules["my_training"].modes == [(True, True)]
        assert not any(module.training for module in optimization.model.modules())
        assert all(parameter.grad is None for parameter in optimization.model.parameters())
        notes = " ".join(optimization.notes)
        assert "was trained further by my_training:train: its accuracy is not comparable" in notes
        assert "without further training" not in notes
        reloaded = saved_and_loaded(optimization.model)
        assert torch.equal(run(reloaded, inputs), run(optimization.model, inputs))

    def test_thinner_layers_are_trained_and_what_keep_names_is_not(self) -> None:
        """By the function of the project, as after pruning; of the model without it the loss is larger."""
        model, inputs = make("mlp")
        batches = classes(inputs, 10)
        last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
        before = model.get_submodule(last).weight.detach().clone()

        def loss(model: nn.Module) -> float:
            return sum(float(nn.functional.cross_entropy(run(model, x), y)) for x, y in batches)

        untrained = loss(pruned("low-rank(ratio=0.1)", make("mlp")[0], batches).model)
        optimization = pruned(f"low-rank(ratio=0.1, finetune='my_training:train', keep='{last}')", model, batches)
        assert loss(optimization.model) < 0.8 * untrained
        kept = optimization.model.get_submodule(last)
        assert torch.equal(kept.weight, before)
        assert kept.weight.requires_grad
        assert "was trained further by my_training:train" in " ".join(optimization.notes)
        assert parse("low-rank(finetune='a.b:c')").text == "low-rank(ratio=0.5, finetune='a.b:c')"
        with pytest.raises(RecipeError, match=r"low-rank\(finetune=my_training:train\) needs calibration data"):
            apply("low-rank(finetune='my_training:train')", *make("mlp"))

    def test_what_the_project_draws_repeats(self) -> None:
        found = []
        for noise in range(2):
            model, inputs = make("mlp")
            batches = classes(inputs, 10)
            torch.manual_seed(noise)
            found.append(run(pruned("prune-structured(finetune='my_training:draws')", model, batches).model, inputs))
        assert torch.equal(*found)

    def test_a_model_that_is_returned_takes_its_place(self) -> None:
        model, inputs = make("mlp")
        variant = pruned("prune-structured(finetune='my_training:returns')", model, classes(inputs, 10)).model
        assert len(variant) == 1
        assert variant[0] is model

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("no_such_module:f", "no_such_module cannot be imported: ModuleNotFoundError"),
            ("my_training:tran", "my_training has no tran"),
            ("my_training:number", "my_training:number is a int, not a function"),
            ("my_training:fails", r"failed \(my_training.py:\d+: `raise KeyError\(\"loss\"\)`\): KeyError: 'loss'"),
            ("my_training:returns_a_number", "returned a float; it trains the model in place and returns None"),
        ],
    )
    def test_what_goes_wrong_is_told(self, name: str, told: str) -> None:
        model, inputs = make("mlp")
        with pytest.raises(RecipeError, match=told):
            pruned(f"prune-structured(finetune='{name}')", model, classes(inputs, 10))

    def test_it_needs_targets_and_the_name_is_imported_only_when_applied(self) -> None:
        with pytest.raises(RecipeError, match="needs calibration data with targets"):
            apply("prune-structured(finetune='my_training:train')", *make("mlp"))
        assert "my_training" not in sys.modules


def batch_norm_model() -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16, momentum=0.1), nn.Dropout(0.5)
    )
    return nn.Sequential(*model, nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(8 * 10 * 10, 4)).eval()


class TestBatchNorm:
    def test_statistics_are_the_average_over_the_calibration_batches(self) -> None:
        model = batch_norm_model()
        batches = [torch.randn(4, 3, 16, 16) + step for step in range(6)]
        context = Context(batches[0], lambda: iter(batches), seed=0)
        optimization = optimize(model, parse("prune-structured(ratio=0.5)").steps, context)
        entering = [run(model[:3], batch) for batch in batches[:4]]
        norm = model[3]
        assert torch.allclose(norm.running_mean, sum(x.mean((0, 2, 3)) for x in entering) / 4, atol=1e-5)
        assert torch.allclose(norm.running_var, sum(x.var((0, 2, 3)) for x in entering) / 4, rtol=1e-4)
        assert (norm.momentum, norm.training, norm.num_features) == (0.1, False, 8)
        assert "statistics of 1 BatchNorm2d (64 B) were recomputed on 4 calibration batches" in optimization.notes[1]

    def test_without_calibration_data_the_note_says_whose_they_are(self) -> None:
        model, x = batch_norm_model(), torch.randn(4, 3, 16, 16)
        with torch.no_grad():
            model[3].running_mean.copy_(torch.arange(16.0))
        optimization = optimize(model, parse("prune-structured(ratio=0.5)").steps, Context(x, None, seed=0))
        assert optimization.notes[1] == (
            "1 BatchNorm2d (64 B) keep the statistics of the unpruned model: give calibration data, and they are "
            "recomputed"
        )
        assert set(model[3].running_mean.tolist()) < set(range(16))

    @pytest.mark.parametrize(
        ("batches", "told"),
        [
            ([], "could not be recomputed: the calibration gave no batch"),
            ([torch.zeros(4, 3, 16, 15)], "could not be recomputed: RuntimeError"),
        ],
    )
    def test_what_cannot_be_recomputed_stays_as_it_was(self, batches: list[torch.Tensor], told: str) -> None:
        model, x = batch_norm_model(), torch.randn(4, 3, 16, 16)
        with torch.no_grad():
            model[3].running_mean.copy_(torch.arange(16.0))
        context = Context(x, lambda: iter(batches), seed=0)
        optimization = optimize(model, parse("prune-structured(ratio=0.5)").steps, context)
        assert told in optimization.notes[1]
        assert set(model[3].running_mean.tolist()) < set(range(16))
        assert (model[3].momentum, model[3].training) == (0.1, False)


class TestSoundness:
    """What is removed leaves the function of the silenced units, also where a branch hardly shows in the answers."""

    def test_a_scramble_within_a_branch_of_no_weight_is_seen(self) -> None:
        class Branch(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second, self.third = nn.Linear(8, 32), nn.Linear(32, 8), nn.Linear(8, 4)

            def forward(self, x: torch.Tensor) -> Any:
                return self.third(x + 1e-6 * self.second(self.first(x).flip(-1)))

        torch.manual_seed(0)
        with pytest.raises(RecipeError, match="would be mistaken for others"):
            apply("prune-structured(ratio=0.5)", Branch(), torch.randn(4, 8))

    @pytest.mark.parametrize("norm", [nn.LayerNorm, lambda width: nn.GroupNorm(4, width)])
    @pytest.mark.parametrize("flipped", [False, True])
    def test_norms_take_their_statistics_over_what_remains(
        self, norm: Callable[[int], nn.Module], flipped: bool
    ) -> None:
        class Normed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.norm, self.second = nn.Linear(8, 32), norm(32), nn.Linear(32, 4)

            def forward(self, x: torch.Tensor) -> Any:
                x = self.norm(self.first(x))
                return self.second(x.flip(-1) if flipped else x)

        torch.manual_seed(0)
        model: Any
        model, x = Normed(), torch.randn(4, 8)
        with torch.no_grad():
            model.norm.weight.uniform_(0.5, 2)
        if flipped:
            with pytest.raises(RecipeError, match="would be mistaken for others"):
                apply("prune-structured(ratio=0.5)", model, x)
            return
        apply("prune-structured(ratio=0.5)", model, x)
        assert (model.first.out_features, model.second.in_features) == (16, 16)

    def test_one_channel_left_is_told(self) -> None:
        notes = " ".join(apply("prune-structured(ratio=0.99, round_to=1)", *make("mlp")).notes)
        assert "2 Linear (" in notes
        assert "are left with a single channel" in notes

    def test_a_share_that_floating_point_cannot_hold_is_not_rounded_down(self) -> None:
        model = nn.Sequential(nn.Linear(8, 240), nn.ReLU(), nn.Linear(240, 4))
        apply("prune-structured(ratio=0.9)", model, torch.randn(2, 8))
        assert model[0].out_features == 24

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_other_precisions(self, dtype: torch.dtype) -> None:
        model, inputs = make("encoder")
        model = model.to(dtype)
        apply("prune-structured(ratio=0.5, heads=true)", model, inputs.to(dtype))
        assert model.encoder.layers[0].linear1.out_features == 64
        assert model.encoder.layers[0].self_attn.num_heads == 2

    def test_grouped_convolutions_lose_the_same_of_each_group(self) -> None:
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 64, 3, groups=4), nn.ReLU(), nn.Conv2d(64, 4, 1))
        apply("prune-structured(ratio=0.5)", model, torch.randn(2, 3, 8, 8))
        assert (model[1].groups, model[1].in_channels, model[1].out_channels) == (4, 16, 32)

    def test_a_cnn_and_a_recurrent_model_equal_their_silenced_originals(self) -> None:
        """The oracle: the original with the channels that are gone multiplied by zero behind their layer."""
        torch.manual_seed(0)
        for model, inputs, name in (
            (CNN().eval(), torch.randn(2, 3, 16, 16), "stem"),
            (Recurrent(nn.LSTM).eval(), torch.randint(0, 50, (3, 9)), "hidden"),
        ):
            weight = model.get_parameter(f"{name}.weight").detach().clone()
            original = saved_and_loaded(model)
            keep = ",".join(n for n, m in model.named_children() if n != name)
            optimize(model, parse(f"prune-structured(ratio=0.5, keep='{keep}')").steps, Context(inputs, None, seed=0))
            remaining = model.get_parameter(f"{name}.weight")
            gone = torch.tensor([not any(torch.equal(row, other) for other in remaining) for row in weight])
            assert int(gone.sum()) == len(weight) // 2
            shape = (1, -1, 1, 1) if weight.dim() == 4 else (1, -1)
            original.get_submodule(name).register_forward_hook(
                lambda _m, _i, out, gone=gone, shape=shape: out * (~gone).view(shape)
            )
            assert relative_error(run(model, inputs), run(original, inputs)) < 1e-5
