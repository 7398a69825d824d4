"""What a worker answers: read, load, size, memory, score, timing blocks, saving. One Bench, one variant."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytest_modelopt.measuring.protocol import (
    Answers,
    Balance,
    Block,
    Examples,
    Loaded,
    Memory,
    Sample,
    Usage,
    VariantError,
    words,
)
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker import environment, latency, loading, observe, quality, repeating, size
from pytest_modelopt.measuring.worker.candidates import load_candidate
from pytest_modelopt.measuring.worker.data.variant_data import Data
from pytest_modelopt.measuring.worker.device import Device
from pytest_modelopt.measuring.worker.given_inputs import Given, TimedCall
from pytest_modelopt.measuring.worker.memory import balance, file_makeup, process_memory, tensor_meter
from pytest_modelopt.measuring.worker.metrics.bootstrap import paired_bootstrap
from pytest_modelopt.measuring.worker.metrics.recorded_outputs import Recorder, Replayed
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Scorer
from pytest_modelopt.measuring.worker.metrics.scorer_factory import Metric, make_metric
from pytest_modelopt.measuring.worker.other_tree import linked_to_head, taken_from_head
from pytest_modelopt.measuring.worker.remembered_inputs import remembers
from pytest_modelopt.measuring.worker.settings import compilations, settings
from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from pytest_modelopt.optimizing.runtimes.runtime_module import RuntimeModule
from pytest_modelopt.optimizing.uncompiled import is_dynamo_here
from pytest_modelopt.results.answers import Interval, Repeat
from pytest_modelopt.results.candidate import Provenance
from pytest_modelopt.results.measurement import Coverage, ProcessMeter
from pytest_modelopt.results.observations import Makeup, Observations
from pytest_modelopt.results.record import Environment

_LEAST_HELD = 64


class Bench:
    """One variant in its worker. `load` comes first; the others in any order.

    But `read` and `read_again`: they have a worker each, which does nothing else. What it leaves behind in a process
    to make the data (memory, threads, settings) must not be there for one variant only.
    """

    def __init__(self, variant: Variant) -> None:
        self._variant = variant
        self._environment = dict(os.environ)
        self._device = Device(variant.device)
        self._loader = loading.Loader(variant)
        self._model: nn.Module | None = None
        self._inputs: Inputs | None = None
        self._data = Data(variant, self._loader, self._device)
        self._stopwatch: latency.Stopwatch | None = None
        self._cuda_meter: tensor_meter.CudaMeter | None = None
        self._metric: Metric | None = None
        self._has_scored = False
        self._compilations = 0
        self._traces = self._remembers = ""
        self._provenance: Provenance | None = None
        # Noticed on the way, for `observe`.
        self._known: dict[str, Any] = {}
        self._unobserved: dict[str, str] = {}
        self._ties: observe.Ties = ()

    # --- the operations ----------------------------------------------------------------------------------------------

    def environment(self) -> Environment:
        return environment.environment(self._device.gpu())

    def read(self, path: str) -> Examples:
        """Read the evaluation data, for all variants of the model, into the file `path`."""
        self._set_threads()
        return self._data.read(Path(path))

    def read_again(self, examples: Examples) -> None:
        """Read the beginning of the evaluation data once more: a source must give the same examples each time."""
        self._set_threads()
        self._data.read_again(examples)

    def load(self, inputs_file: str | None = None, examples: Examples | None = None, *, scores: bool = True) -> Loaded:
        """Make the model, its inputs and its metric; check that one call works.

        `inputs_file`: inputs that another worker has saved, which take the place of this variant's own.
        `examples`: what `read` found; without it the data comes from its source.
        `scores`: whether it is scored, too. Another launch is not, and torchmetrics takes seconds to import.
        """
        self._set_threads()
        self._data.use(examples)
        if scores:
            self._metric = make_metric(self._variant.metric, self._loader)
        inputs = self._data.example_inputs() if inputs_file is None else size.load(Path(inputs_file))
        self._inputs = self._device.take(inputs)
        self._cuda_meter = tensor_meter.CudaMeter(self._device.torch_device) if self._device.is_cuda else None
        model, notes = self._load_model()
        self._model = model.to(self._device.torch_device) if self._device.is_cuda else model
        self._set_threads()
        with torch.no_grad():  # not inference mode: a recipe may need gradients of what the model caches in this call
            given = Given(self._inputs)
            start = time.perf_counter()
            quality.run_on(self._model, given.inputs)
        self._known = {"first_call_s": time.perf_counter() - start, "settings": settings()}
        with torch.no_grad():
            self._look_at_traces(given)
        if self._needs_copies:
            found = self._traces or self._remembers
            notes = (
                *notes,
                f"the model {found}, so each call is given a copy, which is made before its clock starts",
            )
        with self._looking("ties"):
            self._ties = observe.ties(self._model)
        name = "" if self._metric is None else self._metric.name
        higher_is_better = self._metric is None or self._metric.higher_is_better
        return Loaded(
            notes,
            None,
            name,
            higher_is_better,
            has_compiler=is_dynamo_here(),
            provenance=self._provenance,
        )

    def _load_model(self) -> tuple[nn.Module, tuple[str, ...]]:
        candidate = self._variant.candidate
        if candidate is None:
            return loading.load_model(self._loader, self._variant.model)
        if candidate.file and self._device.is_cuda:
            raise VariantError(
                f"{candidate.name} is a file, and files run on the CPU only, not on {self._variant.device}"
            )

        def answer() -> tuple[Inputs, Any]:
            original, _ = loading.load_model(self._loader, self._variant.model)
            with torch.no_grad():
                return self._first_inputs(), call(original, self._first_inputs())

        model, notes, self._provenance = load_candidate(
            candidate, self._loader, Path(self._variant.import_paths[0]), answer
        )
        return model, notes

    def optimize(self) -> Loaded:
        """Apply the recipe to the loaded model."""
        from pytest_modelopt.optimizing.apply import optimize
        from pytest_modelopt.optimizing.expression import parse
        from pytest_modelopt.optimizing.registry import RECIPES

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
            self._data.calibration(),
            self._variant.seed,
            device=self._device.torch_device.type,
            varying=lambda: self._data.varying(self._first_inputs()),
            batches=lambda: map(self._device.take, self._data.calls(self._first_inputs())),
            training=self._data.training(),
        )
        try:
            done = optimize(self.model, recipes, context)
        except RecipeError as error:
            if self._data.calibration_seen.refusal is None:
                raise VariantError(str(error)) from error
        if self._data.calibration_seen.refusal is not None:  # whatever the recipe made of it
            raise self._data.calibration_seen.refusal
        self._model = done.model
        self._known = {"first_call_s": done.first_call_s, "settings": settings()}
        gc.collect()
        unknown, is_uncounted = _nothing_to_compare(done.model, done.coverage)
        notes, coverage = ((unknown,), None) if unknown else ((), done.coverage)
        return Loaded(notes, coverage, "", True, unknown, is_uncounted=is_uncounted)

    def taken_from_head(self) -> tuple[str, ...]:
        """Modules and files of head that this variant of another revision has used instead of its own."""
        return () if self._variant.tree is None else taken_from_head(self._variant.tree)

    def linked_to_head(self) -> tuple[str, ...]:
        """Files of head that this variant of another revision has used by links in its tree."""
        return () if self._variant.tree is None else linked_to_head(self._variant.tree)

    def size(self) -> int:
        if self._provenance is not None and self._provenance.files:
            return sum(self._provenance.files.values())
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

    def score(self, keep: str | None = None, reference: str | None = None) -> Answers:
        """Of all examples. An unlabelled metric writes what it sees to `keep`, or compares it with `reference`."""
        assert self._metric is not None
        self._set_threads()
        kept, compared = (Path(path) if path else None for path in (keep, reference))
        probe = repeating.Probe(self.model, self._device)
        is_original = self._variant.is_original
        scorer = self._metric.scorer(kept, compared, is_paired=is_original)
        seen = self._data.calibration_seen
        answers = self._pass(lambda batches: seen.evaluated(probe.watch(batches)), scorer, self.model)
        self._has_scored = True
        self._known |= _classes(answers)
        self._known |= {"pairing": answers.pairing, "worst_score": self._metric.worst, "spread": answers.spread}
        if answers.why_unpaired:
            self._unobserved["pairing"] = answers.why_unpaired
        return replace(answers, repeat=self._second_pass(answers, probe, compared or kept))

    def outputs(self, path: str) -> str:
        """Write what the model answers to all examples to `path`, for another worker; the examples' fingerprint."""
        self._set_threads()
        return self._pass(iter, Recorder(Path(path)), self.model).data_fingerprint

    def score_outputs(
        self, path: str, examples: Examples | None, keep: str | None = None, reference: str | None = None
    ) -> Answers:
        """As `score`, of another revision's variant, which has left its outputs in `path`: by this one's metric."""
        self._set_threads()
        if self._metric is None:  # a later launch, which was made to be timed
            self._data.use(examples)
            self._metric = make_metric(self._variant.metric, self._loader)
        kept, compared = (Path(file) if file else None for file in (keep, reference))
        return self._pass(iter, self._metric.scorer(kept, compared), Replayed(Path(path)))

    def metric_files(self) -> tuple[str, ...]:
        """Where the code of the metric, and of what prepares for it, stands."""
        sources = (self._variant.metric.name, self._variant.metric.prepare)
        names = [source.partition(":")[0] for source in sources if isinstance(source, str) and ":" in source]
        files = (getattr(sys.modules.get(name), "__file__", None) for name in names)
        return tuple(dict.fromkeys(file for file in files if file is not None))

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
        known = self._known | {"calibration": self._data.calibration_seen.calibration()}
        return observe.observe(self.model, self._call, known, self._ties, self._unobserved)

    def makeup(self, peak_bytes: int | None) -> Makeup:
        """What its file is made of, and where its peak of `peak_bytes` is reached, unless compiled code hides that."""
        self._set_threads()
        with torch.inference_mode():
            if self._device.is_cuda or observe.is_compiled(self._call):
                peak_bytes = None
            return file_makeup.makeup(self.model, self._prepared_call(), peak_bytes)

    def prepare_timing(self, slowdown: float = 0.0) -> None:
        """Make the first calls, and count threads."""
        self._set_threads()
        if not self._needs_copies:  # the recipe may have made another model, and a saved one has only been read
            with torch.inference_mode():
                given = Given(self._first_inputs())
                quality.run_on(self.model, given.inputs)
                self._look_at_traces(given)
        timed: latency.Timed = TimedCall(
            self.model, self._first_inputs(), copies=self._needs_copies, at_new_addresses=bool(self._remembers)
        )
        if slowdown:
            timed = latency.Slowed(timed, slowdown, self._device.synchronize)
        with torch.inference_mode():
            canary = None if self._device.is_cuda else _canary()
            self._stopwatch = latency.Stopwatch(timed, self._device.clock, canary)
        self._compilations = compilations()

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
        loading.keep_environment(Path(path), self._environment)

    def export(self, path: str) -> tuple[str, ...]:
        """Write the variant as it is shipped to `path`, without a suffix: in the format of its runtime, or else saved
        by torch. The files."""
        if isinstance(self.model, RuntimeModule):
            return tuple(map(str, self.model.written(Path(path))))
        file = Path(path).with_name(f"{Path(path).name}.pt")
        try:
            size.save(self.model, file)
        except Exception as error:
            raise _not_saved(error) from error
        return (str(file),)

    def save_inputs(self, path: str) -> None:
        """Write the inputs of the measured call to `path`."""
        size.save(self._first_inputs(), Path(path))

    def reload(self, path: str, inputs_file: str) -> None:
        """Stand where the worker stood that saved the model and its inputs."""
        self._set_threads()
        loading.restore_environment(Path(path))
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
            self._unobserved[what] = words(error, 300)

    def _pass(
        self, watched: Callable[[Iterable[Batch]], Iterable[Batch]], scorer: Scorer, model: Callable[..., Any]
    ) -> Answers:
        """Run a model on all of the evaluation data, whose batches pass through `watched`."""
        data = self._data.evaluation()
        answers = quality.answer(model, watched(data), scorer, self._device, self._data.slices)
        return replace(answers, data_fingerprint=data.fingerprint)

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
            first,
            lambda watched: self._pass(watched, metric.scorer(reference=reference), self.model),
            self._variant.seed,
        )
        if repeat is None:
            self._unobserved["repeatability"] = (
                "it answers differently each time, but the data gave other examples the second time: nothing to compare"
            )
        return repeat

    def _call(self) -> object:
        return call(self.model, self._first_inputs())

    def _prepared_call(self) -> Callable[[], object]:
        """One call, whose copy of the inputs was made before. On a GPU a copy would count: only where one is needed."""
        copies = self._needs_copies or not self._device.is_cuda
        return TimedCall(self.model, self._first_inputs(), copies=copies).prepared(1)

    def _look_at_traces(self, given: Given) -> None:
        """After a call on them."""
        self._traces = given.traces()
        self._remembers = "" if self._traces else remembers(self.model, given.inputs)

    @property
    def _needs_copies(self) -> bool:
        return bool(self._traces or self._remembers)

    def _first_inputs(self) -> Inputs:
        assert self._inputs is not None
        return self._inputs


def _canary() -> Callable[[], object]:
    """A matrix of 1.5 MiB times a vector: it needs the vector unit, the second-level cache and the way to memory, of
    which a neighbour on the host may take a share, unseen by any counter of this machine."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(384, 1024, generator=generator, dtype=torch.float32)
    vector, product = torch.rand(1024, generator=generator, dtype=torch.float32), torch.empty(384, dtype=torch.float32)
    return lambda: torch.mv(matrix, vector, out=product)


def _classes(answers: Answers) -> dict[str, Any]:
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


def _nothing_to_compare(model: nn.Module, coverage: Coverage) -> tuple[str, bool]:
    """Why nobody can say what a recipe changed, where hardly anything of the weights is left in tensors, '' else; and
    whether hardly anything is left in other memory, too. One bit for each float would be more."""
    if isinstance(model, RuntimeModule):  # knows what its program holds
        return "", False
    try:
        walk = tensor_meter.Walk(model, passes_runtimes=True)
    except tensor_meter.Unaccounted:
        return "", False
    held = walk.tensor_bytes
    if held * _LEAST_HELD >= coverage.weight_bytes:
        return "", False
    why = (
        f"what the recipe changed is not known: the model held {coverage.weight_bytes:,} bytes of weights, the variant "
        f"holds {held:,} in tensors, and the rest cannot be compared"
    )
    return why, walk.total_bytes() * _LEAST_HELD < coverage.weight_bytes


def _not_saved(error: Exception) -> VariantError:
    return VariantError(f"the model cannot be saved: {words(error, 300)}")
