"""Operations of a worker that count a variant's bytes: its size, its memory, and that of the process."""

from __future__ import annotations

from pathlib import Path

import torch

from pytest_modelopt.measuring.protocol import Balance, Memory, VariantError
from pytest_modelopt.measuring.worker import loading, observe, size
from pytest_modelopt.measuring.worker.called_model import seen
from pytest_modelopt.measuring.worker.loaded_variant import LoadedVariant
from pytest_modelopt.measuring.worker.memory import balance, file_makeup, process_memory, tensor_meter
from pytest_modelopt.measuring.worker.saving import not_saved
from pytest_modelopt.results.measurement import ProcessMeter
from pytest_modelopt.results.observations import Makeup


class Footprint(LoadedVariant):
    """Size and memory, by the tensor meter and by the process's own counters."""

    def size(self) -> int:
        files = self._provenance.files if self._provenance is not None else {}
        if files and not self._variant.optimize:
            return sum(files.values())
        try:
            return size.saved_bytes(self._alone) + sum(files.values())
        except Exception as error:
            raise not_saved(seen(self.model), error) from error

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
            if kept:
                raise VariantError(
                    f"the model keeps {kept:+,} bytes more after each call, so its memory depends on how often it was "
                    "called: give a factory whose model starts afresh in each forward pass"
                )
        except tensor_meter.ForeignRuntime as foreign:
            return Memory(None, None, foreign.runtime)
        except tensor_meter.Unaccounted as error:
            raise VariantError(str(error)) from error
        return found

    def balance(self, model: str, inputs: str, runtime: str | None = None, shipped: tuple[str, ...] = ()) -> Balance:
        """What this process gains by loading the saved model and calling it, beside what `memory` sees. For a fresh
        worker. `shipped`: files that belong to the variant itself."""
        self._set_threads()
        loading.restore_environment(Path(model))
        return balance.balance(Path(model), Path(inputs), runtime, shipped)

    def process_memory(self, model: str, inputs: str, runtime: str | None) -> tuple[int, ProcessMeter]:
        """(peak bytes of this process while it loads the saved model and calls it, the meter). For a fresh worker."""
        if self._device.is_cuda:
            raise VariantError(
                f"`device` is {self._variant.device}, and process memory is the host's: what the GPU holds is not in it"
            )
        self._set_threads()
        loading.restore_environment(Path(model))
        return process_memory.peak_bytes(Path(model), Path(inputs), runtime)

    def makeup(self, peak_bytes: int | None) -> Makeup:
        """What its file is made of, and where its peak of `peak_bytes` is reached, unless compiled code hides that."""
        self._set_threads()
        with torch.inference_mode():
            if self._device.is_cuda or observe.is_compiled(self._call):
                peak_bytes = None
            return file_makeup.makeup(seen(self.model), self._prepared_call(), peak_bytes)
