"""Commands that need the project run where pytest has read its configuration; the others load nothing of it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import pytest_modelopt
from pytest_modelopt.judging.judge import judge
from pytest_modelopt.results.json import write
from tests.reporting.records_by_hand import case, limit, record

CONFTEST = '''
print("conftest.py prints")
import os
import warnings
import shop.layers  # in src/, by `pythonpath`
from typing import ClassVar
from pytest_modelopt import Applied, Recipe

class Round(Recipe):
    """Rounds the weights."""

    recipe_name: ClassVar[str] = "round"
    summary: ClassVar[str] = "rounds the weights"
    step: float = 0.125

    def apply(self, model, context):
        for parameter in model.parameters():
            parameter.data = (parameter.data / self.step).round() * self.step
        return Applied(model)

def pytest_configure(config):
    os.environ["SHOP"] = "open"
    warnings.warn("as plugins of others do under a newer pytest")

def pytest_modelopt_register_recipes(register):
    assert os.environ["SHOP"] == "open"
    register(Round)
'''
INI = """
[tool.pytest.ini_options]
pythonpath = ["src"]
addopts = ["--modelopt", "--modelopt-against=no-such-revision", "-n", "2", "-ra"]
filterwarnings = ["error"]
modelopt_budgets = "gates/limits.yaml"
"""
BUDGETS = """
version: 1
models:
  m:
    factory: shop.layers:net
    data: shop.layers:data
    recipes:
      "round(step=0.5)": {max_size: 1 MB}
"""
SHOP = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10)).eval()

def data():
    inputs = torch.randn(200, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, net()(inputs).argmax(1)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a src/ layout, a recipe of its own, and a budgets file where only its ini says that it is."""
    files = {
        "conftest.py": CONFTEST,
        "pyproject.toml": INI,
        "gates/limits.yaml": BUDGETS,
        "src/shop/__init__.py": "",
        "src/shop/layers.py": SHOP,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    of = case(limits=(limit("max_size", 2e7, "20 MB"),))
    write(
        record(judge(replace(of, model="m", recipe="round(step=0.5)"), timed_limits=0)),
        tmp_path / "modelopt-report" / "record.json",
    )
    return tmp_path


def command(folder: Path, *arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """`pytest-modelopt ...` as a user runs it, in a process of its own; `code` runs before it."""
    program = f"{code}\nimport sys\nfrom pytest_modelopt.cli.main import main\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


RECORD = "modelopt-report/record.json"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("validate",), 0, "gates/limits.yaml: 1 models, 1 cases\n  m/round(step=0.5): max_size 1 MB\n"),
        (("recipes", "round"), 0, "round: rounds the weights\n"),
        (("update", "--dry-run"), 0, "gates/limits.yaml: 0 limits set"),
        (("report", RECORD, "--budgets", "gates/limits.yaml"), 1, "max_size 1 MB"),
    ],
)
def test_what_pytest_knows_a_command_knows(folder: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    done = command(folder, *arguments)
    assert done.returncode == status, done.stderr
    assert said in done.stdout
    assert "conftest.py prints" not in done.stdout
    assert done.stderr == "conftest.py prints\n"
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == [
        "conftest.py", "gates", "modelopt-report", "pyproject.toml", "src",
    ]  # fmt: skip


def test_init_and_selftest_find_what_pythonpath_names(folder: Path) -> None:
    asked = ["shop.layers:net", "--data", "shop.layers:data", "--time-limit", "1 ms"]
    asked += ["--recipe", "round(step=0.5)", "--recipe", "int8-dynamic"]
    done = command(folder, "init", *asked)
    assert done.returncode == 2
    assert "gates/limits.yaml exists, and init overwrites nothing: add this model to it by --add" in done.stderr
    done = command(folder, "init", *asked, "--output", "first.yaml")
    assert done.returncode in (0, 2), "on a busy machine maybe none pays"
    said = done.stdout + done.stderr
    assert "round(step=0.5): left out: its score dropped by" in said
    assert "int8-dynamic: " in said
    done = command(folder, "selftest", "--repeats", "1", "--limit", "50%", "--slowdown", "100%", "--time-limit", "1 ms")
    assert done.returncode in (0, 1), done.stderr
    assert "m (gates/limits.yaml): can the gate pass, and can it fail?" in done.stdout
    assert "round(step=0.5)" in done.stdout


def test_a_module_in_a_src_folder_that_is_not_on_the_path_names_pythonpath(folder: Path) -> None:
    (folder / "conftest.py").unlink()
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\n", encoding="utf-8")
    asked = ("--data", "shop.layers:data", "--recipe", "int8-dynamic")
    done = command(folder, "init", "shop.layers:net", *asked, "--output", "first.yaml")
    assert done.returncode == 2
    assert f"shop lies in {folder / 'src'}: set `pythonpath = src` in pytest's ini file" in done.stderr


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("conftest.py", "import no_such_module\n", "No module named 'no_such_module'"),
        (
            "pyproject.toml",
            "[tool.pytest.ini_options]\npythonpath = ['src']\naddopts = ['--no-such-option']\n",
            "--no-such-option",
        ),
        (
            "pyproject.toml",
            "[tool.pytest.ini_options]\npythonpath = ['src']\nmodelopt_time_limit = '20'\n",
            "has no unit",
        ),
        (
            "pyproject.toml",
            "[tool.pytest.ini_options]\npythonpath = ['src']\naddopts = ['-p', 'no:modelopt']\n",
            "remove `-p no:modelopt`",
        ),
    ],
)
def test_where_pytest_cannot_be_configured_it_is_said(folder: Path, file: str, text: str, said: str) -> None:
    (folder / file).write_text(text, encoding="utf-8")
    done = command(folder, "validate")
    assert done.returncode == 2
    assert "m/round" not in done.stdout
    assert said in done.stderr


BLOCKED = """
import sys
ALLOWED = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection", "yaml", "_yaml",
           "tabulate", "wcwidth", "packaging", "pytest_modelopt"}
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names | ALLOWED and not top.startswith("_sysconfigdata"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Only())
sys.path.insert(0, %r)
"""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("report", RECORD), 0),
        (("report", RECORD, "--markdown"), 0),
        (("comment", RECORD), 0),
        (("merge", RECORD), 0),
        (("schema",), 0),
    ],
)
def test_what_needs_no_project_needs_four_packages_only(folder: Path, arguments: tuple[str, ...], status: int) -> None:
    """No pytest, no torch, no recipe of an installed package: where a comment is written, nothing else need be."""
    code = BLOCKED % str(Path(pytest_modelopt.__file__).parents[1])
    done = command(folder, *arguments, code=code)
    assert done.returncode == status, done.stderr
    assert done.stderr == ""
    assert ("max_size" if arguments[0] == "schema" else "1 passed") in done.stdout
    assert "is blocked" in command(folder, "validate", code=code).stderr, "the test can fail"
