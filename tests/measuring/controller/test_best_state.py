"""The canary's shortest time: kept in the user's cache folder, apart for each kind of work that it follows."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from pytest_modelopt.measuring.controller.timing import best_state
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.selftest.trial import trial
from pytest_modelopt.statistics.samples import Samples
from pytest_modelopt.statistics.timing import Estimate, speedup

SMALL, LARGE = (best_state.behind_blocks(1, are_large=are_large) for are_large in (False, True))
SOURCE = """
import torch

def small():
    return torch.nn.Linear(64, 64)

def large():
    return torch.nn.Linear(4096, 1536)

def data():
    return torch.zeros(8, 64), torch.zeros(8, dtype=torch.long)

def wide():
    return torch.zeros(8, 4096), torch.zeros(8, dtype=torch.long)
"""


def files() -> list[Path]:
    return list((Path(os.environ["XDG_CACHE_HOME"]) / "pytest-modelopt").glob("canary-*.json"))


def test_the_shortest_time_is_kept_for_each_kind_of_work() -> None:
    """Behind a large model the canary takes longer on a machine left alone, too: that is no slow state."""
    loading = best_state.behind_loading(1)
    assert len({SMALL, LARGE, loading, best_state.behind_blocks(2, are_large=False)}) == 4
    assert best_state.canary_at_best_ns(SMALL) is None
    assert [best_state.note_canary(SMALL, taken) for taken in (25, 20, 22)] == [25, 20, 20]
    assert best_state.canary_at_best_ns(LARGE) is None
    assert best_state.note_canary(LARGE, 30) == 30
    assert best_state.note_canary(loading, 40) == 40
    assert best_state.canary_at_best_ns(SMALL) == 20


def test_another_process_knows_it_and_a_damaged_file_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    best_state.note_canary(SMALL, 20)
    (file,) = files()
    monkeypatch.setattr(best_state, "_known", {})
    assert best_state.canary_at_best_ns(SMALL) == 20
    for text in ("[", "[20]", json.dumps({SMALL: "20"}), json.dumps({SMALL: -1}), json.dumps({SMALL: True})):
        file.write_text(text, encoding="utf-8")
        assert best_state.canary_at_best_ns(SMALL) is None, text


@pytest.mark.parametrize(("model", "data", "work"), [("small", "data", SMALL), ("large", "wide", LARGE)])
def test_a_comparison_knows_how_large_its_models_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, data: str, work: str
) -> None:
    looked_at: list[Samples] = []

    def noted(samples: Samples) -> Estimate:
        looked_at.append(samples)
        return speedup(samples)

    monkeypatch.setattr(sys.modules[trial.__module__], "speedup", noted)
    (tmp_path / "of_sizes.py").write_text(SOURCE, encoding="utf-8")
    variant = Variant(
        f"of_sizes:{model}", None, f"of_sizes:{data}", None, None, MetricSpec(), (str(tmp_path),), str(tmp_path)
    )
    conditions = trial(variant, min_speedup=0.01, time_limit_s=5.0, folder=tmp_path).timing.conditions
    (file,) = files()
    assert list(json.loads(file.read_text(encoding="utf-8"))) == [work]
    assert conditions.canary_at_best_ns == best_state.canary_at_best_ns(work)
    assert {conditions.are_large, *(samples.are_large for samples in looked_at)} == {work == LARGE}
    assert looked_at, "limits are decided while the pairs are taken"
