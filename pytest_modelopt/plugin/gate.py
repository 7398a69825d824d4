"""pytest's hooks while `--modelopt` is on: each hands over to the session, and moves its cases to the record."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_modelopt.config.problems import BudgetsError
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.measuring.controller.preloading import COMPILER, METRICS
from pytest_modelopt.measuring.controller.process import preload
from pytest_modelopt.optimizing.registry import forget_added
from pytest_modelopt.plugin import progress
from pytest_modelopt.plugin.attached_cases import attach, attached_plan, forget, is_explained, read_report, shorten
from pytest_modelopt.plugin.chosen_base import BASE, take_base
from pytest_modelopt.plugin.collecting.budgets_path import (
    CHOOSES_NOTHING,
    add_to_arguments,
    chooses_nothing,
    closed_folders,
    elsewhere,
    read_budgets,
)
from pytest_modelopt.plugin.collecting.collection import (
    BudgetsModule,
    CaseItem,
    entry_ids,
    is_gated,
    red_message,
    test_id,
    unmeasured,
)
from pytest_modelopt.plugin.collecting.selection import read_selection
from pytest_modelopt.plugin.collecting.turns import note_turns
from pytest_modelopt.plugin.configured import register_recipes
from pytest_modelopt.plugin.keys import CASES, ENDED, JOB, MARKER, SESSION, TEST
from pytest_modelopt.plugin.markers import may_measure, read_budget
from pytest_modelopt.plugin.options import Options, read_options
from pytest_modelopt.plugin.outputs import STEP_SUMMARY, Outputs
from pytest_modelopt.plugin.session import Session
from pytest_modelopt.plugin.terminal_summary import print_problems, print_report
from pytest_modelopt.plugin.usage_errors import usage_error
from pytest_modelopt.reporting import junit
from pytest_modelopt.results.run_outcome import run_outcome
from pytest_modelopt.results.verdicts import Limit

if TYPE_CHECKING:
    from pytest_modelopt.plugin.fleet_run import FleetRun

_WHOLE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
"""Exit statuses of a run that nothing has interrupted."""
_WRONG_MARKER = pytest.StashKey[str]()
_UNREAD = "lfplugin-collskip"
"""Pytest's own, which `--lf` registers once it leaves out whole files."""


class Gate:
    """Registered for one run. In a pytest-xdist worker, or a job of a fleet, it measures; where the terminal is, it
    also reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._is_worker = hasattr(config, "workerinput") or JOB in config.stash
        options = read_options(config)
        register_recipes(config)
        self._progress: progress.Silent | progress.OnTerminal | progress.InLog = progress.Silent()
        self._session = Session(
            options=options,
            budgets=read_budgets(options, config.rootpath),
            working_directory=config.invocation_params.dir,
            progress=self._progress,
        )
        config.stash[SESSION] = self._session
        if options.resume is not None and not self._is_worker:
            from pytest_modelopt.plugin.resuming import take_resumed

            take_resumed(config, self._session)  # before the report takes its place
        if not self._is_worker and not config.getoption("collectonly"):
            self._session.outputs = _outputs(options)
        take_base(config, self._session)
        self._complete = self._reports = False
        self._budgets_reached = False
        self._cases_collected = 0
        self._items: list[pytest.Item] = []
        self._known: list[str] = []
        self._is_plan_sent = False
        self._explained: set[str] = set()
        self._chooses_nothing = chooses_nothing(config)
        if self._session.budgets is not None:
            read_selection(config, self._session.budgets)
            if self._chooses_nothing and not self._is_worker:
                add_to_arguments(config, options.budgets)
        self._opened = closed_folders(config, options.budgets) if self._chooses_nothing else []

    def fleet_run(self) -> FleetRun | None:
        """What places the tests on machines of a fleet, where that was asked for. Raises pytest.UsageError."""
        cluster = self._session.options.cluster
        if cluster is None or self._is_worker:
            return None
        from pytest_modelopt.plugin.fleet_run import FleetRun

        return FleetRun(self._config, self._session, cluster)

    def pytest_sessionstart(self) -> None:
        """Only now is it known what the terminal is."""
        self._progress = self._session.progress = progress.for_config(self._config)

    # --- collection --------------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Reach the budgets file, and nothing else, in folders that pytest does not enter by itself."""
        if not any(collection_path.is_relative_to(folder) for folder in self._opened):
            return None
        return not self._session.options.budgets.is_relative_to(collection_path)

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> BudgetsModule | None:
        budgets = self._session.options.budgets
        if self._session.budgets is None or file_path.name != budgets.name or not file_path.samefile(budgets):
            return None
        self._budgets_reached = True  # `--lf` and `-k` may leave out its cases: that is the user's choice
        return BudgetsModule.from_parent(parent, path=file_path)

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        item.stash[TEST] = item.nodeid
        self._items.append(item)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Note the tests of a file before `--lf` takes those out that passed, and files that it does not even read."""
        report = yield
        if isinstance(collector, pytest.Module):
            items = [node for node in report.result if isinstance(node, pytest.Item)]
            self._known += [item.nodeid for item in items if _is_planned(item)]
            is_unread = not report.result and self._config.pluginmanager.has_plugin(_UNREAD)
            self._known += [collector.nodeid] if is_unread and may_measure(collector.path) else []
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._session.uncollected[report.nodeid] = None
        elif report.skipped and may_measure(self._config.rootpath / report.nodeid):
            self._session.skipped_files[report.nodeid] = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Read every marker before anything runs, and count the timed limits before anything is deselected."""
        session = self._session
        problems: list[str] = []
        limits: list[Limit] = [limit for entry in session.entries for limit in entry.of_all_machines]
        for item in items:
            if isinstance(item, CaseItem) or item.get_closest_marker(MARKER) is None:
                continue
            try:
                limits += read_budget(item, session).limits
            except BudgetsError as error:
                item.stash[_WRONG_MARKER] = str(error)
                problems.append(str(error))
        if session.revision is not None:
            limits += [limit for entry in session.originals for limit in entry.regression]
            limits += [limit for entry in session.entries for limit in entry.regression]
        session.timed_limits = sum(LIMITS[limit.name].is_timed for limit in limits)
        if problems and not self._is_worker:  # pytest-xdist loses a worker's UsageError: there, each test fails with it
            raise usage_error("\n".join(problems), "usage-budgets")
        self._cases_collected = sum(isinstance(item, CaseItem) for item in items)
        if self._is_budgets_missed() and not self._is_worker:
            raise usage_error(
                f"--modelopt: pytest did not collect {session.options.budgets}: name it on the command line, or see "
                "what ignores it (`--ignore`, `collect_ignore`, a virtual environment)",
                "usage-nothing",
            )
        gated = any(is_gated(item) for item in items)
        if session.budgets is None and self._chooses_nothing and not gated and not self._is_worker:
            budgets = session.options.budgets
            way = (
                elsewhere(budgets, self._config.rootpath) or "; write a budgets file, or name it by --modelopt-budgets"
            )
            raise usage_error(
                f"--modelopt has nothing to measure: there is no {budgets} and no test uses the `modelopt` fixture or "
                f"@pytest.mark.{MARKER}{way}",
                "usage-nothing",
            )

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note the cases that will run, and all that exist: collected, deselected or only in budgets.yaml."""
        run = self._session
        run.planned = tuple(test_id(item) for item in session.items if _is_planned(item))
        known = (test_id(item) for item in self._items if _is_planned(item))
        stated = entry_ids(run, self._config.rootpath, self._items)
        run.collected = tuple(dict.fromkeys([*known, *self._known, *run.planned, *stated]))
        if run.resumed and run.options.cluster is None:  # else once the machines are known
            from pytest_modelopt.plugin.resuming import keep_whole, this_machine

            keep_whole(run, session.items, this_machine(run))
        note_turns(self._config, session.items, run)
        preload(*(module for item in session.items for module in _imported_by(item)))
        if run.planned and not self._is_worker and not self._config.getoption("collectonly"):
            run.update_report()  # what an earlier run has left there must not pass for this one's

    # --- tests -------------------------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """End the workers before hooks around the loop go on: pytest-cov combines there what processes have written."""
        result = yield
        self._session.close()
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        item.stash[CASES] = []  # a rerun measures anew
        item.stash[ENDED] = False
        problem = item.stash.get(_WRONG_MARKER, None)
        if problem is not None:
            pytest.fail(problem, pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        try:
            result = yield
        except pytest.skip.Exception:
            self._assert_budget(item, measured=False)  # a test that skips itself does not hide what it has measured
            raise
        finally:
            self._progress.done()
            item.stash[ENDED] = True
        self._assert_budget(item, measured=True)
        return result

    def _assert_budget(self, item: pytest.Item, *, measured: bool) -> None:
        """The budget of a test that passed so far, all of its broken limits together. `measured`: it must have been."""
        if isinstance(item, CaseItem):
            return
        cases = item.stash[CASES]
        if measured and not cases and item.get_closest_marker(MARKER) is not None:
            pytest.fail(
                f"the test has a budget (@pytest.mark.{MARKER}) but measured nothing: call the `modelopt` fixture",
                pytrace=False,
            )
        message = red_message(cases, self._session)
        if message:
            pytest.fail(message, pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Cases travel on the report: pytest-xdist carries it, and it survives a later crash of the worker."""
        is_last_chance = call.when == "call" or (call.when == "setup" and call.excinfo is not None)
        cases = item.stash.get(CASES, []) if is_last_chance else []
        for case in cases:
            item.user_properties.extend(junit.properties(case))
        report = yield
        explained = shorten(report, call, item, cases, self._session)
        is_ours, carries_plan = is_gated(item) or bool(cases), self._is_worker and not self._is_plan_sent
        if is_ours or carries_plan:
            before = unmeasured(item, self._session) if is_ours else None
            plan = self._plan() if carries_plan else None
            machine = self._session.machine_of(test_id(item))
            attach(report, test_id(item), before, cases, machine, plan, is_explained=explained)
            self._is_plan_sent = True  # a worker that crashes later takes nothing of it along
        if call.when == "teardown":
            item.stash[CASES] = []  # pytest keeps all items to the end
        return report

    @pytest.hookimpl(trylast=True)  # after pytest has written the test's result
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._is_worker:
            return
        if plan := attached_plan(report):
            self._take_plan(plan)
        found = read_report(report, self._session)
        self._session.take(found)
        if is_explained(report):
            self._explained.update(case.id for case in found.cases)
        forget(report)
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if isinstance(self._progress, progress.InLog) and reporter is not None and self._config.get_verbosity() >= 0:
            for case in found.cases:
                reporter.ensure_newline()
                reporter.write_line(progress.case_line(case))

    # --- the end -----------------------------------------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[CHOOSES_NOTHING] = self._chooses_nothing
        if self._session.revision is not None:
            node.workerinput[BASE] = self._session.revision.to_data()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Only for `-n 4` by itself: who chose another `--dist` knows how tests are to be distributed."""
        if config.getoption("dist") != "load" or not self._session.entries:
            return None
        from pytest_modelopt.plugin.collecting.distribution import models_together

        return models_together(config, log, self._session.options.budgets.name)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """A pytest-xdist worker has ended: what it planned is known to it alone."""
        del error
        output = getattr(node, "workeroutput", {}).get("modelopt")
        if output:
            self._take_plan(output)

    def _plan(self) -> dict[str, Any]:
        """The cases that this pytest-xdist worker has collected; the main process collects nothing itself."""
        run = self._session
        return {
            "planned": list(run.planned),
            "collected": list(run.collected),
            "timed_limits": run.timed_limits,
            "budgets_reached": self._budgets_reached,
            "cases_collected": self._cases_collected,
        }

    def _take_plan(self, plan: dict[str, Any]) -> None:
        run = self._session
        run.planned = tuple(dict.fromkeys([*run.planned, *plan["planned"]]))
        run.collected = tuple(dict.fromkeys([*run.collected, *plan["collected"]]))
        run.timed_limits = max(run.timed_limits, plan["timed_limits"])
        self._budgets_reached |= plan["budgets_reached"]
        self._cases_collected = max(self._cases_collected, plan["cases_collected"])

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        run = self._session
        if int(exitstatus) not in _WHOLE:
            run.add_unreported()
        run.close()
        if self._is_worker:
            getattr(self._config, "workeroutput", {})["modelopt"] = self._plan()
            return
        if self._is_budgets_missed() and int(session.exitstatus) == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR  # pytest-xdist: only now is it known what was collected
        status = int(session.exitstatus)
        self._complete = int(exitstatus) in _WHOLE
        is_empty = status == pytest.ExitCode.NO_TESTS_COLLECTED and bool(run.collected)
        self._reports = (
            (run.has_results or run.options.whole or run.options.no_loosening or is_empty)
            and not self._config.getoption("collectonly")
            and status != pytest.ExitCode.USAGE_ERROR
        )
        if not self._reports:
            return
        record = run.record(complete=self._complete)
        if run_outcome(record).is_red and status == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if run.outputs is not None:
            run.outputs.finish(record)

    def _is_budgets_missed(self) -> bool:
        """The whole project was meant, but pytest never came to its budgets file."""
        return bool(self._session.entries) and self._chooses_nothing and not self._budgets_reached

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._config.getoption("collectonly") or self._config.get_verbosity() <= -2:
            print_problems(terminalreporter, self._session)
            return
        if why := self._why_nothing_ran():
            terminalreporter.write_line(f"modelopt: {why}", yellow=True)
        if self._reports:
            record = self._session.record(complete=self._complete)
            print_report(terminalreporter, self._config, self._session, record, self._explained)

    def _why_nothing_ran(self) -> str:
        """Why no case ran of those that there are; empty where some did, and where nobody knows, as in a run that was
        interrupted: under pytest-xdist not even what was collected."""
        session = self._session
        of_file = f"none of the {len(session.entries)} cases of {session.options.budgets.name} ran"
        if not self._complete:
            return ""
        if self._is_budgets_missed():
            return f"{of_file}: pytest did not collect it; see what ignores it"
        if session.entries and not self._chooses_nothing and not self._cases_collected:
            return f"{of_file}: the paths on the command line do not include that file"
        if session.collected and not session.has_results:
            return f"PARTIAL: 0 of {len(session.collected)} cases ran: all were deselected"
        return ""

    def pytest_unconfigure(self) -> None:
        self._session.close()
        if self._session.revision is not None and not self._is_worker:
            self._session.revision.tree.remove()
        forget_added()


def _outputs(options: Options) -> Outputs:
    summary = os.environ.get(STEP_SUMMARY)
    outputs = Outputs(options, Path(summary) if summary else None)
    outputs.prepare()
    return outputs


def _imported_by(item: pytest.Item) -> list[str]:
    """What more than one worker of a case would take seconds to import."""
    if not isinstance(item, CaseItem):
        return []
    expression, metric = item.entry.expression, item.entry.model.metric.name
    compiles = expression is not None and expression.imports_compiler
    scores = isinstance(metric, str) and metric.startswith("torchmetrics.")
    return [COMPILER] * compiles + [METRICS] * scores


def _is_planned(item: pytest.Item) -> bool:
    """Whether the item is expected to leave a case in the record."""
    return (
        isinstance(item, CaseItem)
        or item.get_closest_marker(MARKER) is not None
        or "modelopt" in getattr(item, "fixturenames", ())
    )
