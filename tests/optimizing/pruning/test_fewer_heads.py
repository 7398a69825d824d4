"""The attention with fewer heads answers as torch's own does when the removed heads add nothing, under every mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.optimizing.pruning.fewer_heads_module import FewerHeads
from pytest_modelopt.optimizing.pruning.structured.observing import narrow

WIDTH, HEADS, QUERIES, KEYS, BATCH = 24, 4, 5, 6, 3
KEPT = [1, 3]
CAUSAL = torch.ones(QUERIES, KEYS, dtype=torch.bool).triu(1)
ATTENTION_MASKS = {
    "none": None,
    "bool": CAUSAL,
    "float": torch.randn(QUERIES, KEYS, generator=torch.Generator().manual_seed(0)),
    "per head": torch.randn(BATCH * HEADS, QUERIES, KEYS, generator=torch.Generator().manual_seed(1)),
}
PADDING_MASKS = {
    "none": None,
    "bool": torch.tensor([[False] * 6, [False] * 4 + [True] * 2, [False] + [True] * 5]),
    "float": torch.tensor([[0.0] * 6, [0.0] * 5 + [-float("inf")], [0.5] * 6]),
}


def infinite_where(mask: torch.Tensor) -> torch.Tensor:
    return torch.zeros(mask.shape).masked_fill(mask, -float("inf"))


def pair(**options: Any) -> tuple[nn.MultiheadAttention, FewerHeads]:
    """torch's attention with heads 0 and 2 silenced, and ours without them."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(WIDTH, HEADS, **options).eval()
    fewer = FewerHeads(attention)
    kept = torch.arange(WIDTH).view(HEADS, -1)[KEPT].flatten()
    for layer in (fewer.q_proj, fewer.k_proj, fewer.v_proj):
        narrow(layer, 0, kept)
    narrow(fewer.out_proj, 1, kept)
    fewer.keep(KEPT)
    with torch.no_grad():
        attention.out_proj.weight.view(WIDTH, HEADS, -1)[:, [0, 2]] = 0
    return attention, fewer


@pytest.mark.parametrize("mask", ATTENTION_MASKS)
@pytest.mark.parametrize("padding", PADDING_MASKS)
@pytest.mark.parametrize("need_weights", [True, False])
def test_every_mask(mask: str, padding: str, need_weights: bool) -> None:
    attention, fewer = pair(batch_first=True)
    query, key, value = (torch.randn(BATCH, length, WIDTH) for length in (QUERIES, KEYS, KEYS))
    masks = [ATTENTION_MASKS[mask], PADDING_MASKS[padding]]
    given = [mask for mask in masks if mask is not None]
    if len(given) == 2:  # torch warns of two masks of different types
        masks = [mask if mask.is_floating_point() else infinite_where(mask) for mask in given]
    options: dict[str, Any] = {"attn_mask": masks[0], "key_padding_mask": masks[1], "need_weights": need_weights}
    with torch.no_grad():
        expected, all_weights = attention(query, key, value, average_attn_weights=False, **options)
        found, weights = fewer(query, key, value, average_attn_weights=False, **options)
        _, averaged = fewer(query, key, value, **options)
    assert torch.allclose(found, expected, atol=1e-6, equal_nan=True)
    if need_weights:
        assert torch.allclose(weights, all_weights[:, KEPT], atol=1e-6, equal_nan=True)
        assert torch.allclose(averaged, weights.mean(1), equal_nan=True)
    else:
        assert weights is averaged is all_weights is None


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_every_layout(batch_first: bool, batched: bool, bias: bool) -> None:
    attention, fewer = pair(batch_first=batch_first, bias=bias)
    shape = (QUERIES, WIDTH) if not batched else (BATCH, QUERIES, WIDTH) if batch_first else (QUERIES, BATCH, WIDTH)
    x = torch.randn(shape)
    with torch.no_grad():
        expected, all_weights = attention(x, x, x, average_attn_weights=False)
        found, weights = fewer(x, x, x, average_attn_weights=False)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(weights, all_weights.index_select(-3, torch.tensor(KEPT)), atol=1e-6)


def test_other_widths_of_keys_and_values() -> None:
    attention, fewer = pair(batch_first=True, kdim=10, vdim=7)
    query, key, value = torch.randn(BATCH, QUERIES, WIDTH), torch.randn(BATCH, KEYS, 10), torch.randn(BATCH, KEYS, 7)
    with torch.no_grad():
        assert torch.allclose(fewer(query, key, value)[0], attention(query, key, value)[0], atol=1e-6)


def test_the_causal_hint_is_taken_as_torch_takes_it() -> None:
    attention, fewer = pair(batch_first=True)
    x = torch.randn(BATCH, QUERIES, WIDTH)
    mask = nn.Transformer.generate_square_subsequent_mask(QUERIES)
    with torch.no_grad():
        expected, _ = attention(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)
        found, _ = fewer(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)
    assert torch.allclose(found, expected, atol=1e-6)
    with pytest.raises(RuntimeError, match="attn_mask, which is missing"):
        fewer(x, x, x, is_causal=True)


def test_it_trains_with_dropout_and_keeps_gradient_flags() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(WIDTH, HEADS, dropout=0.5)
    attention.in_proj_weight.requires_grad_(False)
    fewer = FewerHeads(attention)
    x = torch.randn(QUERIES, BATCH, WIDTH)
    assert fewer.training
    assert not torch.equal(fewer(x, x, x)[0], fewer(x, x, x)[0])
    assert not fewer.q_proj.weight.requires_grad
    assert fewer.out_proj.weight.requires_grad
