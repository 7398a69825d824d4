"""Cases of budgets.yaml on pytest's command line, with the recipe in any spelling, as the file has it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_modelopt.plugin.usage_errors import usage_error

if TYPE_CHECKING:
    from pytest_modelopt.config.loader import BudgetsFile

AGAINST_BASE = " against base"
"""Behind the recipe, where a case is compared with its base."""

_STEP = r"(?!(?:and|or|not)\b)[a-z0-9][a-z0-9.:-]*(?:\s*\([^()]*\))?"
_EXPRESSION = re.compile(rf"(?<![\w.+:/-])((?:[\w.-]+/)?)({_STEP}(?:\s*\+\s*{_STEP})*)(?![\w./-])")
_AT = re.compile(r"_?\s+@\s+")
"""Before the workload of a row: no word of `-k` has it."""
_NO_KEYWORD = re.compile(r"[^\w:+\-.\[\]\\/]+")
"""What cannot stand in a word of `-k`."""


def read_selection(config: pytest.Config, budgets: BudgetsFile) -> None:
    """Put the spelling of our node ids in place of the user's, in paths, `--deselect` and `-k`.

    Raises:
        pytest.UsageError: naming a case that the file does not have, and the nearest one that it has.
    """
    folder = config.invocation_params.dir
    config.args[:] = [each for text in config.args for each in _arguments(text, folder, budgets)]
    deselected: list[str] = config.getoption("deselect") or []
    deselected[:] = [each for text in deselected for each in _node_ids(text, config.rootpath, budgets) or [text]]
    config.option.keyword = _AT.sub("_", _EXPRESSION.sub(_keyword, config.option.keyword))


def keyword(case: str) -> str:
    """By which `-k` finds a case: `reader/low-rank_ratio_0.5_+int8-dynamic`, since it knows neither `(` nor `=`."""
    return _NO_KEYWORD.sub("_", case)


def _arguments(text: str, folder: Path, budgets: BudgetsFile) -> list[str]:
    """A path, with the node ids of the cases that it names behind the budgets file. Raises UsageError."""
    from pytest_modelopt.limits.spelling import did_you_mean, shown

    found = _node_ids(text, folder, budgets)
    if found == []:
        named = text.partition("::")[2]
        near = did_you_mean(named.replace("::", "/"), [case.name for case in budgets.cases])
        raise usage_error(f"{budgets.file} has no case {shown(named)}{near}", "usage-case")
    return found or [text]


def _node_ids(text: str, folder: Path, budgets: BudgetsFile) -> list[str] | None:
    """The node ids that are meant, of a recipe those at all workloads; none where the file has no such case, None where
    no case of the file is named."""
    from pytest_modelopt.config.row_names import rows_named

    path, _, rest = text.partition("::")
    model, _, written = rest.partition("::" if "::" in rest else "/")
    if not written or not _is_file(folder / path, budgets.path):
        return None
    against = AGAINST_BASE if written.endswith(AGAINST_BASE) else ""
    rows = dict.fromkeys(rows_named(model, written.removesuffix(AGAINST_BASE), (*budgets.cases, *budgets.originals)))
    return [f"{path}::{model}::{row}{against}" for row in rows]


def _is_file(path: Path, other: Path) -> bool:
    return path.name == other.name and path.is_file() and path.samefile(other)


def _keyword(match: re.Match[str]) -> str:
    """What `-k` takes in place of an expression; a word that it understands by itself stays as it is."""
    from pytest_modelopt.optimizing.expression import canonical_text

    model, recipe = match.groups()
    known = canonical_text(recipe) if "(" in recipe or "+" in recipe else None
    return match[0] if known is None else keyword(f"{model}{known}")
