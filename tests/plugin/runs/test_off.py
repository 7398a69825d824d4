"""Without `--modelopt` the plugin costs nothing, collects nothing, prints nothing, and skips with a reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

TESTS = """
import pytest

def test_plain():
    pass

def test_fixture(modelopt):
    raise AssertionError("must not run")

def test_other_fixture(optimize):
    raise AssertionError("must not run")

@pytest.fixture
def costly():
    raise AssertionError("must not be set up")

@pytest.mark.model_budget(max_memory="1 MB")
def test_marker(costly):
    raise AssertionError("must not run")
"""


def test_gated_tests_are_skipped_and_budgets_are_not_collected(project: Callable[..., pytest.Pytester]) -> None:
    pytester = project()
    pytester.makepyfile(test_it=TESTS)
    result = pytester.runpytest("-rs", "--strict-markers", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(["*needs --modelopt*"])
    result.stdout.no_fnmatch_line("*budgets.yaml*")
    result.stdout.no_fnmatch_line("*modelopt:*")


def test_a_wrong_budgets_file_does_not_matter_when_off(project: Callable[..., pytest.Pytester]) -> None:
    pytester = project("no: [yaml")
    pytester.makepyfile(test_it="def test_plain(): pass")
    assert pytester.runpytest().ret == pytest.ExitCode.OK


def test_nothing_heavy_is_imported(project: Callable[..., pytest.Pytester]) -> None:
    """In a process of its own: this one has long imported torch."""
    pytester = project()
    pytester.makepyfile(
        test_it="""
import sys

def test_modules(request):
    assert request.config.pluginmanager.has_plugin("modelopt"), "the plugin must be loaded for this to mean anything"
    heavy = {"torch", "numpy", "yaml", "pydantic", "tabulate", "cloudpickle", "multiprocessing"}
    assert not heavy & set(sys.modules)
    ours = {name for name in sys.modules if name.startswith("pytest_modelopt.")}
    parts = ("plugin", "plugin.hookspecs", "plugin.keys", "plugin.options", "plugin.fixtures")
    assert ours == {f"pytest_modelopt.{name}" for name in parts}
"""
    )
    others = [
        argument for name in ("hypothesispytest", "xdist", "anyio", "jaxtyping") for argument in ("-p", f"no:{name}")
    ]
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", *others)
    result.assert_outcomes(passed=1)


def test_the_package_and_its_version_import_nothing_heavy() -> None:
    script = (
        "import sys, pytest_modelopt, pytest_modelopt.plugin; pytest_modelopt.__version__; dir(pytest_modelopt)\n"
        "assert not {'torch', 'numpy', 'yaml', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("arguments", [["-p", "no:modelopt"], []])
def test_the_plugin_can_be_left_out(
    project: Callable[..., pytest.Pytester], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    pytester = project(timed=True)
    pytester.makepyfile(
        test_it="def test_plain(request): assert not request.config.pluginmanager.has_plugin('modelopt')"
    )
    if not arguments:
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.runpytest_subprocess(*arguments).assert_outcomes(passed=1)


def test_the_plugin_can_be_named_by_hand(
    project: Callable[..., pytest.Pytester], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester = project()
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = pytester.runpytest_subprocess("-p", "pytest_modelopt.plugin", "--modelopt", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["budgets.yaml::classifier::int8-dynamic"])


def test_help_and_markers_speak_of_the_gate(pytester: pytest.Pytester) -> None:
    pytester.runpytest("--help").stdout.fnmatch_lines(["*--modelopt-budgets=PATH*", "*modelopt_budgets*"])
    pytester.runpytest("--markers").stdout.fnmatch_lines(["@pytest.mark.model_budget(*"])
