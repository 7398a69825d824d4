"""The fused path of nn.TransformerEncoderLayer in eval mode, turned off where it would break.

The fused kernel reads `linear1.weight` and `linear2.weight` itself, without calling the two modules. Where they are no
longer plain Linear layers, it crashes or answers from the wrong weights. It is turned off per instance, so that a saved
variant works in any process that loads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def turn_off_fused_path(model: nn.Module) -> tuple[str, ...]:
    """Turn the fused path off in each encoder layer whose Linear layers were replaced; notes say so, if it was on."""
    from torch import nn

    replaced = [
        layer
        for layer in model.modules()
        if isinstance(layer, nn.TransformerEncoderLayer)
        and not all(isinstance(linear, nn.Linear) for linear in (layer.linear1, layer.linear2))
    ]
    was_fused = sum(is_fused(layer) for layer in replaced)
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
