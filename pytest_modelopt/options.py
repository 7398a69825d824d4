"""Command line > ini > budgets.yaml > built-in default, decided in this one place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

DEFAULT_BUDGETS = "budgets.yaml"


@dataclass(frozen=True)
class Options:
    """What the command line and the ini file say. None: not said, so budgets.yaml or the built-in default holds."""

    enabled: bool
    budgets: Path
    """Absolute path of the budgets file, whether or not it exists."""
    budgets_named: bool
    """The user named the file, so it must exist."""
    report: Path | None
    """Folder for record.json and summary.md."""
    strict: bool
    """Inconclusive counts as broken."""
    time_limit_s: float | None
    step_limit_s: float | None


def add_options(parser: pytest.Parser) -> None:
    """Declare `--modelopt` and the options below it, each with its ini key."""
    group = parser.getgroup("modelopt", "model budgets (pytest-modelopt)")
    group.addoption(
        "--modelopt",
        action="store_true",
        default=False,
        help="optimize and measure the models of budgets.yaml and of tests that use the `modelopt` fixture, and assert "
        "their budgets",
    )
    group.addoption(
        "--modelopt-budgets",
        metavar="PATH",
        default=None,
        help=f"the budgets file (ini: modelopt_budgets; default: {DEFAULT_BUDGETS} in the root folder)",
    )
    group.addoption(
        "--modelopt-report",
        metavar="DIR",
        default=None,
        help="write record.json and summary.md into this folder (ini: modelopt_report)",
    )
    group.addoption(
        "--modelopt-strict",
        action="store_true",
        default=None,
        help="a timed limit that stays inconclusive fails, too (ini: modelopt_strict)",
    )
    group.addoption(
        "--modelopt-time-limit",
        metavar="TIME",
        default=None,
        help="timing per comparison, such as '20 s' (ini: modelopt_time_limit; budgets.yaml: time_limit)",
    )
    group.addoption(
        "--modelopt-step-limit",
        metavar="TIME",
        default=None,
        help="limit of any other single step of a worker, such as '10 min' (ini: modelopt_step_limit; budgets.yaml: "
        "step_limit)",
    )
    parser.addini("modelopt_budgets", "the budgets file, relative to the ini file", default=None)
    parser.addini("modelopt_report", "folder for record.json and summary.md, relative to the ini file", default=None)
    parser.addini("modelopt_strict", "a timed limit that stays inconclusive fails, too", type="bool", default=False)
    parser.addini("modelopt_time_limit", "timing per comparison, such as '20 s'", default=None)
    parser.addini("modelopt_step_limit", "limit of any other single step of a worker, such as '10 min'", default=None)


def is_enabled(config: pytest.Config) -> bool:
    return bool(config.getoption("--modelopt"))


def read_options(config: pytest.Config) -> Options:
    """The options of this run. Raises pytest.UsageError for a value that cannot be read."""
    budgets, named = _path(config, "budgets")
    report, _ = _path(config, "report")
    strict = config.getoption("--modelopt-strict")
    return Options(
        enabled=is_enabled(config),
        budgets=budgets or config.rootpath / DEFAULT_BUDGETS,
        budgets_named=named,
        report=report,
        strict=bool(config.getini("modelopt_strict") if strict is None else strict),
        time_limit_s=_seconds(config, "time_limit"),
        step_limit_s=_seconds(config, "step_limit"),
    )


def _path(config: pytest.Config, key: str) -> tuple[Path | None, bool]:
    """(absolute path, whether it was named): the command line's is relative to where pytest was called."""
    given = config.getoption(f"--modelopt-{key}")
    if given is not None:
        return _absolute(config.invocation_params.dir / given), True
    given = config.getini(f"modelopt_{key}")
    if given:
        folder = config.inipath.parent if config.inipath else config.rootpath
        return _absolute(folder / given), True
    return None, False


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 -- as pytest does: links stay as the user names them


def _seconds(config: pytest.Config, key: str) -> float | None:
    from pytest_modelopt.budgets.units import UnitError, parse_time

    option = f"--modelopt-{key.replace('_', '-')}"
    given, source = config.getoption(option), option
    if given is None:
        given, source = config.getini(f"modelopt_{key}"), f"modelopt_{key}"
    if not given:
        return None
    try:
        return parse_time(given)
    except UnitError as error:
        raise pytest.UsageError(f"{source}: {error}") from None
