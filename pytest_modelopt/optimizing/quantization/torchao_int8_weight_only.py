"""torchao-int8-weight-only: torchao's int8 weights for Linear and Embedding, worked with in floating point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from pytest_modelopt.optimizing.quantization.aware_training import TrainsQuantized
from pytest_modelopt.optimizing.quantization.torchao_tensors import TorchaoRecipe
from pytest_modelopt.optimizing.recipe import Context

if TYPE_CHECKING:
    from pytest_modelopt.optimizing.quantization.torchao_tensors import Layer


class TorchaoInt8WeightOnly(TorchaoRecipe, TrainsQuantized):
    """Int8 weights with a scale per row, or for each `group` of weights in a row, through torchao's Int8Tensor.

    A row is what makes one output, or the vector of one word. Activations stay in floating point.
    """

    recipe_name: ClassVar[str] = "torchao-int8-weight-only"
    summary: ClassVar[str] = (
        "torchao's int8 weights for Linear and Embedding, computed in floating point: smaller, not faster"
    )
    changes: ClassVar[tuple[str, ...]] = ("Linear", "Embedding")

    group: int | None = Field(default=None, ge=8, description="weights of a row that share a scale; the whole row")

    def config(self, context: Context) -> Any:
        from torchao.quantization import Int8WeightOnlyConfig
        from torchao.quantization.granularity import PerGroup, PerRow

        granularity = PerRow() if self.group is None else PerGroup(self.group)
        return Int8WeightOnlyConfig(granularity=granularity, set_inductor_config=False)

    def misfit(self, layer: Layer) -> str:
        width = layer.weight.shape[1]
        if self.group is None or width % self.group == 0:
            return ""
        return f"their rows of {width} weights cannot be cut into groups of {self.group}"

    def cost_notes(self, context: Context) -> tuple[str, ...]:
        return (
            "every call rebuilds the float weights of each Linear, one layer at a time: the peak memory of a call "
            "falls less than the size; int8-weight-only rebuilds them in blocks and changes more types of layers",
        )
