"""Attention heads: removed whole where the answers stay those of the silenced heads, and left alone elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from pytest_modelopt.optimizing.apply import RecipeDidNothing
from pytest_modelopt.optimizing.calling import Inputs
from tests.optimizing.attention_models import Fused, Grouped, OfOneWidth, PerHeadBias, Residual, Separate
from tests.optimizing.recipe_models import HandWrittenAttention, apply, make, relative_error, run, saved_and_loaded

ROUNDING = 1e-5
FLOAT32 = 4
HEADS_ONLY = "prune-structured(ratio=0.5, heads=true, keep='embed,head')"
"""The residual stream keeps its width, so that nothing but heads can go."""

REMOVED = [0, 2]
"""The heads that `plant` makes light, of four."""


def readers(model: nn.Module) -> list[torch.Tensor]:
    """The weights that read the heads' outputs, of every attention of these tests."""
    names = ("to_out.0.weight", "out_proj.weight", "project.weight", "output.dense.weight")
    found = [p for name, p in model.named_parameters() if name.endswith(names)]
    return [weight for weight in found if weight.shape[1] in (32, 64)]


def silence(model: nn.Module, heads: list[int], count: int = 4, factor: float = 0.0) -> nn.Module:
    """A copy in which these heads add nothing, or `factor` of what they did."""
    silent = copy.deepcopy(model)
    with torch.no_grad():
        for weight in readers(silent):
            by_head = weight.view(weight.shape[0], count, -1)
            by_head[:, heads] *= factor
    return silent


def planted(model: nn.Module) -> nn.Module:
    """The heads in REMOVED are the lightest, and still heavy enough that to mistake them for others would show."""
    return silence(model, REMOVED, factor=0.3)


KINDS: dict[str, Callable[[], nn.Module]] = {
    "fused 3 h d": lambda: Fused("3 h d"),
    "fused h 3 d": lambda: Fused("h 3 d"),
    "fused h d 3": lambda: Fused("h d 3"),
    "separate": Separate,
    "torch": lambda: nn.MultiheadAttention(32, 4, batch_first=True),
    "torch without bias": lambda: nn.MultiheadAttention(32, 4, bias=False, batch_first=True),
}


@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize("kind", KINDS)
def test_the_lightest_heads_go_and_the_answers_are_those_without_them(kind: str, scale: float) -> None:
    """A scale of 1e-6, as some vision transformers begin with: nothing of the attention shows in the answers."""
    torch.manual_seed(0)
    model = planted(Residual(KINDS[kind](), scale).eval())
    inputs = torch.randn(3, 7, 16)
    silent = silence(model, REMOVED)
    expected, mixed = run(silent, inputs), run_attention(silent)
    optimization = apply(HEADS_ONLY, model, inputs)
    variant = optimization.model
    assert "removed 2 of 4 attention heads;" in optimization.notes[0]
    assert "keep their attention heads" not in " ".join(optimization.notes)
    assert relative_error(run(variant, inputs), expected) < ROUNDING
    assert relative_error(run_attention(variant), mixed) < ROUNDING
    assert torch.equal(run(saved_and_loaded(variant), inputs), run(variant, inputs))


def run_attention(model: Any) -> Any:
    x = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mixed = model.attention(x, x, x) if model.takes_three else model.attention(x)
    return mixed[0] if isinstance(mixed, tuple) else mixed


@pytest.mark.parametrize("kind", ["separate", "torch"])
def test_bytes_of_a_removed_head_are_those_of_its_rows_and_columns(kind: str) -> None:
    model = Residual(KINDS[kind]()).eval()
    before = sum(p.nbytes for p in model.parameters())
    variant = apply(HEADS_ONLY, model, torch.randn(3, 7, 16)).model
    head = 3 * (8 * 32 + 8) + 8 * 32
    assert before - sum(p.nbytes for p in variant.parameters()) == 2 * head * FLOAT32


def test_attributes_follow_and_only_those_that_mean_the_heads() -> None:
    model, inputs = make("attention")
    apply("prune-structured(ratio=0.5, heads=true)", model, inputs)
    assert isinstance(model, HandWrittenAttention)
    assert (model.num_heads, model.size) == (2, 16)
    assert (model.qkv.out_features, model.project.in_features) == (2 * 3 * 16, 2 * 16)
    separate: Any = Residual(Separate()).eval()
    apply(HEADS_ONLY, separate, torch.randn(3, 7, 16))
    assert (separate.attention.num_heads, separate.attention.embed_dim) == (2, 16)


@pytest.mark.parametrize(
    ("attention", "told"),
    [
        (OfOneWidth, "the model's code does not let them lose heads (RuntimeError: shape"),
        (PerHeadBias, "the model's code does not let them lose heads (RuntimeError: "),
        (Grouped, "differ in width (grouped queries)"),
        (lambda: nn.MultiheadAttention(32, 4, add_bias_kv=True, batch_first=True), "also attend to bias_k"),
    ],
)
def test_attention_that_allows_no_fewer_heads_is_put_back_and_named(
    attention: Callable[[], nn.Module], told: str
) -> None:
    torch.manual_seed(0)
    model, inputs = Residual(attention()).eval(), torch.randn(3, 7, 16)
    model.wide, model.narrow = nn.Linear(32, 64), nn.Linear(64, 32)
    model.register_forward_hook(lambda module, _, out: out + module.narrow(module.wide(torch.ones(32)).relu()).sum())
    weights = {name: p.clone() for name, p in model.attention.named_parameters()}
    before, attributes = run_attention(model), {k: v for k, v in vars(model.attention).items() if type(v) is int}
    optimization = apply("prune-structured(ratio=0.5, heads=true, keep='embed,head,narrow')", model, inputs)
    assert told in " ".join(optimization.notes)
    assert "keep their attention heads" in " ".join(optimization.notes)
    assert model.wide.out_features == 32
    assert all(torch.equal(p, weights[name]) for name, p in model.attention.named_parameters())
    assert {k: v for k, v in vars(model.attention).items() if type(v) is int} == attributes
    assert torch.equal(run_attention(model), before)


def test_tied_and_reparametrized_projections_keep_their_heads() -> None:
    tied, normed = Separate(), Separate()
    tied.k_proj.weight = tied.q_proj.weight
    normed.v_proj = parametrizations.weight_norm(normed.v_proj)
    for attention, reason in (
        (tied, "another module shares their weight"),
        (normed, "their weight is reparametrized"),
    ):
        with pytest.raises(RecipeDidNothing, match=f"keep their attention heads: {reason}"):
            apply(HEADS_ONLY, Residual(attention).eval(), torch.randn(3, 7, 16))


def test_rotary_positions_are_no_obstacle_for_heads() -> None:
    class Rotary(Separate):
        def forward(self, x: torch.Tensor) -> Any:
            batch, length, _ = x.shape
            q, k, v = (
                layer(x).view(batch, length, -1, 8).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj)
            )
            angles = torch.arange(length)[:, None] * torch.tensor([1.0, 0.5, 0.25, 0.125] * 2)
            q, k = (x * angles.cos() + torch.cat((-x[..., 4:], x[..., :4]), dim=-1) * angles.sin() for x in (q, k))
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.out_proj(mixed.transpose(1, 2).flatten(2))

    torch.manual_seed(0)
    model, inputs = planted(Residual(Rotary()).eval()), torch.randn(3, 7, 16)
    expected = run(silence(model, REMOVED), inputs)
    variant = apply(HEADS_ONLY, model, inputs).model
    assert variant.attention.num_heads == 2
    assert relative_error(run(variant, inputs), expected) < ROUNDING


def test_heads_with_rotary_positions_keep_their_width_and_the_rest_is_pruned() -> None:
    """torch-pruning alone never comes back from Llama: rotary positions join halves the other way around."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        pad_token_id=0,
    )
    model = LlamaForSequenceClassification(config).eval()
    inputs: Inputs = {"input_ids": torch.randint(1, 50, (2, 6)), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    notes = " ".join(apply("prune-structured(ratio=0.5, heads=true)", model, inputs).notes)
    assert "6 Linear (12 KiB) keep their width: the model's code mixes their units in an order that does not" in notes
    attention, perceptron = model.model.layers[0].self_attn, model.model.layers[0].mlp
    assert (attention.q_proj.in_features, attention.q_proj.out_features) == (16, 32)
    assert (perceptron.down_proj.in_features, perceptron.down_proj.out_features) == (32, 16)


def test_one_attention_at_two_places_is_pruned_once_and_stays_one() -> None:
    class Twice(nn.Module):
        def __init__(self, attention: nn.Module) -> None:
            super().__init__()
            self.first = self.second = attention

        def forward(self, x: torch.Tensor) -> Any:
            x = x + self.first(x, x, x, need_weights=False)[0]
            return x + self.second(x, x, x, need_weights=False)[0]

    torch.manual_seed(0)
    model: Any = Twice(nn.MultiheadAttention(32, 4, batch_first=True)).eval()
    model = planted(model)
    inputs = torch.randn(3, 7, 32)
    expected = run(silence(model, REMOVED), inputs)
    variant = apply("prune-structured(ratio=0.5, heads=true)", model, inputs).model
    assert variant.first is variant.second
    assert relative_error(run(variant, inputs), expected) < ROUNDING


def test_weights_of_attention_that_the_model_returns_cannot_lose_a_head() -> None:
    class Returns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
            self.wide, self.narrow = nn.Linear(32, 64), nn.Linear(64, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mixed, weights = self.attention(x, x, x)
            return self.narrow(self.wide(mixed).relu()), weights

    model = Returns().eval()
    optimization = apply("prune-structured(ratio=0.5, heads=true)", model, torch.randn(2, 5, 32))
    assert type(model.attention) is nn.MultiheadAttention
    assert "the model's code uses more of them than their outputs" in " ".join(optimization.notes)


def test_hand_written_weights_that_the_model_returns_keep_their_number_of_heads() -> None:
    class Returns(Separate):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            q, k = (
                layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in (self.q_proj, self.k_proj)
            )
            v = self.v_proj(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            weights = (q @ k.transpose(-1, -2)).softmax(-1)
            return self.out_proj((weights @ v).transpose(1, 2).flatten(2)), weights

    model = Returns().eval()
    with pytest.raises(RecipeDidNothing, match="keep their attention heads: the shape of the model's output would"):
        apply("prune-structured(ratio=0.5, heads=true)", model, torch.randn(2, 5, 32))
    assert (model.num_heads, model.embed_dim, model.q_proj.out_features) == (4, 32, 32)


@pytest.mark.parametrize("kind", ["encoder", "masked encoder"])
def test_an_encoder_loses_heads_and_its_fused_path(kind: str) -> None:
    model, inputs = make(kind)
    model = planted(model)
    expected = run(silence(model, REMOVED), inputs)
    expression = "prune-structured(ratio=0.5, heads=true, keep='embed,head,encoder.layers.*.linear1')"
    optimization = apply(expression, model, inputs)
    attention = optimization.model.encoder.layers[1].self_attn
    assert (attention.embed_dim, attention.num_heads) == (64, 2)
    assert relative_error(run(optimization.model, inputs), expected) < ROUNDING
    assert optimization.notes[1].startswith("the original runs 2 TransformerEncoderLayer through torch's fused eval")
    reloaded = saved_and_loaded(optimization.model)
    assert torch.equal(run(reloaded, inputs), run(optimization.model, inputs))
    assert torch.backends.mha.get_fastpath_enabled()
    projections = 2 * 4 * (64 * 64)
    assert optimization.coverage.changed_bytes == (projections + 2 * 3 * 64) * FLOAT32
    changed = {layer.type for layer in optimization.coverage.layers if layer.changed_bytes}
    assert changed == {"MultiheadAttention", "NonDynamicallyQuantizableLinear"}


def test_a_decoder_with_masks_loses_heads_of_both_attentions() -> None:
    torch.manual_seed(0)
    model: Any = nn.TransformerDecoder(nn.TransformerDecoderLayer(32, 4, 64), 1).eval()
    model = planted(model)
    inputs: Inputs = {
        "tgt": torch.randn(5, 2, 32),
        "memory": torch.randn(6, 2, 32),
        "tgt_mask": nn.Transformer.generate_square_subsequent_mask(5),
        "memory_key_padding_mask": torch.tensor([[False] * 6, [False] * 4 + [True] * 2]),
    }
    expected = run(silence(model, REMOVED), inputs)
    optimization = apply("prune-structured(ratio=0.5, heads=true, keep='layers.*.linear1')", model, inputs)
    assert "removed 4 of 8 attention heads;" in optimization.notes[0]
    assert relative_error(run(optimization.model, inputs), expected) < ROUNDING


def bert(implementation: str) -> tuple[Any, Inputs]:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=16,
        num_labels=3,
        attn_implementation=implementation,
    )
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    return BertForSequenceClassification(config).eval(), {
        "input_ids": torch.randint(0, 50, (2, 9)),
        "attention_mask": mask,
    }


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_bert_loses_whole_heads(implementation: str) -> None:
    """At BERT's initialization attention hardly shows in the answers: to scramble heads would pass a look at these."""
    model, inputs = bert(implementation)
    model = silence_bert(model, 0.3)
    expected = run(silence_bert(model, 0.0), inputs)
    attention = model.bert.encoder.layer[0].attention
    kept = attention.self.value.weight.detach()[[*range(16, 32), *range(48, 64)]].clone()
    expression = "prune-structured(ratio=0.5, heads=true, keep='bert.embeddings,*.dense,classifier')"
    optimization = apply(expression, model, inputs)
    assert "removed 4 of 8 attention heads;" in optimization.notes[0]
    assert (attention.self.num_attention_heads, attention.self.all_head_size) == (2, 32)
    assert torch.equal(attention.self.value.weight, kept)
    assert relative_error(run(optimization.model, inputs), expected) < ROUNDING
    reloaded = saved_and_loaded(optimization.model)
    assert torch.equal(run(reloaded, inputs).logits, run(optimization.model, inputs).logits)


def silence_bert(model: Any, factor: float) -> Any:
    silent = copy.deepcopy(model)
    with torch.no_grad():
        for layer in silent.bert.encoder.layer:
            layer.attention.output.dense.weight.view(64, 4, 16)[:, REMOVED] *= factor
    return silent


def test_bert_is_pruned_everywhere_by_default_and_its_heads_stay_whole() -> None:
    model, inputs = bert("sdpa")
    before = [layer.attention.self.query.weight.detach().clone() for layer in model.bert.encoder.layer]
    model.bert.requires_grad_(False)
    apply("prune-structured(ratio=0.5, heads=true)", model, inputs)
    for layer, query in zip(model.bert.encoder.layer, before, strict=True):
        columns = query.shape[1] // 2
        rows = layer.attention.self.query.weight
        assert rows.shape == (32, columns)
        original = [block for block in query.view(4, 16, 64) if _holds(block, rows[:16]) or _holds(block, rows[16:])]
        assert len(original) == 2
    assert not any(parameter.requires_grad for parameter in model.bert.parameters())


def _holds(block: torch.Tensor, rows: torch.Tensor) -> bool:
    """Whether `rows` are those of the block, with fewer columns."""
    return all(bool(torch.isin(row, original).all()) for row, original in zip(rows, block, strict=True))


@pytest.mark.parametrize(("ratio", "left"), [(0.2, 4), (0.3, 3), (0.5, 2), (0.9, 1)])
def test_at_most_the_ratio_of_the_heads_goes_and_a_last_one_is_told(ratio: float, left: int) -> None:
    model, inputs = make("attention")
    notes = " ".join(apply(f"prune-structured(ratio={ratio}, heads=true)", model, inputs).notes)
    assert model.num_heads == left
    assert ("4 heads of width 16 are too few to lose at most 20%" in notes) == (left == 4)
    assert ("1 attention is left with a single head" in notes) == (left == 1)
    assert torch.isfinite(run(model, inputs)).all()


def test_what_remains_is_a_multiple_of_round_to() -> None:
    model, inputs = make("attention")
    apply("prune-structured(ratio=0.3, heads=true, round_to=32)", model, inputs)
    assert model.num_heads == 4
    apply("prune-structured(ratio=0.5, heads=true, round_to=32)", model, inputs)
    assert model.num_heads == 2


def test_pruning_twice_gives_the_same_bits() -> None:
    answers = []
    for _ in range(2):
        model, inputs = bert("sdpa")
        answers.append(run(apply("prune-structured(ratio=0.5, heads=true)", model, inputs).model, inputs).logits)
    assert torch.equal(*answers)


def test_an_attention_with_a_forward_of_its_own_keeps_its_heads() -> None:
    model: Any = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
    before = model.self_attn.forward
    model.self_attn.forward = lambda *args, **kwargs: before(*args, **kwargs)
    notes = " | ".join(apply("prune-structured(ratio=0.5, heads=true)", model, torch.randn(2, 5, 32)).notes)
    assert "1 MultiheadAttention (16.5 KiB) keep their attention heads: they have a `forward` of their own" in notes
    assert model.self_attn.num_heads == 4
