"""What the doctor finds stands under the broken limit: in the terminal, the record, the summary, JUnit and GitHub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.cli.shared.judged_records import read_judged
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.results.json import read
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.verdicts import Finding
from tests.plugin.small_project import one_case

Project = Callable[..., pytest.Pytester]

MODELS = '''
import os
import traceback
import torch
from torch import nn

def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    ).eval()

def inputs():
    return torch.randn(80, 1, 8, 8, generator=torch.Generator().manual_seed(1))

def images():
    """Labelled by the model itself: the original is always right."""
    with torch.no_grad():
        return inputs(), cnn()(inputs()).argmax(1)

def few():
    """Ten grey images, one grey each, all of one class."""
    return torch.arange(10.0).reshape(10, 1, 1, 1).expand(10, 1, 8, 8), torch.zeros(10, dtype=torch.long)

def wrong_labels():
    """Labels that have nothing to do with the model, which guesses, then, or answers one class."""
    return inputs(), torch.arange(80) % 4

class DiesOnce(nn.Sequential):
    """Kills its process in the calls with which the doctor looks at it, once."""
    def forward(self, x):
        callers = {os.path.basename(frame.filename) for frame in traceback.extract_stack()}
        if "observe.py" in callers and not os.path.exists("died"):
            open("died", "w").close()
            os._exit(1)
        return super().forward(x)

def dies_once():
    torch.manual_seed(0)
    return DiesOnce(nn.Flatten(), nn.Linear(64, 4)).eval()

def own_labels():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with torch.no_grad():
        return inputs(), model(inputs()).argmax(1)
'''


def case(limits: str, *, recipe: str = "int8-dynamic", data: str = "images", more: str = "") -> str:
    text = one_case(limits, recipe=recipe, factory="zoo:cnn", data=f"zoo:{data}")
    return text.replace("    recipes:", f"{more}    recipes:")


@pytest.fixture
def zoo(project: Project) -> Project:
    def make(budgets: str) -> pytest.Pytester:
        pytester = project(budgets)
        pytester.makepyfile(zoo=MODELS)
        return pytester

    return make


def test_the_sentence_stands_under_the_broken_limit_everywhere(
    zoo: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytester = zoo(case("{min_size_reduction: 50%, min_coverage: 50%}"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    monkeypatch.setenv("COLUMNS", "400")
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report", "--junitxml", "junit.xml")
    result.assert_outcomes(failed=1)
    # By hand: (16 * 9 + 16 + 16 * 16 * 9 + 16) * 4 = 9,920 of 10,192 bytes; 36 * 144 + 16 * 2304 = 42,048 of 42,112.
    sentence = (
        "2 Conv2d (9.69 KiB, 97.3% of the weight bytes, 99.8% of the multiply-adds) were left as in the original: "
        "int8-dynamic changes *Linear* only; Conv2d is changed by *int8-static*"
    )
    result.stdout.fnmatch_lines(
        [
            "m/int8-dynamic: min_size_reduction 50% is broken: *",
            "  of the saved file what is no tensor in it *",  # the packed layer's module takes more than it saved
            "m/int8-dynamic: min_coverage 50% is *",
            f"  {sentence}",
        ],
        consecutive=True,
    )
    assert result.stdout.str().count("2 Conv2d (9.69 KiB") == 1, "once, though it explains both limits"
    annotations = [line for line in result.outlines if line.startswith("::error")]
    assert len(annotations) == 2
    assert annotations[1].endswith("::min_coverage 50%25: 2.51%25 (-47 pp)")

    found = json.loads((pytester.path / "report" / "record.json").read_text(encoding="utf-8"))["cases"][0]["findings"]
    (left_alone,) = [finding for finding in found if finding["rule"] == "left-alone"]  # a CPU may have its own
    assert "size" in left_alone["explains"]
    (convolutions,) = left_alone["parameters"]["types"]
    assert (convolutions["type"], convolutions["layers"], convolutions["weight_bytes"]) == ("Conv2d", 2, 9920)
    assert convolutions["multiply_adds_share"] == 42_048 / 42_112
    summary = (pytester.path / "report" / "summary.md").read_text(encoding="utf-8")
    assert summary.count("- 2 Conv2d (9.69 KiB") == 1
    assert 'name="modelopt.finding.left-alone"' in (pytester.path / "junit.xml").read_text(encoding="utf-8")

    capsys.readouterr()
    assert main(["report", "-v", str(pytester.path / "report" / "record.json")]) == 1
    told = capsys.readouterr().out
    assert "FAIL m/int8-dynamic: min_size_reduction 50% is broken: " in told
    assert told.count("2 Conv2d (9.69 KiB") == 1
    assert "changed: weight bytes / multiply-adds" in told
    assert re.search(r"int8-dynamic +2\.51% / 0\.15% ", told)


def test_the_layer_that_reaches_the_peak_is_named_under_the_limit(
    zoo: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    result = zoo(case("{max_memory: 1 kB}")).runpytest("--modelopt")
    result.assert_outcomes(failed=1)
    sentence = "beside what it holds, a call takes * at its peak, * of it for `2` (Conv2d) in aten::conv2d (a call of *"
    result.stdout.fnmatch_lines(["m/int8-dynamic: max_memory 1 kB is broken: *", f"  {sentence}"])


def test_a_finding_that_speaks_of_limits_follows_other_limits(
    zoo: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytester = zoo(case("{max_size: 1 GB}"))
    monkeypatch.delenv("PYTEST_ADDOPTS")
    pytester.runpytest("--modelopt", "--modelopt-report", "report").assert_outcomes(passed=1)
    (pytester.path / "budgets.yaml").write_text(case("{min_speedup: 100x}"), encoding="utf-8")
    monkeypatch.chdir(pytester.path)
    capsys.readouterr()
    assert main(["report", "report/record.json", "--budgets", "budgets.yaml"]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "int8-dynamic changed only layers that do 0.152% of the multiply-adds" in told


def test_no_drop_from_an_original_that_only_guesses_is_kept(zoo: Project) -> None:
    result = zoo(case("{max_accuracy_drop: 5 pp, max_flips: 50%}", data="wrong_labels")).runpytest("--modelopt")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["m/int8-dynamic: max_accuracy_drop 5 pp was not measured, which counts as broken (the original *"]
    )
    result.stdout.fnmatch_lines(["*check that the factory loads the trained weights*"])


def test_thin_calibration_is_said_though_all_limits_hold(zoo: Project) -> None:
    pytester = zoo(case("{max_size: 1 GB}", recipe="int8-static", more="    calibration: zoo:few\n"))
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report")
    result.assert_outcomes(passed=1)
    told = "each calibration example is one single value *"
    result.stdout.fnmatch_lines([f"NOTE m/int8-static: {told}"])
    summary = (pytester.path / "report" / "summary.md").read_text(encoding="utf-8")
    assert "- m/int8-static: each calibration example is one single value" in summary.partition("<details>")[0]


def test_a_look_that_kills_the_worker_costs_the_case_nothing(zoo: Project) -> None:
    budgets = case("{max_size: 1 GB}", recipe="prune-unstructured(ratio=0.5)").replace("zoo:cnn", "zoo:dies_once")
    pytester = zoo(budgets.replace("zoo:images", "zoo:own_labels"))
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report", "-v")
    assert (pytester.path / "died").exists(), "otherwise this test shows nothing"
    result.assert_outcomes(passed=1)
    (told,) = read(pytester.path / "report" / "record.json").cases
    sides = [told.reference, told.variant]
    unobserved = [side.observations.unobserved for side in sides if side and side.observations]
    assert [sorted(reasons) for reasons in unobserved] == [["everything"], []]
    result.stdout.fnmatch_lines(["NOTE m (original): what the doctor looks at (everything) was not measured: *"])


def test_a_recipe_that_only_claims_is_an_error_of_its_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_modelopt.measuring.variant import Variant
    from pytest_modelopt.plugin.session import Session
    from tests.diagnosis.cases_by_hand import variant_with
    from tests.reporting.records_by_hand import ENVIRONMENT

    class Finished:
        """Stands for a runner that has measured."""

        environment = ENVIRONMENT

        def measure(self, case: Any, variant: Any, lacking: Any, **others: Any) -> Any:
            return replace(variant_with("bf16", digest="a", answers="a"), id=case.id)

    none: Any = None
    session: Any = Session(options=none, budgets=none, working_directory=tmp_path, progress=none)
    session._runner = Finished()
    variant = Variant("m:f", parse("bf16"), None, None, None, MetricSpec(), (), str(tmp_path))
    told = session.run("id", "m", (), variant)
    assert told.error is not None
    assert told.error.stage == "compare"
    assert told.error.message.startswith("nothing was compared: after bf16 the variant is the original")
    assert told.findings == ()


def test_a_test_can_ask_for_what_was_found() -> None:
    from pytest_modelopt.plugin.comparison import Comparison
    from tests.diagnosis.cases_by_hand import sound

    finding = Finding("masks-only", {"weights": 1, "mask_bytes": 4}, ("size",))
    assert Comparison(sound(findings=(finding,))).findings == (finding,)


WRONG = """version: 1
models:
  reader:
    factory: shop:classifier
    data: shop:data
    candidates:
      of-bytes: {factory: made:of_bytes, max_accuracy_drop: 5 pp}
      shifted: {factory: made:shifted}
      healthy: {factory: made:healthy, max_accuracy_drop: 5 pp}
"""
MADE = """
from shop import *

class Changed(nn.Module):
    def __init__(self, scale, shift):
        super().__init__()
        self.model, self.scale, self.shift = classifier(), scale, shift

    def forward(self, x):
        return self.model(x * self.scale) + self.shift * torch.arange(10)

def of_bytes():
    return Changed(1 / 255, 0).eval()

def shifted():
    return Changed(1, 5).eval()

def healthy():
    return Changed(0.99, 0).eval()
"""


def test_a_candidate_that_is_wrong_alike_is_tried_on_inputs_that_are_prepared_otherwise(project: Project) -> None:
    """Also without a limit on its answers, where most of them are others; one that is right costs nothing."""
    pytester = project(WRONG)
    pytester.makepyfile(made=MADE)
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=1)
    told = " ".join(result.stdout.str().split())
    assert "with its inputs multiplied by 255 the candidate agrees with the original in 100% of 64 answers" in told
    assert "lie beside the original's by a constant, the same for all of 64 answers (output 9: 45)" in told
    cases = {case.recipe: case for case in read_judged(pytester.path / "report" / "record.json").cases}
    tried = {name: case.variant and case.variant.observations for name, case in cases.items()}
    assert [bool(seen and seen.other_inputs) for seen in tried.values()] == [True, True, False]
    found = [[finding.rule for finding in case.findings] for case in cases.values()]
    assert ["wrong-alike" in rules for rules in found] == [True, True, False]
