"""Data is read once for each model, and all variants get the same examples; what is not held out is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.measuring.controller.runner import Runner, StepLimits
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.results.case import Case, MeasuredCase, PlannedCase
from pytest_modelopt.results.json import read
from pytest_modelopt.results.metric import MetricSpec

Project = Callable[..., pytest.Pytester]

SOURCE = '''
import os
from pathlib import Path
import torch
from torch import nn
from torch.utils.data import Dataset

HERE = Path(__file__).parent
INPUTS = torch.randn(300, 16, generator=torch.Generator().manual_seed(1))

def model():
    with open(HERE / "workers", "a") as file:
        file.write(f"{os.getpid()}\\n")
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()

class Counted(Dataset):
    """Writes down which example was asked for."""

    def __init__(self):
        with torch.no_grad():
            self.targets = model()(INPUTS).argmax(1)
        self.noise = 0.0

    def __len__(self):
        return 300

    def __getitem__(self, index):
        with open(HERE / "asked", "a") as file:
            file.write(f"{index}\\n")
        return INPUTS[index] + self.noise, self.targets[index]

def counted():
    with open(HERE / "made", "a") as file:
        file.write("made\\n")
    return Counted()

def other_each_time():
    made = Counted()
    made.noise = float(os.getpid())
    return made

def inputs_only():
    return INPUTS

def leaking():
    return INPUTS[250:]

def half(inputs, target):
    assert inputs.shape == (16,)
    return "left" if inputs[0] < 0 else "right"

def no_name(inputs, target):
    return None
'''

BUDGETS = """
version: 1
models:
  m:
    factory: counted:model
    data: counted:{data}
    recipes:
      int8-dynamic: {{max_accuracy_drop: 100 pp}}
      prune-unstructured(ratio=0.9): {{max_accuracy_drop: 100 pp}}
      prune-unstructured(ratio=0.5): {{max_accuracy_drop: 100 pp}}
"""


CONFTEST = """
from pathlib import Path
import pytest
from pytest_modelopt import system

@pytest.hookimpl(wrapper=True)
def pytest_runtestloop():
    result = yield
    Path("left").write_text(" ".join(pid for pid in Path("workers").read_text().split() if system.is_running(int(pid))))
    return result
"""
"""At this point pytest-cov combines what the processes of the run have written, each at its end."""


def asked(folder: Path) -> Counter[int]:
    return Counter(int(line) for line in (folder / "asked").read_text(encoding="utf-8").split())


def run(project: Project, data: str, *, passed: int = 0, failed: int = 0) -> tuple[pytest.Pytester, list[Case]]:
    pytester = project(BUDGETS.format(data=data))
    pytester.makepyfile(counted=SOURCE)
    pytester.makeconftest(CONFTEST)
    pytester.runpytest("--modelopt", "--modelopt-report", "report").assert_outcomes(passed=passed, failed=failed)
    return pytester, list(read(pytester.path / "report" / "record.json").cases)


def test_three_recipes_read_each_example_once_and_look_at_the_first_again(project: Project) -> None:
    pytester, cases = run(project, "counted", passed=3)
    assert asked(pytester.path) == Counter({index: 2 if index < 256 else 1 for index in range(300)})
    assert (pytester.path / "made").read_text(encoding="utf-8").split() == ["made"] * 2
    assert (pytester.path / "left").read_text(encoding="utf-8") == "", "workers end with the last test"
    fingerprints = {side.data_fingerprint for case in cases for side in (case.reference, case.variant) if side}
    assert len(fingerprints) == 1
    assert None not in fingerprints
    for case in cases:
        assert case.reference is not None
        assert case.variant is not None
        assert (case.reference.score, case.reference.examples, case.variant.examples) == (1.0, 300, 300)
        assert "read" in case.reference.seconds
        assert "read" not in case.variant.seconds


def test_other_data_each_time_is_an_error_of_every_recipe(project: Project) -> None:
    _, cases = run(project, "other_each_time", failed=3)
    for case in cases:
        assert case.error is not None
        assert case.error.stage == "read"
        assert case.error.message.startswith(
            "the data differs from one load to the next: example 0 was another one the second time (256 of the 256 "
        )


# --- the runner alone ------------------------------------------------------------------------------------------------


class Silent:
    def step(self, case: str, text: str) -> None: ...

    def beat(self, detail: str = "") -> None: ...


@pytest.fixture
def runner() -> Iterator[Runner]:
    made = Runner(StepLimits(time_limit_s=0.1, step_limit_s=60), Silent())
    yield made
    made.close()


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    (tmp_path / "counted.py").write_text(SOURCE, encoding="utf-8")
    folder = str(tmp_path)
    return Variant(
        "counted:model", parse("int8-dynamic"), "counted:counted", None, None, MetricSpec(), (folder,), folder
    )


def measured(runner: Runner, of: Variant) -> MeasuredCase:
    case = PlannedCase(id="id", model="m", recipe=of.label, limits=(), batch_size=of.batch_size)
    return runner.measure(case, of, lambda *_: True)


def kept_files(runner: Runner) -> list[str]:
    folder = runner._context._folder
    assert folder is not None
    return sorted(path.name for path in folder.path.iterdir() if path.name.startswith("examples"))


def test_the_files_of_the_data_go_with_the_original(runner: Runner, variant: Variant) -> None:
    assert measured(runner, variant).error is None
    assert len(kept_files(runner)) == 2
    first = kept_files(runner)
    assert measured(runner, replace(variant, recipe=parse("prune-unstructured(ratio=0.9)"))).error is None
    assert kept_files(runner) == first
    assert measured(runner, replace(variant, batch_size=2)).error is None
    assert len(kept_files(runner)) == 2
    assert kept_files(runner) != first, "of another original"
    runner.forget_original()
    assert kept_files(runner) == []


def test_an_original_whose_worker_died_does_not_read_again(runner: Runner, variant: Variant, tmp_path: Path) -> None:
    before = measured(runner, variant)
    assert before.error is None
    assert runner._original.measured is not None
    assert runner._original.measured.worker is not None
    runner._original.measured.worker.kill()
    after = measured(runner, replace(variant, recipe=parse("prune-unstructured(ratio=0.9)")))
    assert after.error is None
    assert after.reference is not None
    assert after.reference.data_fingerprint == (before.reference.data_fingerprint if before.reference else "")
    assert asked(tmp_path).total() == 300 + 256


def test_a_variant_without_data_reads_nothing(runner: Runner, variant: Variant, tmp_path: Path) -> None:
    of = replace(variant, data=None, example_inputs="counted:inputs_only")
    assert measured(runner, of).error is None
    assert not (tmp_path / "asked").exists()
    assert kept_files(runner) == []


def test_an_optimized_model_takes_its_first_batch_from_the_source(
    runner: Runner, variant: Variant, tmp_path: Path
) -> None:
    runner.optimize(variant, runner.new_file("optimized"), runner.new_file("inputs"), "name")
    assert asked(tmp_path).total() == 64
    assert kept_files(runner) == []


def test_slices_that_the_project_names(runner: Runner, variant: Variant) -> None:
    import torch

    case = measured(runner, replace(variant, slices="counted:half"))
    inputs = torch.randn(300, 16, generator=torch.Generator().manual_seed(1))
    left = int((inputs[:, 0] < 0).sum())
    assert case.slices is not None
    assert not case.slices.of_classes
    assert dict(zip(case.slices.names, case.slices.examples, strict=True)) == {"left": left, "right": 300 - left}


@pytest.mark.parametrize(
    ("changes", "stage", "message"),
    [
        ({"slices": "counted:no_name"}, "read", "the slice function gave a NoneType for example 0, and must give"),
        ({"slices": "counted:halv"}, "read", "slices `counted:halv`: `counted` has no `halv`; did you mean `half`?"),
        ({"data": "counted:inputs_only"}, "read", "the data is one tensor; give (inputs, targets)"),
        (
            {"recipe": parse("int8-static"), "calibration": "counted:leaking"},
            "optimize",
            "50 of the 50 examples in batch 0 of the calibration data are in the evaluation data, too: the first is "
            "example 0 there and example 250 of `data`",
        ),
    ],
)
def test_mistakes_in_data_are_errors_of_the_step_that_found_them(
    runner: Runner, variant: Variant, changes: dict[str, Any], stage: str, message: str
) -> None:
    case = measured(runner, replace(variant, **changes))
    assert case.error is not None
    assert case.error.stage == stage
    assert case.error.message.startswith(message)
    if stage == "optimize":
        assert "Traceback" not in case.error.output, "the sentence says it all, and no code is at fault"


def test_one_example_works_and_is_said_to_be_one(runner: Runner, variant: Variant, tmp_path: Path) -> None:
    with (tmp_path / "counted.py").open("a", encoding="utf-8") as file:
        file.write("\ndef one():\n    return INPUTS[:1], torch.zeros(1, dtype=torch.long)\n")
    case = measured(runner, replace(variant, data="counted:one"))
    assert case.error is None
    assert case.reference is not None
    assert case.variant is not None
    assert case.reference.examples == 1
    assert case.reference.notes == ("the data is one single example, which says nothing about others",)
    assert case.variant.notes == (), "said once"
