"""Variants that answer differently each time, in real runs: found, measured against themselves, and told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pytest_modelopt.reporting.messages.findings import format_finding
from pytest_modelopt.results.json import case_from_data
from tests.plugin.small_project import one_case

Project = Callable[..., pytest.Pytester]

MODELS = '''
import torch
from torch import nn

def steady():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10)).eval()

class Forgets(nn.Module):
    """Dropout that `eval()` does not reach."""
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(64, 512), nn.Linear(512, 10)
    def forward(self, x):
        return self.head(nn.functional.dropout(torch.relu(self.body(x)), 0.5, training=True))

def forgets():
    torch.manual_seed(0)
    return Forgets().eval()

def data():
    inputs = torch.randn(200, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, steady()(inputs).argmax(1)
'''

NOISY = """
from typing import ClassVar
import torch
from torch import nn
from pytest_modelopt import Applied, Recipe

class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 0.3 * torch.rand(len(x), self.out_features)

class AddNoise(Recipe):
    recipe_name: ClassVar[str] = "add-noise"
    summary: ClassVar[str] = "scales the last Linear, whose kernel then is random"

    def apply(self, model, context):
        last = model[-1]
        noisy = Noisy(last.in_features, last.out_features)
        with torch.no_grad():
            noisy.weight.copy_(last.weight * 1.01)
            noisy.bias.copy_(last.bias)
        model[-1] = noisy
        return Applied(model)

def pytest_modelopt_register_recipes(register):
    register(AddNoise)
"""


def the_case(project: Project, budgets: str) -> dict[str, Any]:
    """The only case of the record of a real run."""
    pytester = project(budgets)
    pytester.makepyfile(noise=MODELS)
    pytester.makeconftest(NOISY)
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report", "--modelopt-time-limit", "1 s")
    assert result.ret in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    (case,) = json.loads((pytester.path / "report" / "record.json").read_text(encoding="utf-8"))["cases"]
    assert case["error"] is None
    return dict(case)


def told(case: dict[str, Any]) -> list[str]:
    of = case_from_data(case)
    return [format_finding(of, finding) for finding in of.findings if finding.rule == "answers-vary"]


def test_sides_that_repeat_themselves_have_nothing_to_tell(project: Project) -> None:
    case = the_case(project, one_case(factory="noise:steady", data="noise:data"))
    assert case["reference"]["repeat"] is case["variant"]["repeat"] is None
    assert told(case) == []


def test_an_original_with_dropout_left_on_and_the_variant_that_inherits_it(project: Project) -> None:
    case = the_case(project, one_case("{max_flips: 50%}", factory="noise:forgets", data="noise:data"))
    for side in ("reference", "variant"):
        repeat = case[side]["repeat"]
        assert repeat["examples"] == 200
        assert 0 < repeat["flips"] < 200
        assert 0 <= repeat["score"] <= 1
    own = case["reference"]["repeat"]["flips"]
    (sentence,) = told(case)
    assert sentence.startswith("the original and the variant answered the same inputs differently in two calls")
    assert f"{own} of 200 predictions of the original changed ({own / 2:g}%)" in sentence


def test_a_variant_that_is_random_and_an_original_that_is_not(project: Project) -> None:
    case = the_case(
        project, one_case("{max_flips: 50%}", recipe="add-noise", factory="noise:steady", data="noise:data")
    )
    assert case["reference"]["repeat"] is None
    assert case["reference"]["score"] == 1.0
    own = case["variant"]["repeat"]["flips"]
    assert own > 0
    (sentence,) = told(case)
    assert sentence.startswith("the variant answered the same inputs differently in two calls")
    assert f"in a second pass over the same examples {own} of 200 predictions of the variant changed" in sentence
