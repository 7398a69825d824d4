"""The fused path of nn.TransformerEncoderLayer in eval mode, turned off where it would break.

The fused kernel reads the weights of `linear1`, `linear2` and `self_attn` itself, without calling the modules. Where
they are no longer plain, it crashes or answers from the wrong weights. It is turned off per instance, so that a saved
variant works in any process that loads it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Encoder layers run step by step: the fused operator hides what is within, and no other runtime knows it."""
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def fused_layers(model: nn.Module) -> list[nn.Module]:
    """The encoder layers that torch would run through the fused path in eval mode."""
    from torch import nn

    layers = [layer for layer in model.modules() if isinstance(layer, nn.TransformerEncoderLayer)]
    return [layer for layer in layers if isinstance(layer.self_attn, nn.MultiheadAttention) and is_fused(layer)]


def turn_off_fused_path(model: nn.Module, fused_before: Collection[nn.Module] = ()) -> tuple[str, ...]:
    """Turn the fused path off in each encoder layer of which parts were replaced; notes say so, if it was on.

    `fused_before` are the layers that took it with the attention that they had before.
    """
    from torch import nn

    replaced = [
        layer
        for layer in model.modules()
        if isinstance(layer, nn.TransformerEncoderLayer)
        and not (
            isinstance(layer.self_attn, nn.MultiheadAttention)
            and all(_is_plain(linear) for linear in (layer.linear1, layer.linear2))
        )
    ]
    was_fused = sum(layer in fused_before or is_fused(layer) for layer in replaced)
    for layer in replaced:
        layer.activation_relu_or_gelu = 0
    for encoder in model.modules():
        if isinstance(encoder, nn.TransformerEncoder) and any(layer in replaced for layer in encoder.layers):
            encoder.enable_nested_tensor = False
            encoder.use_nested_tensor = False
    if not was_fused:
        return ()
    layers = "1 TransformerEncoderLayer" if was_fused == 1 else f"{was_fused} TransformerEncoderLayer"
    return (f"the original runs {layers} through torch's fused eval path; the variant cannot and runs it step by step",)


def _is_plain(linear: nn.Module) -> bool:
    import torch
    from torch import nn

    return isinstance(linear, nn.Linear) and type(linear.weight.data) is torch.Tensor


def is_fused(layer: Any) -> bool:
    """Whether torch would take the fused path in eval mode, as far as the layer itself decides it."""
    attention = layer.self_attn
    return bool(
        layer.activation_relu_or_gelu
        and attention.batch_first
        and attention.in_proj_bias is not None
        and attention._qkv_same_embed_dim
        and attention.num_heads % 2 == 0
        and layer.norm1.eps == layer.norm2.eps
    )
