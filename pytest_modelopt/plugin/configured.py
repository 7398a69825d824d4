"""A command inside the project's pytest configuration: rootdir, ini, conftest.py, plugins and paths are pytest's."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_modelopt.optimizing.recipe import RecipeError
from pytest_modelopt.optimizing.registry import forget_added, register, register_installed
from pytest_modelopt.plugin.options import read_options
from pytest_modelopt.plugin.usage_errors import usage_error


def run_in_project(options: argparse.Namespace, command: Callable[[argparse.Namespace], int]) -> int | None:
    """The status of `command`, called where pytest has read its configuration, as `pytest --modelopt` would there.

    None where pytest cannot be configured, which says why on stderr. Assertions are not rewritten: nothing is tested,
    and our own package was imported before pytest could. A plugin that warns does not end the command, whatever the
    project's `filterwarnings` makes of warnings.
    """
    inside = _Inside(options, command)
    pytest.main(["--assert=plain", "-Wignore"], plugins=[inside])
    return inside.status


def register_recipes(config: pytest.Config) -> None:
    """The recipes of installed packages and of the project, before any expression is read."""
    forget_added()  # of a run in this process that never came to its end
    try:
        register_installed()
        config.hook.pytest_modelopt_register_recipes(register=register)
    except RecipeError as error:
        raise usage_error(str(error), "usage-recipe") from None


class _Inside:
    """Takes the place of pytest's own main program, as `--fixtures` and `--help` do."""

    def __init__(self, options: argparse.Namespace, command: Callable[[argparse.Namespace], int]) -> None:
        self._options = options
        self._command = command
        self.status: int | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> int:
        if not config.pluginmanager.hasplugin("modelopt") and not hasattr(config.option, "modelopt"):
            raise usage_error(
                "pytest does not load the plugin pytest-modelopt here: remove `-p no:modelopt`, or, where "
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD is set, add `-p pytest_modelopt.plugin` to `addopts`",
                "usage-option",
            )
        _print_captured(config)
        config.option.modelopt = False  # it may stand in `addopts`, and no test is run here
        config._do_configure()
        try:
            register_recipes(config)
            self._options.default_budgets = _from_here(read_options(config).budgets)
            self._options.root = config.rootpath
            self._options.fleet_exclude = config.getini("modelopt_fleet_exclude")
            self.status = self._command(self._options)
        finally:
            forget_added()
        return self.status


def _print_captured(config: pytest.Config) -> None:
    """Write what conftest.py files have printed so far to stderr, so that it is not mixed with the command's output."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None and capture.is_globally_capturing():
        sys.stderr.write("".join(capture.read_global_capture()))


def _from_here(path: Path) -> Path:
    """Relative to the working directory where it lies in there, as a user would name it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
