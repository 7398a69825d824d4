"""Originals of every task whose score says nothing, through the gate: red with the reason, and no others."""

from __future__ import annotations

import pytest

from pytest_modelopt.cli.main import main

MODULE = """
import torch
from torch import nn

NAMES = ["ant", "bee", "fly", "wasp"]

class Net(nn.Module):
    def __init__(self, outputs=4, kind="scores"):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, outputs))
        self.kind = kind

    def forward(self, x):
        scores = self.net(x)
        if self.kind == "texts":
            return [NAMES[i] for i in scores.argmax(1).tolist()]
        if self.kind == "boxes":
            return [{"boxes": row[:2].reshape(1, 2), "label": NAMES[int(row[2:].argmax())]} for row in scores]
        if self.kind == "masked":
            return scores.masked_fill(torch.arange(4) == 0, -torch.inf), torch.full((8, 8), torch.nan)
        if self.kind == "pair":
            return scores, scores.mean()
        return scores

def inputs():
    return torch.randn(90, 16, generator=torch.Generator().manual_seed(1))

def scores(): return Net().eval()
def texts(): return Net(kind="texts").eval()
def boxes(): return Net(outputs=4, kind="boxes").eval()
def pair(): return Net(kind="pair").eval()
def masked(): return Net(kind="masked").eval()
def zeros():
    made = Net()
    nn.init.zeros_(made.net[2].weight)
    return made.eval()

def batches(targets):
    return [(inputs()[i : i + 20], targets[i : i + 20]) for i in range(0, 90, 20)]

def true_texts(): return batches(texts()(inputs()))
def upper_texts(): return batches([text.upper() for text in texts()(inputs())])
def true_boxes(): return batches([{**each, "boxes": each["boxes"] + 0.1} for each in boxes()(inputs())])
def numbers():
    with torch.no_grad():
        return batches(Net()(inputs()) + 0.1 * torch.randn(90, 4, generator=torch.Generator().manual_seed(2)))
def classes():
    return batches(masked()(inputs())[0].argmax(1))
def series():
    with torch.no_grad():
        return batches(Net()(inputs())[:1] + torch.arange(90.0)[:, None].expand(90, 4))
def other_numbers():
    return batches(torch.randn(90, 4, generator=torch.Generator().manual_seed(3)))

def exact(outputs, targets):
    assert len(outputs) == len(targets) == 90
    return sum(a == b for a, b in zip(outputs, targets)) / len(targets)

def found(outputs, targets):
    right = [(a["boxes"] - b["boxes"]).abs().max() < 0.2 and a["label"] == b["label"] for a, b in zip(outputs, targets)]
    return float(sum(right)) / len(right)

def distance(outputs, targets):
    return (outputs - targets).abs().mean()

def of_pair(outputs, targets):
    return (outputs[0] - targets).abs().mean()

def single(outputs, targets):
    return (outputs - targets).abs().mean(1)

def revenue(outputs, targets):
    return outputs.sum()

exact.higher_is_better = found.higher_is_better = revenue.higher_is_better = True
distance.higher_is_better = of_pair.higher_is_better = single.higher_is_better = False
"""

FINE = {
    "texts": ("texts", "true_texts", "useless:exact"),
    "boxes": ("boxes", "true_boxes", "useless:found"),
    "numbers": ("scores", "numbers", "useless:distance"),
    "pair": ("pair", "numbers", "useless:of_pair"),
    "masked": ("masked", "classes", "accuracy"),
    "single": ("scores", "numbers", "{name: 'useless:single', per_example: true}"),
    "class": ("scores", "numbers", "torchmetrics.regression.MeanAbsoluteError"),
    "of no pair": ("scores", "other_numbers", "useless:revenue"),
    "a series": ("zeros", "series", "useless:distance"),
    "unlabelled": ("zeros", "other_numbers", "cosine"),
}
USELESS = {
    "other spelling": ("texts", "upper_texts", "useless:exact"),
    "constant": ("zeros", "other_numbers", "useless:distance"),
    "constant, single": ("zeros", "other_numbers", "{name: 'useless:single', per_example: true}"),
    "constant, class": ("zeros", "other_numbers", "torchmetrics.regression.MeanSquaredError"),
    "worst": ("texts", "upper_texts", "{name: torchmetrics.text.WordErrorRate}"),
}


def budgets(models: dict[str, tuple[str, str, str]]) -> str:
    lines = ["version: 1", "models:"]
    for name, (factory, data, metric) in models.items():
        drop = "100 pp" if metric == "accuracy" else 0.9 if "WordErrorRate" in metric else 100  # beyond it no WER goes
        lines += [
            f"  {name!r}:",
            f"    factory: useless:{factory}",
            f"    data: useless:{data}",
            f"    metric: {metric}",
            f"    recipes: {{prune-unstructured(ratio=0.01): {{max_accuracy_drop: {drop}}}}}",
        ]
    return "\n".join(lines)


@pytest.mark.parametrize(("models", "outcome"), [(FINE, "passed"), (USELESS, "failed")])
def test_an_original_is_asked_whether_its_score_says_anything(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    models: dict[str, tuple[str, str, str]],
    outcome: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # of a narrow terminal, the line that is looked for would be two
    pytester.makepyfile(useless=MODULE)
    (pytester.path / "budgets.yaml").write_text(budgets(models), encoding="utf-8")
    result = pytester.runpytest("--modelopt", "--modelopt-report=report", "--modelopt-time-limit=1 ms")
    result.assert_outcomes(**{outcome: len(models)})
    assert main(["report", "report/record.json"]) == (outcome == "failed"), "the record alone tells it, too"
    if outcome == "failed":
        for name in models:
            drop = 0.9 if name == "worst" else 100
            result.stdout.fnmatch_lines([f"{name}/*max_accuracy_drop {drop} was not measured, which counts as broken*"])
        result.stdout.fnmatch_lines(
            [
                "*the original itself scores 0, and 0 with each answer beside the target of the next example (90 *",
                "*the original itself scores 1, the worst that WordErrorRate can give*",
            ]
        )
