"""The recipe that explore chose, with its limits, in the budgets file: by the ways of `init` and `update`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from pytest_modelopt.cli.init import comments_of, existing_file, require_that_it_can_be_written, write_first
from pytest_modelopt.cli.init_trials import Tried
from pytest_modelopt.cli.shared.file_replacement import replace_text
from pytest_modelopt.cli.shared.model_options import model_keys
from pytest_modelopt.cli.update import set_limits
from pytest_modelopt.config.document import read_document
from pytest_modelopt.config.loader import BudgetsFile, ModelEntry, load_budgets
from pytest_modelopt.editing.first_budgets import Head, Outcome, case_lines, why_not
from pytest_modelopt.editing.model_insertion import added, opening, require_only_added
from pytest_modelopt.exploring.confirming import Confirmed
from pytest_modelopt.results.record import Record


def write_choice(
    options: argparse.Namespace, budgets: BudgetsFile, model: ModelEntry, won: Confirmed, record: Record
) -> str:
    """Write the recipe into the model's `recipes:`, or a model that no file has as `init` does; says what was done.

    Raises:
        ValueError: it cannot be written there, or would not hold.
    """
    record = replace(record, cases=(won.case,), planned=(won.case.id,))
    outcome = Outcome(str(won.trial.recipe), won.case, also=won.trial.case)
    if ":" in options.model:
        return _with_model(options, budgets.path, model, outcome, record)
    if len(model.workloads) > 1:
        raise ValueError(
            f"{model.name} has several workloads, and {outcome.spelling} was measured at {model.workloads[0].name} "
            "only, so nothing was written: add the recipe with limits, run `pytest --modelopt`, and let "
            "`pytest-modelopt update` tighten them"
        )
    if any(entry.model.name == model.name and entry.recipe == won.case.recipe for entry in budgets.cases):
        changed = set_limits(budgets, options.root, record, f"{model.name}/{won.case.recipe}")
        return f"{budgets.path}: {outcome.spelling} stands there already; {changed} of its limits were tightened"
    _insert(options.root, budgets.path, model.name, outcome, record)
    return f"{budgets.path}: {outcome.spelling} was added to {model.name}, with limits that hold"


def _with_model(options: argparse.Namespace, output: Path, model: ModelEntry, outcome: Outcome, record: Record) -> str:
    why = why_not(outcome, record.timed_limits)
    if why:
        raise ValueError(
            f"{outcome.spelling} keeps all limits, but is not worth a budget, so nothing was written: {why}"
        )
    is_added = output.exists()
    before = existing_file(output, options.root) if is_added else None
    if before is None:
        require_that_it_can_be_written(output)
    keys = model_keys(options, options.model)
    head = Head(comments_of(record, is_added=is_added, command="explore"), model.name, keys)
    write_first(output, before, head, Tried(record, (outcome,)), options.root)
    return f"{output}: {model.name} was {'added' if is_added else 'written'}, with {outcome.spelling}"


def _insert(root: Path, path: Path, model: str, outcome: Outcome, record: Record) -> None:
    before = read_document(path, str(path))
    place = opening(before, ("models", model, "recipes"))
    text = added(before.source, place, case_lines(outcome, record.timed_limits, indent=place.indent))

    def check(new: Path) -> None:
        load_budgets(new, relative_to=new.parent, root=root)
        require_only_added(before, read_document(new, before.file), model, "recipes", outcome.spelling)

    replace_text(path, text, before.source, check=check)
