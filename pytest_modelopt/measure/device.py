"""Where a variant runs: its model and inputs are taken there, its answers come back, and its time is taken there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map

from pytest_modelopt.measure.latency import Clock, host_clock
from pytest_modelopt.measure.replies import VariantError
from pytest_modelopt.recipes.calling import Inputs


class Device:
    """The CPU, or a GPU of NVIDIA's through torch's allocator."""

    def __init__(self, name: str) -> None:
        """Raises VariantError where there is no such device."""
        self.torch_device = torch.device(name)
        self.is_cuda = self.torch_device.type == "cuda"
        if not self.is_cuda:
            return
        if not torch.cuda.is_available():
            why = "this build of torch has no CUDA" if torch.version.cuda is None else "torch finds no GPU"
            raise VariantError(f"device: {name} was asked for, but {why} (torch {torch.__version__}); write `cpu`")
        if (self.torch_device.index or 0) >= torch.cuda.device_count():
            raise VariantError(f"device: {name} was asked for, but torch finds {torch.cuda.device_count()} GPUs only")
        torch.cuda.set_device(self.torch_device)

    def take(self, inputs: Inputs) -> Inputs:
        """One batch of inputs, on the device."""
        if not self.is_cuda:
            return inputs
        moved: Inputs = tree_map(lambda tensor: tensor.to(self.torch_device), inputs)
        return moved

    def bring_back(self, outputs: Any) -> Any:
        """A model's answers, on the CPU, where targets and metrics are."""
        if not self.is_cuda:
            return outputs
        return tree_map(lambda value: value.cpu() if isinstance(value, torch.Tensor) else value, outputs)

    def synchronize(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.torch_device)

    @property
    def clock(self) -> Clock:
        return _cuda_clock if self.is_cuda else host_clock

    def gpu(self) -> str | None:
        """'NVIDIA H100 (CUDA 13.0)'; None on the CPU."""
        if not self.is_cuda:
            return None
        return f"{torch.cuda.get_device_name(self.torch_device)} (CUDA {torch.version.cuda})"


def _cuda_clock(call: Callable[[], object], calls: int) -> int:
    """Time on the GPU's own clock, between two events in the stream: the host returns from a call before it is done."""
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return max(1, round(1e6 * milliseconds))
