"""The selftest's controls: right on a sound model, and each of them wrong where its fault is planted."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.cli.selftest import control_plan
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.results.answers import Agreement, Repeat
from pytest_modelopt.results.case import Case, CaseError
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.verdicts import Limit
from pytest_modelopt.selftest.control_verdicts import (
    Budgets,
    Control,
    judge_identity,
    judge_lossless,
    judge_sabotaged,
)
from pytest_modelopt.selftest.controls import ControlPlan, accuracy_limits, run_controls
from tests.plugin.small_project import one_case
from tests.reporting.records_by_hand import by_second, case, measurement, timing

Project = Callable[..., pytest.Pytester]

SHOP = '''
import os
import torch
from torch import nn

SOURCE = torch.Generator().manual_seed(7)
CENTRES = 2 * torch.randn(4, 16, generator=SOURCE)
TARGETS = torch.arange(240) % 4
INPUTS = CENTRES[TARGETS] + torch.randn(240, 16, generator=SOURCE)

def trained(model):
    """Trained on other examples of the same four clusters; by hand, since torch.optim imports torch's compiler."""
    torch.manual_seed(0)
    targets = torch.arange(400) % 4
    inputs = CENTRES[targets] + torch.randn(400, 16)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(inputs), targets)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients):
                parameter.sub_(0.1 * gradient)
    return model.eval()

def sound():
    torch.manual_seed(0)
    return trained(nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 4)))

def without_norm():
    torch.manual_seed(0)
    return trained(nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)))

def other_each_time():
    model = sound()
    torch.manual_seed(os.getpid())
    with torch.no_grad():
        model[0].weight.add_(torch.randn(64, 16))
    return model

def always_the_first():
    model = sound()
    with torch.no_grad():
        model[3].bias[0] += 1e6
    return model

def data():
    return INPUTS, TARGETS

def one_class():
    return INPUTS, torch.zeros(240, dtype=torch.long)

def mean_distance(outputs, targets):
    return (outputs.softmax(1) - nn.functional.one_hot(targets, 4)).abs().sum(1).mean()
mean_distance.higher_is_better = False
'''


class Quiet:
    def step(self, case: str, text: str) -> None:
        pass

    def beat(self, detail: str = "") -> None:
        pass


def limit(name: str, value: float, text: str) -> Limit:
    return Limit(name, value, text, "error", "budgets.yaml", 7)


ONE_POINT: Budgets = (("m/int8-dynamic", (limit("max_accuracy_drop", 0.01, "1 pp"),)),)


@pytest.fixture
def controls(tmp_path: Path) -> Callable[..., dict[str, Control]]:
    """The controls of a model of SHOP, through real workers."""
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")

    def make(
        factory: str, data: str = "data", *, metric: str = "accuracy", budgets: Budgets = ONE_POINT
    ) -> dict[str, Control]:
        variant = Variant(
            model=f"shop:{factory}",
            recipe=None,
            data=f"shop:{data}",
            calibration=None,
            example_inputs=None,
            metric=MetricSpec(metric if metric == "accuracy" else f"shop:{metric}"),
            import_paths=(str(tmp_path),),
            working_directory=str(tmp_path),
        )
        found = run_controls(ControlPlan(variant, "m", budgets, 0.5, 20.0, inference="set", recipes=()), Quiet())
        return {control.name: control for control in found}

    return make


def outcomes(found: dict[str, Control]) -> dict[str, str]:
    return {name: control.outcome for name, control in found.items()}


# --- on real models --------------------------------------------------------------------------------------------------


def test_a_sound_model_with_batch_norm(controls: Callable[..., dict[str, Control]]) -> None:
    found = controls("sound")
    assert outcomes(found) == {"identity": "ok", "lossless": "ok", "sabotaged": "ok"}
    assert "0 of 240 flips, drop 0 pp, the same bytes" in found["identity"].shows
    assert found["lossless"].shows == "0 of 240 flips"
    assert found["sabotaged"].must_show == "max_accuracy_drop 1 pp broken"


def test_a_model_without_batch_norm_and_a_metric_of_its_own(controls: Callable[..., dict[str, Control]]) -> None:
    """The lossless control does not apply, and says so in the recipe's words; lower is better."""
    found = controls("without_norm", metric="mean_distance", budgets=())
    assert outcomes(found) == {"identity": "ok", "lossless": "does not apply", "sabotaged": "ok"}
    assert found["lossless"].why.startswith("fold-batchnorm changed nothing: the model holds 2 Linear")
    assert "the model holds no batch norm" in found["lossless"].why
    assert "drop 0, the same bytes" in found["identity"].shows
    assert found["sabotaged"].must_show == "a worse score (no case limits accuracy)"


def test_a_factory_that_gives_other_weights_each_time(controls: Callable[..., dict[str, Control]]) -> None:
    found = controls("other_each_time")["identity"]
    assert found.outcome == "NOT ok"
    assert "its factory gives other weights each time" in found.why
    assert " 0 of 240 flips" not in found.shows


def test_data_and_a_model_that_cannot_show_the_sabotage(controls: Callable[..., dict[str, Control]]) -> None:
    """Every target is of the one class that the model gives whatever its weights are."""
    found = controls("always_the_first", "one_class", budgets=(("m/int8-dynamic", (limit("max_flips", 0.1, "10%"),)),))
    assert outcomes(found) == {"identity": "ok", "lossless": "ok", "sabotaged": "NOT ok"}
    assert found["sabotaged"].why == (
        "m/int8-dynamic keeps max_flips 10% with 90% of the weights at zero: all 240 targets are of one class, so an "
        "answer that never changes can be right"
    )


# --- on the command line ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_control_that_fails_makes_the_selftest_red_and_the_last_line_says_which(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of 100 pp, which no variant can break, is the other case's; the trials are good."""
    recipes = "{max_accuracy_drop: 1 pp}\n      low-rank(ratio=0.5): {max_accuracy_drop: 100 pp}"
    monkeypatch.chdir(project(one_case(recipes)).path)
    assert main(["selftest", "--repeats", "1", "--limit", "50%", "--slowdown", "100%", "--time-limit", "3 s"]) == 1
    told = capsys.readouterr().out.splitlines()
    table = {line.split()[0]: line for line in told if line.startswith("  ")}
    assert table["identity"].endswith("ok")
    assert not table["identity"].endswith("NOT ok")
    assert table["sabotaged"].split("  ")[1] == "sabotaged"
    assert "a broken accuracy limit in each of 2 cases" in table["sabotaged"]
    assert table["sabotaged"].endswith("NOT ok")
    (why,) = [line for line in told if line.startswith("sabotaged: NOT ok: ")]
    assert why.startswith("sabotaged: NOT ok: m/low-rank(ratio=0.5) keeps max_accuracy_drop 100 pp with 90% of the ")
    assert "m/int8-dynamic" not in why
    sabotaged = "the control sabotaged does not show what must be shown, so the gate means nothing on this model."
    busy = "this machine cannot judge a limit of 50%: 1 of 1 slowed copies did not fail; and "
    assert told[-1] in (f"NOT ok: {sabotaged}", f"NOT ok: {busy}{sabotaged}")  # the second on a busy machine only


# --- judged by hand --------------------------------------------------------------------------------------------------

SEEN = Observations(answers="a", target_classes=4, output_classes=4, predicted_classes=4, rarer_targets=150)
ORIGINAL = measurement(None, size=1000, weights=4000, peak=500, score=0.9, examples=200, observations=SEEN)


def a_case(
    *, lost: int = 0, won: int = 0, flips: int | None = None, metric: str | None = "accuracy", **changes: Any
) -> Case:
    """The original against something that lost and won so many examples of 200."""
    made = case(
        "identity",
        "m",
        metric=metric,
        reference=ORIGINAL,
        variant=replace(ORIGINAL, score=0.9 - (lost - won) / 200),
        agreement=Agreement(200, lost, won, lost + won if flips is None else flips),
        timing=timing(variant_ns=4_000_000),
    )
    return replace(made, **changes)


def test_identity_as_it_must_be() -> None:
    control = judge_identity(a_case(), 0.1)
    assert control.outcome == "ok"
    assert control.why == ""
    assert control.shows.endswith("0 of 200 flips, drop 0 pp, the same bytes")


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (a_case(lost=1, won=1), "answers differently: its factory gives other weights each time"),
        (a_case(flips=1), "answers differently: its factory gives other weights each time"),
        (a_case(variant=replace(ORIGINAL, size_bytes=1001)), "its bytes differ"),
        (a_case(variant=replace(ORIGINAL, call_peak_bytes=501)), "its bytes differ"),
        (a_case(variant=replace(ORIGINAL, weights_bytes=None)), "its bytes differ"),
        (a_case(timing=timing(variant_ns=2_000_000)), "against itself the model reads 2x"),
        (a_case(timing=None), "not timed"),
        (a_case(agreement=None, variant=replace(ORIGINAL, score=0.89)), "answers differently"),
        (
            a_case(lost=3, reference=replace(ORIGINAL, repeat=Repeat(200, 0.89, 12))),
            "the original answers differently each time: 12 of 200 predictions change between two passes",
        ),
        (a_case(error=CaseError("timing", "the worker process died during `block`")), "timing: the worker process"),
    ],
)
def test_identity_with_one_fault(case: Case, why: str) -> None:
    control = judge_identity(case, 0.1)
    assert control.outcome == "NOT ok"
    assert why in control.why
    assert ";" not in control.why.replace("; limits on", "").replace("; give it", "")  # this fault and no other


def test_a_fault_in_time_needs_evidence() -> None:
    """One pair that reads 2x says nothing, whatever the limit; over many pairs it is a fault of the machine."""
    one = timing(variant_ns=2_000_000, pairs=1)
    control = judge_identity(a_case(timing=one), 0.1)
    assert control.outcome == "NOT ok"
    assert control.why == "so few pairs (1) say nothing about its speed; give it more time (--time-limit)"
    assert judge_identity(a_case(timing=one), 1.5).why == control.why  # whatever the limit would notice


def test_an_estimate_that_noise_explains_is_no_alarm() -> None:
    """4 ms / 3.3 ms = 1.21x is beyond 10%, but every other second reads 1.82x."""
    noisy = timing(200, by_second(4_000_000, 6_000_000), 3_300_000)
    assert judge_identity(a_case(timing=noisy), 0.1).outcome == "ok"
    assert judge_identity(a_case(timing=timing(variant_ns=3_300_000)), 0.1).outcome == "NOT ok"


def test_figures_that_neither_side_has_are_told() -> None:
    bare = replace(ORIGINAL, weights_bytes=None)
    control = judge_identity(a_case(reference=bare, variant=bare), 0.1)
    assert control.outcome == "ok"
    assert control.shows.endswith("the same bytes, memory not measured")


def test_scores_that_differ_by_rounding_only_are_the_same() -> None:
    def scored(variant: float) -> Case:
        return a_case(agreement=None, metric="mse", variant=replace(ORIGINAL, score=variant))

    assert judge_lossless(scored(0.9 - 1e-6)).outcome == "ok"
    assert judge_lossless(scored(0.9 - 1e-2)).outcome == "NOT ok"
    assert judge_identity(scored(0.9 - 1e-6), 0.1).outcome == "ok"


def test_a_lossless_recipe_that_is_not() -> None:
    control = judge_lossless(a_case(lost=1, won=1, flips=3))
    assert (control.shows, control.outcome) == ("3 of 200 flips", "NOT ok")
    assert "fold-batchnorm computes the same function, and 3 predictions changed" in control.why


def test_a_recipe_that_refuses_and_a_worker_that_dies() -> None:
    refused = a_case(error=CaseError("optimize", "fold-batchnorm changed nothing: the model holds 2 Linear"))
    died = a_case(error=CaseError("optimize", "the worker process died during `optimize`: ended by SIGKILL"))
    for verdict in (judge_lossless, lambda case: judge_sabotaged(case, ONE_POINT)):
        assert verdict(refused).outcome == "does not apply"
        assert verdict(refused).why == "fold-batchnorm changed nothing: the model holds 2 Linear"
        assert verdict(died).outcome == "NOT ok"


def test_each_case_that_limits_accuracy_must_turn_red() -> None:
    """One limit of each is enough; the one that holds is named."""
    budgets = accuracy_limits(
        {
            "m/a": (limit("max_memory", 1.0, "1 B"), limit("max_accuracy_drop", 0.01, "1 pp")),
            "m/b": (limit("max_accuracy_drop", 0.5, "50 pp"), limit("max_flips", 0.1, "10%")),
            "m/c": (limit("max_size", 1.0, "1 B"),),
            "m/d": (replace(limit("min_accuracy", 0.6, "60%"), level="warn"),),
        }
    )
    assert [name for name, _ in budgets] == ["m/a", "m/b", "m/d"]
    sabotaged = judge_sabotaged(a_case(lost=30, won=0, flips=60), budgets)
    assert sabotaged.outcome == "NOT ok"
    assert sabotaged.why.startswith("m/d keeps min_accuracy 60% with 90% of the weights at zero: ")
    assert judge_sabotaged(a_case(lost=80, won=0, flips=100), budgets).outcome == "ok"


def test_limits_on_the_population_are_judged_as_such(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 of 200 lost break 1 pp on the set; of the population they leave it undecided, which shows no red."""
    assert judge_sabotaged(a_case(lost=4), ONE_POINT).outcome == "ok"
    undecided = judge_sabotaged(a_case(lost=4, inference="population"), ONE_POINT)
    assert undecided.outcome == "NOT ok"
    assert undecided.why.startswith("m/int8-dynamic leaves max_accuracy_drop 1 pp undecided with 90% of the weights")
    budgets = one_case("{max_accuracy_drop: 1 pp}").replace("    data:", "    inference: population\n    data:")
    monkeypatch.chdir(project(budgets).path)
    asked = argparse.Namespace(
        model=None, budgets=None, default_budgets=Path("budgets.yaml"), limit=0.1, time_limit=20.0, root=None
    )
    plan = control_plan(asked)
    assert plan.inference == "population"
    assert [(name, [limit.text for limit in limits]) for name, limits in plan.budgets] == [("m/int8-dynamic", ["1 pp"])]


def test_without_limits_on_accuracy_five_points_are_tried_and_said() -> None:
    broken, held = a_case(lost=11), a_case(lost=10)  # 5.5 pp and 5 pp
    assert judge_sabotaged(broken, ()).outcome == "ok"
    assert judge_sabotaged(broken, ()).must_show == "max_accuracy_drop 5 pp broken (no case limits accuracy)"
    assert judge_sabotaged(held, ()).outcome == "NOT ok"
    assert judge_sabotaged(held, ()).why.startswith("the limit max_accuracy_drop 5 pp holds with 90%")


def test_without_limits_any_worsening_of_a_score_of_its_own_unit_will_do() -> None:
    """Beyond rounding: 0.9 is 1e-3 away from 0.8991."""

    def scored(variant: float, *, higher_is_better: bool = True) -> Control:
        case = a_case(agreement=None, metric="shop:r2", variant=replace(ORIGINAL, score=variant))
        return judge_sabotaged(replace(case, higher_is_better=higher_is_better), ())

    assert scored(0.8).outcome == "ok"
    assert scored(0.8).must_show == "a worse score (no case limits accuracy)"
    assert scored(0.8).shows == "shop:r2 0.9 -> 0.8"
    assert scored(0.8, higher_is_better=False).outcome == "NOT ok"
    assert scored(1.0, higher_is_better=False).outcome == "ok"
    for unchanged in (0.9, 0.9 - 1e-5, 1.0):
        assert scored(unchanged).outcome == "NOT ok"
        assert scored(unchanged).why.startswith("its score is no worse: ")


def test_a_limit_that_is_red_for_whatever_variant_proves_nothing() -> None:
    constant = replace(ORIGINAL, observations=replace(SEEN, predicted_classes=1))
    control = judge_sabotaged(a_case(lost=100, reference=constant), ONE_POINT)
    assert control.outcome == "NOT ok"
    assert control.why.startswith("m/int8-dynamic is red for every variant, which proves nothing: ")
    assert "the original predicts the same class for every example" in control.why


def test_answers_that_cannot_be_scored_are_red_too() -> None:
    control = judge_sabotaged(a_case(error=CaseError("score", "the model's outputs are not finite")), ONE_POINT)
    assert (control.outcome, control.why) == ("ok", "score: the model's outputs are not finite")


@pytest.mark.parametrize(
    ("case", "limits", "why"),
    [
        (
            a_case(lost=100, reference=replace(ORIGINAL, observations=replace(SEEN, target_classes=1))),
            (limit("max_accuracy_drop", 1.0, "100 pp"),),
            "all 200 targets are of one class",
        ),
        (a_case(lost=100), (limit("max_accuracy_drop", 1.0, "100 pp"),), "no more than 100 pp to lose"),
        (a_case(), (limit("max_accuracy_drop", 0.01, "1 pp"),), "0 of 200 predictions changed, so what this data asks"),
        (a_case(flips=150), (limit("max_accuracy_drop", 0.01, "1 pp"),), "accuracy hardly sees that"),
        (
            a_case(reference=replace(ORIGINAL, examples=3)),
            (limit("max_accuracy_drop", 0.01, "1 pp"),),
            "3 examples are too few to show it",
        ),
    ],
)
def test_the_likely_reason(case: Case, limits: tuple[Limit, ...], why: str) -> None:
    control = judge_sabotaged(case, (("m/x", limits),))
    assert control.outcome == "NOT ok"
    assert why in control.why
