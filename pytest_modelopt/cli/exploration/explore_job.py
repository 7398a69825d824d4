"""`explore --ray`, or `--slurm`, on another machine: the recipes of a job are measured, all but their times, and told.

Run by jobs of a fleet with the command line of `pytest-modelopt explore`.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Sequence
from functools import partial

from pytest_modelopt.cli.exploration.explore_request import limits_of, model_of
from pytest_modelopt.cli.main import parser, status_of
from pytest_modelopt.cli.shared.exit_codes import INTERRUPTED, PASSED, WRONG_INPUT
from pytest_modelopt.cli.shared.printing import tell
from pytest_modelopt.fleet.job import JobHere
from pytest_modelopt.measuring.controller.termination import sigterm_as_ctrl_c


def main(arguments: Sequence[str] | None = None) -> int:
    here = JobHere.take()
    if here is None:
        tell(f"{__name__} is run by jobs of a fleet only: call `pytest-modelopt explore --ray ADDRESS`", sys.stderr)
        return WRONG_INPUT
    from pytest_modelopt.plugin.configured import run_in_project

    here.end_with_whoever_started_us()
    options = parser().parse_args(arguments)
    options.run = partial(_measure, here)
    try:
        with sigterm_as_ctrl_c():
            status = run_in_project(options, status_of)
    except KeyboardInterrupt:
        return INTERRUPTED
    return WRONG_INPUT if status is None else status


def _measure(here: JobHere, options: argparse.Namespace) -> int:
    from pytest_modelopt.cli.exploration.explore_fleet import to_event
    from pytest_modelopt.cli.exploration.explore_gauge import GateGauge, Watch
    from pytest_modelopt.exploring.funnel import Forgetful, Search
    from pytest_modelopt.optimizing.expression import parse
    from pytest_modelopt.results.json import RecordError

    budgets, model = model_of(options, options.budgets or options.default_budgets)
    limits = limits_of(options, model)
    gauge = GateGauge.asked(options, budgets, model, limits, Watch(math.inf))
    try:
        original, _ = gauge.look()
        here.tell({"key": gauge.key(original)})
        recipes = [parse(text) for text in here.items]
        search = Search(recipes, limits, options.aim, gauge, Forgetful(), leaves_times=True)
        for trial in search.trials:
            measured = search.measured(trial)
            with contextlib.suppress(RecordError):  # figures that no record may hold: whoever waits for it measures it
                here.tell(to_event(measured))
    finally:
        gauge.close()
    return PASSED


if __name__ == "__main__":
    sys.exit(main())
