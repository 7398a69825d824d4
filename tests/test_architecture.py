"""Who may know whom: the rules of ARCHITECTURE.md, read off the imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_modelopt

PACKAGE = Path(pytest_modelopt.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {
    "torch",
    "numpy",
    "cloudpickle",
    "torch_pruning",
    "memray",
    "onnxruntime",
    "openvino",
    "ai_edge_litert",
    "torchao",
    "onnx",
    "nncf",
    "litert_torch",
    "ai_edge_quantizer",
    "transformers",
    "torchmetrics",
    "jiwer",
}
# These run inside a worker only, and nothing that the pytest process imports may import them at its top.
IN_THE_WORKER = {
    "balance",
    "batches",
    "bench",
    "calibration",
    "data",
    "device",
    "environment",
    "examples",
    "given_inputs",
    "hashing",
    "loading",
    "makeup",
    "memory",
    "observe",
    "process_counters",
    "process_memory",
    "quality",
    "reachable",
    "repeating",
    "settings",
    "size",
    "structure",
}
METRICS = PACKAGE / "measure" / "metrics"
"""All of it runs inside a worker; torchmetrics is imported there only when a metric of it is used."""
MODULES = PACKAGE / "recipes" / "modules"
"""The torch modules that variants are made of: imported by recipes when they are applied."""
ROOMS = {
    "budgets",
    "commands",
    "doctor",
    "measure",
    "recipes",
    "record",
    "regression",
    "report",
    "selftest",
    "statistics",
}
MAY_KNOW = {
    "statistics": set(),
    "record": set(),
    "recipes": {"record"},
    "measure": {"recipes", "record", "statistics"},
    "budgets": {"recipes", "record", "statistics"},
    "doctor": {"budgets", "recipes", "record", "statistics"},
    "report": {"budgets", "record", "statistics"},
    "selftest": {"budgets", "measure", "record", "statistics"},
    "regression": {"budgets", "measure", "recipes", "record"},
    "commands": {"budgets", "doctor", "measure", "recipes", "record", "regression", "report", "selftest", "statistics"},
}


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def imports(file: Path, *, at_the_top: bool) -> Iterator[str]:
    """Full names of imported modules; `at_the_top` leaves out those inside functions and for type checkers only."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if at_the_top:
        nodes: list[ast.AST] = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
    else:
        nodes = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(file: Path) -> str:
    """The room that a file is in, at whatever depth; '' for those of no room."""
    first = file.relative_to(PACKAGE).parts[0]
    return first if first in ROOMS else ""


def rooms_known(file: Path) -> set[str]:
    parts = [name.split(".") for name in imports(file, at_the_top=False)]
    return {p[1] for p in parts if p[0] == "pytest_modelopt" and len(p) > 1 and p[1] in ROOMS}


@pytest.mark.parametrize("file", [f for f in FILES if room_of(f)], ids=name_of)
def test_a_room_knows_only_the_rooms_below_it(file: Path) -> None:
    room = room_of(file)
    assert rooms_known(file) <= MAY_KNOW[room] | {room}


@pytest.mark.parametrize("file", [f for f in FILES if room_of(f)], ids=name_of)
def test_no_room_knows_pytest(file: Path) -> None:
    assert "pytest" not in set(imports(file, at_the_top=False))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_torch_is_imported_by_recipes_and_measure_only_and_when_a_case_runs(file: Path) -> None:
    if (file.parent.name == "measure" and file.stem in IN_THE_WORKER) or file.parent in (MODULES, METRICS):
        return
    tops = {name.split(".")[0] for name in imports(file, at_the_top=True)}
    assert not tops & HEAVY
    worker_only = {f"pytest_modelopt.measure.{name}" for name in IN_THE_WORKER}
    worker_only |= {f"pytest_modelopt.measure.metrics.{name.stem}" for name in METRICS.glob("*.py")}
    worker_only |= {f"pytest_modelopt.recipes.modules.{name.stem}" for name in MODULES.glob("*.py")}
    assert not set(imports(file, at_the_top=True)) & worker_only
    # comparison.py loads a saved variant for a test that asks for it
    if room_of(file) not in ("recipes", "measure") and file.name != "comparison.py":
        everywhere = [node for node in _runtime_imports(file) if node.split(".")[0] in HEAVY]
        assert everywhere == []


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_torchmetrics_is_imported_by_nothing_that_every_run_imports(file: Path) -> None:
    assert "torchmetrics" not in {name.split(".")[0] for name in imports(file, at_the_top=True)}


def _runtime_imports(file: Path) -> Iterator[str]:
    """Imports that run, at the top or inside functions: what stands under TYPE_CHECKING does not."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for block in [n for n in ast.walk(tree) if isinstance(n, ast.If)]:
        if isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
            block.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_file_says_in_its_first_line_why_it_exists(file: Path) -> None:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert docstring
