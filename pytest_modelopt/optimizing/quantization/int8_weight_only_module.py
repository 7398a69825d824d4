"""Layers whose weights are stored in int8 with one scale per row, and worked with in floating point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

BLOCK_WEIGHTS = 1 << 18
"""A Linear turns so many of its weights into floating point at a time (1 MiB in float32), a smaller one an eighth of
them: they stay in the processor's cache, which makes it about as fast as to read a float matrix from memory, and the
peak memory of a call stays far below that of the float weights."""
SMALLEST_BLOCK_WEIGHTS = 1 << 14
"""With fewer at a time, the calls of the kernels would take longer than their work."""
LARGEST = 127
"""Both -127 and 127 are used and -128 is not, so that w and -w are quantized alike."""


class Int8Rows(nn.Module):
    """A weight W, quantized along its first dimension: W[i] is about values[i] * scales[i].

    values[i] = round(W[i] / scales[i]), halves to even, with scales[i] = max|W[i]| / 127; a row of zeros has the scale
    1. So each weight is off by half of its row's scale at most. Modules that share a weight share this object.
    """

    values: torch.Tensor
    scales: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        rows = weight.detach().flatten(1).to(torch.promote_types(weight.dtype, torch.float32))
        scales = rows.abs().amax(1) / LARGEST
        scales[scales == 0] = 1
        spread = scales.view(-1, *[1] * (weight.dim() - 1))
        self.dtype = weight.dtype
        """Of the weight that it stands for."""
        self.register_buffer("values", (weight.detach() / spread).round().clamp(-LARGEST, LARGEST).to(torch.int8))
        self.register_buffer("scales", scales)

    def dequantized(self) -> torch.Tensor:
        """The whole weight in floating point, made anew; in 16 bits block by block, since rows are scaled in 32."""
        if self.dtype is self.scales.dtype:
            return self._scaled(0, len(self.values))
        whole = torch.empty(self.values.shape, dtype=self.dtype, device=self.values.device)
        for start, stop in self._blocks():
            whole[start:stop] = self._scaled(start, stop)
        return whole

    def _scaled(self, start: int, stop: int) -> torch.Tensor:
        """Some rows in the dtype of the scales."""
        spread = self.scales[start:stop].view(-1, *[1] * (self.values.dim() - 1))
        return self.values[start:stop].to(self.scales.dtype).mul_(spread)

    def _blocks(self) -> list[tuple[int, int]]:
        """(first row, the one after the last) of the parts of which one is in floating point at a time."""
        rows = len(self.values)
        weights = min(max(self.values.numel() // 8, SMALLEST_BLOCK_WEIGHTS), BLOCK_WEIGHTS)
        block = max(1, weights * rows // max(1, self.values.numel()))
        return [(start, min(start + block, rows)) for start in range(0, rows, block)]

    def picked(self, indices: torch.Tensor) -> torch.Tensor:
        """Some of the rows in floating point; the others are not touched."""
        rows = F.embedding(indices, self.values).to(self.scales.dtype)
        return rows.mul_(self.scales[indices].unsqueeze(-1)).to(self.dtype)

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        """x @ W.T: the scales are applied to the result, and only some rows are in floating point at a time."""
        # Products of unscaled weights would go beyond the largest number of float16, 65504.
        is_scaled_first = x.dtype is torch.float16
        blocks = self._blocks()

        def product(start: int, stop: int) -> torch.Tensor:
            rows = self._scaled(start, stop) if is_scaled_first else self.values[start:stop]
            return F.linear(x, rows.to(x.dtype))

        out = product(*blocks[0])
        if len(blocks) > 1:
            first, out = out, out.new_empty((*out.shape[:-1], len(self.values)))
            out[..., : first.shape[-1]] = first
            for start, stop in blocks[1:]:
                out[..., start:stop] = product(start, stop)
        return out if is_scaled_first else out.mul_(self.scales)

    def extra_repr(self) -> str:
        return f"int8, {' x '.join(map(str, self.values.shape))}"


class Int8Linear(nn.Module):
    """nn.Linear with int8 weights. Who reads `weight` gets it in floating point, made anew."""

    def __init__(self, linear: nn.Linear, rows: Int8Rows) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.rows = rows
        self.bias = linear.bias

    @property
    def weight(self) -> torch.Tensor:
        return self.rows.dequantized()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.rows.linear(x)
        return out if self.bias is None else out.add_(self.bias)


class Int8Embedding(nn.Module):
    """nn.Embedding with int8 weights, of which a call turns the rows that it looks up into floating point."""

    def __init__(self, embedding: nn.Embedding, rows: Int8Rows) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.padding_idx = embedding.padding_idx
        self.rows = rows

    @property
    def weight(self) -> torch.Tensor:
        return self.rows.dequantized()

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        return self.rows.picked(indices)


class Int8EmbeddingBag(nn.Module):
    """nn.EmbeddingBag with int8 weights, of which a call turns each row that it looks up into floating point once."""

    def __init__(self, bag: nn.EmbeddingBag, rows: Int8Rows) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = bag.num_embeddings, bag.embedding_dim
        self.mode, self.padding_idx, self.include_last_offset = bag.mode, bag.padding_idx, bag.include_last_offset
        self.rows = rows

    @property
    def weight(self) -> torch.Tensor:
        return self.rows.dequantized()

    def forward(
        self,
        input: torch.Tensor,
        offsets: torch.Tensor | None = None,
        per_sample_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        used, places = input.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        padding = None if self.padding_idx is None else (used == self.padding_idx).nonzero().flatten().tolist()
        return F.embedding_bag(
            places,
            self.rows.picked(used),
            offsets,
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=padding[0] if padding else None,
        )


class Int8Rebuilt(nn.Module):
    """Another module, `inner`, whose weights are int8 and in floating point during a call only.

    Between calls `inner` holds None in the place of its weights. Whatever else is asked of this module is asked of
    `inner`, since the module around it may read its settings.
    """

    def __init__(self, inner: nn.Module, quantized: Mapping[str, Int8Rows]) -> None:
        super().__init__()
        self.inner = inner
        self.names = tuple(quantized)
        """Of the quantized weights, as `inner` knows them: 'weight', or 'out_proj.weight' of its child."""
        self.quantized = nn.ModuleList(quantized.values())
        self._place(dict.fromkeys(self.names))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self._place({name: self._rebuilt(name) for name in self.names})
        try:
            return self.inner(*args, **kwargs)
        finally:
            self._place(dict.fromkeys(self.names))

    def _place(self, weights: Mapping[str, torch.Tensor | None]) -> None:
        for name, weight in weights.items():
            owner, _, own_name = name.rpartition(".")
            self.inner.get_submodule(owner)._parameters[own_name] = weight  # type: ignore[assignment]
        if isinstance(self.inner, nn.RNNBase):
            self.inner._init_flat_weights()  # its own list of its weights, which would keep the rebuilt ones alive

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            inner = self.__dict__.get("_modules", {}).get("inner")
            if inner is None or name.startswith("__"):
                raise
        if name in self.names:
            return self._rebuilt(name)
        return getattr(inner, name)

    def _rebuilt(self, name: str) -> torch.Tensor:
        rows = self.quantized[self.names.index(name)]
        assert isinstance(rows, Int8Rows)
        return rows.dequantized()
