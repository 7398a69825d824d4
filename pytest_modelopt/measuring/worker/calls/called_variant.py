"""The call of a variant that is measured: of which model, on which inputs, in how many threads, with which copies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytest_modelopt.measuring.protocol import CallShape, Examples
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker import source_loading
from pytest_modelopt.measuring.worker.answers import quality
from pytest_modelopt.measuring.worker.calls.called_model import alone
from pytest_modelopt.measuring.worker.calls.changed_part import part_of
from pytest_modelopt.measuring.worker.calls.generation import Step, WholeCall, greedy, require_room, told_sampling
from pytest_modelopt.measuring.worker.calls.given_inputs import Given, TimedCall
from pytest_modelopt.measuring.worker.calls.part import Part
from pytest_modelopt.measuring.worker.calls.remembered_inputs import knows_content, remembers
from pytest_modelopt.measuring.worker.data.variant_data import Data
from pytest_modelopt.measuring.worker.device import Device
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.optimizing.calling import ForOneCall, Inputs, call
from pytest_modelopt.optimizing.modules.nested_values import sizes, tensors
from pytest_modelopt.optimizing.recipe import Context, Steps
from pytest_modelopt.results.workload import Workload


class CalledVariant:
    """A variant at one operating point. What makes its model and its inputs is derived from this class."""

    def __init__(self, variant: Variant) -> None:
        self._variant = variant
        self._device = Device(variant.device)
        self._loader = source_loading.Loader(variant)
        self._model: nn.Module | None = None
        self._inputs: Inputs | None = None
        self._data = Data(variant, self._loader, self._device)
        self._traces = self._remembers = self._content = ""
        self._function: Callable[..., Any] | None = None

    def move(
        self, point: Workload, inputs_file: str | None = None, examples: Examples | None = None
    ) -> tuple[CallShape, tuple[str, ...]]:
        """Stand at another operating point, with other inputs and threads, and check that one call works there. What
        the inputs are, and notes about that call.

        `inputs_file`, `examples`: as in `load`.
        """
        self._stand_at(self._variant.at(point))
        self._data.use(examples)
        self._take_inputs(inputs_file)
        part = self._part()
        inputs = self._first_inputs() if part is None else part.inputs_of_calls(self._first_inputs())[0]
        for module in self.model.modules():
            if isinstance(module, ForOneCall):
                module.stand_for(inputs)
        had_copies = self._needs_copies
        with torch.no_grad():
            self._complete_inputs(is_prompt=inputs_file is None)
            given = Given(self._call_inputs())
            quality.run_on(self._called, given.inputs)
            self._look_at_traces(given)
        return self._shape(), () if had_copies else self._told_copies()

    def _stand_at(self, variant: Variant) -> None:
        self._variant = variant
        self._data.stand_at(variant)
        self._set_threads()

    def _take_inputs(self, inputs_file: str | None) -> None:
        self._input_notes: tuple[str, ...] = ()
        if inputs_file is None:
            inputs, self._input_notes = self._data.example_inputs()
        else:
            inputs = size.load(Path(inputs_file))
        self._inputs = self._device.take(inputs)

    def _shape(self) -> CallShape:
        """Of the inputs as the call has them, with what was put to them."""
        inputs, counts = self._call_inputs(), sizes(self._call_inputs())
        is_told = len(counts) == 1 and self._variant.batch_of is None
        examples = counts.pop() if is_told else self._data.examples_in_call or self._variant.batch_size
        return CallShape(examples, tuple(tuple(tensor.shape) for tensor in tensors(inputs)), self._input_notes)

    @property
    def model(self) -> nn.Module:
        assert self._model is not None
        return self._model

    @property
    def _alone(self) -> Any:
        """The model without the project's `call:`: what is shipped."""
        return alone(self.model)

    def _part(self) -> Part | None:
        return part_of(self._variant, self.model)

    def _set_threads(self, threads: int | None = None) -> None:
        """Before every operation: the user's code may have set another number meanwhile. None: those of the call."""
        number = self._variant.threads if threads is None else threads
        if torch.get_num_threads() != number:
            torch.set_num_threads(number)

    def _set_threads_of_answers(self) -> None:
        """Answers do not depend on the operating point: of all of them those of the first one are scored."""
        self._set_threads(self._variant.first.threads)

    def _call(self) -> object:
        return call(self._called, self._call_inputs())

    def _run(self, inputs: Inputs) -> Any:
        return self._device.bring_back(quality.run(self._called, self._device.take(inputs)))

    def _prepared_call(self) -> Callable[[], object]:
        """One call, whose copy of the inputs was made before. On a GPU a copy would count: only where one is needed."""
        copies = self._needs_copies or not self._device.is_cuda
        return TimedCall(self._called, self._call_inputs(), copies=copies).prepared(1)

    def _look_at_traces(self, given: Given) -> None:
        """After a call on them."""
        self._traces = given.traces()
        self._remembers = "" if self._traces else remembers(self._called, given.inputs)

    def _knows_content(self) -> str:
        """As `knows_content` tells, which can find it once only: the others that it tries are then known, too."""
        with torch.inference_mode():
            self._content = self._content or knows_content(self._called, self._call_inputs())
        return self._content

    @property
    def _needs_copies(self) -> bool:
        return bool(self._traces or self._remembers)

    def _told_copies(self) -> tuple[str, ...]:
        if not self._needs_copies:
            return ()
        found = self._traces or self._remembers
        return (f"the model {found}, so each call is given a copy, which is made before its clock starts",)

    def _context(self) -> Context:
        """Of the call that is measured, without data to learn from."""
        first, steps = self._first_inputs(), None
        if self._variant.generation is not None:
            steps = Steps(lambda model: Step(model, self._function).plain, first)
        return Context(
            first,
            None,
            self._variant.seed,
            device=self._device.torch_device.type,
            varying=lambda: self._data.varying(self._first_inputs()),
            batches=lambda: map(self._device.take, self._data.calls(self._first_inputs())),
            steps=steps,
        )

    def _first_inputs(self) -> Inputs:
        """Of one forward pass, as recipes see it: of a model that generates, the prompts."""
        inputs, generation = self._call_inputs(), self._variant.generation
        if generation is None:
            return inputs
        assert isinstance(inputs, torch.Tensor)
        return inputs[:, : generation.prompt]

    def _call_inputs(self) -> Inputs:
        """Of the measured call: of a model that generates, the prompts and the tokens that its steps are given."""
        assert self._inputs is not None
        return self._inputs

    # --- models that generate ----------------------------------------------------------------------------------------

    @property
    def _called(self) -> Callable[..., Any]:
        """What is called with the inputs of the measured call."""
        return self._calling(self.model)

    def _calling(self, model: nn.Module) -> Callable[..., Any]:
        generation = self._variant.generation
        return model if generation is None else WholeCall(Step(model, self._function), generation.prompt)

    def _step_function(self) -> Callable[..., Any] | None:
        """The project's own function that makes one step."""
        generation = self._variant.generation
        source = None if generation is None else self._variant.step or generation.step
        function: Callable[..., Any] | None = None if source is None else self._loader.get(source, "step")
        return function

    def _complete_inputs(self, *, is_prompt: bool) -> tuple[str, ...]:
        """Put the tokens of the steps behind the prompts, where no other variant has; notes."""
        generation = self._variant.generation
        if generation is None:
            return ()
        require_room(self.model, generation)
        if is_prompt:
            prompts = self._call_inputs()
            assert isinstance(prompts, torch.Tensor)
            tokens = greedy(Step(self.model, self._function), prompts, generation.new_tokens)
            self._inputs = torch.cat([prompts, tokens], dim=1)
        return told_sampling(self.model) if self._variant.is_original else ()
