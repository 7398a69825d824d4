"""The hooks that a project's conftest.py, or an installed plugin, can implement. Imports nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_modelopt.optimizing.recipe import Recipe


def pytest_modelopt_register_recipes(register: Callable[[type[Recipe]], None]) -> None:
    """Called once when `--modelopt` is on, before budgets.yaml is read: call `register(MyRecipe)` for each recipe.

    A conftest.py that implements it must be one that pytest loads before it collects: in the folder where pytest is
    started, or in one that it is given. Mark it with `@pytest.hookimpl(optionalhook=True)` where the tests must also
    run without this plugin.
    """
