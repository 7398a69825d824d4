"""torchao-float8-dynamic: float8 weights and activations for Linear, on GPUs that multiply them in hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pytest_modelopt.optimizing import gpu_capability
from pytest_modelopt.optimizing.quantization.torchao_tensors import TorchaoRecipe
from pytest_modelopt.optimizing.recipe import Context

if TYPE_CHECKING:
    from pytest_modelopt.optimizing.quantization.torchao_tensors import Layer

CAPABILITY = (8, 9)
"""NVIDIA's compute capability of the first GPUs with float8 matrix units (Ada)."""
MULTIPLE = 16
"""torch._scaled_mm takes matrices whose sizes are multiples of it."""


class TorchaoFloat8Dynamic(TorchaoRecipe):
    """Float8 (e4m3) weights and activations with a scale per tensor, through torchao's Float8Tensor."""

    recipe_name: ClassVar[str] = "torchao-float8-dynamic"
    summary: ClassVar[str] = "torchao's float8 weights and activations for Linear, on GPUs from Ada and Hopper on"
    devices: ClassVar[tuple[str, ...]] = ("cuda",)

    @classmethod
    def unfit(cls, device: str) -> str:
        reason = super().unfit(device)
        if reason:
            return f"{reason}: a CPU has no float8 arithmetic, and torch emulates it; use int8-dynamic there"
        return gpu_capability.lacks(
            cls.recipe_name, CAPABILITY, "Ada, Hopper", "use fp16, or torchao-int8-weight-only for size"
        )

    def config(self, context: Context) -> Any:
        from torchao.quantization import Float8DynamicActivationFloat8WeightConfig

        return Float8DynamicActivationFloat8WeightConfig(set_inductor_config=False)

    def misfit(self, layer: Layer) -> str:
        if any(size % MULTIPLE for size in layer.weight.shape):
            return f"float8 products need sizes that are multiples of {MULTIPLE}"
        return ""

    def cost_notes(self, context: Context) -> tuple[str, ...]:
        return (
            "torchao's float8 layers are made to be compiled, and to be fed with bfloat16: write "
            "bf16 + torchao-float8-dynamic + compile",
        )
