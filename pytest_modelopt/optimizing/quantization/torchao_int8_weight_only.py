"""torchao-int8-weight-only: torchao's int8 weights for Linear, worked with in floating point."""

from __future__ import annotations

from typing import Any, ClassVar

from pytest_modelopt.optimizing.quantization.torchao_tensors import TorchaoRecipe
from pytest_modelopt.optimizing.recipe import Context


class TorchaoInt8WeightOnly(TorchaoRecipe):
    """Int8 weights with a scale per output, through torchao's Int8Tensor; activations stay in floating point."""

    recipe_name: ClassVar[str] = "torchao-int8-weight-only"
    summary: ClassVar[str] = "torchao's int8 weights for Linear, computed in floating point: smaller, not faster"

    def config(self, context: Context) -> Any:
        from torchao.quantization import Int8WeightOnlyConfig

        return Int8WeightOnlyConfig(set_inductor_config=False)

    def cost_notes(self, context: Context) -> tuple[str, ...]:
        return (
            "every call rebuilds the float weights of each Linear, one layer at a time: the peak memory of a call "
            "falls less than the size; int8-weight-only rebuilds them in blocks and changes more types of layers",
        )
