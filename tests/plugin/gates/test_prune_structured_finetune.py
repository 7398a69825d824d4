"""Recipes with the project's own training, from budgets.yaml to the table, in real pytest."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

Project = Callable[..., pytest.Pytester]

TRAINING = """
import torch
from torch.nn import functional

def recover(model, batches):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        for inputs, targets in batches():
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
"""

BUDGETS = """
version: 1
models:
  m:
    factory: shop:classifier
    data: shop:data
    calibration: shop:nearly_the_data
    recipes:
      prune-structured(ratio=0.5, finetune='training:recover'):
        max_accuracy_drop: 10 pp
        max_size: 110 kB
      prune-structured(ratio=0.5, importance=taylor, keep='0'):
        max_accuracy_drop: 100 pp
      int8-dynamic(finetune='training:recover'):
        max_accuracy_drop: 1 pp
      prune-structured(finetune='training:absent'):
        max_accuracy_drop: 100 pp
"""


def test_the_trained_variant_keeps_its_accuracy_and_is_told_apart(project: Project) -> None:
    pytester = project(BUDGETS)
    pytester.makepyfile(training=TRAINING)
    result = pytester.runpytest_subprocess("--modelopt", "-p", "no:cacheprovider", "--modelopt-report=told")
    result.assert_outcomes(passed=3, failed=1)
    record = (pytester.path / "told" / "record.json").read_text(encoding="utf-8")
    (quantized,) = (case for case in json.loads(record)["cases"] if case["recipe"].startswith("int8-dynamic"))
    assert quantized["recipe"] == "int8-dynamic(finetune='training:recover')"
    assert "was trained further by training:recover" in " ".join(quantized["coverage"]["steps"][0]["notes"])
    assert any(0 < layer["changed_bytes"] < layer["weight_bytes"] for layer in quantized["coverage"]["layers"])
    told = result.stdout.str() + record
    assert "was trained further by training:recover: its accuracy is not comparable" in told
    assert "finetune training:absent: training has no absent" in told
