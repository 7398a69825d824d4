"""A saved record as the base: exact figures only, and those only where nothing but the project can have changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_modelopt.baseline.loosened import loosened_from_record, removed_from_record
from pytest_modelopt.baseline.model_matching import format_unsure, recipe_pairs
from pytest_modelopt.config.loader import BudgetsFile, Defaults
from pytest_modelopt.results.base import Against, Base
from pytest_modelopt.results.case import ORIGINAL, Case, MeasuredCase
from pytest_modelopt.results.json import read
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.record import Environment, Record

_NO_TIME = "time is not compared with a saved record, which another machine may have made: use --modelopt-against"


@dataclass(frozen=True)
class SavedBase:
    """The base of a run: a record that an earlier one wrote with --modelopt-save."""

    record: Record
    asked: str
    head: BudgetsFile | None = None

    @property
    def name(self) -> str:
        return Path(self.asked).name

    def compared(self, case: MeasuredCase, environment: Environment | None) -> MeasuredCase:
        """The case, of which head was measured, with the figures of the same variant in the record."""
        model, unsure = self._model(case)
        same, unknown = self._recipes(model, case.model)
        recipe = same.get(case.recipe, case.recipe)
        unsure = unsure or unknown.get(case.recipe, ())
        if unsure:
            return replace(case, base=Base(self.name, "unpaired", format_unsure(case.name, unsure, self.name)))
        found = self._find(model, recipe, case.workload)
        if found is None:
            why = f"{case.name} is new: {self.name} does not have it"
            return replace(case, base=Base(self.name, "new", why))
        of_record, then = found
        differences = _Differences(of_record, self.record.machine_of(of_record), case, environment)
        notes = []
        if (model, recipe) != (case.model, case.recipe):
            notes.append(f"{case.name} is compared with {model}/{recipe} of {self.name}: the same by another name")
        if _data_differs(then, case.variant):
            notes.append("the evaluation data has changed since the record was saved, so scores cannot be compared")
        return replace(
            case,
            reference=_comparable(then, differences, case.variant),
            base=Base(self.name, "compared", "", tuple(notes)),
        )

    def against(self, head: BudgetsFile | None, cases: Sequence[Case]) -> Against:
        """What the record of this run says of its base. `cases`: this run's measured cases. A model that has another
        name now is known by the fingerprint of its data."""
        known = {each.model for each in self._cases()}
        paired = ((case.model, *self._model(case)) for case in cases if case.model not in known)
        named = {was: now for now, was, unsure in paired if not unsure}
        stated = head or BudgetsFile(Path("budgets.yaml"), Defaults(), (), ())  # head has removed the file
        called = (self._as_head_calls(case, named.get(case.model, case.model)) for case in self.record.cases)
        record = replace(self.record, cases=tuple(called))
        return Against(
            kind="record",
            asked=self.asked,
            base=self.record.started,
            head=None,
            has_uncommitted=False,
            loosened=loosened_from_record(record, stated),
            removed=removed_from_record(record, stated),
        )

    def _cases(self) -> list[Case]:
        """Those of its budgets file against their originals; tests measure under names of their own."""
        return [
            case for case in self.record.cases if case.base is None and case.id.endswith(f"::{case.model}::{case.row}")
        ]

    def _recipes(self, model: str, ours: str) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
        """The record's recipes of its `model` by those of head's model `ours`, where they have other parameters."""
        theirs = list(dict.fromkeys(each.recipe for each in self._cases() if each.model == model))
        stated = [each.recipe for each in self.head.cases if each.model.name == ours] if self.head else []
        return recipe_pairs(theirs, stated) if stated else ({}, {})

    def _as_head_calls(self, case: Case, model: str) -> Case:
        """The case under `model`, as head calls its model, and under the recipe that head has in its place."""
        same, _ = self._recipes(case.model, model)
        recipe = {was: now for now, was in same.items()}.get(case.recipe, case.recipe)
        return replace(case, model=model, recipe=recipe)

    def _model(self, case: MeasuredCase) -> tuple[str, tuple[str, ...]]:
        """What the record calls the model of `case`, and those that it may be where that is not known.

        A record knows no factories: of the models that went, the one with the same data is the same.
        """
        known = list(dict.fromkeys(each.model for each in self._cases()))
        ours = {model.name for model in self.head.models} if self.head else {case.model, *known}
        went = [name for name in known if name not in ours]
        if case.model in known or not went:
            return case.model, ()
        data = case.variant.data_fingerprint if case.variant is not None else None
        same = [name for name in went if self._data(name) == data]
        is_clear = len(same) == 1 and len(ours - set(known)) == 1
        return (same[0], ()) if is_clear else (case.model, tuple(same or went))

    def _data(self, model: str) -> str | None:
        sides = (side for case in self._cases() if case.model == model for side in (case.reference, case.variant))
        return next((side.data_fingerprint for side in sides if side is not None and side.data_fingerprint), None)

    def _find(self, model: str, recipe: str, workload: str) -> tuple[Case, Measurement] | None:
        """The variant in the record, at the same workload if it is there; the model without a recipe is the original of
        any case of it."""
        for each in sorted(self._cases(), key=lambda case: case.workload != workload):
            if each.model != model:
                continue
            side = each.reference if recipe == ORIGINAL else each.variant
            if side is not None and recipe in (ORIGINAL, each.recipe):
                return each, side
        return None


@dataclass(frozen=True)
class _Differences:
    """What differs between the two runs and decides what figures come to."""

    then: Case
    machine_then: Environment | None
    now: MeasuredCase
    machine_now: Environment | None

    def for_size(self) -> list[str]:
        return list(self._libraries())

    def for_memory_and_score(self) -> list[str]:
        return [*self._libraries(), *self._machines(), *self._calls()]

    def _libraries(self) -> Iterator[str]:
        then, now = self.machine_then, self.machine_now
        if then is None or now is None:
            yield "the environment is not known"
            return
        pairs = {"torch": (then.torch, now.torch), "quantized engine": (then.quantized_engine, now.quantized_engine)}
        for name in sorted(then.packages.keys() | now.packages.keys()):
            pairs[name] = (then.packages.get(name, "none"), now.packages.get(name, "none"))
        yield from _differing(pairs)

    def _machines(self) -> Iterator[str]:
        then, now = self.machine_then, self.machine_now
        if then is None or now is None:
            return
        flags = (" ".join(then.cpu_flags) or "none", " ".join(now.cpu_flags) or "none")
        pairs = {"kernels": (then.cpu_capability, now.cpu_capability), "CPU flags": flags}
        yield from _differing(pairs | {"GPU": (then.gpu or "none", now.gpu or "none")})

    def _calls(self) -> Iterator[str]:
        then, now = self.then, self.now
        pairs = {"device": (then.device, now.device), "batch size": (str(then.batch_size), str(now.batch_size))}
        pairs["threads"] = (str(then.threads), str(now.threads))
        pairs["call"] = (_call(then), _call(now))
        pairs["optimized module"] = (then.optimize or "all", now.optimize or "all")
        pairs["sizes of the inputs"] = (_sizes(then), _sizes(now))
        pairs["metric"] = (str(then.metric), str(now.metric))
        yield from _differing(pairs)


def _call(case: MeasuredCase) -> str:
    return case.call or "once" if case.generation is None else case.generation.text


def _sizes(case: MeasuredCase) -> str:
    return " ".join("x".join(map(str, shape)) for shape in case.input_shapes) or "unknown"


def _differing(pairs: dict[str, tuple[str, str]]) -> Iterator[str]:
    for what, (then, now) in pairs.items():
        if then != now:
            yield f"{what} {then} then, {now} now"


def _data_differs(then: Measurement, now: Measurement | None) -> bool:
    return now is not None and then.data_fingerprint != now.data_fingerprint


def _comparable(then: Measurement, differences: _Differences, now: Measurement | None) -> Measurement:
    """What of the saved figures may be compared; of the others, why not."""
    unmeasured = dict(then.unmeasured) | {"timing": _NO_TIME}
    size, others = differences.for_size(), differences.for_memory_and_score()
    if size:
        unmeasured["size"] = f"not comparable: {'; '.join(size)}"
        then = replace(then, size_bytes=None)
    if others:
        why = f"not comparable: {'; '.join(others)}"
        unmeasured |= {"memory": why, "process_memory": why, "score": why}
        then = replace(then, weights_bytes=None, call_peak_bytes=None, process_memory=None, score=None)
    elif _data_differs(then, now):
        unmeasured["score"] = "not comparable: the evaluation data has changed"
        then = replace(then, score=None)
    return replace(then, unmeasured=unmeasured)


def read_saved(path: Path, asked: str, head: BudgetsFile | None = None) -> SavedBase:
    """The record in `path`, which the user named `asked`. `head`: the budgets file that is compared with it.

    Raises:
        RecordError: what is wrong with it.
        OSError: it cannot be read.
    """
    return SavedBase(read(path), asked, head)
