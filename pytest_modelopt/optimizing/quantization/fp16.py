"""fp16: the model in float16, half the memory, on processors that compute in it."""

from __future__ import annotations

from typing import ClassVar

from pytest_modelopt.optimizing.quantization.low_precision import LowPrecisionRecipe


class Fp16(LowPrecisionRecipe):
    """Weights, inputs and arithmetic in float16: 11 bits of precision, and no number above 65504."""

    recipe_name: ClassVar[str] = "fp16"
    summary: ClassVar[str] = "the model in float16, on processors that compute in it"
    dtype_name: ClassVar[str] = "float16"
    cpu_needs: ClassVar[tuple[frozenset[str], ...]] = (
        frozenset({"avx512_fp16"}),
        frozenset({"amx_fp16"}),
        frozenset({"fphp", "asimdhp"}),
    )
    overflow: ClassVar[str] = "float16 ends at 65504: use bf16, which has the range of float32"
