"""`workloads:`: a row of a model at each operating point, with its own memory and limits; answers are measured once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from pytest_modelopt.results.json import read
from pytest_modelopt.results.measurement import Measurement
from tests.plugin.repositories import Repository, model
from tests.plugin.small_project import collected, run

Project = Callable[..., pytest.Pytester]

MODELS = '''
from pathlib import Path
import torch
from torch import nn

HERE = Path(__file__).parent

def note(what):
    with open(HERE / "called", "a") as file:
        file.write(f"{what}\\n")

class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(16, 256), nn.Linear(256, 8)
        self.kept = {}
    def forward(self, x):
        return self.second(self.first(x))

class Growing(Chain):
    """Keeps a table as long as the longest batch so far."""
    def forward(self, x):
        if len(x) > len(self.kept.get("table", ())):
            self.kept["table"] = torch.zeros(len(x), 1000)
        return super().forward(x) + self.kept["table"][:len(x), :1]

def chain():
    note("factory")
    return Chain().eval()

def growing():
    return Growing().eval()

def data():
    note("data")
    inputs = torch.randn(100, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, Chain()(inputs).argmax(1)

def documents():
    note("documents")
    return torch.ones(5, 16)
'''
BUDGETS = """
version: 1
models:
  reader:
    factory: served:chain
    data: served:data
    original: {max_memory: 1 MB}
    budget: {max_accuracy_drop: 10 pp}
    workloads:
      online: {batch_size: 1}
      night: {batch_size: 32, threads: 2, max_memory: 40 kB}
    recipes: {int8-dynamic: }
  growing:
    factory: served:growing
    data: served:data
    original: {max_size: 1 MB}
    workloads: {online: {batch_size: 1}, long: {example_inputs: served:documents}}
"""
WEIGHTS = 4 * (16 * 256 + 256 + 256 * 8 + 8)
ROW = 4 * (256 + 8)
"""Of one example: what the first layer answers is alive while the second one works."""
TABLE = 4 * 1000
INT8_ROW = 4 * 2 * 256
"""The int8 kernel of the first layer has a buffer as large as its answer."""


@pytest.fixture
def served(project: Project) -> pytest.Pytester:
    pytester = project(BUDGETS)
    (pytester.path / "served.py").write_text(MODELS, encoding="utf-8")
    return pytester


def once(side: Measurement | None) -> Measurement:
    """What does not depend on the point."""
    assert side is not None
    return replace(side, call_peak_bytes=None, seconds={}, observations=None)


def test_each_point_has_its_memory_and_limits_and_answers_are_measured_once(served: pytest.Pytester) -> None:
    result = served.runpytest("--modelopt", "--modelopt-report", "report", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=5, failed=1)
    cases = {case.name: case for case in read(served.path / "report" / "record.json").cases}
    memory = {name: case.memory_bytes(case.variant) for name, case in cases.items()}
    rows = {"online": 1, "night": 32}
    quantized = memory["reader/int8-dynamic @ online"]
    assert quantized is not None
    assert quantized < WEIGHTS
    for name, examples in rows.items():
        assert memory[f"reader/original @ {name}"] == WEIGHTS + examples * ROW
        assert memory[f"reader/int8-dynamic @ {name}"] == quantized + (examples - 1) * INT8_ROW
        for recipe in ("original", "int8-dynamic"):
            case = cases[f"reader/{recipe} @ {name}"]
            assert (case.batch_size, case.input_shapes) == (examples, ((examples, 16),))
            assert case.threads == (2 if name == "night" else 1)
            first = cases[f"reader/{recipe} @ online"]
            assert once(case.variant) == once(first.variant)
            assert (case.agreement, case.coverage, case.slices) == (first.agreement, first.coverage, first.slices)
    outcomes = {name: {each.limit.name: each.outcome for each in case.verdicts} for name, case in cases.items()}
    assert outcomes["reader/int8-dynamic @ night"] == {"max_memory": "fail", "max_accuracy_drop": "pass"}
    assert outcomes["reader/int8-dynamic @ online"] == {"max_accuracy_drop": "pass"}
    assert outcomes["reader/original @ night"] == {"max_memory": "pass"}
    called = Counter((served.path / "called").read_text().split())
    assert called == {"data": 4, "factory": 2, "documents": 1}  # each model's data is read, and once more to compare
    assert memory["growing/original @ online"] == WEIGHTS + ROW + TABLE
    table = "memory of batch 1 (1x16) @ online; batch 5 (5x16) @ long"
    assert table in " ".join(result.stdout.str().split())
    # A row is what it would be without the others: not what scoring in batches of 64 has left.
    assert memory["growing/original @ long"] == WEIGHTS + 5 * (ROW + TABLE)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["budgets.yaml::reader/int8-dynamic @ night"], ["reader::int8-dynamic @ night"]),
        (["budgets.yaml::reader::int8-dynamic"], [f"reader::int8-dynamic @ {name}" for name in ("online", "night")]),
        (["-k", "night and not growing"], ["reader::original @ night", "reader::int8-dynamic @ night"]),
        (["-k", "reader/int8-dynamic @ online"], ["reader::int8-dynamic @ online"]),
        (
            ["-k", "reader", "--deselect", "budgets.yaml::reader/original"],
            ["reader::int8-dynamic @ online", "reader::int8-dynamic @ night"],
        ),
    ],
)
def test_rows_are_selected_by_their_workload(
    served: pytest.Pytester, arguments: list[str], expected: list[str]
) -> None:
    assert collected(served, *arguments) == [f"budgets.yaml::{name}" for name in expected]


def test_a_workload_that_is_not_there_is_told_with_the_nearest(served: pytest.Pytester) -> None:
    result = served.runpytest("--modelopt", "budgets.yaml::reader/int8-dynamic @ nigth")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*has no case 'reader/int8-dynamic @ nigth'; did you mean 'reader/int8-dynamic @ night'?"]
    )


TESTS = """
def test_a_row_of_its_own(modelopt):
    case = modelopt(net, "int8-dynamic", example_inputs=torch.zeros(3, 64), workload="night").case
    assert case.name == "net in test_a_row_of_its_own/int8-dynamic @ night"
    assert (case.batch_size, case.input_shapes) == (3, ((3, 64),))

def test_no_name(modelopt):
    modelopt(net, "int8-dynamic", example_inputs=torch.zeros(3, 64), workload="a/b")

def test_not_as_many(modelopt):
    modelopt(net, "int8-dynamic", example_inputs=torch.zeros(3, 64), batch_size=2)
"""


def test_a_test_may_name_the_workload_that_it_measures(project: Project) -> None:
    result = run(project, TESTS)
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*workload='a/b' contains `/`, which would make the test's name unclear*",
            "*`example_inputs` holds 3 examples, and `batch_size`, which is stated beside it, is 2: leave*",
        ]
    )


def test_each_point_is_held_against_the_same_point_of_the_base(repository: Repository) -> None:
    """The base is made, and scored, once, too."""
    repository.budgets(
        model("wide", "{max_memory_growth: 20%}").rstrip()
        + "\n    workloads: {online: {batch_size: 1}, night: {batch_size: 32, threads: 2}}\n"
    )
    shop = (repository.path / "shop.py").read_text(encoding="utf-8")
    counted = 'def wide():\n    with open(settings.CALLED, "a") as file: file.write(f"{settings.WIDTH} ")\n'
    repository.write("shop.py", shop.replace("def wide():\n", counted))
    called = repository.path / "report" / "called"
    called.parent.mkdir()
    repository.settings(CALLED=str(called))
    repository.commit()
    repository.settings(CALLED=str(called), WIDTH=320)
    repository.against("HEAD", "--modelopt-time-limit", "1ms", "-k", "original")
    assert list(repository.cases) == ["wide/original @ online", "wide/original @ night"]
    for name, rows in (("online", 1), ("night", 32)):
        case = repository.cases[f"wide/original @ {name}"]
        for side, width in ((case.reference, 256), (case.variant, 320)):
            hidden = 2 * rows * width  # before and after the ReLU
            assert case.memory_bytes(side) == 4 * (64 * width + width + width * 10 + 10 + hidden)
        assert [each.outcome for each in case.verdicts] == ["fail"]
    assert Counter(called.read_text().split()) == {"256": 1, "320": 1}
