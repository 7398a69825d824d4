"""Pruning and factorization on small models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.optimizing.recipe import RecipeError
from tests.optimizing.recipe_models import HandWrittenAttention, apply, make, run


class TestPruneUnstructured:
    @pytest.mark.parametrize("ratio", [0.1, 0.5, 0.93])
    def test_zeros_are_counted_exactly_per_layer(self, ratio: float) -> None:
        model, inputs = make("cnn")
        apply(f"prune-unstructured(ratio={ratio})", model, inputs)
        for layer in model.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                assert int((layer.weight == 0).sum()) == round(ratio * layer.weight.numel())

    def test_the_smallest_weights_of_all_layers_go_under_global_scope(self) -> None:
        model, inputs = make("mlp")
        with torch.no_grad():
            model[0].weight.mul_(1e-3)
        weights = torch.cat([model[index].weight.detach().abs().flatten().clone() for index in (0, 2, 4)])
        apply("prune-unstructured(ratio=0.2, scope=global)", model, inputs)
        after = torch.cat([model[index].weight.detach().abs().flatten() for index in (0, 2, 4)])
        zeros = after == 0
        assert int(zeros.sum()) == round(0.2 * len(weights))
        assert weights[zeros].max() <= weights[~zeros].min()

    def test_is_permanent_and_says_that_it_saves_nothing(self) -> None:
        model, inputs = make("lstm")
        names = set(model.state_dict())
        notes = " ".join(apply("prune-unstructured", model, inputs).notes)
        assert set(model.state_dict()) == names
        assert "are zero (50.0%); the shapes are unchanged" in notes
        assert "1 LSTM (98 KiB)" in notes


class TestPruneStructured:
    def test_removes_exactly_the_units_with_planted_low_norm(self) -> None:
        model, inputs = make("mlp")
        assert isinstance(inputs, torch.Tensor)
        planted = torch.randperm(128)[:40]
        kept = torch.ones(128, dtype=torch.bool)
        kept[planted] = False
        with torch.no_grad():
            model[2].weight[planted] *= 1e-5
            model[2].bias[planted] = 0
            model[4].weight[:, planted] *= 1e-5
        original, expected = run(model, inputs), model[4].weight.detach()[:, kept].clone()
        apply("prune-structured(ratio=0.3125)", model, inputs)
        assert torch.equal(model[4].weight, expected)
        pruned_first = run(nn.Sequential(*list(model)[:1]), inputs)
        assert pruned_first.shape[1] == 88
        assert original.shape == run(model, inputs).shape

    def test_planted_units_alone_leave_the_answers_unchanged(self) -> None:
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
        planted = torch.randperm(64)[:24]
        with torch.no_grad():
            model[0].weight[planted] *= 1e-6
            model[0].bias[planted] = 0
            model[2].weight[:, planted] *= 1e-6
        inputs = torch.randn(8, 16)
        original = run(model, inputs)
        apply("prune-structured(ratio=0.375)", model, inputs)
        assert model[0].out_features == 40
        assert torch.allclose(run(model, inputs), original, atol=1e-5)

    def test_a_cnn_loses_channels_everywhere_and_depthwise_follows(self) -> None:
        model, inputs = make("cnn")
        apply("prune-structured(ratio=0.5)", model, inputs)
        assert model.stem.out_channels == 8
        assert model.depthwise.groups == model.depthwise.out_channels == model.block1.conv2.out_channels == 16
        assert model.block2.norm2.num_features == model.head.in_features == 32
        assert model.head.out_features == 10

    def test_a_transformer_keeps_its_width_and_loses_hidden_units_and_without_heads_no_attention(self) -> None:
        model, inputs = make("encoder")
        optimization = apply("prune-structured(ratio=0.5, heads=false)", model, inputs)
        layer = model.encoder.layers[0]
        assert (layer.linear1.in_features, layer.linear1.out_features) == (64, 64)
        assert (layer.self_attn.embed_dim, layer.self_attn.num_heads) == (64, 4)
        assert optimization.coverage.changed_bytes == 2 * (2 * 64 * 128 + 128) * 4
        notes = " ".join(optimization.notes)
        assert "MultiheadAttention shares their width" in notes
        assert "2 MultiheadAttention (130 KiB) keep their attention heads: heads=false" in notes

    def test_no_layer_gets_narrower_than_round_to(self) -> None:
        model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 4))
        optimization = apply("prune-structured(ratio=0.9)", model, torch.randn(2, 8))
        assert [model[index].out_features for index in (0, 2, 4)] == [8, 8, 4]
        assert any("too narrow to lose 90%" in note for note in optimization.notes)

    @pytest.mark.parametrize("size", [16, -1])
    @pytest.mark.parametrize("ratio", [0.25, 0.375, 0.5])
    def test_hand_written_attention_without_heads_is_left_and_the_rest_is_pruned(self, size: int, ratio: float) -> None:
        torch.manual_seed(0)
        model, inputs = HandWrittenAttention(size).eval(), torch.randn(2, 5, 16)
        optimization = apply(f"prune-structured(ratio={ratio}, heads=false)", model, inputs)
        assert model.qkv.out_features == model.qkv.weight.shape[0] == 192
        assert model.wide.out_features == 128 * (1 - ratio)
        assert "2 Linear" in optimization.notes[1]
        assert "keep their attention heads: heads=false" in optimization.notes[1]

    def test_units_that_the_code_reorders_are_never_mistaken_for_others(self) -> None:
        class Reversed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second, self.third = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 4)

            def forward(self, x: torch.Tensor) -> Any:
                return self.third(torch.relu(self.second(self.first(x).flip(-1))))

        torch.manual_seed(0)
        model = Reversed()
        optimization = apply("prune-structured(ratio=0.5)", model, torch.randn(4, 8))
        assert (model.first.out_features, model.second.out_features) == (32, 16)
        assert any("would be mistaken for others" in note for note in optimization.notes)

    def test_gradient_flags_and_frozen_models_stay_as_they_were(self) -> None:
        model, inputs = make("mlp")
        model.requires_grad_(False)
        model[2].weight.requires_grad_(True)
        apply("prune-structured", model, inputs)
        assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == ["2.weight"]

    def test_missing_torch_pruning_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "torch_pruning", None)
        with pytest.raises(RecipeError, match=r'pip install "pytest-modelopt\[pruning\]"'):
            apply("prune-structured", *make("mlp"))

    def test_an_output_keeps_its_shape_also_where_it_is_a_hidden_layer(self) -> None:
        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second, self.third = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 4)

            def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
                hidden = torch.relu(self.first(x))
                return {"hidden": hidden, "answer": self.third(torch.relu(self.second(hidden)))}

        model = Two()
        apply("prune-structured(ratio=0.5)", model, torch.randn(2, 8))
        assert (model.first.out_features, model.second.out_features) == (32, 16)


class TestLowRank:
    @pytest.mark.parametrize("ratio", [0.25, 0.5, 0.8])
    def test_equals_the_truncated_decomposition(self, ratio: float) -> None:
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(96, 80))
        weight, bias = model[0].weight.detach().double().clone(), model[0].bias.detach().clone()
        apply(f"low-rank(ratio={ratio})", model, torch.randn(2, 96))
        left, singular, right = torch.linalg.svd(weight, full_matrices=False)
        rank = int(ratio * 96 * 80 / (96 + 80))
        nearest = sum(singular[i] * torch.outer(left[:, i], right[i]) for i in range(rank))
        first, second = model[0].requires_grad_(False)
        assert first.weight.shape == (rank, 96)
        assert first.bias is None
        assert torch.equal(second.bias, bias)
        assert torch.allclose(second.weight.double() @ first.weight.double(), nearest, atol=1e-5)
        error = torch.linalg.matrix_norm(weight - second.weight.double() @ first.weight.double())
        assert float(error) == pytest.approx(float(singular[rank:].square().sum().sqrt()), rel=1e-4)

    def test_a_low_rank_weight_is_kept_whole(self) -> None:
        model: Any
        model, inputs = nn.Sequential(nn.Linear(64, 64)), torch.randn(4, 64)
        with torch.no_grad():
            model[0].weight.copy_(torch.randn(64, 3) @ torch.randn(3, 64))
        original = run(model, inputs)
        optimization = apply("low-rank", model, inputs)
        assert torch.allclose(run(model, inputs), original, atol=1e-3)
        assert "keep 100.0% at the least" in optimization.notes[0]

    def test_tiny_and_tied_layers_are_left_and_shared_ones_stay_shared(self) -> None:
        shared, tied = nn.Linear(64, 64), nn.Linear(64, 100, bias=False)
        model: Any = nn.Sequential(
            nn.Embedding(100, 64), shared, nn.ReLU(), shared, nn.Linear(64, 64), tied, nn.Linear(100, 4)
        )
        tied.weight = model[0].weight
        notes = " ".join(apply("low-rank", model, torch.randint(0, 100, (2, 3))).notes)
        assert model[1] is model[3]
        assert type(model[1]) is nn.Sequential
        assert model[5] is tied
        assert "another module shares their weight" in notes
        assert "fewer than 4096 weights each" in notes
