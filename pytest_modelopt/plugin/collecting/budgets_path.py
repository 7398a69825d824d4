"""How pytest comes to the budgets file: the file itself, and the folders and arguments that lead there."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.config.loader import BudgetsFile, load_budgets
from pytest_modelopt.config.problems import BudgetsError
from pytest_modelopt.plugin.options import Options
from pytest_modelopt.plugin.usage_errors import usage_error
from pytest_modelopt.results.record import Target

CHOOSES_NOTHING = "modelopt_chooses_nothing"
"""In what a pytest-xdist worker is told."""
_FOLDERS_SEARCHED, _NAMES_SHOWN = 5000, 5
_NOT_SEARCHED = ("__pycache__", "node_modules", "site-packages", "build", "dist")


def elsewhere(budgets: Path, root: Path) -> str:
    """'; there is ci/budgets.yaml below ROOT: name one by --modelopt-budgets', or '' where none of that name is there.

    Environments, caches and hidden folders are left out, and so is what lies behind a great many folders.
    """
    found: list[str] = []
    for number, (folder, folders, files) in enumerate(os.walk(root)):
        if number == _FOLDERS_SEARCHED or len(found) > _NAMES_SHOWN:
            break
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _NOT_SEARCHED)
        if "pyvenv.cfg" in files:
            folders.clear()
        elif budgets.name in files and Path(folder, budgets.name) != budgets:
            found.append(Path(folder, budgets.name).relative_to(root).as_posix())
    if not found:
        return ""
    more = ", ..." if len(found) > _NAMES_SHOWN else ""
    return f"; there is {', '.join(found[:_NAMES_SHOWN])}{more} below {root}: name one by --modelopt-budgets"


def read_budgets(options: Options, root: Path) -> BudgetsFile | None:
    """The budgets file, or None where none was named and the default does not exist."""
    if not options.budgets.is_file():
        if options.budgets_named:
            raise usage_error(
                f"--modelopt-budgets: there is no file {options.budgets}{elsewhere(options.budgets, root)}",
                "usage-option",
            )
        _require_targets(options, ())
        return None
    try:
        budgets = load_budgets(options.budgets, relative_to=root)
    except BudgetsError as error:
        raise usage_error(str(error), "usage-budgets") from None
    _require_targets(options, budgets.targets)
    return budgets


def _require_targets(options: Options, stated: Sequence[Target]) -> None:
    """That the targets of `--modelopt-targets` are there, and this machine is one of each, unless a fleet measures."""
    from pytest_modelopt.limits.spelling import did_you_mean, shown
    from pytest_modelopt.optimizing.this_machine import fingerprint
    from pytest_modelopt.results.target import format_kind, lacks

    known = {target.name: target for target in stated}
    for name in options.targets:
        if name not in known:
            why = f"{options.budgets.name} has no target {shown(name)}{did_you_mean(name, known)}"
            raise usage_error(f"--modelopt-targets: {why}", "usage-option")
        found = lacks(known[name], fingerprint())
        if found and options.cluster is None:
            raise usage_error(
                f"--modelopt-targets {name}: this machine is none: it {' and '.join(found)}; the target is "
                f"{format_kind(known[name])} ({options.budgets.name}): run this job on such a machine",
                "usage-option",
            )


def chooses_nothing(config: pytest.Config) -> bool:
    """Whether pytest was called without paths, so that the whole project is meant. A pytest-xdist worker is told."""
    told: dict[str, Any] = getattr(config, "workerinput", {})
    if CHOOSES_NOTHING in told:
        return bool(told[CHOOSES_NOTHING])
    return config.args_source is not config.ArgsSource.ARGS


def add_to_arguments(config: pytest.Config, budgets: Path) -> None:
    """Collect the budgets file, too, where it lies outside of what pytest collects by itself."""
    folders = [Path(config.invocation_params.dir, argument).resolve() for argument in config.args]
    if not any(budgets.is_relative_to(folder) for folder in folders):
        config.args.append(str(budgets))


def closed_folders(config: pytest.Config, budgets: Path) -> list[Path]:
    """The folders above the budgets file that `norecursedirs` keeps pytest from entering, such as `.ci` or `build`."""
    patterns = config.getini("norecursedirs")
    inside = [folder for folder in budgets.parents if folder != config.rootpath and config.rootpath in folder.parents]
    return [folder for folder in inside if any(fnmatch.fnmatch(folder.name, pattern) for pattern in patterns)]
