"""A Linear layer of whose weights, in each row, two of every four are zero and not stored."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.nn import functional

PROTOTYPE = r"The PyTorch API of SparseSemiStructuredTensor is in prototype stage"
"""How the warning begins that torch raises about the state of its own class."""


class SemiStructuredLinear(nn.Module):
    """y = x W^T + b with W as torch's SparseSemiStructuredTensor; on a GPU, in half precision."""

    weight: torch.Tensor
    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear, weight: torch.Tensor) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=PROTOTYPE)
            self.register_buffer("weight", torch.sparse.to_sparse_semi_structured(weight.detach().contiguous()))
        self.register_parameter("bias", linear.bias)
        self.train(linear.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"
