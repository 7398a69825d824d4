"""nn.MultiheadAttention that has lost some of its heads, which torch's own forward does not allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class FewerHeads(nn.Module):
    """Called as nn.MultiheadAttention is, with the same masks. The averaged weights are those of the remaining heads.

    Shapes: (batch, length, embed_dim) with `batch_first`, else (length, batch, embed_dim); or without the batch.
    Made with all heads of `attention`; who takes rows and columns of the projections away calls `keep` as well.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.kdim, self.vdim = attention.embed_dim, attention.kdim, attention.vdim
        self.head_dim: int = attention.head_dim
        self.batch_first = attention.batch_first
        self.dropout = attention.dropout
        self.original_heads = self.num_heads = attention.num_heads
        self.kept: list[int] | None = None
        # An encoder layer reads these two to decide about its fused path, which knows no such attention.
        self.in_proj_bias = None
        self._qkv_same_embed_dim = False
        if attention.in_proj_weight is None:
            weights = [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
        else:
            weights = _thirds(attention.in_proj_weight)
        biases = [None] * 3 if attention.in_proj_bias is None else _thirds(attention.in_proj_bias)
        self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)
        self.out_proj = _linear(attention.out_proj.weight, attention.out_proj.bias)
        self.train(attention.training)

    def keep(self, heads: Sequence[int]) -> None:
        """Say which of the original heads the projections still hold."""
        self.kept = list(heads)
        self.num_heads = len(heads)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal is a hint on attn_mask, which is missing")
        batched = query.dim() == 3
        q, k, v = (
            self._by_head(project(self._batch_first(x, batched)))
            for project, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        is_causal = is_causal and key_padding_mask is None and not need_weights
        mask = None if is_causal else self._mask(attn_mask, key_padding_mask, batched, q)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * self.head_dim**-0.5) @ k.transpose(-1, -2)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            weights = functional.dropout(weights, dropout)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            mixed = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal
            )
        answer = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if not batched:
            return answer.squeeze(0), weights
        return answer if self.batch_first else answer.transpose(0, 1), weights

    def _batch_first(self, x: torch.Tensor, batched: bool) -> torch.Tensor:
        if not batched:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _by_head(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(
        self, attention: torch.Tensor | None, padding: torch.Tensor | None, batched: bool, query: torch.Tensor
    ) -> torch.Tensor | None:
        """Both masks as one that is added to the scores, (batch, heads, queries, keys) or what broadcasts to it."""
        mask = None
        if attention is not None:
            mask = _added(attention, query.dtype)
            if mask.dim() == 3:  # (batch * the original number of heads, queries, keys)
                mask = mask.view(-1, self.original_heads, *mask.shape[1:])
                mask = mask if self.kept is None else mask[:, self.kept]
        if padding is not None:
            padding = _added(padding if batched else padding.unsqueeze(0), query.dtype)[:, None, None, :]
            mask = padding if mask is None else mask + padding
        return mask

    def extra_repr(self) -> str:
        return f"embed_dim={self.embed_dim}, heads={self.num_heads} of {self.original_heads}"


def _added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if mask.dtype is not torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))


def _thirds(parameter: torch.Tensor) -> list[Any]:
    """Views, with the gradient's part as their gradient."""
    parts = list(parameter.detach().chunk(3))
    if parameter.grad is not None:
        for part, gradient in zip(parts, parameter.grad.chunk(3), strict=True):
            part.grad = gradient
    for part in parts:
        part.requires_grad_(parameter.requires_grad)
    return parts


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight = _parameter(weight)
    if bias is not None:
        linear.bias = _parameter(bias)
    return linear


def _parameter(tensor: torch.Tensor) -> nn.Parameter:
    new = nn.Parameter(tensor.detach().clone(), requires_grad=tensor.requires_grad)
    if tensor.grad is not None:
        new.grad = tensor.grad.clone()
    return new
