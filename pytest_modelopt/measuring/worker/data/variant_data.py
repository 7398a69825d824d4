"""All data of one variant in its worker: what it is scored on, the inputs of the measured call, calibration."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pytest_modelopt.measuring.protocol import Examples, KnownTargets, VariantError
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker import source_loading
from pytest_modelopt.measuring.worker.data import batches, examples, labels, parts, sequences
from pytest_modelopt.measuring.worker.data.calibration import CalibrationSeen
from pytest_modelopt.measuring.worker.device import Device
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Targets
from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.optimizing.modules.nested_values import sizes
from pytest_modelopt.results.generation import Generation
from pytest_modelopt.results.source import Source

CALIBRATION_LOOKED_AT = 64
"""Batches of calibration data whose sizes are looked at: recipes take a few."""


class Data:
    """Makes what the variant names as data; evaluation data from the file of `read`, where there is one."""

    def __init__(self, variant: Variant, loader: source_loading.Loader, device: Device) -> None:
        self._variant = variant
        self._loader = loader
        self._device = device
        self._made: Any = None
        self._examples: Examples | None = None
        self.calibration_seen = CalibrationSeen(None)
        self.examples_in_call = 0
        """Of the measured call, where its inputs come from the data; else 0."""
        self.gives_labels = False
        """Whether calls are given the targets, too: `labels.py` says when."""

    # --- reading, once for all variants of a model -------------------------------------------------------------------

    def read(self, path: Path) -> Examples:
        """Read the evaluation data into the file `path`."""
        source = self._variant.slices
        slices = None if source is None else examples.Slices(self._loader.get(source, "slices"))
        if self._variant.part is None:
            return examples.read(self._from_source(), path, slices)
        most = max((point.batch_size for point in self._variant.points), default=self._variant.batch_size)
        call_path = examples.keep(self._all_from_source(), path.with_name(path.name + ".call"), most)
        return replace(examples.read(self._from_source(), path, slices), call_path=call_path)

    def read_again(self, found: Examples) -> None:
        """Read its beginning once more: a source must give the same examples each time."""
        examples.compare_with_first(self._from_source(), found)

    def stand_at(self, variant: Variant) -> None:
        """Give the inputs of the call at another operating point from now on."""
        self._variant = variant

    def use(self, found: Examples | None) -> None:
        """Take the examples that `read` found from now on; None: from their source."""
        self._examples = found
        self.calibration_seen = CalibrationSeen(found)

    @property
    def known_targets(self) -> KnownTargets | None:
        """What `read` found of the targets."""
        return None if self._examples is None else self._examples.targets

    @property
    def slices(self) -> int:
        """How many the project names; 0 where it names none."""
        return 0 if self._examples is None else len(self._examples.slice_names)

    # --- evaluation --------------------------------------------------------------------------------------------------

    def evaluation(self) -> examples.Pass:
        """One pass for scoring: the same examples in the same batches for every variant."""
        is_kept = self._examples is not None and self._examples.path is not None
        found = examples.Pass(self._batches(), self._examples, is_from_file=is_kept, given=self._given)
        # What is drawn at random from here on (an order, noise, dropout) is the same for every variant.
        source_loading.seed_everything(self._variant.seed)
        return found

    def _batches(self) -> Iterator[Batch]:
        if self._examples is not None and self._examples.path is not None:
            return examples.read_batches(self._examples)
        return self._from_source()

    def _of_the_call(self) -> Iterator[Batch]:
        """Batches from which the inputs of the measured call are taken: the first of all examples."""
        if self._examples is not None and self._examples.call_path:
            return examples.kept_batches(self._examples.call_path)
        return self._batches()

    def _from_source(self) -> Iterator[Batch]:
        """The examples that are scored."""
        return parts.of_part(self._all_from_source(), self._variant.part)

    def _all_from_source(self) -> Iterator[Batch]:
        """The batches as the project gives them, made anew, unless they are tensors: a stream may be used up."""
        if self._variant.data is None:
            raise VariantError("no `data` was given, so there is nothing to score")
        if self._made is None or not isinstance(self._made, (tuple, list)):
            self._loader.start_afresh()
            self._made = self._loader.make(self._variant.data, "data")
        source_loading.seed_everything(self._variant.seed)
        if self._variant.generation is not None:
            return sequences.batches(self._made, self._variant.generation)
        needs_targets = not self._variant.metric.is_unlabelled
        return batches.batches(self._made, needs_targets=needs_targets, batch_of=self._batch_of())

    def example_inputs(self) -> tuple[Inputs, tuple[str, ...]]:
        """Those of the measured call, and notes where they are not what `batch_size` or the project says."""
        variant = self._variant
        count = variant.batch_size
        if variant.generation is not None:
            return self._prompts(variant.generation)
        if variant.example_inputs is None:
            inputs, found = batches.first_examples(map(self._given, self._of_the_call()), count, "data")
            self.examples_in_call = found
            if found == count:
                return inputs, ()
            told = f"the batches cannot be cut: the timed call has the whole first one, of {found} examples"
            return inputs, (f"`batch_size` is {count}, and {told}",)
        made = self._loader.make(variant.example_inputs, "example_inputs")
        given = Batch(batches.inputs_of(made, "example_inputs"), None)
        have = given.examples if len(sizes(given.inputs)) == 1 and variant.batch_of is None else None
        if have is None:
            return given.inputs, ()
        number, notes = self._taken(have, "examples")
        if number == have:
            return given.inputs, notes
        inputs, _ = batches.first_examples([given], number, "example_inputs")
        return inputs, notes

    def _given(self, batch: Batch) -> Batch:
        """The batch as the model is called with it."""
        if not self.gives_labels or batch.targets is None:
            return batch
        return replace(batch, inputs=labels.with_targets(batch.inputs, batch.targets))

    def _batch_of(self) -> batches.BatchOf:
        stated = self._variant.batch_of
        return stated if stated is None or isinstance(stated, int) else self._loader.get(stated, "batch_of")

    def _prompts(self, generation: Generation) -> tuple[Inputs, tuple[str, ...]]:
        """Of a model that generates: ids (batch size, prompt), and notes as of other inputs."""
        variant, count = self._variant, self._variant.batch_size
        if variant.example_inputs is None:
            ids, _ = batches.first_examples(self._of_the_call(), count, "data")
            return ids[:, : generation.prompt].clone(), ()
        ids = torch.cat(list(self._sequences_of(variant.example_inputs, generation)))
        number, notes = self._taken(len(ids), "sequences")
        if number > len(ids):
            raise VariantError(f"`batch_size` is {number}, but `example_inputs` holds only {len(ids)} examples")
        return ids[:number, : generation.prompt].clone(), notes

    def _sequences_of(self, source: Source, generation: Generation) -> Iterator[torch.Tensor]:
        """The prompts that a function of the project gives."""
        made = self._loader.make(source, "example_inputs")
        found = sequences.batches(made, replace(generation, new_tokens=0), "example_inputs")
        return (batch.inputs for batch in found)

    def _taken(self, have: int, what: str) -> tuple[int, tuple[str, ...]]:
        """How many of the project's own inputs the call has, and a note where that is not what it says elsewhere."""
        count, takes = self._variant.batch_size, self._variant.takes
        if have == count:
            return count, ()
        if takes == "exactly":
            raise VariantError(
                f"`example_inputs` holds {have} {what}, and `batch_size`, which is stated beside it, is {count}: "
                "leave `batch_size` out, or give as many"
            )
        if takes == "all":
            told = f"the call has the {have} {what} of `example_inputs`; `batch_size` {count} is not stated for these"
            return have, (told,) if count != 1 else ()
        return count, (f"the call has the first {count} of the {have} {what} of `example_inputs`, by `batch_size`",)

    def _inputs_of(self, source: Source, first: Inputs) -> Iterator[Inputs]:
        """Of another operating point."""
        if self._variant.generation is not None:
            yield from self._sequences_of(source, self._variant.generation)
        else:
            made = batches.inputs_of(self._loader.make(source, "example_inputs"), "example_inputs")
            yield batches.in_order_of(first, made)

    # --- calibration -------------------------------------------------------------------------------------------------

    def calibration(self) -> Callable[[], Iterator[Inputs]] | None:
        """Makes its batches, on the device."""
        if self._variant.calibration is None:
            return None
        return lambda: (self._device.take(self._given(batch).inputs) for batch in self._drawn(needs_targets=False))

    def training(self) -> Callable[[], Iterator[tuple[Inputs, Targets]]] | None:
        """The same with their targets."""
        if self._variant.calibration is None:
            return None

        def drawn() -> Iterator[tuple[Inputs, Targets]]:
            for batch in self._drawn(needs_targets=True):
                assert batch.targets is not None
                yield self._device.take(self._given(batch).inputs), self._device.take(batch.targets)

        return drawn

    def _drawn(self, *, needs_targets: bool) -> Iterator[Batch]:
        return self.calibration_seen.watch(self._calibration_batches(), needs_targets=needs_targets)

    def _calibration_batches(self) -> Iterator[Batch]:
        assert self._variant.calibration is not None
        made = self._loader.make(self._variant.calibration, "calibration")
        if self._variant.generation is not None:
            return sequences.batches(made, self._variant.generation, "calibration data")
        return batches.batches(made, "calibration data", needs_targets=False, batch_of=self._batch_of())

    def varying(self, first: Inputs) -> tuple[frozenset[int], ...]:
        """Dimensions whose size differs between the batches that the variant will be given: of all calls there are."""
        return batches.varying_dimensions(self.calls(first))

    def calls(self, first: Inputs) -> Iterator[Inputs]:
        """The inputs of all calls that the variant will be given, `first` before them; by name, in its order."""
        yield first
        for source in dict.fromkeys(point.example_inputs for point in self._variant.points[1:]):
            if source is not None:
                with contextlib.nullcontext() if self._variant.tree is None else contextlib.suppress(VariantError):
                    yield from self._inputs_of(source, first)  # a base need not have the functions of head's workloads
        if self._variant.data is not None:
            yield from (batches.in_order_of(first, self._given(batch).inputs) for batch in self._batches())
        if self._variant.calibration is not None:
            looked_at = itertools.islice(self._calibration_batches(), CALIBRATION_LOOKED_AT)
            yield from (batches.in_order_of(first, self._given(batch).inputs) for batch in looked_at)
