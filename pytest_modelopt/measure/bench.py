"""The operations that a worker answers: load, size, memory, score, timing blocks, saving. One Bench, one variant."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import pickle
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytest_modelopt.measure import (
    environment,
    latency,
    loading,
    memory,
    observe,
    process_memory,
    quality,
    repeating,
    size,
)
from pytest_modelopt.measure.calibration import CalibrationSeen
from pytest_modelopt.measure.device import Device
from pytest_modelopt.measure.metrics.base import Batch, Scorer
from pytest_modelopt.measure.metrics.bootstrap import paired_bootstrap
from pytest_modelopt.measure.metrics.making import Metric, make_metric
from pytest_modelopt.measure.replies import Answers, Block, Loaded, Memory, Sample, Usage, VariantError
from pytest_modelopt.measure.settings import compilations, settings
from pytest_modelopt.measure.variant import Source, Variant
from pytest_modelopt.recipes.base import Context, RecipeError
from pytest_modelopt.recipes.calling import Inputs, call
from pytest_modelopt.record.answers import Interval, Repeat
from pytest_modelopt.record.model import Environment, ProcessMeter
from pytest_modelopt.record.observations import Observations

CALIBRATION_LOOKED_AT = 64
"""Batches of calibration data whose sizes are looked at: recipes take a few."""


class Bench:
    """One variant in its worker. `load` comes first; the others in any order."""

    def __init__(self, variant: Variant) -> None:
        self._variant = variant
        self._device = Device(variant.device)
        self._loader = loading.Loader(variant)
        self._model: nn.Module | None = None
        self._inputs: Inputs | None = None
        self._data: Any = None
        self._stopwatch: latency.Stopwatch | None = None
        self._cuda_meter: memory.CudaMeter | None = None
        self._metric: Metric | None = None
        self._has_scored = False
        self._compilations = 0
        # Noticed on the way, for `observe`.
        self._known: dict[str, Any] = {}
        self._unobserved: dict[str, str] = {}
        self._ties: observe.Ties = ()
        self._calibration_seen = CalibrationSeen()

    # --- the operations ----------------------------------------------------------------------------------------------

    def environment(self) -> Environment:
        return environment.environment(self._device.gpu())

    def load(self, inputs_file: str | None = None) -> Loaded:
        """Make the model, its inputs and its metric; check that one call works.

        `inputs_file`: inputs that another worker of this variant has saved; no data and no metric are made then.
        """
        self._set_threads()
        if inputs_file is None:  # another launch scores nothing, and torchmetrics takes seconds to import
            self._metric = make_metric(self._variant.metric, self._loader)
        inputs = self._example_inputs() if inputs_file is None else size.load(Path(inputs_file))
        self._inputs = self._device.take(inputs)
        self._cuda_meter = memory.CudaMeter(self._device.torch_device) if self._device.is_cuda else None
        model, notes = loading.load_model(self._loader, self._variant.model)
        self._model = model.to(self._device.torch_device) if self._device.is_cuda else model
        self._set_threads()
        with torch.no_grad():  # not inference mode: a recipe may need gradients of what the model caches in this call
            start = time.perf_counter()
            quality.run(self._model, self._inputs)
        self._known = {"first_call_s": time.perf_counter() - start, "settings": settings()}
        with self._looking("ties"):
            self._ties = observe.ties(self._model)
        if self._metric is None:
            return Loaded(notes, None, "", True)
        return Loaded(notes, None, self._metric.name, self._metric.higher_is_better)

    def optimize(self) -> Loaded:
        """Apply the recipe to the loaded model."""
        from pytest_modelopt.recipes.expression import parse
        from pytest_modelopt.recipes.optimize import optimize
        from pytest_modelopt.recipes.registry import RECIPES

        if self._variant.added_recipes:
            # Not untrusted: the pytest process made these bytes of its own classes.
            for recipe_class in pickle.loads(self._variant.added_recipes):  # noqa: S301
                RECIPES[recipe_class.recipe_name] = recipe_class
        assert self._variant.recipe is not None
        recipes = parse(self._variant.recipe)
        self._set_threads()
        loading.seed_everything(self._variant.seed)
        context = Context(
            self._first_inputs(),
            self._calibration(),
            self._variant.seed,
            device=self._device.torch_device.type,
            varying=self._varying,
            training=self._training(),
        )
        try:
            done = optimize(self.model, recipes, context)
        except RecipeError as error:
            raise VariantError(str(error)) from error
        self._model = done.model
        self._known = {"first_call_s": done.first_call_s, "settings": settings()}
        gc.collect()
        return Loaded((), done.coverage, "", True)

    def size(self) -> int:
        try:
            return size.saved_bytes(self.model)
        except Exception as error:
            raise _not_saved(error) from error

    def memory(self) -> Memory:
        """Bytes of weights and peak bytes of one call, or the foreign runtime that keeps them to itself."""
        try:
            self._set_threads()
            with torch.inference_mode():
                self._call()
                weights = memory.weights_bytes(self.model)
                if self._cuda_meter is not None:
                    found = self._cuda_meter.measure(self._call, self.model)
                else:
                    found = Memory(weights, memory.call_peak_bytes(self._call))
            kept = memory.weights_bytes(self.model) - weights
            if kept:
                raise VariantError(
                    f"the model keeps {kept:+,} bytes more after each call, so its memory depends on how often it was "
                    "called: give a factory whose model starts afresh in each forward pass"
                )
        except memory.ForeignRuntime as foreign:
            return Memory(None, None, foreign.runtime)
        except memory.Unaccounted as error:
            raise VariantError(str(error)) from error
        return found

    def process_memory(self, model: str, inputs: str, runtime: str | None) -> tuple[int, ProcessMeter]:
        """(peak bytes of this process while it loads the saved model and calls it, the meter). For a fresh worker."""
        if self._device.is_cuda:
            raise VariantError(
                f"`device` is {self._variant.device}, and process memory is the host's: what the GPU holds is not in it"
            )
        self._set_threads()
        return process_memory.peak_bytes(Path(model), Path(inputs), runtime)

    def score(self, keep: str | None = None, reference: str | None = None) -> Answers:
        """Of all examples. An unlabelled metric writes what it sees to `keep`, or compares it with `reference`."""
        assert self._metric is not None
        self._set_threads()
        kept, compared = (Path(path) if path else None for path in (keep, reference))
        probe, seen = repeating.Probe(self.model, self._device), self._calibration_seen
        answers = self._pass(
            lambda batches: probe.watch(seen.compare(batches) if seen.was_used else batches),
            self._metric.scorer(kept, compared),
        )
        self._has_scored = True
        self._known |= _classes(answers)
        return replace(answers, repeat=self._second_pass(answers, probe, compared or kept))

    def interval(self, before: array[float], after: array[float], width: int) -> Interval | str:
        """Of the drop from one variant to another, by the summands of both their `Answers`; or why there is none."""
        assert self._metric is not None
        if self._metric.from_sums is None:
            return f"the metric {self._metric.name} is no function of sums over the examples"
        if not self._has_scored:
            return "the worker that scored the variant has ended, and what it knew of the metric with it"
        self._set_threads()
        return paired_bootstrap(
            before,
            after,
            width,
            self._metric.from_sums,
            higher_is_better=self._metric.higher_is_better,
            seed=self._variant.seed,
        )

    def observe(self) -> Observations:
        """What else can be seen of the variant. After `score`, where there is any."""
        self._set_threads()
        loading.seed_everything(self._variant.seed)
        known = self._known | {"calibration": self._calibration_seen.calibration()}
        return observe.observe(self.model, self._call, known, self._ties, self._unobserved)

    def prepare_timing(
        self, calls: int | None = None, slowdown: float = 0.0, block_ns: int = latency.TARGET_BLOCK_NS
    ) -> int:
        """Warm up; the number of timed calls in one block: `calls`, where another launch has settled it."""
        self._set_threads()
        call = self._timed_call()
        if slowdown:
            call = latency.slowed(call, slowdown, self._device.synchronize)
        with torch.inference_mode():
            self._stopwatch = latency.Stopwatch(call, self._device.clock, calls=calls, block_ns=block_ns)
        self._compilations = compilations()
        return self._stopwatch.calls_per_block

    def block(self) -> Block:
        assert self._stopwatch is not None
        with torch.inference_mode():
            return self._stopwatch.block()

    def usage(self) -> Usage:
        """Of the processor, since `prepare_timing`."""
        assert self._stopwatch is not None
        return self._stopwatch.usage(torch.get_num_threads(), compilations() - self._compilations)

    def pin(self, cores: list[int]) -> None:
        """Run on these cores only, with every thread that exists."""
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(int(thread.name), cores)

    def answer(self) -> Sample:
        """What the model answers to the inputs of the measured call."""
        self._set_threads()
        loading.seed_everything(self._variant.seed)
        with torch.inference_mode():
            return quality.sample(self._device.bring_back(quality.run(self.model, self._first_inputs())))

    def save(self, path: str) -> None:
        """Write the variant to `path`, from which a fresh process can load it."""
        try:
            size.save(self.model, Path(path))
        except Exception as error:
            raise _not_saved(error) from error

    def save_inputs(self, path: str) -> None:
        """Write the inputs of the measured call to `path`."""
        size.save(self._first_inputs(), Path(path))

    def reload(self, path: str, inputs_file: str) -> None:
        """Stand where the worker stood that saved the model and its inputs."""
        self._set_threads()
        self._inputs = self._device.take(size.load(Path(inputs_file)))
        self._model = size.load(Path(path))
        self._set_threads()

    # --- parts -------------------------------------------------------------------------------------------------------

    @property
    def model(self) -> nn.Module:
        assert self._model is not None
        return self._model

    def _set_threads(self) -> None:
        """Before every operation: the user's code may have set another number meanwhile."""
        if torch.get_num_threads() != self._variant.threads:
            torch.set_num_threads(self._variant.threads)

    @contextlib.contextmanager
    def _looking(self, what: str) -> Iterator[None]:
        """Looking must not cost the variant anything: where it fails, the reason is kept."""
        try:
            yield
        except Exception as error:
            self._unobserved[what] = observe.reason(error)

    def _pass(self, watched: Callable[[Iterable[loading.Batch]], Iterable[loading.Batch]], scorer: Scorer) -> Answers:
        """Run the model on all of the evaluation data, whose batches pass through `watched`."""
        data = self._evaluation_data(again=True)
        # What is drawn at random from here on (an order, noise, dropout) is the same for every variant.
        loading.seed_everything(self._variant.seed)
        return quality.answer(self.model, _numbered(watched(loading.batches(data))), scorer, self._device)

    def _second_pass(self, first: Answers, probe: repeating.Probe, reference: Path | None) -> Repeat | None:
        """Of a variant that answers differently when it is asked again; None for one that repeats itself.

        `reference`: what an unlabelled metric compares with; for the original, its own first pass.
        """
        assert self._metric is not None
        metric = self._metric
        repeats = True
        with self._looking("repeatability"):
            repeats = probe.repeats()
        if repeats:
            return None
        repeat = repeating.second_pass(
            first, lambda watched: self._pass(watched, metric.scorer(reference=reference)), self._variant.seed
        )
        if repeat is None:
            self._unobserved["repeatability"] = (
                "it answers differently each time, but the data gave other examples the second time: nothing to compare"
            )
        return repeat

    def _call(self) -> object:
        return call(self.model, self._first_inputs())

    def _timed_call(self) -> Callable[[], object]:
        """The forward pass and nothing else: no lookup that a user's program would not do."""
        model, inputs = self.model, self._first_inputs()
        if isinstance(inputs, torch.Tensor):
            return lambda: model(inputs)
        return lambda: call(model, inputs)

    def _first_inputs(self) -> Inputs:
        assert self._inputs is not None
        return self._inputs

    def _evaluation_data(self, *, again: bool = False) -> Any:
        """The data; with `again` made anew, unless it is tensors: a first look may have used up part of a stream."""
        if self._variant.data is None:
            raise VariantError("no `data` was given, so there is nothing to score")
        if self._data is None or (again and not isinstance(self._data, (tuple, list))):
            self._loader.start_afresh()
            self._data = self._loader.make(self._variant.data, "data")
        return self._data

    def _example_inputs(self) -> Inputs:
        count = self._variant.batch_size
        if self._variant.example_inputs is not None:
            made = self._loader.make(self._variant.example_inputs, "example_inputs")
            return loading.first_examples([loading.tensors(made, "example_inputs")], count, "example_inputs")
        data = loading.batches(self._evaluation_data())
        return loading.first_examples((inputs for inputs, _ in data), count, "data")

    def _calibration(self) -> Callable[[], Iterator[Inputs]] | None:
        training = self._training()
        return None if training is None else lambda: (inputs for inputs, _ in training())

    def _training(self) -> Callable[[], Iterator[tuple[Inputs, torch.Tensor]]] | None:
        """Makes the batches of calibration, with their targets, on the device."""
        source: Source | None = self._variant.calibration
        if source is None:
            return None

        def batches() -> Iterator[tuple[Inputs, torch.Tensor]]:
            data = self._loader.make(source, "calibration")
            for inputs, targets in self._calibration_seen.watch(loading.batches(data, "calibration data")):
                yield self._device.take(inputs), targets.to(self._device.torch_device)

        return batches

    def _varying(self) -> tuple[frozenset[int], ...]:
        """Dimensions whose size differs between the batches that the variant will be given: of all calls there are."""
        calls: list[Iterable[Inputs]] = [[self._first_inputs()]]
        if self._variant.data is not None:
            calls.append(inputs for inputs, _ in loading.batches(self._evaluation_data(again=True)))
        if self._variant.calibration is not None:
            made = loading.batches(self._loader.make(self._variant.calibration, "calibration"), "calibration data")
            calls.append(inputs for inputs, _ in itertools.islice(made, CALIBRATION_LOOKED_AT))
        return loading.varying_dimensions(itertools.chain.from_iterable(calls))


def _numbered(pairs: Iterable[loading.Batch]) -> Iterator[Batch]:
    """Batches of data with the index of their first example."""
    first = 0
    for inputs, targets in pairs:
        batch = Batch(inputs, targets, first)
        first += batch.examples
        yield batch


def _classes(answers: Answers) -> dict[str, int | None]:
    """How many classes there are among targets and predictions; nothing where a metric knows no classes."""
    if answers.predictions is None or answers.targets is None:
        return {}
    predicted, targets = Counter(answers.predictions), Counter(answers.targets)
    return {
        "target_classes": len(targets),
        "output_classes": answers.classes,
        "rarer_targets": answers.examples - max(targets.values()),
        "predicted_classes": len(predicted),
        "most_predicted": max(predicted.values()),
    }


def _not_saved(error: Exception) -> VariantError:
    message = " ".join(str(error).split())[:300]
    return VariantError(f"the model cannot be saved: {type(error).__name__}: {message}")
