"""budgets.yaml as pytest items: they obey what every pytest user knows."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest

from tests.plugin.small_project import one_case

Project = Callable[..., pytest.Pytester]

IDS = [
    "budgets.yaml::classifier::int8-dynamic",
    "budgets.yaml::classifier::low-rank(ratio=0.5)",
    "budgets.yaml::images::prune-unstructured(ratio=0.5)",
]


def collected(pytester: pytest.Pytester, *arguments: str) -> list[str]:
    result = pytester.runpytest("--modelopt", "--collect-only", "-q", *arguments)
    return [line for line in result.outlines if line.startswith(("budgets", "other", "test_")) and "::" in line]


def test_cases_are_items_under_their_model(project: Project) -> None:
    assert collected(project()) == IDS


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-k", "low-rank"], [IDS[1]]),
        (["-k", "images"], [IDS[2]]),
        (["-k", "classifier and not int8"], [IDS[1]]),
        (["-m", "model_budget"], IDS),
        (["-m", "not model_budget"], []),
        (["--deselect", IDS[0]], IDS[1:]),
        ([IDS[1]], [IDS[1]]),
        (["budgets.yaml::classifier"], IDS[:2]),
        (["budgets.yaml"], IDS),
        (["."], IDS),
    ],
)
def test_cases_are_selected_as_tests_are(project: Project, arguments: list[str], expected: list[str]) -> None:
    assert collected(project(), *arguments) == expected


def test_paths_on_the_command_line_choose(project: Project) -> None:
    pytester = project()
    pytester.makepyfile(test_it="def test_plain(): pass")
    assert collected(pytester, "test_it.py") == ["test_it.py::test_plain"]
    result = pytester.runpytest("--modelopt", "test_it.py")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["modelopt: none of the 3 cases of budgets.yaml ran: the paths on the command line*"])


def test_testpaths_do_not_hide_the_budgets(project: Project) -> None:
    pytester = project()
    pytester.makeini("[pytest]\ntestpaths = tests")
    (pytester.path / "tests").mkdir()
    (pytester.path / "tests" / "test_it.py").write_text("def test_plain(): pass", encoding="utf-8")
    assert collected(pytester) == ["tests/test_it.py::test_plain"][:0] + IDS or "tests/test_it.py::test_plain"
    result = pytester.runpytest("--modelopt", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["tests/test_it.py::test_plain", *IDS])


def test_another_file_can_be_named_on_the_command_line_and_in_the_ini_file(project: Project) -> None:
    pytester = project()
    (pytester.path / "other.yaml").write_text(one_case(), encoding="utf-8")
    assert collected(pytester, "--modelopt-budgets", "other.yaml") == ["other.yaml::m::int8-dynamic"]
    pytester.makeini("[pytest]\nmodelopt_budgets = other.yaml")
    assert collected(pytester) == ["other.yaml::m::int8-dynamic"]
    assert collected(pytester, "--modelopt-budgets", "budgets.yaml") == IDS, "the command line is above the ini file"


def test_a_named_file_that_is_missing_is_a_usage_error(project: Project) -> None:
    result = project().runpytest("--modelopt", "--modelopt-budgets", "none.yaml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*there is no file *none.yaml*"])


def test_a_gate_with_nothing_to_measure_is_an_error_and_not_green(project: Project) -> None:
    pytester = project(None)
    pytester.makepyfile(test_it="def test_plain(): pass")
    result = pytester.runpytest("--modelopt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    expected = ["*--modelopt has nothing to measure: there is no *budgets.yaml*", "see https://*/#usage-nothing"]
    result.stderr.fnmatch_lines(expected)


def test_budgets_that_lie_elsewhere_are_named(pytester: pytest.Pytester) -> None:
    for folder in ("ci", "nested/deep", ".hidden", "venv/share", "node_modules"):
        (pytester.path / folder).mkdir(parents=True)
        (pytester.path / folder / "budgets.yaml").touch()
    (pytester.path / "venv" / "pyvenv.cfg").touch()
    found = (
        f"; there is ci/budgets.yaml, nested/deep/budgets.yaml below {pytester.path}: name one by --modelopt-budgets"
    )
    for arguments in ((), ("--modelopt-budgets", "wrong/budgets.yaml"), ("--modelopt-against", "HEAD")):
        result = pytester.runpytest("--modelopt", *arguments)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert found in result.stderr.str()


def test_last_failed_and_first_failure(project: Project) -> None:
    budgets = (
        "version: 1\nmodels:\n  m:\n    factory: shop:classifier\n    data: shop:data\n    recipes:\n"
        "      int8-dynamic: {max_size: 1 GB}\n"
        "      low-rank(ratio=0.5): {max_size: 1 kB}\n"
        "      prune-unstructured(ratio=0.5): {max_size: 1 GB}\n"
    )
    pytester = project(budgets)
    result = pytester.runpytest("--modelopt", "-x")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*1 planned case was not run: budgets.yaml::m::prune-unstructured(ratio=0.5)*"])
    result = pytester.runpytest("--modelopt", "--lf")
    result.assert_outcomes(failed=1)


def test_last_failed_may_leave_the_budgets_out(project: Project) -> None:
    """They passed, another test failed: running that one again is no gate that lost its budgets."""
    pytester = project(one_case("{max_size: 1 GB}"))
    pytester.makepyfile(test_it="def test_broken(): assert False")
    pytester.runpytest("--modelopt").assert_outcomes(passed=1, failed=1)
    result = pytester.runpytest("--modelopt", "--lf")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_budgets_file_elsewhere_does_not_disturb_a_project_without_one(project: Project) -> None:
    pytester = project(None)
    (pytester.path / "other").mkdir()
    (pytester.path / "other" / "budgets.yaml").write_text(one_case(), encoding="utf-8")
    pytester.makepyfile(
        test_it="import torch\ndef test_it(modelopt): modelopt('shop:classifier', 'int8-dynamic', data='shop:data')"
    )
    pytester.runpytest("--modelopt").assert_outcomes(passed=1)


def test_verbose_names_and_junit_properties(project: Project) -> None:
    pytester = project(one_case("{max_size: 1 GB, min_coverage: 50%}"))
    result = pytester.runpytest("--modelopt", "-v", "--junitxml=junit.xml", "-o", "junit_family=xunit2")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["budgets.yaml::m::int8-dynamic PASSED*"])
    properties = {
        p.attrib["name"]: p.attrib["value"] for p in ElementTree.parse(pytester.path / "junit.xml").iter("property")
    }
    assert properties["modelopt.recipe"] == "int8-dynamic"
    assert float(properties["modelopt.size_reduction"]) > 0.5
    assert int(properties["modelopt.memory_bytes"]) > 0
    assert float(properties["modelopt.speedup"]) > 0


@pytest.mark.parametrize("folder", [".ci", "build", "."])
def test_the_budgets_are_collected_wherever_they_lie(project: Project, folder: str) -> None:
    """pytest does not enter hidden folders or `build`: the named file must not get lost there."""
    pytester = project(None)
    (pytester.path / folder).mkdir(exist_ok=True)
    (pytester.path / folder / "budgets.yaml").write_text(one_case("{max_size: 1 kB}"), encoding="utf-8")
    pytester.makepyfile(test_it="def test_plain(): pass")
    (pytester.path / folder / "shop.py").write_text((pytester.path / "shop.py").read_text(), encoding="utf-8")
    pytester.makeini(f"[pytest]\nmodelopt_budgets = {folder}/budgets.yaml")
    (pytester.path / folder / "test_other.py").write_text("def test_other(): pass", encoding="utf-8")
    tests = 2 if folder == "." else 1  # the other tests of a closed folder stay where they are
    pytester.runpytest("--modelopt").assert_outcomes(passed=tests, failed=1)


def test_budgets_that_something_ignores_are_an_error_and_not_green(project: Project) -> None:
    pytester = project(one_case())
    pytester.makepyfile(test_it="def test_plain(): pass")
    pytester.makeconftest("collect_ignore = ['budgets.yaml']")
    result = pytester.runpytest("--modelopt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*pytest did not collect *budgets.yaml*"])


def test_a_folder_reached_through_a_link_is_the_same_folder(project: Project) -> None:
    pytester = project(one_case())
    link = pytester.path.parent / f"{pytester.path.name}-link"
    link.symlink_to(pytester.path, target_is_directory=True)
    result = pytester.runpytest_subprocess(
        "--modelopt", "--collect-only", "-q", f"--rootdir={link}", f"--modelopt-budgets={link}/budgets.yaml"
    )
    result.stdout.fnmatch_lines(["*budgets.yaml::m::int8-dynamic"])
