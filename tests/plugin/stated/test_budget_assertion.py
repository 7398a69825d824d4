"""A budget that was stated is asserted, wherever its marker came from and wherever the measurement was made."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.plugin.small_project import LIVE, run

Project = Callable[..., pytest.Pytester]


def test_a_measurement_in_a_fixture_is_asserted_too(project: Project) -> None:
    result = run(
        project,
        """
@pytest.fixture
def measured(modelopt):
    return modelopt(net, "int8-dynamic", example_inputs=torch.zeros(1, 64))

@pytest.mark.model_budget(max_size="1 kB")
def test_red(measured):
    assert measured.variant.size_bytes

@pytest.mark.model_budget(max_size="1 GB")
def test_green(measured):
    assert measured.variant.size_bytes
""",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*max_size 1 kB is broken*"])


def test_a_marker_added_by_a_conftest_or_by_the_test_itself_counts(project: Project) -> None:
    pytester = project(None)
    pytester.makeconftest(
        """
import pytest

def pytest_collection_modifyitems(items):
    for item in items:
        if item.name == "test_marked_by_conftest":
            item.add_marker(pytest.mark.model_budget(max_size="1 kB"))
"""
    )
    tests = """
def test_marked_by_conftest(modelopt):
    modelopt(net, "int8-dynamic", example_inputs=torch.zeros(1, 64))

def test_marked_by_itself(request, modelopt):
    request.node.add_marker(pytest.mark.model_budget(max_size="1 kB"))
    modelopt(net, "int8-dynamic", example_inputs=torch.zeros(1, 64))
"""
    (pytester.path / "test_it.py").write_text(LIVE + tests, encoding="utf-8")
    pytester.runpytest("--modelopt").assert_outcomes(failed=2)


def test_a_skip_after_the_measurement_does_not_hide_what_was_measured(project: Project) -> None:
    result = run(
        project,
        """
@pytest.mark.model_budget(max_size="1 kB")
def test_red(modelopt):
    modelopt(net, "int8-dynamic", example_inputs=torch.zeros(1, 64))
    pytest.skip("later")

@pytest.mark.model_budget(max_size="1 kB")
def test_skipped(modelopt):
    pytest.skip("before anything was measured")
""",
    )
    result.assert_outcomes(failed=1, skipped=1)


def test_measuring_after_the_test_has_ended_is_refused(project: Project) -> None:
    result = run(
        project,
        """
@pytest.fixture
def late(modelopt):
    yield
    modelopt(net, "int8-dynamic", example_inputs=torch.zeros(1, 64))

def test_it(late):
    pass
""",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*was called after its test had ended*"])


def test_a_class_of_a_conftest_travels_though_another_conftest_is_nearer(project: Project) -> None:
    pytester = project(None)
    pytester.makeconftest(
        """
import pytest
from torch import nn

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 64)
    def forward(self, x):
        return self.layer(x)

@pytest.fixture
def own():
    return Own().eval()
"""
    )
    folder = pytester.path / "below"
    folder.mkdir()
    (folder / "conftest.py").write_text("x = 1", encoding="utf-8")
    (folder / "test_it.py").write_text(
        "import torch\ndef test_it(modelopt, own): modelopt(own, 'int8-dynamic', example_inputs=torch.zeros(1, 64))",
        encoding="utf-8",
    )
    pytester.runpytest("--modelopt").assert_outcomes(passed=1)


def test_a_data_loader_may_have_workers_of_its_own(project: Project) -> None:
    result = run(
        project,
        """
from torch.utils.data import DataLoader, TensorDataset

def test_it(modelopt):
    loader = DataLoader(TensorDataset(*labelled(net())), batch_size=20, num_workers=2)
    assert modelopt(net, "int8-dynamic", data=loader).original.score == 1.0
""",
    )
    result.assert_outcomes(passed=1)


def test_a_case_that_fails_in_a_fixture_is_recorded(project: Project) -> None:
    result = run(
        project,
        """
@pytest.fixture
def measured(modelopt):
    return modelopt("test_it:missing", "int8-dynamic", example_inputs=torch.zeros(1, 64))

def test_it(measured):
    pass
""",
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["test_it:missing in test_it/int8-dynamic: *has no `missing`*"])


def test_a_rerun_measures_anew(project: Project) -> None:
    """As pytest-rerunfailures does it: the same item goes through the whole protocol again."""
    pytester = project(None)
    pytester.makeconftest(
        """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    for _ in range(2):
        for report in runtestprotocol(item, nextitem=nextitem, log=False):
            item.ihook.pytest_runtest_logreport(report=report)
    return True
"""
    )
    tests = """
@pytest.mark.model_budget(max_size="1 GB")
def test_it(modelopt):
    modelopt(net, "int8-dynamic", example_inputs=torch.zeros(1, 64))
"""
    (pytester.path / "test_it.py").write_text(LIVE + tests, encoding="utf-8")
    result = pytester.runpytest("--modelopt")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["modelopt: passed. 1 case: 1 passed*"])
