"""Variants of what a test hands over: live models, data and functions, names of factories, and files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_modelopt.config.call_checks import wrong_metric
from pytest_modelopt.config.candidate_schema import SUFFIXES
from pytest_modelopt.config.errors import parse_call, parse_metric
from pytest_modelopt.config.function_references import parse_path
from pytest_modelopt.config.schema import parse_device
from pytest_modelopt.measuring.carried_objects import CarryError, carry
from pytest_modelopt.measuring.variant import Variant, environment_now
from pytest_modelopt.optimizing.expression import Expression, RecipeError, parse
from pytest_modelopt.optimizing.runtimes.runtime import LEFT_OUT
from pytest_modelopt.results.candidate import Candidate
from pytest_modelopt.results.generation import Generation
from pytest_modelopt.results.metric import PERPLEXITY, MetricSpec
from pytest_modelopt.results.source import Carried, ProgramSource, Source
from pytest_modelopt.results.workload import wrong_name

if TYPE_CHECKING:
    from pytest_modelopt.plugin.session import Session

_FUNCTIONS = {
    "slices": "(inputs, target) -> name",
    "batch_of": "(inputs) -> number",
    "call": "(model, inputs) -> outputs",
}
"""What is not called without arguments, as it is called."""


class LiveVariants:
    """The variants of one test. What travelled to a worker for them ends with the test."""

    def __init__(self, session: Session, request: pytest.FixtureRequest) -> None:
        self._session = session
        self._request = request
        self._files: list[Path] = []
        request.addfinalizer(self._forget)

    def make(
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
        """The variant that `sources` (model, data, calibration, example_inputs, slices, batch_of, call, candidate)
        describe. Each mistake in the arguments fails the test."""
        counted, call = (sources.get(name) for name in ("batch_of", "call"))
        plain = {"batch_of": isinstance(counted, int), "call": isinstance(call, Mapping)}
        generation, live_step = _stated_call(call if plain["call"] else None)
        scored_by, live_metric = _stated_metric(metric, generates=generation is not None)
        sources = {name: value for name, value in sources.items() if value is not None and not plain.get(name)}
        _require_functions(sources)
        files = {name: file for name in ("model", "candidate") if (file := self._file(sources.get(name), name))}
        named = {name: _source(name, value) for name, value in sources.items() if name not in files}
        origins: dict[str, Source | ProgramSource] = {**named, **files}
        carried = {name: sources[name] for name, source in named.items() if isinstance(source, Carried)}
        carried |= {**live_step, **live_metric}
        _require_positive(batch_size=batch_size, threads=threads)
        if workload and (why := wrong_name(workload)):
            pytest.fail(f"workload={workload!r} {why}", pytrace=False)
        defaults, has_inputs = self._session.defaults, "example_inputs" in sources
        return Variant(
            model=origins["model"],
            recipe=None if recipe is None else parse_recipe(recipe),
            data=named.get("data"),
            calibration=named.get("calibration"),
            example_inputs=named.get("example_inputs"),
            metric=scored_by,
            import_paths=(str(self._request.node.path.parent), *(p for p in sys.path if p)),
            working_directory=str(Path.cwd()),
            environment=environment_now(),
            carried_file=str(self._carry(carried)) if carried else None,
            batch_size=defaults.batch_size if batch_size is None else batch_size,
            device=defaults.device if device is None else _checked("device", parse_device, device),
            threads=defaults.threads if threads is None else threads,
            slices=named.get("slices"),
            batch_of=counted if isinstance(counted, int) else named.get("batch_of"),
            call=named.get("call"),
            optimize="" if optimize is None else _checked("optimize", parse_path, optimize),
            candidate=Candidate(name_of(sources["candidate"]), origins["candidate"])
            if "candidate" in origins
            else None,
            takes="first" if not has_inputs else "all" if batch_size is None else "exactly",
            workload=workload,
            generation=generation,
            step=Carried("step") if live_step else None,
        )

    def _file(self, value: Any, what: str) -> ProgramSource | None:
        """A file, by its path from the folder of the test; None for what is none."""
        is_path = (
            isinstance(value, str)
            and ":" not in value
            and (what == "candidate" or value.endswith((*SUFFIXES, *LEFT_OUT)))
        )
        if not isinstance(value, Path) and not is_path:
            return None
        return ProgramSource(str(value)).within(self._request.node.path.parent)

    def _carry(self, objects: dict[str, Any]) -> Path:
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


def parse_recipe(recipe: str) -> Expression:
    """A wrong recipe fails the test with the nearest right one."""
    try:
        return parse(recipe)
    except RecipeError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def _checked(what: str, parser: Callable[[str], str], text: str) -> str:
    try:
        return parser(text)
    except ValueError as error:
        raise pytest.fail.Exception(f"{what}: {error}", pytrace=False) from None


def _require_functions(sources: Mapping[str, Any]) -> None:
    for name, what in _FUNCTIONS.items():
        value = sources.get(name)
        if value is not None and not isinstance(value, str) and not callable(value):
            pytest.fail(f"{name}={value!r} is no function {what}, nor the name of one", pytrace=False)


def _require_positive(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
            pytest.fail(f"{name}={number!r} is not a positive whole number", pytrace=False)


def _source(what: str, value: Any) -> Source:
    """The name of a factory, or the key under which a live object travels to the worker."""
    if not isinstance(value, str):
        return Carried(what)
    module, _, function = value.partition(":")
    if not module or not function:
        pytest.fail(f"{what}={value!r} is not of the form 'package.module:function'", pytrace=False)
    return value


def _stated_call(call: Any) -> tuple[Generation | None, dict[str, Any]]:
    """How the model generates, and its step where that is live and travels to the worker."""
    stated: Any = call.get("generate") if isinstance(call, Mapping) else None
    step = stated.get("step") if isinstance(stated, Mapping) else None
    if callable(step):
        call = {"generate": {**stated, "step": Carried("step")}}
    try:
        return None if call is None else parse_call(call, Carried), {"step": step} if callable(step) else {}
    except ValueError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def _stated_metric(metric: Any, *, generates: bool) -> tuple[MetricSpec, dict[str, Any]]:
    """The metric, and what of it is live and travels to the worker, under the keys by which the metric names it."""
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
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def name_of(model: Any) -> str:
    """What the table calls a model that no file names: its file, its class or its factory."""
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
