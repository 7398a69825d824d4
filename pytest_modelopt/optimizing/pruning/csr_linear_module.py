"""A Linear layer whose weight is stored and multiplied as a compressed sparse row matrix."""

from __future__ import annotations

import warnings

import torch
from torch import nn

BETA_STATE = r"Sparse CSR tensor support is in beta state"
"""How the warning begins that torch raises once in a process, at its first CSR tensor, about its own state."""

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=BETA_STATE)
    torch.sparse_csr_tensor(
        [0, 0], [], [], size=(1, 1), check_invariants=False
    )  # here, and so in every process that loads a variant


class CSRLinear(nn.Module):
    """y = x W^T + b with W in CSR: `values`, their columns `col_indices`, and where each row begins, `crow_indices`.

    The three are plain tensors, so that they are saved, moved and counted as any others. Indices have 32 bits, which
    MKL takes as they are.
    """

    values: torch.Tensor
    col_indices: torch.Tensor
    crow_indices: torch.Tensor
    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        sparse = linear.weight.detach().to_sparse_csr()
        self.register_buffer("values", sparse.values().clone())
        self.register_buffer("col_indices", sparse.col_indices().to(torch.int32))
        self.register_buffer("crow_indices", sparse.crow_indices().to(torch.int32))
        self.register_parameter("bias", linear.bias)
        self.train(linear.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (self.out_features, self.in_features)
        weight = torch.sparse_csr_tensor(
            self.crow_indices, self.col_indices, self.values, size=shape, check_invariants=False
        )
        product: torch.Tensor = torch.sparse.mm(weight, x.reshape(-1, self.in_features).t()).t()
        if self.bias is not None:
            product = product + self.bias
        return product.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        held = f"{len(self.values):,} of {self.in_features * self.out_features:,} weights"
        return f"{self.in_features}, {self.out_features}, {held}, bias={self.bias is not None}"
