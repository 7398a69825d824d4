"""Operations of a worker that time a variant: the first calls, blocks of calls, and what they took of the processor."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from pytest_modelopt.measuring.protocol import Block, Usage
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker import latency, quality
from pytest_modelopt.measuring.worker.given_inputs import Given, TimedCall
from pytest_modelopt.measuring.worker.loaded_variant import LoadedVariant
from pytest_modelopt.measuring.worker.remembered_inputs import knows_content
from pytest_modelopt.measuring.worker.settings import compilations


class TimedBlocks(LoadedVariant):
    """Latency, block by block: the pytest process says when, and on which cores."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant)
        self._stopwatch: latency.Stopwatch | None = None
        self._timed: TimedCall | None = None
        self._compilations = 0

    def prepare_timing(self, slowdown: float = 0.0) -> str:
        """Make the first calls, and count threads. Why calls that are repeated would time something else, or ''."""
        self._set_threads()
        if not self._needs_copies:  # the recipe may have made another model, and a saved one has only been read
            with torch.inference_mode():
                given = Given(self._first_inputs())
                quality.run_on(self.model, given.inputs)
                self._look_at_traces(given)
        with torch.inference_mode():
            if knows := knows_content(self.model, self._first_inputs()):
                return knows
        self._timed = TimedCall(
            self.model, self._first_inputs(), copies=self._needs_copies, at_new_addresses=bool(self._remembers)
        )
        timed: latency.Timed = self._timed
        if slowdown:
            timed = latency.Slowed(timed, slowdown, self._device.synchronize)
        with torch.inference_mode():
            canary = None if self._device.is_cuda else _canary()
            self._stopwatch = latency.Stopwatch(timed, self._device.clock, canary)
        self._compilations = compilations()
        return ""

    def block(self) -> Block:
        assert self._stopwatch is not None
        with torch.inference_mode():
            return self._stopwatch.block()

    def usage(self) -> Usage:
        """Of the processor, since `prepare_timing`."""
        assert self._stopwatch is not None
        assert self._timed is not None
        usage = self._stopwatch.usage(torch.get_num_threads(), compilations() - self._compilations)
        with torch.inference_mode():
            return replace(usage, recognized=self._timed.recognized())

    def pin(self, cores: list[int]) -> None:
        """Run on these cores only, with every thread that exists."""
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(int(thread.name), cores)


def _canary() -> Callable[[], object]:
    """A matrix of 1.5 MiB times a vector: it needs the vector unit, the second-level cache and the way to memory, of
    which a neighbour on the host may take a share, unseen by any counter of this machine."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(384, 1024, generator=generator, dtype=torch.float32)
    vector, product = torch.rand(1024, generator=generator, dtype=torch.float32), torch.empty(384, dtype=torch.float32)
    return lambda: torch.mv(matrix, vector, out=product)
