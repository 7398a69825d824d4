"""Attention as people write it: one or three projections, several layouts, and code that allows no fewer heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Fused(nn.Module):
    """One layer for query, key and value, its rows in the order `layout`."""

    def __init__(self, layout: str, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.layout = layout
        self.heads = heads
        self.head_dim = 8
        self.to_qkv = nn.Linear(width, 3 * heads * self.head_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * self.head_dim, width), nn.Dropout(0.1))

    def forward(self, x: torch.Tensor) -> Any:
        batch, length, _ = x.shape
        if self.layout == "3 h d":
            parts = self.to_qkv(x).chunk(3, dim=-1)
            q, k, v = (part.view(batch, length, self.heads, self.head_dim).transpose(1, 2) for part in parts)
        elif self.layout == "h 3 d":
            parts = self.to_qkv(x).view(batch, length, self.heads, 3 * self.head_dim).transpose(1, 2).chunk(3, dim=-1)
            q, k, v = parts
        else:
            q, k, v = self.to_qkv(x).view(batch, length, self.heads, self.head_dim, 3).transpose(1, 2).unbind(-1)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class Separate(nn.Module):
    """Three layers, and a forward pass that computes the heads' width from attributes."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.embed_dim = width
        self.num_heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> Any:
        batch, length, _ = x.shape
        size = self.embed_dim // self.num_heads
        q, k, v = (
            layer(x).view(batch, length, self.num_heads, size).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        weights = (q @ k.transpose(-1, -2) * size**-0.5).softmax(-1)
        return self.out_proj((weights @ v).transpose(1, 2).reshape(batch, length, self.embed_dim))


class OfOneWidth(Separate):
    """The outputs of the heads are put together in the width of the input, so that none may go."""

    def forward(self, x: torch.Tensor) -> Any:
        batch, length, width = x.shape
        q, k, v = (
            layer(x).view(batch, length, self.num_heads, -1).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))


class PerHeadBias(Separate):
    """A learned number per head is added to the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.randn(4, 1, 1))

    def forward(self, x: torch.Tensor) -> Any:
        batch, length, _ = x.shape
        q, k, v = (
            layer(x).view(batch, length, -1, 8).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        distance = torch.arange(length)[None, :] - torch.arange(length)[:, None]
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.slopes * distance)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class Grouped(nn.Module):
    """Two key and value heads for four query heads."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.query, self.key, self.value = nn.Linear(32, 32), nn.Linear(32, 16), nn.Linear(32, 16)
        self.dense = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> Any:
        batch, length, _ = x.shape
        q = self.query(x).view(batch, length, 4, 8).transpose(1, 2)
        k, v = (layer(x).view(batch, length, 2, 8).transpose(1, 2) for layer in (self.key, self.value))
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        return self.dense(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Residual(nn.Module):
    """An attention in a pre-norm residual block with a classifier."""

    def __init__(self, attention: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.embed = nn.Linear(16, 32)
        self.norm = nn.LayerNorm(32)
        self.attention = attention
        self.scale = scale
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.embed(x)
        mixed: Any = self.norm(x)
        mixed = self.attention(mixed, mixed, mixed) if self.takes_three else self.attention(mixed)
        x = x + self.scale * (mixed[0] if isinstance(mixed, tuple) else mixed)
        return self.head(x.mean(1))

    @property
    def takes_three(self) -> bool:
        return isinstance(self.attention, nn.MultiheadAttention) or "FewerHeads" in type(self.attention).__name__
