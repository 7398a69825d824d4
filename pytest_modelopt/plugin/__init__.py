"""The plugin's entry point: options, marker, fixtures. Idle without `--modelopt`; with it, `Gate` takes the hooks."""

from __future__ import annotations

import pytest

from pytest_modelopt.plugin import hookspecs
from pytest_modelopt.plugin.fixtures import modelopt, optimize
from pytest_modelopt.plugin.keys import MARKER, NEEDS_MODELOPT
from pytest_modelopt.plugin.options import add_options, is_enabled

__all__ = ["modelopt", "optimize"]  # pytest finds the fixtures here


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}(case=None, *, max_memory=..., min_speedup=..., max_accuracy_drop=..., ...): the budget of a test "
        "that uses the `modelopt` fixture: the limits of budgets.yaml, or the name of a case there, 'model/recipe'.",
    )
    if is_enabled(config):
        from pytest_modelopt.plugin.gate import Gate
        from pytest_modelopt.plugin.sigterm_hooks import Ending

        config.pluginmanager.register(Ending(config), "modelopt-ending")
        gate = Gate(config)
        config.pluginmanager.register(gate, "modelopt-gate")
        if (fleet := gate.fleet_run()) is not None:
            config.pluginmanager.register(fleet, "modelopt-fleet")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if not is_enabled(item.config) and item.get_closest_marker(MARKER) is not None:
        pytest.skip(NEEDS_MODELOPT)
