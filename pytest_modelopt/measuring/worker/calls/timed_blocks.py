"""Operations of a worker that time a variant: the first calls, blocks of calls, and what they took of the processor."""

from __future__ import annotations

import gc
import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pytest_modelopt import system
from pytest_modelopt.measuring.protocol import Block, FirstAnswer, Prepared, Usage
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker import source_loading
from pytest_modelopt.measuring.worker.answers import quality
from pytest_modelopt.measuring.worker.calls import given_inputs, latency
from pytest_modelopt.measuring.worker.calls.generation import Step, TimedDecode
from pytest_modelopt.measuring.worker.calls.given_inputs import Given
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.loaded_variant import LoadedVariant
from pytest_modelopt.measuring.worker.memory import process_memory, tensor_meter
from pytest_modelopt.measuring.worker.settings import compilations
from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.optimizing.modules.uncompiled import is_dynamo_here
from pytest_modelopt.results.timed_pairs import TimedCall


class TimedBlocks(LoadedVariant):
    """Latency, block by block: the pytest process says when, and on which cores."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant)
        self._stopwatches: dict[TimedCall, latency.Stopwatch] = {}
        self._calls: list[given_inputs.TimedCall] = []
        self._compilations = 0

    def prepare_timing(self, slowdown: float = 0.0, phases: Sequence[TimedCall] = ()) -> Prepared:
        """Make the first calls, and count threads.

        `phases`: parts of a call that generates, which are timed beside the whole.
        """
        self._set_threads()
        if not self._needs_copies:  # the recipe may have made another model, and a saved one has only been read
            with torch.inference_mode():
                given = Given(self._call_inputs())
                quality.run_on(self._called, given.inputs)
                self._look_at_traces(given)
        try:
            weights_bytes = tensor_meter.weights_bytes(self.model)
        except tensor_meter.Unaccounted:
            weights_bytes = 0
        if knows := self._knows_content():
            return Prepared(knows, weights_bytes)
        canary = None if self._device.is_cuda else _canary()
        self._calls = []
        for name in ("whole", *phases):
            with torch.inference_mode():
                timed = self._timed(name)
                if isinstance(timed, given_inputs.TimedCall):
                    self._calls.append(timed)
                if slowdown:
                    timed = latency.Slowed(timed, slowdown, self._device.synchronize)
                self._stopwatches[name] = latency.Stopwatch(timed, self._device.clock, canary)
        self._compilations = compilations()
        return Prepared("", weights_bytes)

    def _timed(self, name: TimedCall) -> latency.Timed:
        generation = self._variant.generation
        if name == "whole":
            return self._given(self._called, self._call_inputs())
        assert generation is not None
        step = Step(self.model, self._function)
        if name == "prefill":
            return self._given(lambda ids: step(ids, None), self._first_inputs())
        ids = self._call_inputs()
        assert isinstance(ids, torch.Tensor)
        return TimedDecode(step, ids, generation.prompt)

    def _given(self, called: Callable[..., Any], inputs: Inputs) -> given_inputs.TimedCall:
        return given_inputs.TimedCall(called, inputs, copies=self._needs_copies, at_new_addresses=bool(self._remembers))

    def block(self, call: TimedCall = "whole", *, single_calls: bool = False) -> Block:
        with torch.inference_mode():
            return self._stopwatches[call].block(single_calls=single_calls)

    def has_compiler(self) -> bool:
        """Whether torch's compiler was imported by now."""
        return is_dynamo_here()

    def first_answer(self, model: str, inputs: str, runtime: str | None, compiles: bool) -> FirstAnswer:
        """From the start of loading the saved model to its answer, libraries imported before. For a fresh worker.
        `compiles`: the variant uses torch's compiler."""
        self._set_threads()
        source_loading.restore_environment(Path(model))
        given = self._device.take(size.load(Path(inputs)))
        self._function = self._step_function()
        process_memory.import_libraries(Path(model), runtime, and_project=True)
        if compiles:
            importlib.import_module("torch._dynamo")
        self._set_threads()
        source_loading.seed_everything(self._variant.seed)
        gc.collect()
        delay = latency.Delay()
        before_ns, start_ns = delay.read_ns(), time.perf_counter_ns()
        loaded = process_memory.load_saved(Path(model), runtime)
        with torch.inference_mode():
            answer = quality.run(self._calling(loaded), given)
            self._device.synchronize()
            elapsed_ns = max(1, time.perf_counter_ns() - start_ns)
            delayed_ns = min(delay.read_ns() - before_ns, elapsed_ns - 1)
            return FirstAnswer(
                elapsed_ns,
                max(0, delayed_ns),
                0 if self._device.is_cuda else _canary()(),
                quality.sample(self._device.bring_back(answer)),
            )

    def usage(self) -> Usage:
        """Of the processor, since `prepare_timing`."""
        *others, last = self._stopwatches.values()
        usage = last.usage(torch.get_num_threads(), compilations() - self._compilations, others)
        with torch.inference_mode():
            recognized = next(filter(None, (call.recognized() for call in self._calls)), "")
            return replace(usage, recognized=recognized)

    def pin(self, cores: list[int]) -> None:
        """Run on these cores only, with every thread that exists."""
        system.run_on(cores)


def _canary() -> Callable[[], int]:
    """A measurement, in nanoseconds, of a matrix of 1.5 MiB times a vector: it needs the vector unit, the second-level
    cache and the way to memory, of which a neighbour on the host may take a share, unseen by any counter here."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(384, 1024, generator=generator, dtype=torch.float32)
    vector, product = torch.rand(1024, generator=generator, dtype=torch.float32), torch.empty(384, dtype=torch.float32)
    total = torch.empty_like(vector)

    def measure() -> int:
        # LiteRT's kernels leave the upper halves of the vector registers in use, with which the product takes 2.4 times
        # as long on AMD's processors, in every call until other code clears them: that is no state of the machine.
        torch.add(vector, vector, out=total)
        return latency.canary_ns(lambda: torch.mv(matrix, vector, out=product))

    return measure
