"""One variant in its worker: its data read, its model made, held against the data, and optimized."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytest_modelopt.measuring.installation import is_installed
from pytest_modelopt.measuring.protocol import LEAST_HELD, Examples, Loaded, VariantError, error_text
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker import environment, observe, source_loading
from pytest_modelopt.measuring.worker.answers import quality
from pytest_modelopt.measuring.worker.calls.called_model import seen
from pytest_modelopt.measuring.worker.calls.called_variant import CalledVariant
from pytest_modelopt.measuring.worker.calls.changed_part import called_as, context_of_steps, optimized, part_of
from pytest_modelopt.measuring.worker.calls.generation import require_whole, told_of
from pytest_modelopt.measuring.worker.calls.given_inputs import Given
from pytest_modelopt.measuring.worker.data import labels
from pytest_modelopt.measuring.worker.files import shipping
from pytest_modelopt.measuring.worker.files.content_digest import content_digest, sources_digest
from pytest_modelopt.measuring.worker.files.program_files import Made, left_out, load_file, made_by, parameters_of
from pytest_modelopt.measuring.worker.memory import tensor_meter
from pytest_modelopt.measuring.worker.metrics.scorer_factory import Metric, make_metric
from pytest_modelopt.measuring.worker.other_tree import linked_to_head, taken_from_head
from pytest_modelopt.measuring.worker.settings import chosen, settings
from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.modules.uncompiled import is_dynamo_here
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from pytest_modelopt.optimizing.runtimes.program_file_module import ITS_OWN
from pytest_modelopt.optimizing.runtimes.runtime_module import HoldsPrograms
from pytest_modelopt.results.candidate import Provenance
from pytest_modelopt.results.measurement import Coverage
from pytest_modelopt.results.record import Environment
from pytest_modelopt.results.source import Called, ProgramSource


class LoadedVariant(CalledVariant):
    """What the operations of a worker share. `load` comes first; the others in any order.

    But `read` and `read_again`: they have a worker each, which does nothing else. What it leaves behind in a process
    to make the data (memory, threads, settings) must not be there for one variant only.
    """

    def __init__(self, variant: Variant) -> None:
        self._environment = dict(os.environ)
        self._modules = frozenset(sys.modules)
        super().__init__(variant)
        self._cuda_meter: tensor_meter.CudaMeter | None = None
        self._metric: Metric | None = None
        self._provenance: Provenance | None = None
        # Noticed on the way, for `observe`.
        self._known: dict[str, Any] = {}
        self._unobserved: dict[str, str] = {}
        self._ties: observe.Ties = ()

    def environment(self) -> Environment:
        return environment.environment(self._device.gpu())

    def imported(self) -> tuple[str, ...]:
        """Installed modules that this worker had to import, in order. None where the project's code has changed the
        environment, which they may have read."""
        if chosen(self._environment) != chosen(os.environ):
            return ()
        files = ((name, getattr(module, "__file__", None)) for name, module in list(sys.modules.items()))
        new = ((name, file) for name, file in files if name not in self._modules and isinstance(file, str))
        return tuple(name for name, file in new if is_installed(file))

    def read(self, path: str) -> Examples:
        """Read the evaluation data, for all variants of the model, into the file `path`."""
        self._set_threads()
        return self._data.read(Path(path))

    def read_again(self, examples: Examples) -> None:
        """Read the beginning of the evaluation data once more: a source must give the same examples each time."""
        self._set_threads()
        self._data.read_again(examples)

    def load(self, inputs_file: str | None = None, examples: Examples | None = None, *, scores: bool = True) -> Loaded:
        """Make the model, its inputs and its metric; check that one call works. At the first operating point.

        `inputs_file`: inputs that another worker has saved, which take the place of this variant's own.
        `examples`: what `read` found; without it the data comes from its source.
        `scores`: whether it is scored, too. Another launch is not, and torchmetrics takes seconds to import.
        """
        self._stand_at(self._variant.first)
        self._data.use(examples)
        if scores:
            self._metric = make_metric(self._variant.metric, self._loader)
        self._take_inputs(inputs_file)
        self._function = self._step_function()
        self._cuda_meter = tensor_meter.CudaMeter(self._device.torch_device) if self._device.is_cuda else None
        model, notes = self._load_model()
        self._model = model.to(self._device.torch_device) if self._device.is_cuda else model
        self._set_threads()
        with torch.no_grad():  # not inference mode: a recipe may need gradients of what the model caches in this call
            labelled = self._with_labels_if_needed() if self._variant.generation is None else ()
            told = self._complete_inputs(is_prompt=inputs_file is None)
            given = Given(self._call_inputs())
            start = time.perf_counter()
            answer = quality.run_on(self._called, given.inputs)
            self._require_fit(answer)
            del answer
        self._known = {"first_call_s": time.perf_counter() - start, "settings": settings()}
        with torch.no_grad():
            self._look_at_traces(given)
        notes = (*notes, *told, *labelled, *self._told_copies())
        with self._looking("ties"):
            self._ties = observe.ties(seen(self._model))
        if self._variant.recipe is None:
            self._look_at_content(seen(self.model))
        name = "" if self._metric is None else self._metric.name
        higher_is_better = self._metric is None or self._metric.higher_is_better
        return Loaded(
            notes,
            None,
            name,
            higher_is_better,
            has_compiler=is_dynamo_here(),
            provenance=self._provenance,
            digest=self._known.get("digest"),
            sources=sources_digest(),
            called=self._shape(),
        )

    def _with_labels_if_needed(self) -> tuple[str, ...]:
        """Give the calls of a model the targets, where it runs with them only; the note on it."""
        assert self._inputs is not None
        self._data.gives_labels = labels.are_in(self._inputs)
        if self._data.gives_labels or self._variant.data is None or not labels.are_taken_by(self.model):
            return ()
        try:
            quality.run(self.model, self._inputs)
        except VariantError as error:
            self._data.gives_labels = True
            try:
                inputs = self._device.take(self._data.example_inputs()[0])
                quality.run(self.model, inputs)
            except VariantError:
                raise error from None
            labels.refuse_leak(self.model, inputs)
            self._inputs = inputs
            return (labels.NOTE,)
        return ()

    def _require_fit(self, answer: Any) -> None:
        """That what the measured call answers can be scored with the targets of the data, as far as that is certain.

        Before anything is measured, and without a further call, which would count in models that remember calls.
        """
        known = None if self._data.examples_in_call == 0 else self._data.known_targets
        if self._metric is None or self._metric.misfit is None or known is None:
            return
        why = self._metric.misfit(answer, known, self._data.examples_in_call)
        if why:
            raise VariantError(why)

    def _load_model(self) -> tuple[nn.Module, tuple[str, ...]]:
        candidate = self._variant.candidate
        if candidate is None:
            model, notes, self._provenance = self._load_original()
            return model, notes

        if isinstance(candidate.origin, ProgramSource):
            model, notes, self._provenance = self._load_candidate_file(candidate.origin)
        else:
            model, notes = source_loading.load_model(self._loader, candidate.origin, "candidate")
            self._provenance = made_by(candidate.origin)
        return model, (*notes, *left_out(candidate))

    def _load_original(self) -> Made:
        origin = self._variant.model
        if isinstance(origin, ProgramSource):
            if self._variant.is_called_otherwise:
                raise VariantError("`call` and `optimize` need a model of a factory, and this one is a file")
            return self._load_file(origin, "model", self._first_inputs(), lambda: ITS_OWN)
        model, notes = source_loading.load_model(self._loader, origin)
        told = called_as(self._variant, model) if self._variant.is_original else ()
        return model, (*told, *notes), made_by(origin) if isinstance(origin, Called) else None

    def _load_candidate_file(self, origin: ProgramSource) -> Made:
        """It is called as the original is; where that has a call of its own, it takes the place of the module that
        recipes would change."""
        original, *_ = self._load_original()
        module, inputs = original, self._first_inputs()
        try:
            part = part_of(self._variant, original)
            if part is not None:
                module, inputs = part.module, part.inputs_of_calls(inputs)[0]
        except RecipeError as error:
            raise VariantError(str(error)) from error

        def answer() -> Any:
            with torch.no_grad():
                return call(module, inputs)

        program, notes, provenance = self._load_file(origin, "candidate", inputs, answer, parameters_of(module))
        try:
            whole = program if part is None else part.put(program, self._first_inputs(), "the file")
        except RecipeError as error:
            raise VariantError(str(error)) from error
        return whole, notes, provenance

    def _load_file(
        self,
        origin: ProgramSource,
        what: str,
        inputs: Inputs,
        answer: Callable[[], Any],
        parameters: Sequence[str] = (),
    ) -> Made:
        if self._device.is_cuda:
            raise VariantError(
                f"the {what} is a file, and files run on the CPU only, not on {self._variant.device}: write "
                "`device: cpu`"
            )
        head = Path(self._variant.tree.head) if self._variant.tree is not None else None
        return load_file(origin, Path(self._variant.import_paths[0]), inputs, answer, parameters, head)

    def _whole_context(self, model: nn.Module) -> Context:
        """What recipes may use, with data to learn from."""
        context = replace(self._context(), calibration=self._data.calibration(), training=self._data.training())
        if context.steps is None:
            return context
        context = replace(context, steps=replace(context.steps, calibration=context.calibration))
        return context_of_steps(model, self._function, context)

    def optimize(self) -> Loaded:
        """Apply the recipe to the loaded model."""
        assert self._variant.recipe is not None
        recipes = self._variant.recipe.steps
        self._set_threads()
        if self._variant.generation is not None and self._variant.optimize:
            require_whole(recipes, self._variant.optimize)
        source_loading.seed_everything(self._variant.seed)
        try:
            context = self._whole_context(self.model)
            part = self._part()
            done = optimized(self.model, recipes, context, part)
        except RecipeError as error:
            if self._data.calibration_seen.refusal is None:
                raise VariantError(str(error)) from error
        if self._data.calibration_seen.refusal is not None:  # whatever the recipe made of it
            raise self._data.calibration_seen.refusal
        if part is None:
            self._require_fit(done.answer)
        done = replace(done, answer=None)
        self._model, self._provenance, self._content = done.whole, None, ""
        if self._variant.generation is not None:
            with torch.inference_mode(), told_of(self._variant.label):
                quality.run(self._called, self._call_inputs())
        self._known = {"first_call_s": done.first_call_s, "settings": settings()}
        gc.collect()
        unknown, is_uncounted = _nothing_to_compare(done.model, done.coverage)
        notes, coverage = ((unknown,), None) if unknown else ((), done.coverage)
        notes = (*done.notes, *notes)
        self._look_at_content(seen(self.model))
        return Loaded(
            notes,
            coverage,
            "",
            True,
            unknown,
            is_uncounted=is_uncounted,
            shipped=shipping.sums(done.model),
            digest=self._known.get("digest"),
        )

    def taken_from_head(self) -> tuple[str, ...]:
        """Modules and files of head that this variant of another revision has used instead of its own."""
        return () if self._variant.tree is None else taken_from_head(self._variant.tree)

    def linked_to_head(self) -> tuple[str, ...]:
        """Files of head that this variant of another revision has used by links in its tree."""
        return () if self._variant.tree is None else linked_to_head(self._variant.tree)

    @contextlib.contextmanager
    def _looking(self, what: str) -> Iterator[None]:
        """Looking must not cost the variant anything: where it fails, the reason is kept."""
        try:
            yield
        except Exception as error:
            self._unobserved[what] = error_text(error, 300)

    def _look_at_content(self, model: nn.Module) -> None:
        """Before the calls of scoring and timing, of which models keep count: made again, it is what it is now."""
        with self._looking("digest"):
            self._known["digest"] = content_digest(model)


def _nothing_to_compare(model: nn.Module, coverage: Coverage) -> tuple[str, bool]:
    """Why nobody can say what a recipe changed, where hardly anything of the weights is left in tensors, '' else; and
    whether hardly anything is left in other memory, too. One bit for each float would be more."""
    if isinstance(model, HoldsPrograms):  # knows what its program holds
        return "", False
    try:
        walk = tensor_meter.Walk(model, passes_runtimes=True)
    except tensor_meter.Unaccounted:
        return "", False
    held = walk.tensor_bytes
    if held * LEAST_HELD >= coverage.weight_bytes:
        return "", False
    why = (
        f"what the recipe changed is not known: the model held {coverage.weight_bytes:,} bytes of weights, the variant "
        f"holds {held:,} in tensors, and the rest cannot be compared"
    )
    return why, walk.total_bytes() * LEAST_HELD < coverage.weight_bytes
