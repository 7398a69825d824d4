"""The gate's own session as explore uses it: on one part of the examples or on the other, until a deadline."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_modelopt import __version__
from pytest_modelopt.cli.shared.progress_line import Shown
from pytest_modelopt.config.loader import BudgetsFile, ModelEntry
from pytest_modelopt.exploring.cache import key_of
from pytest_modelopt.exploring.choice import Aim, Trial
from pytest_modelopt.exploring.funnel import TimeIsUp
from pytest_modelopt.exploring.sensitivity import Sensitivity
from pytest_modelopt.judging.judge import judge
from pytest_modelopt.limits.catalogue import LIMITS, is_open
from pytest_modelopt.measuring.controller.layer_trials import LayerTrials
from pytest_modelopt.measuring.controller.process import WorkerFailed
from pytest_modelopt.measuring.controller.side_by_side import GoesOn
from pytest_modelopt.measuring.controller.timing.paired_timing import IsOpen
from pytest_modelopt.measuring.variant import DataPart, Variant
from pytest_modelopt.optimizing.expression import Expression
from pytest_modelopt.plugin.options import Options
from pytest_modelopt.plugin.planning import variant_of
from pytest_modelopt.plugin.session import Session
from pytest_modelopt.reporting.failure_text import explain
from pytest_modelopt.reporting.messages.reasons import format_useless
from pytest_modelopt.results.case import ORIGINAL, Case, MeasuredCase
from pytest_modelopt.results.layer_costs import RecipeSensitivity
from pytest_modelopt.results.measurement import LayerCoverage, Measurement
from pytest_modelopt.results.metric import in_unit_interval
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.timed_pairs import TimedCall
from pytest_modelopt.results.verdicts import Limit
from pytest_modelopt.results.workload import at_workload
from pytest_modelopt.statistics.samples import Samples

LEAST_EXAMPLES = 50
"""Of each part: with fewer, one example is more than 2 pp."""
_CHOOSING_S = 4.0
"""Of timing each candidate, while they are chosen from."""
_PASS_S = 2.0
"""Of a pass over the examples in a trial of layers: of more data, some batches are left out."""
LEAST_S = 2.0
"""Of timing a finalist, whatever time is left."""


class Watch(Shown):
    """Progress that ends a step when the time is over."""

    def __init__(self, until: float) -> None:
        self.until = until
        """By the monotonic clock, in seconds."""
        self._known = ""

    def tell(self, known: str) -> None:
        """Show from now on what is known so far."""
        self._known = known

    def step(self, case: str, text: str) -> None:
        self._look()
        super().step(self._known or case, text)

    def beat(self, detail: str = "") -> None:
        self._look()
        super().beat(detail)

    def _look(self) -> None:
        if time.monotonic() > self.until:
            raise TimeIsUp


@dataclass
class GateGauge:
    """Measures one model's candidates, at its first workload. `part` is of the examples that choose; None: all."""

    budgets: BudgetsFile
    model: ModelEntry
    limits: Sequence[Limit]
    aim: Aim
    watch: Watch
    options: Options
    seed: int
    root: Path = field(default_factory=Path.cwd)
    """Of the project."""
    part: DataPart | None = None
    sensitivity: Sequence[Sensitivity] = ()
    """The costs by layer that were measured."""

    def __post_init__(self) -> None:
        self.session = Session(self.options, self.budgets, Path.cwd(), self.watch, timed_limits=self._timed)

    @classmethod
    def asked(
        cls, options: argparse.Namespace, budgets: BudgetsFile, model: ModelEntry, limits: Sequence[Limit], watch: Watch
    ) -> GateGauge:
        """As the command's options have it."""
        settings = Options(budgets.path, False, None, False, options.time_limit, None, bisect_s=0.0)
        return cls(budgets, model, limits, options.aim, watch, settings, options.seed, Path(options.root))

    # --- the original ------------------------------------------------------------------------------------------------

    def look(self) -> tuple[Measurement, tuple[LayerCoverage, ...]]:
        """The original on the part that chooses, and its layers; of too few examples on all of them.

        Raises:
            ValueError: it cannot be measured, or is no better than guessing.
        """
        if self.model.data is not None:
            self.part = DataPart(0, 2, self.seed)
        case = self._original()
        if self.part is not None and (case.reference is None or case.reference.examples < LEAST_EXAMPLES):
            self.part = None
            case = self._original()
        if case.error is not None:
            raise ValueError(explain(case, strict=False))
        useless = format_useless(case, LIMITS["max_accuracy_drop"].why_useless(case))
        if useless:
            raise ValueError(
                f"{self.model.name}: {useless}: every recipe would look harmless, so there is nothing to choose by. "
                "Check the model's weights and the labels of the data first"
            )
        try:
            return self.session.runner.look(self._variant(None, self.part), f"{self.model.name}/{ORIGINAL}")
        except WorkerFailed as failed:
            raise ValueError(f"{self.model.name}: {failed.message}") from None

    def _original(self) -> Case:
        name, variant = f"{self.model.name}/{ORIGINAL}", self._variant(None, self.part)
        return self.session.run(name, self.model.name, (), variant, self.model.inference)

    # --- candidates --------------------------------------------------------------------------------------------------

    def measure(self, recipe: Expression, goes_on: GoesOn) -> Case:
        case = self._run(recipe, self.part, self._choosing_s, goes_on, self._is_open)
        if self.session.runner.original_failed:
            raise ValueError(explain(case, strict=False))
        return case

    def time(self, recipe: Expression, case: Case) -> Case:
        variant = replace(self._variant(recipe, self.part), time_limit_s=self._choosing_s)
        return self.judge(self.session.runner.time(case, variant, self._is_open))

    def _is_open(self, samples: Samples, call: TimedCall) -> bool:
        """While candidates are chosen from: until limits are decided; where the times are compared, all the time."""
        timed = [limit for limit in self.limits if LIMITS[limit.name].is_timed]
        return self.aim == "speedup" or not self.limits or is_open(timed, samples, self._timed, call)

    def judge(self, case: MeasuredCase) -> Case:
        return judge(replace(case, limits=tuple(self.limits)), timed_limits=self.session.timed_limits)

    def confirm(self, trial: Trial, finalists: Sequence[Trial], left: int) -> Case:
        """One of the finalists anew, on the other part of the examples and in fresh processes. So many are `left`, this
        one included, among which the time that there is, is shared."""
        session = self.session
        if not session.collected:
            session.runner.forget_original()
            session.collected = tuple(self._name(each.recipe) for each in finalists)
            session.finalists, session.timed_limits = len(finalists), self._timed * len(finalists)
        seconds = max(LEAST_S, (self.watch.until - time.monotonic()) / left / 2)
        self.watch.tell(f"measuring {trial.recipe} anew, {len(finalists) - left + 1} of {len(finalists)} finalists")
        case = self._run(trial.recipe, self._other_part, min(seconds, self.time_limit_s))
        session.planned = (*session.planned, case.id)
        session.add(case)
        return case

    def layer_trials(self, recipe: Expression) -> LayerTrials:
        """A worker in which the recipe is tried on some layers, on the part of the examples that chooses.

        Raises:
            WorkerFailed: the recipe cannot be tried so.
        """
        variant, model = self._variant(recipe, self.part), self.model
        return self.session.layer_trials(self._name(recipe), model.name, variant, model.inference, _PASS_S)

    def told(self, found: Sensitivity) -> RecipeSensitivity:
        """The known costs by layer, as the record holds them."""
        metric = self.model.metric.name
        is_share = in_unit_interval(metric if isinstance(metric, str) else None) is True
        return found.told(self.model.name, unit_interval=is_share)

    def record(self) -> Record:
        """The finalists as they were measured anew, and what recipes cost on each layer."""
        return replace(self.session.record(complete=True), sensitivity=tuple(map(self.told, self.sensitivity)))

    def shipped(self, recipe: Expression) -> Variant:
        """The variant as it was measured anew, to be written."""
        return self._variant(recipe, self._other_part)

    def close(self) -> None:
        self.session.close()

    # --- variants ----------------------------------------------------------------------------------------------------

    def key(self, original: Measurement) -> dict[str, str]:
        """All that decides what is measured but the recipe: the model's bytes, the data, the way of working, versions
        and the machine."""
        environment, seen, variant = self.session.environment, original.observations, self._variant(None, self.part)
        assert environment is not None
        work = repr(replace(variant, environment=(), import_paths=(), working_directory="", time_limit_s=None))
        work = work.replace(str(self.root), "")  # of a file: the project lies elsewhere on another machine
        return key_of(seen.digest if seen else None, original.data_fingerprint, work, __version__, environment)

    @property
    def device(self) -> str:
        return self.model.workloads[0].device

    def _run(
        self,
        recipe: Expression,
        part: DataPart | None,
        time_limit_s: float,
        goes_on: GoesOn | None = None,
        is_open: IsOpen | None = None,
    ) -> Case:
        variant = replace(self._variant(recipe, part), time_limit_s=time_limit_s)
        model, name = self.model, self._name(recipe)
        return self.session.run(name, model.name, tuple(self.limits), variant, model.inference, goes_on, is_open)

    def _name(self, recipe: Expression) -> str:
        return f"{self.model.name}/{at_workload(recipe.text, self.model.workloads[0].name)}"

    def _variant(self, recipe: Expression | None, part: DataPart | None) -> Variant:
        made = variant_of(self.budgets, self.model, recipe, Path.cwd(), None, self.model.workloads[0])
        return replace(made, part=part, points=())

    @property
    def _other_part(self) -> DataPart | None:
        """Of the examples that confirm."""
        return None if self.part is None else replace(self.part, index=1)

    @property
    def time_limit_s(self) -> float:
        return self.options.time_limit_s or self.model.workloads[0].time_limit_s or self.budgets.defaults.time_limit_s

    @property
    def _choosing_s(self) -> float:
        return min(_CHOOSING_S, self.time_limit_s)

    @property
    def _timed(self) -> int:
        return sum(LIMITS[limit.name].is_timed for limit in self.limits)
