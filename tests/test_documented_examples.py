"""Every example in Python, and all of the tutorial, run as written in the project that the tutorial makes."""

from __future__ import annotations

import shlex
import subprocess

import pytest
import torch._dynamo  # noqa: F401 -- an optimizer imports it, which no process can do twice: inner runs find it here

from pytest_modelopt.cli.main import main
from pytest_modelopt.reporting.addresses import see
from tests.example_blocks import ROOT, block, blocks, calls, files
from tests.plugin import imported_modules  # noqa: F401

pytestmark = pytest.mark.e2e

TUTORIAL = files("tutorial.md")
OWN_RECIPE = files("own-recipe.md")
CONFTEST = block("own-recipe.md", "python", 2)
AT_TESTS = {
    "tests/test_of_the_readme.py": block("README.md", "python"),
    "tests/test_of_the_page_on_budgets.py": block("budgets-file.md", "python"),
}


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """The model and the data of the tutorial. A comparison is timed for a moment only."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "--modelopt-time-limit=1ms -p no:cacheprovider", prepend=" ")
    monkeypatch.delenv("COLUMNS", raising=False)
    package = {path: text for path, text in TUTORIAL.items() if path.startswith("mypackage/")}
    write(pytester, {**package, "mypackage/__init__.py": "", "pytest.ini": block("tutorial.md", "ini")})
    return pytester


def write(pytester: pytest.Pytester, texts: dict[str, str]) -> None:
    for path, text in texts.items():
        file = pytester.path / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")


def status(project: pytest.Pytester, line: str) -> int:
    """Of a line of a shell."""
    program, *arguments = shlex.split(line)
    return int(project.runpytest(*arguments).ret) if program == "pytest" else main(arguments)


def test_each_example_in_python_is_run() -> None:
    run = [*TUTORIAL.values(), *OWN_RECIPE.values(), CONFTEST, *AT_TESTS.values()]
    assert [where for where, text in blocks("python") if text not in run] == []


def test_the_tutorial_goes_as_it_says(project: pytest.Pytester) -> None:
    init, gate, report, update, again, workflow = calls(ROOT / "docs/tutorial.md")
    assert status(project, init) == 0
    written = (project.path / "budgets.yaml").read_text(encoding="utf-8")
    assert "int8-dynamic:" in written
    assert status(project, gate) == 0
    write(project, {"budgets.yaml": TUTORIAL["budgets.yaml"]})
    red = project.runpytest(*shlex.split(report)[1:])
    assert red.ret == 1
    (sentence,) = (
        text.strip() for where, text in blocks("") if where.startswith("tutorial.md") and "is broken" in text
    )
    red.stdout.fnmatch_lines([f"*{sentence}", f"*{see('memory-in-layer')}"])
    assert status(project, update) == 0
    write(project, {"tests/test_reader.py": TUTORIAL["tests/test_reader.py"]})
    project.runpytest(*shlex.split(again)[1:]).assert_outcomes(passed=2)
    subprocess.run(["git", "init", "--quiet"], check=True)
    assert status(project, workflow) == 0
    assert (project.path / ".github/workflows/model-budgets.yml").is_file()


def test_the_budgets_and_tests_of_the_readme_hold_for_that_model(project: pytest.Pytester) -> None:
    write(project, {"budgets.yaml": block("README.md", "yaml"), **AT_TESTS})
    project.runpytest("--modelopt").assert_outcomes(passed=6)
    long_document = "\n\ndef long_document():\n    return held_out()[0][:100]\n"
    data = TUTORIAL["mypackage/data.py"] + long_document
    write(project, {"budgets.yaml": block("workloads.md", "yaml"), "mypackage/data.py": data})
    assert status(project, "pytest-modelopt validate") == 0


def test_a_recipe_of_the_project_is_used_and_checked(project: pytest.Pytester) -> None:
    write(project, {**OWN_RECIPE, "conftest.py": CONFTEST})
    project.runpytest("--modelopt").assert_outcomes(passed=2)
