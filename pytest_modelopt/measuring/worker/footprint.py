"""Operations of a worker that count a variant's bytes: its size, its memory, and that of the process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pytest_modelopt.measuring.protocol import Balance, Memory, VariantError
from pytest_modelopt.measuring.worker import observe, source_loading
from pytest_modelopt.measuring.worker.calls.called_model import seen
from pytest_modelopt.measuring.worker.calls.generation import Step, forced
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.files.saving import not_saved
from pytest_modelopt.measuring.worker.loaded_variant import LoadedVariant
from pytest_modelopt.measuring.worker.memory import balance, file_makeup, process_memory, tensor_meter
from pytest_modelopt.optimizing.calling import Run, call
from pytest_modelopt.optimizing.modules.layers import layers
from pytest_modelopt.results.generation import CallMemory
from pytest_modelopt.results.measurement import Coverage, LayerCoverage, ProcessMeter
from pytest_modelopt.results.observations import Makeup


class Footprint(LoadedVariant):
    """Size and memory, by the tensor meter and by the process's own counters."""

    def size(self) -> int:
        if files := self._whole_files():
            return sum(files.values())
        beside = sum(self._provenance.files.values()) if self._provenance is not None else 0
        try:
            return size.saved_bytes(self._alone) + beside
        except Exception as error:
            raise not_saved(seen(self.model), error) from error

    def _whole_files(self) -> dict[str, int]:
        """Bytes of each file of which the whole variant consists; empty where it, or what is around it, is saved."""
        return self._provenance.files if self._provenance is not None and not self._variant.optimize else {}

    def memory(self) -> Memory:
        """Bytes of weights and peak bytes of one call, or the foreign runtime that keeps them to itself."""
        try:
            self._set_threads()
            with torch.inference_mode():
                self._call()
                weights = tensor_meter.weights_bytes(self.model)
                if self._cuda_meter is not None:
                    found = self._cuda_meter.measure(self._prepared_call(), self.model)
                else:
                    found = Memory(weights, tensor_meter.call_peak_bytes(self._prepared_call()))
                kept = tensor_meter.weights_bytes(self.model) - weights
                found = replace(found, call=None if kept else self._call_memory())
            if kept:
                raise VariantError(
                    f"the model keeps {kept:+,} bytes more after each call, so its memory depends on how often it was "
                    "called: give a factory whose model starts afresh in each forward pass"
                )
        except tensor_meter.ForeignRuntime as foreign:
            with torch.inference_mode():
                return Memory(None, None, foreign.runtime, call=self._call_memory(is_foreign=True))
        except tensor_meter.Unaccounted as error:
            raise VariantError(str(error)) from error
        if found.call_peak_bytes == 0 and (why := self._knows_content()):
            raise VariantError(f"its calls take no memory: the model {why}")
        return found

    def _call_memory(self, *, is_foreign: bool = False) -> CallMemory | None:
        """What the memory of a call that generates is made of. After a first call. `is_foreign`: another runtime makes
        the steps, and its peaks are not to be seen."""
        generation, ids = self._variant.generation, self._call_inputs()
        if generation is None:
            return None
        assert isinstance(ids, torch.Tensor)
        step, prompt, last = Step(self.model, self._function), ids[:, : generation.prompt], ids[:, -1:]
        _, cache = forced(step, ids[:, :-1], step(prompt, None)[1], generation.prompt)
        made: list[Any] = []

        def last_step() -> None:
            made.append(step(last, cache)[1])

        if self._device.is_cuda or is_foreign:
            last_step()
            peaks: tuple[int | None, int | None] = None, None
        else:
            peaks = tensor_meter.call_peak_bytes(lambda: step(prompt, None)), tensor_meter.call_peak_bytes(last_step)
        held = tensor_meter.bytes_beside(made[0], self.model)
        return CallMemory(held, generation.context, len(ids), *peaks)

    def _whole_call(self) -> Run:
        """What a call is in a fresh process. Made first: what it imports belongs to no model."""
        self._function = self._step_function()
        return lambda model, inputs: call(self._calling(model), inputs)  # type: ignore[arg-type]

    def balance(self, model: str, inputs: str, runtime: str | None = None, shipped: tuple[str, ...] = ()) -> Balance:
        """What this process gains by loading the saved model and calling it, beside what `memory` sees. For a fresh
        worker. `shipped`: files that belong to the variant itself."""
        self._set_threads()
        source_loading.restore_environment(Path(model))
        return balance.balance(Path(model), Path(inputs), runtime, shipped, self._whole_call())

    def process_memory(self, model: str, inputs: str, runtime: str | None) -> tuple[int, ProcessMeter]:
        """(peak bytes of this process while it loads the saved model and calls it, the meter). For a fresh worker."""
        if self._device.is_cuda:
            raise VariantError(
                f"`device` is {self._variant.device}, and process memory is the host's: what the GPU holds is not in it"
            )
        self._set_threads()
        source_loading.restore_environment(Path(model))
        return process_memory.peak_bytes(Path(model), Path(inputs), runtime, self._whole_call())

    def makeup(self, peak_bytes: int | None) -> Makeup:
        """What its file is made of, and where its peak of `peak_bytes` is reached, unless compiled code hides that."""
        self._set_threads()
        with torch.inference_mode():
            if self._device.is_cuda or observe.is_compiled(self._call):
                peak_bytes = None
            found = file_makeup.makeup(seen(self.model), self._prepared_call(), peak_bytes)
        if files := self._whole_files():
            parts = found.tensors or files  # another runtime does not tell its tensors
            found = replace(found, tensors=parts, other_bytes=max(0, sum(files.values()) - sum(parts.values())))
        return found

    def layers(self) -> tuple[LayerCoverage, ...]:
        """Each layer of what recipes change: its weight bytes, and the multiply-adds of the measured call."""
        self._set_threads()
        part, inputs = self._part(), self._context().example_inputs
        if part is None:
            return layers(self.model, inputs)
        found = layers(part.module, part.inputs_of_calls(inputs)[0])
        return part.within(Coverage(found, ())).layers
