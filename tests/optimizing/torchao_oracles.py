"""What torchao itself makes of a layer, called as its documentation says: oracles for our own arithmetic."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


def int8_weight_only(linear: nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
    """The dequantized weight and the scales (out x 1)."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    holder = nn.Sequential(copy.deepcopy(linear))
    quantize_(holder, Int8WeightOnlyConfig(set_inductor_config=False))
    weight: Any = holder[0].weight
    return weight.dequantize(), weight.scale
