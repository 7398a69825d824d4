"""bf16: the model in bfloat16, half the memory, on processors that compute in it."""

from __future__ import annotations

from typing import ClassVar

from pytest_modelopt.optimizing import gpu_capability
from pytest_modelopt.optimizing.quantization.low_precision import LowPrecisionRecipe

CAPABILITY = (8, 0)
"""NVIDIA's compute capability of the first GPUs with bfloat16 units (Ampere)."""


class Bf16(LowPrecisionRecipe):
    """Weights, inputs and arithmetic in bfloat16: the range of float32 with 8 bits of precision."""

    recipe_name: ClassVar[str] = "bf16"
    summary: ClassVar[str] = "the model in bfloat16, on processors that compute in it"
    dtype_name: ClassVar[str] = "bfloat16"
    cpu_needs: ClassVar[tuple[frozenset[str], ...]] = (
        frozenset({"avx512_bf16"}),
        frozenset({"amx_bf16"}),
        frozenset({"bf16"}),
    )
    overflow: ClassVar[str] = (
        "bfloat16 has the range of float32, so look for a division by a number that rounds to zero"
    )

    @classmethod
    def unfit(cls, device: str) -> str:
        reason = super().unfit(device)
        if reason or device != "cuda":
            return reason
        return gpu_capability.lacks(cls.recipe_name, CAPABILITY, "Ampere", "torch would emulate it: use fp16")
