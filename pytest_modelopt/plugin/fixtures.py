"""The fixtures `modelopt` and `optimize`, and the budget of the test that uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_modelopt.plugin.keys import CASES, ENDED, NEEDS_MODELOPT, SESSION, USED

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_modelopt.measuring.variant import Variant
    from pytest_modelopt.plugin.comparison import Comparison, Optimized
    from pytest_modelopt.plugin.session import Budget, Session
    from pytest_modelopt.results.answers import Inference
    from pytest_modelopt.results.measurement import Measurement
    from pytest_modelopt.results.verdicts import Limit


@pytest.fixture
def modelopt(request: pytest.FixtureRequest) -> ModelOpt:
    """Measure a model's optimized variant against the original: `modelopt(model, recipe, data=...) -> Comparison`."""
    return ModelOpt(_session_of(request), request)


@pytest.fixture
def optimize(request: pytest.FixtureRequest) -> Optimizer:
    """Make a model's optimized variant and say what changed: `optimize(model, recipe, data=...) -> Optimized`."""
    return Optimizer(_session_of(request), request)


def _session_of(request: pytest.FixtureRequest) -> Session:
    session = request.config.stash.get(SESSION, None)
    if session is None:
        pytest.skip(NEEDS_MODELOPT)
    return session


class _Fixture:
    """What both fixtures know of their test."""

    def __init__(self, session: Session, request: pytest.FixtureRequest) -> None:
        from pytest_modelopt.plugin.live_variant import LiveVariants

        self._session = session
        self._item: pytest.Item = request.node
        self._item.stash[USED] = True
        self._variants = LiveVariants(session, request)


class ModelOpt(_Fixture):
    """The `modelopt` fixture's value."""

    def __call__(
        self,
        model: Any = None,
        recipe: str | None = None,
        *,
        candidate: Any = None,
        data: Any = None,
        calibration: Any = None,
        example_inputs: Any = None,
        metric: str | Mapping[str, Any] | Callable[..., Any] | None = None,
        slices: str | Callable[..., Any] | None = None,
        batch_of: int | str | Callable[..., Any] | None = None,
        call: str | Callable[..., Any] | Mapping[str, Any] | None = None,
        optimize: str | None = None,
        inference: Inference | None = None,
        batch_size: int | None = None,
        threads: int | None = None,
        device: str | None = None,
        workload: str = "",
    ) -> Comparison:
        """Measure `model` optimized with `recipe`, or `candidate` in its place, against `model`; or `model` alone.

        Args:
            model: a torch.nn.Module, a function without arguments that makes one, or `"package.module:function"`.
                Without a model, the case that the marker names is measured as budgets.yaml describes it.
            recipe: such as `"int8-dynamic"` or `"prune-structured(ratio=0.5) + int8-dynamic"`.
            candidate: what the project has optimized itself, in place of a recipe: a module, a function that makes one
                or its name, or the path of a file, from the folder of the test.
            data: what the score is measured on: (inputs, targets) tensors, a Dataset, a DataLoader, an iterable of
                batches, or a factory of one of these. Targets may be a list with one entry for each example; under a
                metric that needs no labels, inputs alone will do.
            calibration: data for recipes that calibrate; the same forms.
            example_inputs: inputs of the timed and memory-measured call, all of them; default: the first examples of
                `data`.
            metric: default "accuracy", or "perplexity" where the model generates; "top-5"; "agreement", "cosine" or
                "sqnr", which need no labels; the path of a class, as "torchmetrics.text.WordErrorRate";
                `"package.module:function"`; a function (outputs, targets) -> score with an attribute
                `higher_is_better`; an instance of torchmetrics.Metric; or a dict with one of these as `name`, and
                `arguments`, `activation`, `prepare`, `higher_is_better`, `per_example`.
            slices: `"package.module:function"` or a function (inputs, target) -> name that puts each example into a
                slice, for `max_slice_drop`; without it a classifier's slices are the classes.
            batch_of: how many examples are in each batch of the data, or a function (inputs) -> number, where neither
                targets nor the entries of all inputs say it; such batches are used whole.
            call: `"package.module:function"` or a function (model, inputs) -> outputs that is called in place of
                `model(inputs)`, for answers, memory and timing alike; inputs come as `data` gives them. Or
                `{"generate": {"new_tokens": 64, "prompt": 512}}` for a model that generates, with transformers'
                `generate`, or by steps `forward(ids, cache) -> (logits, cache)`, or by a function
                (model, ids, cache) -> (logits, cache) as `step` in it; `data` then gives sequences of token ids.
            optimize: the dotted path below the model of the module that recipes change, such as `"encoder"`; the model
                itself where nothing is said.
            inference: what limits on accuracy are about: `"set"`, these very examples, or `"population"`, all that they
                were drawn from, by 95% bounds; default of budgets.yaml, else the set.
            batch_size: of the timed and memory-measured call; default of budgets.yaml, else 1.
            threads: of each call; default of budgets.yaml, else 1.
            device: where both run, `"cpu"`, `"cuda"` or `"cuda:0"`; default of budgets.yaml, else the CPU.
            workload: what its row is called beside others of the test, `"night"`: `int8-dynamic @ night`.

        The test's budget (`@pytest.mark.model_budget(...)`) is asserted when the test ends.
        """
        from pytest_modelopt.plugin.live_variant import name_of

        budget = self._budget()
        if model is None:
            variant, name = self._named_case(budget, recipe)
        else:
            if recipe is not None and candidate is not None:
                pytest.fail("modelopt(model, ...): give a recipe or a candidate, not both", pytrace=False)
            if recipe is None and candidate is None:
                _require_absolute(budget.limits)
            if data is None and example_inputs is None:
                pytest.fail("modelopt(model, recipe, ...): give `data=` (or at least `example_inputs=`)", pytrace=False)
            sources = {
                "model": model,
                "data": data,
                "calibration": calibration,
                "example_inputs": example_inputs,
                "slices": slices,
                "batch_of": batch_of,
                "call": call,
                "candidate": candidate,
            }
            variant = self._variants.make(sources, recipe, metric, batch_size, threads, device, workload, optimize)
            name = f"{name_of(model)} in {self._item.name}"
        return self._measure(variant, name, budget, self._inference(budget, inference, is_named=model is None))

    def _budget(self) -> Budget:
        """What the test's markers say now: a conftest, a fixture or the test itself may have added one."""
        from pytest_modelopt.config.problems import BudgetsError
        from pytest_modelopt.plugin.markers import read_budget

        if self._item.stash.get(ENDED, False):
            pytest.fail(
                "modelopt() was called after its test had ended, where no budget is asserted any more: measure in the "
                "test or in its set-up",
                pytrace=False,
            )
        try:
            return read_budget(self._item, self._session)
        except BudgetsError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None

    def _named_case(self, budget: Budget, recipe: str | None) -> tuple[Variant, str]:
        if budget.entry is None:
            pytest.fail(
                'modelopt(): give a model and a recipe, or name a case: @pytest.mark.model_budget("model/recipe")',
                pytrace=False,
            )
        from pytest_modelopt.plugin.live_variant import parse_recipe

        variant = self._session.variant(budget.entry)
        if recipe is not None:
            variant = replace(variant, recipe=parse_recipe(recipe), candidate=None)
        return variant, f"{budget.entry.model.name} in {self._item.name}"

    def _inference(self, budget: Budget, given: str | None, *, is_named: bool) -> Inference:
        """What the test says, else the case that it measures, else the defaults of budgets.yaml."""
        from pytest_modelopt.limits.catalogue import parse_inference

        if given is None:
            if is_named and budget.entry is not None:
                return budget.entry.model.inference
            return self._session.defaults.inference
        try:
            return parse_inference(given)
        except ValueError as error:
            raise pytest.fail.Exception(f"inference: {error}", pytrace=False) from None

    def _measure(self, variant: Variant, name: str, budget: Budget, inference: Inference) -> Comparison:
        from pytest_modelopt.plugin.collecting.collection import test_id
        from pytest_modelopt.plugin.comparison import Comparison

        cases = self._item.stash.setdefault(CASES, [])
        case_id = test_id(self._item) + (f"#{len(cases) + 1}" if cases else "")
        case = self._session.run(case_id, name, budget.limits, variant, inference)
        cases.append(case)
        if case.error is not None:
            pytest.fail(self._session.explain(case), pytrace=False)
        return Comparison(case)


class Optimizer(_Fixture):
    """The `optimize` fixture's value."""

    def __call__(
        self,
        model: Any,
        recipe: str,
        *,
        data: Any = None,
        calibration: Any = None,
        example_inputs: Any = None,
        call: str | Callable[..., Any] | None = None,
        optimize: str | None = None,
    ) -> Optimized:
        """Make the variant in a worker process, save it, and say what changed. Arguments as in `modelopt`."""
        from pytest_modelopt.measuring.controller.process import WorkerFailed
        from pytest_modelopt.measuring.controller.remade_variant import unlike
        from pytest_modelopt.plugin.comparison import Optimized
        from pytest_modelopt.results.files.file_sums import sha256_of

        if data is None and example_inputs is None:
            pytest.fail("optimize(model, recipe, ...): give `example_inputs=` or `data=`", pytrace=False)
        sources = {
            "model": model,
            "data": data,
            "calibration": calibration,
            "example_inputs": example_inputs,
            "call": call,
        }
        variant = self._variants.make(sources, recipe, optimize=optimize)
        runner, name = self._session.runner, self._item.nodeid
        path, inputs = runner.new_file("optimized"), runner.new_file("optimized-inputs")

        def write(target: Path, measured: Measurement | None) -> tuple[Path, ...]:
            if measured is not None and (why := unlike(measured, loaded)):
                raise WorkerFailed(why, "")
            files = runner.export_saved(variant, path, inputs, target, name)
            if measured is not None:
                self._add_sums(measured, {file.suffix: sha256_of(file) for file in files})
            return files

        try:
            loaded = runner.optimize(variant, path, inputs, name)
        except WorkerFailed as failed:
            output = f"\nthe worker's last output:\n{failed.output}" if failed.output else ""
            raise pytest.fail.Exception(f"{failed.message}{output}", pytrace=False) from None
        assert variant.recipe is not None
        if loaded.coverage is None:
            pytest.fail(loaded.no_coverage or "what the recipe changed is not known", pytrace=False)
        notes = tuple(note for step in loaded.coverage.steps for note in step.notes)
        return Optimized(variant.recipe.text, loaded.coverage, (*loaded.notes, *notes), path, write)

    def _add_sums(self, measured: Measurement, sums: dict[str, str]) -> None:
        """Of the files that were written, to the case of this test in which it was measured."""
        written = replace(measured, shipped=sums)
        cases = self._item.stash.get(CASES, [])
        cases[:] = [replace(case, variant=written) if case.variant is measured else case for case in cases]


def _require_absolute(limits: Sequence[Limit]) -> None:
    """Without a recipe and a candidate there is nothing to compare."""
    from pytest_modelopt.limits.catalogue import ORIGINAL_LIMITS

    if not limits:
        pytest.fail(
            "modelopt(model, ...): give a recipe, such as 'int8-dynamic', a candidate, or by "
            "@pytest.mark.model_budget(...) a limit of the model as it is",
            pytrace=False,
        )
    others = [limit.name for limit in limits if limit.name not in ORIGINAL_LIMITS]
    if others:
        told = ", ".join(others)
        pytest.fail(f"modelopt(model): {told} compares with the original; give a recipe or a candidate", pytrace=False)
