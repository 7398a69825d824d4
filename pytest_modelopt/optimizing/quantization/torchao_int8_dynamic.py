"""torchao-int8-dynamic: torchao's int8 weights for Linear, with activations quantized row by row as they come."""

from __future__ import annotations

from typing import Any, ClassVar

from pytest_modelopt.optimizing import cpu_flags
from pytest_modelopt.optimizing.quantization.aware_training import TrainsQuantized
from pytest_modelopt.optimizing.quantization.torchao_tensors import TorchaoRecipe
from pytest_modelopt.optimizing.recipe import Context


class TorchaoInt8Dynamic(TorchaoRecipe, TrainsQuantized):
    """Int8 weights with a scale per output, int8 activations with a scale per row, through torchao's Int8Tensor."""

    recipe_name: ClassVar[str] = "torchao-int8-dynamic"
    summary: ClassVar[str] = "torchao's int8 weights and activations for Linear; to be followed by + compile"
    int8_products: ClassVar[bool] = True

    def config(self, context: Context) -> Any:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig

        return Int8DynamicActivationInt8WeightConfig(set_inductor_config=False, reduce_range=_reduces(context.device))

    def cost_notes(self, context: Context) -> tuple[str, ...]:
        made_to_be_compiled = (
            "torchao's int8 layers are made to be compiled: by themselves they quantize in many small steps and are "
            "usually slower than floating point, so write torchao-int8-dynamic + compile"
        )
        if not _reduces(context.device):
            return (made_to_be_compiled,)
        return (
            made_to_be_compiled,
            "this CPU has no VNNI: weights and activations use 7 of the 8 bits, since sums of full int8 products would "
            "overflow, and even compiled they are usually slower than float32",
        )


def _reduces(device: str) -> bool:
    return device == "cpu" and not cpu_flags.vnni()
