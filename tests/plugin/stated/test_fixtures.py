"""`modelopt` and `model_budget` in users' own tests, with live modules and with factories."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plugin.small_project import one_case, run

Project = Callable[..., pytest.Pytester]


def test_a_live_model_of_the_test_module_is_measured_and_left_untouched(project: Project) -> None:
    result = run(
        project,
        """
@pytest.mark.model_budget(max_memory="300 kB", min_memory_reduction=0.5, max_accuracy_drop="5 pp")
def test_live(modelopt):
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = modelopt(model, "int8-dynamic", data=labelled(model))
    # 64*512 + 512*4 weights in a byte each; the float biases of both layers, and of a call 512 + 4 float32 and more
    assert result.original.weights_bytes == 4 * (64 * 512 + 512 + 512 * 4 + 4)
    assert result.variant.weights_bytes == 64 * 512 + 512 * 4 + 4 * (512 + 4)
    assert result.original.score == 1.0
    assert result.memory_reduction == 1 - result.variant.memory_bytes / result.original.memory_bytes
    assert result.speedup > 0
    assert result.coverage.share > 0.9
    assert result.accuracy_drop == pytest.approx(1.0 - result.variant.score, abs=1e-12)
    assert result.agreement.examples == 100
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert type(model.body) is nn.Linear
""",
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["Net in test_live"])


_KEPT = """
from pytest_modelopt.plugin.keys import CASES

def pytest_sessionfinish(session):
    session.config.seen = session.items

def pytest_terminal_summary(terminalreporter, config):
    reports = [each for of in terminalreporter.stats.values() for each in of]
    kept = [each for each in reports if hasattr(each, "modelopt")] + [each for each in config.seen if each.stash[CASES]]
    terminalreporter.write_line(f"{len(kept)} of {len(reports)} reports and {len(config.seen)} tests hold a case")
"""


def test_factories_by_function_and_by_name(project: Project) -> None:
    """Neither pytest's reports nor its items hold a second copy of a case: both stay to the end of the run."""
    Path("conftest.py").write_text(_KEPT, encoding="utf-8")
    result = run(
        project,
        """
def test_function(modelopt):
    assert modelopt(net, "low-rank(ratio=0.5)", data=lambda: labelled(net())).original.score == 1.0

def test_name(modelopt):
    assert modelopt("shop:classifier", "low-rank(ratio=0.5)", data="shop:data").original.score == 1.0
""",
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["0 of 6 reports and 2 tests hold a case"])


def test_all_broken_limits_of_a_test_are_reported_together_when_it_ends(project: Project) -> None:
    result = run(
        project,
        """
@pytest.mark.model_budget(max_memory="1 kB", max_size="1 kB", max_flips=1.0)
def test_broken(modelopt):
    modelopt(net(), "int8-dynamic", example_inputs=torch.zeros(1, 64))
    print("the test went on to its end")
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*max_memory 1 kB is broken: *(test_it.py:*)",
            "*max_size 1 kB is broken: *(test_it.py:*)",
            "*max_flips 1.0 was not measured, which counts as broken (*no `data` was given*",
            "*the test went on to its end*",
            "  no data, so no score; memory and latency of batch 1 (1x64), 1 thread*",
        ]
    )
    assert "accuracy" not in result.stdout.str().partition("model budgets =")[2]


def test_a_budget_without_any_measurement_fails(project: Project) -> None:
    result = run(
        project,
        """
@pytest.mark.model_budget(max_memory="1 GB")
def test_nothing():
    pass
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*has a budget (@pytest.mark.model_budget) but measured nothing*"])


def test_the_failure_of_the_test_itself_is_not_hidden_by_its_budget(project: Project) -> None:
    result = run(
        project,
        """
@pytest.mark.model_budget(max_memory="1 kB")
def test_own(modelopt):
    assert net() is None, "my own assertion"
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*my own assertion*"])
    result.stdout.no_fnmatch_line("*measured nothing*")


def test_the_closest_marker_wins_key_by_key(project: Project) -> None:
    result = run(
        project,
        """
pytestmark = pytest.mark.model_budget(max_memory="1 kB", max_size="1 kB")

@pytest.mark.model_budget(max_memory="1 GB")
class TestNet:
    @pytest.mark.model_budget(max_flips=1.0)
    def test_it(self, modelopt):
        model = net()
        modelopt(model, "int8-dynamic", data=labelled(model))
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*max_size 1 kB is broken*"])
    result.stdout.no_fnmatch_line("*max_memory 1 kB*")


def test_a_case_of_the_budgets_file_by_name(project: Project) -> None:
    result = run(
        project,
        """
@pytest.mark.model_budget("m/int8-dynamic", max_size="1 kB")
def test_named(modelopt):
    result = modelopt()
    assert [limit.name for limit in result.case.limits] == ["max_size", "max_flips"]
""",
        "test_it.py",
        budgets=one_case("{max_flips: 90%, max_size: 1 GB}"),
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*max_size 1 kB is broken*"])


def test_a_model_that_cannot_be_carried_gets_an_error_that_says_to_give_a_factory(project: Project) -> None:
    result = run(
        project,
        """
import threading

def test_lock(modelopt):
    model = net()
    model.lock = threading.Lock()
    modelopt(model, "int8-dynamic", data=labelled(net()))
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*the model (Net) cannot be carried to the worker process: TypeError: cannot pickle*lock*give a factory*"]
    )


_NO_DATA = '    modelopt(net(), "int8-dynamic")'


def test_mistakes_in_a_call_are_said(project: Project) -> None:
    result = run(
        project,
        """
def test_recipe(modelopt):
    modelopt(net(), "int8-dynamc", data=labelled(net()))

def test_no_recipe(modelopt):
    modelopt(net(), data=labelled(net()))

def test_no_data(modelopt):
    modelopt(net(), "int8-dynamic")

def test_no_model(modelopt):
    modelopt()

def test_name(modelopt):
    modelopt("shop.classifier", "int8-dynamic", data="shop:data")

def test_data(modelopt):
    modelopt(net(), "int8-dynamic", data=torch.zeros(3, 64))
""",
    )
    result.assert_outcomes(failed=6)
    result.stdout.fnmatch_lines_random(
        [
            "*unknown recipe 'int8-dynamc'; did you mean 'int8-dynamic'*",
            "*give a recipe, such as 'int8-dynamic'*",
            "*give `data=` (or at least `example_inputs=`)*",
            "*give a model and a recipe, or name a case*",
            "*model='shop.classifier' is not of the form 'package.module:function'*",
            "*the data is one tensor; give (inputs, targets)*",
        ]
    )
    result.stdout.no_fnmatch_line("*During handling*")
    told = " ".join(result.stdout.str().split())
    called = Path("test_it.py").read_text(encoding="utf-8").splitlines().index(_NO_DATA) + 1
    assert f"give `data=` (or at least `example_inputs=`) (test_it.py:{called})" in told


def test_a_model_that_knows_the_content_of_its_inputs_is_not_timed_and_all_else_is_measured(project: Project) -> None:
    result = run(
        project,
        """
class Cached(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.table = nn.Linear(64, 64), {}

    def forward(self, x):
        key = x.numpy().tobytes()
        if key not in self.table:
            self.table[key] = self.layer(x)
        return self.table[key]

def test_cached(modelopt):
    result = modelopt(Cached().eval(), "int8-dynamic", example_inputs=torch.ones(1, 64))
    assert result.size_reduction > 0.5
    with pytest.raises(RuntimeError, match="the original recognizes inputs by their content, and answers from a cache"):
        result.speedup
""",
    )
    result.assert_outcomes(passed=1)


def test_a_metric_of_the_test_with_its_direction(project: Project) -> None:
    result = run(
        project,
        """
def error(outputs, targets):
    return (outputs - targets).abs().mean()
error.higher_is_better = False

def test_regression(modelopt):
    model = net()
    inputs, _ = labelled(model)
    with torch.no_grad():
        targets = model(inputs)
    result = modelopt(model, "int8-dynamic", data=(inputs, targets), metric=error)
    assert result.original.score < 1e-6
    assert 0 < result.variant.score == result.accuracy_drop + result.original.score
    assert result.agreement is None
""",
    )
    result.assert_outcomes(passed=1)


def test_several_measurements_in_one_test_are_all_judged(project: Project) -> None:
    result = run(
        project,
        """
@pytest.mark.model_budget(max_size="60 kB")
@pytest.mark.parametrize("first", ["int8-dynamic"])
def test_two(modelopt, first):
    inputs = torch.zeros(1, 64)
    modelopt(net(), first, example_inputs=inputs)
    modelopt(net(), "prune-unstructured(ratio=0.5)", example_inputs=inputs)
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*prune-unstructured(ratio=0.5): max_size 60 kB is broken*"])
    result.stdout.no_fnmatch_line("*int8-dynamic: max_size 60 kB is broken*")


def test_a_limit_that_nothing_can_break_is_refused(project: Project) -> None:
    """A drop of 1 in accuracy is 100 points; whoever wrote it meant 1 pp."""
    result = run(
        project,
        """
@pytest.mark.model_budget(max_accuracy_drop=1)
def test_vacuous(modelopt):
    modelopt(net(), "int8-dynamic", data=labelled(net()))
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*error while reading its limits: max_accuracy_drop: *would allow every drop*1 pp*"])


def test_a_worker_sees_the_environment_and_the_folder_of_its_test(project: Project) -> None:
    """The fork server was started long before; and an original of another environment is another original."""
    result = run(
        project,
        """
def sized():
    import os
    return nn.Linear(64, int(os.environ.get("WIDTH", "32"))).eval()

@pytest.mark.parametrize("width", [16, None, 128])
def test_environment(modelopt, monkeypatch, width):
    if width:
        monkeypatch.setenv("WIDTH", str(width))
    result = modelopt("test_it:sized", "int8-dynamic", example_inputs=lambda: torch.zeros(1, 64))
    assert result.original.weights_bytes == 4 * 65 * (width or 32)

def test_folder(modelopt, monkeypatch, tmp_path):
    (tmp_path / "width.txt").write_text("8")
    monkeypatch.chdir(tmp_path)
    result = modelopt(
        lambda: nn.Linear(64, int(open("width.txt").read())).eval(), "int8-dynamic", example_inputs=torch.zeros(1, 64)
    )
    assert result.original.weights_bytes == 4 * 65 * 8
""",
    )
    result.assert_outcomes(passed=4)


def test_a_live_iterator_is_scored_to_its_end(project: Project) -> None:
    result = run(
        project,
        """
def test_iterator(modelopt):
    inputs, targets = labelled(net())
    batches = iter([(inputs[i : i + 25], targets[i : i + 25]) for i in range(0, 100, 25)])
    assert modelopt(net(), "int8-dynamic", data=batches).original.examples == 100

@pytest.mark.parametrize("wrong", [{"threads": 0}, {"batch_size": -1}, {"threads": 1.5}])
def test_wrong_numbers(modelopt, wrong):
    modelopt(net(), "int8-dynamic", data=labelled(net()), **wrong)
""",
    )
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines_random(
        ["*threads=0 is not a positive whole number*", "*batch_size=-1 is not a pos*", "*threads=1.5 is not a pos*"]
    )


def test_a_test_that_is_interrupted_leaves_nothing_half_measured_to_the_next(project: Project) -> None:
    result = run(
        project,
        """
import signal, time

def slow():
    time.sleep(2)
    return net()

def zeros():
    return torch.zeros(1, 64)

class TimeUp(Exception):
    pass

@pytest.fixture
def alarm():
    def up(*_):
        raise TimeUp
    signal.signal(signal.SIGALRM, up)
    signal.setitimer(signal.ITIMER_REAL, 1)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)

def test_interrupted(modelopt, alarm):
    modelopt("test_it:slow", "int8-dynamic", example_inputs="test_it:zeros")

def test_next(modelopt):
    result = modelopt("test_it:slow", "low-rank(ratio=0.5)", example_inputs="test_it:zeros")
    assert result.original.weights_bytes == 4 * (64 * 512 + 512 + 512 * 4 + 4)
""",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*TimeUp*"])
