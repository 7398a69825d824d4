"""The fixtures `modelopt` and `optimize`, and the budget of the test that uses them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_modelopt.plugin.keys import CASES, ENDED, NEEDS_MODELOPT, SESSION, TEST, USED

if TYPE_CHECKING:
    from pytest_modelopt.measuring.variant import Variant
    from pytest_modelopt.optimizing.expression import Expression
    from pytest_modelopt.plugin.comparison import Comparison, Optimized
    from pytest_modelopt.plugin.session import Budget, Session
    from pytest_modelopt.results.answers import Inference
    from pytest_modelopt.results.generation import Generation
    from pytest_modelopt.results.measurement import Measurement
    from pytest_modelopt.results.metric import MetricSpec
    from pytest_modelopt.results.source import ProgramSource, Source
    from pytest_modelopt.results.verdicts import Limit


_FUNCTIONS = {
    "slices": "(inputs, target) -> name",
    "batch_of": "(inputs) -> number",
    "call": "(model, inputs) -> outputs",
}
"""What is not called without arguments, as it is called."""


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


class _Work:
    """What both fixtures do: turn live objects and factories into a variant for a worker."""

    def __init__(self, session: Session, request: pytest.FixtureRequest) -> None:
        self._session = session
        self._request = request
        self._item: pytest.Item = request.node
        self._item.stash[USED] = True
        self._files: list[Path] = []
        request.addfinalizer(self._forget)

    def _variant(
        self,
        sources: dict[str, Any],
        recipe: str | None,
        metric: Any = None,
        batch_size: int | None = None,
        threads: int | None = None,
        device: str | None = None,
        workload: str = "",
        optimize: str | None = None,
    ) -> Variant:
        """The variant that `sources` (model, data, calibration, example_inputs, slices, call, candidate) describe."""
        from pytest_modelopt.measuring.variant import Variant, environment_now
        from pytest_modelopt.results.candidate import Candidate
        from pytest_modelopt.results.source import Carried
        from pytest_modelopt.results.workload import wrong_name

        given, counted, call = (sources.get(name) for name in ("candidate", "batch_of", "call"))
        plain = {"batch_of": isinstance(counted, int), "call": isinstance(call, Mapping)}
        sources = {name: value for name, value in sources.items() if not plain.get(name)}
        for name, what in _FUNCTIONS.items():
            value = sources.get(name)
            if value is not None and not isinstance(value, str) and not callable(value):
                pytest.fail(f"{name}={value!r} is no function {what}, nor the name of one", pytrace=False)
        files = {name: file for name in ("model", "candidate") if (file := self._file(sources.get(name), name))}
        sources = {name: value for name, value in sources.items() if name not in files}
        carried = {name: value for name, value in sources.items() if value is not None and not isinstance(value, str)}
        named: dict[str, Source | None] = {
            name: Carried(name) if name in carried else _factory_name(name, value) for name, value in sources.items()
        }
        origins: dict[str, Source | ProgramSource | None] = {**named, **files}
        assert origins["model"] is not None
        generation, live = _stated_call(call if plain["call"] else None)
        carried |= live
        scored_by, live = _stated_metric(metric, generates=generation is not None)
        carried |= live
        origin = origins.get("candidate")
        candidate = None if origin is None else Candidate(_name_of(given), origin)
        defaults = self._session.defaults
        for name, number in (("batch_size", batch_size), ("threads", threads)):
            if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
                pytest.fail(f"{name}={number!r} is not a positive whole number", pytrace=False)
        if workload and (why := wrong_name(workload)):
            pytest.fail(f"workload={workload!r} {why}", pytrace=False)
        has_inputs = sources.get("example_inputs") is not None
        return Variant(
            model=origins["model"],
            recipe=None if recipe is None else parse_recipe(recipe),
            data=named["data"],
            calibration=named["calibration"],
            example_inputs=named["example_inputs"],
            metric=scored_by,
            import_paths=(str(self._item.path.parent), *(p for p in sys.path if p)),
            working_directory=str(Path.cwd()),
            environment=environment_now(),
            carried_file=str(self._carry(carried)) if carried else None,
            batch_size=defaults.batch_size if batch_size is None else batch_size,
            device=defaults.device if device is None else _device(device),
            threads=defaults.threads if threads is None else threads,
            slices=named.get("slices"),
            batch_of=counted if isinstance(counted, int) else named.get("batch_of"),
            call=named.get("call"),
            optimize="" if optimize is None else _path(optimize),
            candidate=candidate,
            takes="first" if not has_inputs else "all" if batch_size is None else "exactly",
            workload=workload,
            generation=generation,
            step=Carried("step") if "step" in carried else None,
        )

    def _file(self, value: Any, what: str) -> ProgramSource | None:
        """A file, by its path from the folder of the test; None for what is none."""
        from pytest_modelopt.config.candidate_schema import SUFFIXES
        from pytest_modelopt.results.source import ProgramSource

        is_path = isinstance(value, str) and ":" not in value and (what == "candidate" or value.endswith(SUFFIXES))
        if not isinstance(value, Path) and not is_path:
            return None
        return ProgramSource(str(value)).within(self._item.path.parent)

    def _carry(self, objects: dict[str, Any]) -> Path:
        from pytest_modelopt.measuring.carried_objects import CarryError, carry

        path = self._session.runner.new_file("carried")
        module = getattr(self._request, "module", None)
        try:
            carry(objects, path, by_value=[*([module] if module is not None else []), *_conftests()])
        except CarryError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        self._files.append(path)
        return path

    def _forget(self) -> None:
        """Live objects end with their test: so do the worker that holds them and the file that carried them."""
        if self._files:
            self._session.runner.forget_original()
        for path in self._files:
            path.unlink(missing_ok=True)


class ModelOpt(_Work):
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
            batch_size, threads: of the timed and memory-measured call; defaults of budgets.yaml, else 1.
            device: where both run, `"cpu"`, `"cuda"` or `"cuda:0"`; default of budgets.yaml, else the CPU.
            workload: what its row is called beside others of the test, `"night"`: `int8-dynamic @ night`.

        The test's budget (`@pytest.mark.model_budget(...)`) is asserted when the test ends.
        """
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
            variant = self._variant(sources, recipe, metric, batch_size, threads, device, workload, optimize)
            name = _model_name(model, self._item)
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
        from dataclasses import replace

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
        from pytest_modelopt.plugin.comparison import Comparison

        cases = self._item.stash.setdefault(CASES, [])
        case_id = self._item.stash.get(TEST, self._item.nodeid) + (f"#{len(cases) + 1}" if cases else "")
        case = self._session.run(case_id, name, budget.limits, variant, inference)
        cases.append(case)
        if case.error is not None:
            pytest.fail(self._session.explain(case), pytrace=False)
        return Comparison(case)


class Optimizer(_Work):
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
        from pytest_modelopt.measuring.controller.made_again import unlike
        from pytest_modelopt.measuring.controller.process import WorkerFailed
        from pytest_modelopt.plugin.comparison import Optimized
        from pytest_modelopt.results.file_sums import sha256_of

        if data is None and example_inputs is None:
            pytest.fail("optimize(model, recipe, ...): give `example_inputs=` or `data=`", pytrace=False)
        sources = {
            "model": model,
            "data": data,
            "calibration": calibration,
            "example_inputs": example_inputs,
            "call": call,
        }
        variant = self._variant(sources, recipe, optimize=optimize)
        runner, name = self._session.runner, self._item.nodeid
        path, inputs = runner.new_file("optimized"), runner.new_file("optimized-inputs")

        def write(target: Path, measured: Measurement | None) -> tuple[Path, ...]:
            if measured is not None and (why := unlike(measured, loaded.shipped, loaded.digest)):
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


def parse_recipe(recipe: str) -> Expression:
    """A wrong recipe fails the test with the nearest right one."""
    from pytest_modelopt.optimizing.expression import RecipeError, parse

    try:
        return parse(recipe)
    except RecipeError as error:
        pytest.fail(str(error), pytrace=False)


def _device(device: str) -> str:
    from pytest_modelopt.config.schema import parse_device

    try:
        return parse_device(device)
    except ValueError as error:
        pytest.fail(f"device: {error}", pytrace=False)


def _path(optimize: str) -> str:
    from pytest_modelopt.config.function_references import parse_path

    try:
        return parse_path(optimize)
    except ValueError as error:
        pytest.fail(f"optimize: {error}", pytrace=False)


def _stated_call(call: Any) -> tuple[Generation | None, dict[str, Any]]:
    """How the model generates, and its step where that is live and travels to the worker."""
    from pytest_modelopt.config.errors import parse_call
    from pytest_modelopt.results.source import Carried

    stated: Any = call.get("generate") if isinstance(call, Mapping) else None
    step = stated.get("step") if isinstance(stated, Mapping) else None
    if callable(step):
        call = {"generate": {**stated, "step": Carried("step")}}
    try:
        return None if call is None else parse_call(call, Carried), {"step": step} if callable(step) else {}
    except ValueError as error:
        pytest.fail(str(error), pytrace=False)


def _stated_metric(metric: Any, *, generates: bool) -> tuple[MetricSpec, dict[str, Any]]:
    """The metric, and what of it is live and travels to the worker, under the keys by which the metric names it."""
    from pytest_modelopt.config.call_checks import wrong_metric
    from pytest_modelopt.config.errors import parse_metric
    from pytest_modelopt.results.metric import PERPLEXITY
    from pytest_modelopt.results.source import Carried

    if metric is None:
        metric = PERPLEXITY if generates else "accuracy"
    stated = dict(metric) if isinstance(metric, Mapping) else {"name": metric}
    keys = {"name": "metric", "prepare": "prepare"}
    live = {key: stated[name] for name, key in keys.items() if callable(stated.get(name))}
    stated |= {name: Carried(key) for name, key in keys.items() if key in live}
    try:
        spec = parse_metric(stated, Carried)
        if why := wrong_metric(spec, generates=generates):
            pytest.fail(f"metric: {why}", pytrace=False)
        return spec, live
    except ValueError as error:
        pytest.fail(str(error), pytrace=False)


def _factory_name(what: str, value: str | None) -> str | None:
    if value is None:
        return value
    module, _, function = value.partition(":")
    if not module or not function:
        pytest.fail(f"{what}={value!r} is not of the form 'package.module:function'", pytrace=False)
    return value


def _model_name(model: Any, item: pytest.Item) -> str:
    """What the table calls a model that no file names: its class or factory, and the test."""
    return f"{_name_of(model)} in {item.name}"


def _name_of(model: Any) -> str:
    if isinstance(model, Path) or (isinstance(model, str) and ":" not in model):
        return Path(model).name
    return model if isinstance(model, str) else str(getattr(model, "__name__", type(model).__name__))


def _conftests() -> list[ModuleType]:
    """Modules that a worker could not import by name: each folder may have a `conftest` of its own."""
    return [
        module
        for module in list(sys.modules.values())
        if isinstance(module, ModuleType) and str(getattr(module, "__file__", "")).endswith("conftest.py")
    ]
