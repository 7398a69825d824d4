"""Operations of a worker that write a variant into files, and read it again in a fresh process."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from pytest_modelopt.measuring.protocol import VariantError, error_text
from pytest_modelopt.measuring.worker import source_loading
from pytest_modelopt.measuring.worker.calls.called_model import seen
from pytest_modelopt.measuring.worker.calls.changed_part import context_of
from pytest_modelopt.measuring.worker.calls.part import bare
from pytest_modelopt.measuring.worker.files import shipping, size
from pytest_modelopt.measuring.worker.loaded_variant import LoadedVariant


class Saving(LoadedVariant):
    """A saved variant stands where the worker stood that saved it."""

    def save(self, path: str) -> None:
        """Write the variant to `path`, from which a fresh process can load it."""
        try:
            size.save(self.model, Path(path))
        except Exception as error:
            raise not_saved(seen(self.model), error) from error
        source_loading.keep_environment(Path(path), self._environment)

    def export(self, path: str) -> tuple[str, ...]:
        """Write the variant as it is shipped to `path`, without a suffix; under `call:` and `optimize:` the module that
        recipes change. The files."""
        self._set_threads()
        part, context = self._part(), self._context()
        if part is not None:
            context = context_of(part, context, part.inputs_of_calls(context.example_inputs))
        return tuple(map(str, shipping.write(self.model if part is None else bare(part.module), Path(path), context)))

    def save_inputs(self, path: str) -> None:
        """Write the inputs of the measured call to `path`."""
        size.save(self._call_inputs(), Path(path))

    def reload(self, path: str, inputs_file: str) -> None:
        """Stand where the worker stood that saved the model and its inputs."""
        self._set_threads()
        source_loading.restore_environment(Path(path))
        self._inputs = self._device.take(size.load(Path(inputs_file)))
        self._function = self._step_function()
        self._model = size.load(Path(path))
        self._set_threads()


def not_saved(model: nn.Module, error: Exception) -> VariantError:
    return VariantError(f"the model cannot be saved: {error_text(error, 300)}{size.what_is_not_saved(model)}")
