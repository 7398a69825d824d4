"""Who may know whom: the rules of ARCHITECTURE.md, read off folders and imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import pytest_modelopt
from pytest_modelopt.cli.main import _COMMANDS
from tests.kinds import REAL_MODELS, WHOLE_RUNS

PACKAGE = Path(pytest_modelopt.__file__).parent
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
NOT_EVERYWHERE = {
    *(f"os.{name}" for name in ("getuid", "geteuid", "setpgid", "getpgid", "killpg", "O_CLOEXEC", "set_inheritable")),
    *(f"os.{name}" for name in ("sched_getaffinity", "sched_setaffinity", "nice", "wait3")),
    *(f"signal.{name}" for name in ("SIGKILL", "SIGRTMIN", "SIGUSR1", "SIGALRM", "setitimer")),
    "multiprocessing.get_all_start_methods",
}
"""Names of the standard library that Windows or macOS lack, or that say less there."""
# From the lowest room up: a room knows rooms that stand before it only, so that no circle is possible.
MAY_KNOW: dict[str, set[str]] = {
    "statistics": set(),
    "results": set(),
    "limits": {"results", "statistics"},
    "optimizing": {"results"},
    "measuring": {"optimizing", "results", "statistics"},
    "judging": {"limits", "results"},
    "reporting": {"judging", "limits", "results", "statistics"},
    "config": {"limits", "optimizing", "results"},
    "editing": {"config", "judging", "limits", "optimizing", "reporting", "results"},
    "fleet": {"results"},
    "diagnosis": {"judging", "limits", "optimizing", "results", "statistics"},
    "baseline": {"config", "limits", "measuring", "optimizing", "results"},
    "selftest": {"judging", "limits", "measuring", "optimizing", "reporting", "results", "statistics"},
    "exploring": {"editing", "judging", "limits", "measuring", "optimizing", "reporting", "results", "statistics"},
}
for known in MAY_KNOW.values():
    known.add("system")  # one module, which stands below all rooms
MAY_KNOW["system"] = set()
MAY_KNOW["testing"] = {"measuring", "optimizing"}  # one public module
MAY_KNOW["plugin"] = set(MAY_KNOW) - {"editing", "exploring", "selftest"}
MAY_KNOW["cli"] = set(MAY_KNOW)
WORKER = "pytest_modelopt.measuring.worker"
MODULES = {
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(PACKAGE.rglob("*.py"))
}
"""All modules of the package, by name."""
IN_ROOMS = [name for name in MODULES if len(name.split(".")) > 1]


def room_of(module: str) -> str:
    return module.split(".")[1]


def runs_in_a_worker(module: str) -> bool:
    """Modules of workers, and the torch modules that recipes leave behind, may import torch when they are imported."""
    return module.startswith(f"{WORKER}.") or module.endswith("_module")


def _imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            yield from submodules
            if len(submodules) < len(node.names):
                yield node.module


@cache
def at_the_top(module: str) -> frozenset[str]:
    """What is imported when the module is."""
    return frozenset(_imported(_tree(module).body))


@cache
def anywhere(module: str) -> frozenset[str]:
    """What the module imports, inside functions too; what stands under TYPE_CHECKING is not imported."""
    of_types: set[ast.AST] = set()
    for block in (node for node in _nodes(module) if isinstance(node, ast.If)):
        if isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
            of_types.update(node for statement in block.body for node in ast.walk(statement))
    return frozenset(_imported(node for node in _nodes(module) if node not in of_types))


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def _nodes(module: str) -> tuple[ast.AST, ...]:
    """Of the kinds that are asked for here."""
    kinds = (ast.Import, ast.ImportFrom, ast.If, ast.Attribute, ast.Constant)
    return tuple(node for node in ast.walk(_tree(module)) if isinstance(node, kinds))


def chains(module: str) -> dict[str, tuple[str, ...]]:
    """Whatever is imported with the module, directly or by what it imports, with the way that leads there."""
    found: dict[str, tuple[str, ...]] = {}
    ways: list[tuple[str, ...]] = [(module,)]
    while ways:
        way = ways.pop()
        for name in at_the_top(way[-1]):
            if name not in found:
                found[name] = (*way, name)
                if name in MODULES:
                    ways.append(found[name])
    return found


@pytest.mark.parametrize("module", IN_ROOMS)
def test_a_room_knows_only_the_rooms_below_it(module: str) -> None:
    names = set(_imported(_nodes(module)))  # types that are only named are known, too
    known = {room_of(name) for name in names if name.startswith("pytest_modelopt.")}
    assert known <= MAY_KNOW[room_of(module)] | {room_of(module)}


@pytest.mark.parametrize("module", [name for name in MODULES if runs_in_a_worker(name)])
def test_a_worker_knows_nothing_of_the_process_that_asks_it(module: str) -> None:
    assert not [name for name in anywhere(module) if name.startswith("pytest_modelopt.measuring.controller")]


@pytest.mark.parametrize("module", [name for name in IN_ROOMS if room_of(name) not in ("plugin", "cli")])
def test_pytest_is_known_to_the_plugin_and_the_commands_only(module: str) -> None:
    assert "pytest" not in {name.split(".")[0] for name in anywhere(module)}


@pytest.mark.parametrize("module", [name for name in MODULES if not runs_in_a_worker(name)])
def test_torch_is_not_imported_with_a_module_of_the_pytest_process(module: str) -> None:
    heavy = {name: way for name, way in chains(module).items() if name.split(".")[0] in HEAVY}
    assert heavy == {}


@pytest.mark.parametrize("module", [name for name in IN_ROOMS if room_of(name) not in ("optimizing", "measuring")])
def test_torch_is_imported_by_optimizing_and_measuring_only(module: str) -> None:
    assert not [name for name in anywhere(module) if name.split(".")[0] in HEAVY]


@pytest.mark.parametrize("module", MODULES)
def test_what_few_runs_need_is_imported_by_nothing_that_every_run_imports(module: str) -> None:
    assert not {"torchmetrics", "psutil"} & {name.split(".")[0] for name in at_the_top(module)}


def test_what_not_every_system_has_is_asked_of_one_module() -> None:
    """Its fallbacks are tested there by taking each feature away."""
    found = {module: sorted(_not_everywhere(module)) for module in MODULES if module != "pytest_modelopt.system"}
    assert {module: names for module, names in found.items() if names} == {}


def _not_everywhere(module: str) -> Iterator[str]:
    yield from {"resource", "fcntl", "pwd", "grp", "termios", "psutil"} & anywhere(module)
    for node in _nodes(module):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield from NOT_EVERYWHERE & {f"{node.value.id}.{node.attr}"}
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.startswith(("/proc/", "/sys/"))
        ):
            yield node.value


@pytest.mark.parametrize("module", MODULES)
def test_every_file_says_in_its_first_line_why_it_exists(module: str) -> None:
    assert ast.get_docstring(_tree(module))


def test_each_file_that_the_documents_of_the_house_name_is_there() -> None:
    root = PACKAGE.parent
    rooms = [root / room for room in ("pytest_modelopt", "tests", "benchmarks", "documentation")]
    files = [f"/{file.relative_to(root).as_posix()}" for room in rooms for file in room.rglob("*.py")] + ["/noxfile.py"]
    text = "".join((root / name).read_text(encoding="utf-8") for name in ("ARCHITECTURE.md", "docs/measuring.md"))
    named = re.findall(r"`([\w/]+\.py)\b", text)
    assert len(named) > 100
    assert [name for name in named if not any(file.endswith(f"/{name}") for file in files)] == []


def test_each_command_is_one_file_and_one_entry() -> None:
    parsers = {name for name in IN_ROOMS if room_of(name) == "cli" and "def add_parser(" in MODULES[name].read_text()}
    assert parsers == {command.__name__ for command in _COMMANDS}


def test_each_test_is_of_one_kind_which_its_room_says(request: pytest.FixtureRequest) -> None:
    names = {"unit", "runtime", "e2e"}
    kinds = {item: names & {mark.name for mark in item.iter_markers()} for item in request.session.items}
    assert {len(found) for found in kinds.values()} == {1}
    assert kinds[request.node] == {"unit"}
    # `-m unit` does not even import these rooms.
    assert all(found == {"e2e"} for item, found in kinds.items() if item.path.parent.name in WHOLE_RUNS)
    assert all(found == {"runtime"} for item, found in kinds.items() if item.path.parent.name in REAL_MODELS)


def test_no_module_of_the_tests_has_two_names() -> None:
    """pytest imports a conftest.py and a test module by a bare name, and nothing else may; helpers have a full one."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    bare = {file.stem for file in files}
    for file in files:
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        names = [each.name for node in nodes if isinstance(node, ast.Import) for each in node.names]
        froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        names += [f"{node.module}.{each.name}" for node in froms for each in node.names]
        for first, *others in (name.split(".") for name in names):
            assert first not in bare, f"{file}: import it as tests.<room>.{first}"
            twice = [each for each in others if first == "tests" and each.startswith(("test_", "conftest"))]
            assert not twice, f"{file}: {twice[0]} is imported by pytest; what others use of it belongs into a helper"


def test_a_folder_within_a_room_of_tests_is_of_the_rooms_kind(request: pytest.FixtureRequest) -> None:
    here, kind_of = Path(__file__).parent, {"plugin": "e2e", "cli": "e2e", "measuring": "runtime"}
    inside = [item for item in request.session.items if here in item.path.parents]
    for item in inside:
        kind = kind_of.get(item.path.relative_to(here).parts[0])
        assert kind is None or item.get_closest_marker(kind), item.nodeid


def test_no_folder_has_many_more_than_twenty_modules_flat() -> None:
    """`reporting/` is the last one."""
    rooms = [folder for root in (PACKAGE, Path(__file__).parent) for folder in root.rglob("*") if folder.is_dir()]
    flat = {folder: len([file for file in folder.glob("*.py") if file.name != "__init__.py"]) for folder in rooms}
    assert {folder.name for folder, count in flat.items() if count > 24} <= {"reporting"}


def test_a_function_named_is_gives_a_bool() -> None:
    signature = re.compile(r"def _*is_\w+\((?:[^()]|\([^()]*\))*\) -> (.+):$", re.MULTILINE)
    gives = [each for file in MODULES.values() for each in signature.findall(file.read_text(encoding="utf-8"))]
    assert len(gives) > 50
    assert [each for each in gives if not each.startswith(("bool", "TypeGuard"))] == []
