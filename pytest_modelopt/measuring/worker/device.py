"""Where a variant runs: its model and inputs are taken there, its answers come back, and its time is taken there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.calls.latency import Clock, host_clock
from pytest_modelopt.measuring.worker.calls.structure import mapped

_Values = TypeVar("_Values")


class Device:
    """The CPU, or a GPU of NVIDIA's through torch's allocator."""

    def __init__(self, name: str) -> None:
        """Raises VariantError where there is no such device."""
        self.is_cuda = torch.device(name).type == "cuda"
        self.torch_device = torch.device("cuda", torch.device(name).index or 0) if self.is_cuda else torch.device(name)
        if not self.is_cuda:
            return
        if not torch.cuda.is_available():
            why = "this build of torch has no CUDA" if torch.version.cuda is None else "torch finds no GPU"
            raise VariantError(f"device: {name} was asked for, but {why} (torch {torch.__version__}); write `cpu`")
        if self.torch_device.index >= torch.cuda.device_count():
            raise VariantError(
                f"device: {name} was asked for, but torch finds {torch.cuda.device_count()} GPUs only: write "
                "`cuda:0`, or `cpu`"
            )
        torch.cuda.set_device(self.torch_device)

    def take(self, values: _Values) -> _Values:
        """The inputs of one batch, or its targets, on the device."""
        if not self.is_cuda:
            return values
        moved: _Values = mapped(values, lambda tensor: tensor.to(self.torch_device))
        return moved

    def bring_back(self, outputs: Any) -> Any:
        """A model's answers, on the CPU, where targets and metrics are."""
        if not self.is_cuda:
            return outputs
        return mapped(outputs, lambda tensor: tensor.cpu() if isinstance(tensor, torch.Tensor) else tensor)

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
    """Time on the GPU's own clock, between two events in the stream: the host returns from a call before it is done.

    Each call is waited for, so that a block of several calls is as many latencies, not one throughput.
    """
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    milliseconds = 0.0
    for _ in range(calls):
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        end.synchronize()
        milliseconds += start.elapsed_time(end)
    return max(1, round(1e6 * milliseconds))
