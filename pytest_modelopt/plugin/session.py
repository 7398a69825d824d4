"""The run: cases in, record out; the same with and without pytest-xdist.

Every process that runs tests has a Session that measures. The process that owns the terminal also collects the cases
(its own or those that pytest-xdist's workers sent) into the record, which `Outputs` writes.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.plugin.ended_tests import GatedTests, Report
from pytest_modelopt.plugin.options import DEFAULT_BISECT_S, Options
from pytest_modelopt.plugin.planning import breaks_limit_on, misfits, planned_case, variant_of
from pytest_modelopt.reporting.names import case_name
from pytest_modelopt.results.answers import Inference
from pytest_modelopt.results.base import Against, Base
from pytest_modelopt.results.case import ORIGINAL, Case, CaseError, MeasuredCase, next_stage
from pytest_modelopt.results.consistency.contradictions import disagreement_of
from pytest_modelopt.results.record import Environment, Record, Target
from pytest_modelopt.results.verdicts import Limit, ceiling_of

if TYPE_CHECKING:
    from pytest_modelopt.baseline.revision import RevisionBase
    from pytest_modelopt.baseline.saved_record import SavedBase
    from pytest_modelopt.config.loader import BudgetsFile, CaseEntry, Defaults, ModelEntry
    from pytest_modelopt.measuring.controller.layer_trials import LayerTrials
    from pytest_modelopt.measuring.controller.runner import Progress, Request, Runner
    from pytest_modelopt.measuring.controller.side_by_side import GoesOn
    from pytest_modelopt.measuring.controller.timing.paired_timing import IsOpen
    from pytest_modelopt.measuring.variant import Variant
    from pytest_modelopt.plugin.outputs import Outputs


@dataclass(frozen=True)
class Budget:
    """What the markers of one test come to: the limits, and the case of budgets.yaml that they name, if any."""

    limits: tuple[Limit, ...]
    entry: CaseEntry | None


@dataclass
class Session:
    """State of one run in one process."""

    options: Options
    budgets: BudgetsFile | None
    working_directory: Path
    progress: Progress
    revision: RevisionBase | None = None
    """The base, where it is a git revision."""
    saved: SavedBase | None = None
    """The base, where it is a saved record."""
    timed_limits: int = 0
    finalists: int = 1
    """Variants of one model among which one is chosen: they share the error of each timed limit."""
    collected: tuple[str, ...] = ()
    """Every case that is known, also those that were deselected."""
    planned: tuple[str, ...] = ()
    uncollected: dict[str, None] = field(default_factory=dict)
    """Files that could not be collected."""
    skipped_files: dict[str, None] = field(default_factory=dict)
    """Files that were skipped as a whole (`pytest.importorskip`), and may hold tests that measure."""
    outputs: Outputs | None = None
    """None in a worker of pytest-xdist, which writes nothing."""
    resumed: dict[str, list[tuple[Case, Environment]]] = field(default_factory=dict)
    """By the id of a case, what an interrupted run has measured of it, each time with the machine."""
    project: str = ""
    """Digest of the project's files; '' where nobody had to know."""
    turns: dict[str, dict[str, CaseEntry]] = field(default_factory=dict)
    """By the id of a case, those whose timing takes turns with its own, itself included."""

    def __post_init__(self) -> None:
        self._runner: Runner | None = None
        self._tests = GatedTests()
        self._explained: dict[tuple[str, object], Case] = {}
        self._in_turns: dict[str, MeasuredCase] = {}
        """Measured together with another case; the test of each takes its own."""
        self._environment: Environment | None = None
        self._machines: list[Environment] = []
        """Those of a fleet that measured, each once."""
        self.notes: list[str] = []
        """How the run went, for its record: what became of jobs."""
        self._started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")

    # --- measuring ---------------------------------------------------------------------------------------------------

    @property
    def defaults(self) -> Defaults:
        from pytest_modelopt.config.loader import Defaults

        return self.budgets.defaults if self.budgets else Defaults()

    @property
    def entries(self) -> tuple[CaseEntry, ...]:
        """The cases of budgets.yaml."""
        return self.budgets.cases if self.budgets else ()

    @property
    def models(self) -> tuple[ModelEntry, ...]:
        """The models of budgets.yaml."""
        return self.budgets.models if self.budgets else ()

    @property
    def originals(self) -> tuple[CaseEntry, ...]:
        """The original of each model of budgets.yaml, at each of its workloads."""
        return self.budgets.originals if self.budgets else ()

    @property
    def states_regression(self) -> bool:
        """Whether budgets.yaml has limits against a base."""
        return any(entry.regression for entry in (*self.entries, *self.originals))

    @property
    def runner(self) -> Runner:
        """Made when the first case runs: until then nothing was imported or started."""
        if self._runner is None:
            from pytest_modelopt.measuring.controller.runner import Runner, StepLimits

            options, defaults = self.options, self.defaults
            limits = StepLimits(
                time_limit_s=options.time_limit_s or defaults.time_limit_s,
                step_limit_s=options.step_limit_s or defaults.step_limit_s,
                bisect_s=DEFAULT_BISECT_S if options.bisect_s is None else options.bisect_s,
            )
            breaks_memory, breaks_answers = breaks_limit_on("memory"), breaks_limit_on("score", "predictions")
            self._runner = Runner(limits, self.progress, breaks_memory, breaks_answers, self._leaves_loading_open)
        return self._runner

    def variant(self, entry: CaseEntry) -> Variant:
        """What a case of budgets.yaml measures."""
        assert self.budgets is not None
        folder, recipe, workload = self.working_directory, entry.expression, entry.workload
        made = variant_of(self.budgets, entry.model, recipe, folder, entry.candidate, workload)
        return replace(made, time_limit_s=self.options.time_limit_s or made.time_limit_s)

    @property
    def targets(self) -> list[Target]:
        """Those of budgets.yaml that this run is about."""
        stated = self.budgets.targets if self.budgets else ()
        return [target for target in stated if not self.options.targets or target.name in self.options.targets]

    @property
    def compares_with_base(self) -> bool:
        """Whether there is a base, so that each variant is compared with itself there, too."""
        return self.revision is not None or self.saved is not None

    def run_entry(self, case_id: str, entry: CaseEntry) -> list[Case]:
        """Measure one case of budgets.yaml and judge it; with those whose timing takes turns with its own, once. One
        that an interrupted run has measured is judged on each of its machines."""
        from pytest_modelopt.measuring.controller.runner import Request

        if case_id in self.resumed:
            return [self._judged_again(*found, entry) for found in self.resumed[case_id]]
        requests: list[Request] = []
        for each_id, each in self.turns.pop(case_id, {}).items():
            self.turns.pop(each_id, None)
            if each_id in self.resumed:
                continue
            variant = self.variant(each)
            planned = planned_case(each_id, each.model.name, each.limits, variant, each.model.inference)
            if not misfits(each.limits, variant):
                requests.append(Request(planned, variant, self._open_test(each.limits)))
        if requests:
            self._measure_in_turns(requests)
        model = entry.model
        case = self.run(case_id, model.name, entry.limits, self.variant(entry), model.inference)
        return [self._judged_where_it_ran(case, entry) if entry.at_targets else case]

    def _judged_where_it_ran(self, case: Case, entry: CaseEntry) -> Case:
        """By the limits of what the worker says this machine is, where that is more than this process knew of it: the
        GPU that it really had, for one."""
        from pytest_modelopt.diagnosis.examine import examine
        from pytest_modelopt.judging.judge import judge
        from pytest_modelopt.results.target import fingerprint_of

        if case.error is not None or self._environment is None:
            return case
        limits = entry.limits_on(fingerprint_of(self._environment))
        if limits == case.limits:
            return case
        judged = judge(replace(case, limits=limits), timed_limits=self.timed_limits)
        return replace(judged, findings=examine(judged, self._environment))

    def _judged_again(self, case: Case, machine: Environment, entry: CaseEntry) -> Case:
        """The case of an interrupted run, by the limits of budgets.yaml on its machine: a record may claim others."""
        from pytest_modelopt.diagnosis.examine import examine
        from pytest_modelopt.judging.judge import judge
        from pytest_modelopt.results.target import fingerprint_of

        limits = entry.limits_on(fingerprint_of(machine)) if entry.at_targets else entry.limits
        judged = judge(replace(case, limits=limits), timed_limits=self.timed_limits)
        return replace(judged, findings=examine(judged, machine), machine=self._number_of(machine))

    @property
    def environment(self) -> Environment | None:
        return self._environment

    def machine_of(self, test: str) -> Environment | None:
        """The one on which the test has measured; None where its cases name theirs."""
        return None if test in self.resumed else self._environment

    def _measure_in_turns(self, requests: Sequence[Request]) -> None:
        """The cases, for their tests. What ends the run keeps those that were measured; what ends one test only leaves
        the others to their own tests, since some are not timed to the end."""
        found: dict[str, MeasuredCase] = {}
        try:
            self.runner.measure_in_turns(requests, found)
        except KeyboardInterrupt:
            self._in_turns |= found
            raise
        self._in_turns |= found

    def run(
        self,
        case_id: str,
        model: str,
        limits: Sequence[Limit],
        variant: Variant,
        inference: Inference = "set",
        goes_on: GoesOn | None = None,
        is_open: IsOpen | None = None,
    ) -> Case:
        """Measure one case and judge it. `goes_on` may end it before all is measured (`Runner.measure`), and `is_open`
        says when its timing ends: by default once all limits are decided."""
        from pytest_modelopt.limits.catalogue import LIMITS
        from pytest_modelopt.measuring.controller.side_by_side import always

        planned = planned_case(case_id, model, limits, variant, inference)
        if found := misfits(limits, variant):
            return next_stage(Case, planned, error=CaseError("limits", "; ".join(found)))
        if case_id in self._in_turns:
            measured = self._in_turns.pop(case_id)  # a rerun measures anew
        elif planned.recipe == ORIGINAL:
            is_timed = any(LIMITS[limit.name].is_timed for limit in limits)
            measured = self.runner.measure_original(planned, variant, self._open_test(limits), is_timed=is_timed)
        else:
            measured = self.runner.measure(
                planned,
                variant,
                is_open or self._open_test(limits),
                keep=self.compares_with_base,
                goes_on=goes_on or always,
            )
        return self._finished(measured)

    def add_unreported(self) -> None:
        """Take the cases that were measured together with another one, and that the run ended before."""
        found, self._in_turns = self._in_turns, {}
        for measured in found.values():
            self.add(self._finished(measured))

    def _finished(self, measured: MeasuredCase) -> Case:
        """With its verdicts and findings."""
        from pytest_modelopt.diagnosis.empty_comparison import compares_nothing
        from pytest_modelopt.diagnosis.examine import examine
        from pytest_modelopt.reporting.messages.comparison_findings import format_nothing_compared

        judged = self._judged(measured)
        if judged.error is None and measured.recipe != ORIGINAL and compares_nothing(judged):
            judged = replace(judged, error=CaseError("compare", format_nothing_compared(judged)), verdicts=())
        return replace(judged, findings=examine(judged, self._environment))

    def layer_trials(
        self, case_id: str, model: str, variant: Variant, inference: Inference, pass_s: float
    ) -> LayerTrials:
        """A worker in which the variant's recipe is tried on some layers, a pass of its data taking about `pass_s`
        seconds. Raises WorkerFailed."""
        return self.runner.layer_trials(planned_case(case_id, model, (), variant, inference), variant, pass_s)

    def run_against(self, case_id: str, entry: CaseEntry) -> Case:
        """Measure one variant of budgets.yaml, or the original, beside the same at the base, and judge that."""
        from pytest_modelopt.diagnosis.examine import examine
        from pytest_modelopt.judging.judge import judge

        model, limits = entry.model, entry.regression
        head = self.variant(entry)
        case = next_stage(MeasuredCase, planned_case(case_id, model.name, limits, head, model.inference))
        is_open = self._open_test(limits)
        if self.revision is not None:
            revision = self.revision
            base = revision.variant(head, model, variant_of)
            if base is None:
                return judge(
                    replace(case, base=revision.lacks(model.name, entry.recipe)), timed_limits=self.timed_limits
                )
            if revision.never_ran is not None:
                return judge(replace(case, base=revision.never_ran), timed_limits=self.timed_limits)
            case = replace(case, base=Base(revision.name, "compared"))
            case = self.runner.measure_against(case, head, base, is_open)
            case = revision.explained(case, base, lambda other: self.runner.would_run(head, other, case.name))
        else:
            assert self.saved is not None
            case = replace(case, base=Base(self.saved.name, "compared"))
            case = self.runner.measure_against(case, head, None, is_open)
            if case.error is None:
                case = self.saved.compared(case, self.runner.environment)
        judged = self._judged(case)
        return replace(judged, findings=examine(judged, self._environment))

    def _judged(self, case: MeasuredCase) -> Case:
        """A case that was measured, with its verdicts; in error where its limits do not fit the scores, or its figures
        contradict each other: no command would read the record of such a run."""
        from pytest_modelopt.judging.judge import judge
        from pytest_modelopt.judging.score_scale import unfit_for_scores

        self._environment = self.runner.environment
        if case.error is None and (why := unfit_for_scores(case)):
            case = replace(case, error=CaseError("limits", why))
        if found := disagreement_of(case):
            why = "its figures contradict each other, which is a fault of pytest-modelopt that should be reported"
            case = replace(case, error=CaseError("compare", f"{why}: {found}"))
        return judge(case, timed_limits=self.timed_limits)

    def _open_test(self, limits: Sequence[Limit]) -> IsOpen:
        """Whether the pairs of a comparison leave one of its timed limits undecided."""
        from pytest_modelopt.limits.catalogue import LIMITS, is_open

        timed = [limit for limit in limits if LIMITS[limit.name].is_timed]
        return lambda samples, call: is_open(timed, samples, self.timed_limits, call, self.finalists)

    def _leaves_loading_open(self, case: MeasuredCase) -> bool:
        """Whether a limit on loading, or the ceiling of its waiver, is undecided."""
        from pytest_modelopt.judging.judge import judge
        from pytest_modelopt.limits.catalogue import LIMITS

        stated = [limit for limit in case.limits if limit.name in LIMITS and LIMITS[limit.name].figure == "loading"]
        limits = (*(replace(limit, waiver=None) for limit in stated), *filter(None, map(ceiling_of, stated)))
        verdicts = judge(replace(case, limits=limits), timed_limits=self.timed_limits).verdicts
        return any(verdict.outcome == "inconclusive" for verdict in verdicts)

    def explain(self, case: Case) -> str:
        """The text of a failed test: all that makes the case red. An error that this process has told of another case
        of the model is told in one line."""
        from pytest_modelopt.reporting.failure_text import explain

        cause: object = case.error
        if cause is None and case.base is not None and case.base.status == "unusable":
            cause = case.base.why
        first = case if cause is None else self._explained.setdefault((case.model, cause), case)
        return explain(case, strict=self.options.strict, first="" if first.id == case.id else case_name(first))

    def close(self) -> None:
        """End every worker. May be called twice."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    # --- the record --------------------------------------------------------------------------------------------------

    def add(self, case: Case) -> None:
        """Take a case that no test measured."""
        self._tests.add(case)

    def take(self, report: Report) -> None:
        """Take what a test's report says into the record; it is written soon, whatever comes next."""
        known, told = self._environment, report.environment
        if known is None or (known.gpu is None and told is not None and told.gpu is not None):
            self._environment = told or known  # a worker of pytest-xdist may have had no case on the GPU
        if report.environment is not None and (self.options.cluster or self.resumed):
            machine = self._number_of(report.environment)
            report = replace(report, cases=[replace(case, machine=machine) for case in report.cases])
        if self._tests.take(report):
            self.update_report()

    def _number_of(self, machine: Environment) -> int:
        """As `Case.machine` counts the machines of a record."""
        if machine not in self._machines:
            self._machines.append(machine)
        return self._machines.index(machine)

    @property
    def has_results(self) -> bool:
        return bool(self.planned or self._tests.cases or self.uncollected or self.skipped_files)

    def record(self, *, complete: bool) -> Record:
        """What was found so far, cases in the order in which they were planned."""
        from pytest_modelopt import __version__
        from pytest_modelopt.measuring.variant import SEED

        order = {case_id: index for index, case_id in enumerate(self.planned)}
        cases = sorted(self._tests.cases, key=lambda c: order.get(c.id.partition("#")[0], len(order)))
        return Record(
            tool_version=__version__,
            started=self._started,
            seed=SEED,
            strict=self.options.strict,
            timed_limits=self.timed_limits,
            planned=(*self.planned, *self.skipped_files),
            complete=complete,
            cases=tuple(cases),
            environment=self._machines[0] if self._machines else self._environment,
            other_machines=tuple(self._machines[1:]),
            notes=tuple(self.notes),
            project=self.project,
            collected=(*self.collected, *self.skipped_files),
            skipped=(*(name for name in self.planned if name in self._tests.skipped), *self.skipped_files),
            idle=tuple(name for name in self.planned if name in self._tests.idle),
            uncollected=tuple(self.uncollected),
            whole=self.options.whole,
            no_loosening=self.options.no_loosening,
            against=self._against(),
            targets=self.budgets.targets if self.budgets else (),
            of_targets=self.options.targets,
        )

    def _against(self) -> Against | None:
        base = self.revision or self.saved
        if base is None:
            return None
        return base.against(self.budgets, self._tests.cases)

    def update_report(self) -> None:
        if self.outputs is not None:
            self.outputs.update(lambda: self.record(complete=False))
