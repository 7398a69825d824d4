"""A small project of a user, in which real pytest runs: a classifier whose labels it knows, and its budgets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

MODELS = '''
"""Models and data of the project under test."""
import os
import torch
from torch import nn

def classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10)).eval()

def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)).eval()

def only_convolutions():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()).eval()

def data():
    """200 examples, labelled by the model itself, so that the original is always right."""
    inputs = torch.randn(200, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, classifier()(inputs).argmax(1)

def nearly_the_data():
    """What a model learns from it holds for `data`, too, though no example is the same to the bit."""
    inputs, targets = data()
    return inputs * (1 + 2**-16), targets

def images():
    """50 examples, labelled by `convolutions`."""
    inputs = torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, convolutions()(inputs).argmax(1)

def kills_itself():
    print("loading the checkpoint")
    os.kill(os.getpid(), 9)

def in_training_mode():
    return classifier().train()

def raises():
    raise FileNotFoundError("weights/best.pt")

def no_module():
    return classifier().state_dict()

class NotANumber(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
    def forward(self, x):
        return self.layer(x) / 0

def not_a_number():
    return NotANumber().eval()

def empty():
    return torch.zeros(0, 64), torch.zeros(0, dtype=torch.long)

def too_few_targets():
    inputs, targets = data()
    return inputs, targets[:-1]

def misfit():
    return torch.zeros(10, 7), torch.zeros(10, dtype=torch.long)

def raises_in_the_middle():
    yield data()
    raise OSError("gone")

def changes_form():
    inputs, targets = data()
    yield inputs, targets
    yield (inputs, inputs), targets

def other_each_time():
    inputs, targets = data()
    return inputs + os.getpid(), targets
'''

BUDGETS = """
version: 1
models:
  classifier:
    factory: shop:classifier
    data: shop:data
    recipes:
      int8-dynamic:
        max_memory: 1 MB
        max_accuracy_drop: 10 pp
      low-rank(ratio=0.5):
        max_accuracy_drop: 100 pp
  images:
    factory: shop:convolutions
    data: shop:images
    recipes:
      prune-unstructured(ratio=0.5):
        max_size: 1 MB
"""


def is_timed(text: str) -> bool:
    """Whether a budgets file or a test says something about time."""
    return any(word in text for word in ("min_speedup", "max_latency", "max_slowdown", "time_limit"))


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.Pytester]:
    """Writes shop.py and budgets.yaml (or the text given for it; None for no file) into a fresh folder.

    Unless it names a limit on time, or with `timed`, a comparison is timed for a moment only.
    """

    monkeypatch.delenv("COLUMNS", raising=False)  # a log has no width, whatever runs these tests

    def make(budgets: str | None = BUDGETS, *, timed: bool = False) -> pytest.Pytester:
        if not timed and not is_timed(budgets or ""):
            monkeypatch.setenv("PYTEST_ADDOPTS", "--modelopt-time-limit=1ms", prepend=" ")
        pytester.makepyfile(shop=MODELS)
        if budgets is not None:
            (pytester.path / "budgets.yaml").write_text(budgets, encoding="utf-8")
        return pytester

    return make


def one_case(
    limits: str = "", *, recipe: str = "int8-dynamic", factory: str = "shop:classifier", data: str = "shop:data"
) -> str:
    """A budgets file with one model and one recipe; `limits` is a flow mapping such as `{max_memory: 1 MB}`."""
    return (
        f"version: 1\nmodels:\n  m:\n    factory: {factory}\n    data: {data}\n    recipes:\n      {recipe}: {limits}\n"
    )


def with_broken_model(*recipes: str) -> str:
    """A budgets file with these recipes of the classifier, each with its limits, and a model that cannot be loaded."""
    listed = "".join(f"      {recipe}\n" for recipe in recipes)
    return f"""
version: 1
models:
  classifier:
    factory: shop:classifier
    data: shop:data
    recipes:
{listed}  broken:
    factory: shop:raises
    data: shop:data
    recipes:
      int8-dynamic:
"""


LIVE = """
import pytest
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(64, 512)
        self.head = nn.Linear(512, 4)

    def forward(self, x):
        return self.head(torch.relu(self.body(x)))

def net():
    torch.manual_seed(0)
    return Net().eval()

def labelled(model):
    inputs = torch.randn(100, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, model(inputs).argmax(1)
"""


def collected(pytester: pytest.Pytester, *arguments: str) -> list[str]:
    """The node ids of the cases of budgets.yaml that these arguments select."""
    result = pytester.runpytest("--modelopt", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments)
    return [line for line in result.outlines if line.startswith("budgets.yaml::")]


def run(
    project: Callable[..., pytest.Pytester], tests: str, *arguments: str, budgets: str | None = None
) -> pytest.RunResult:
    pytester = project(budgets, timed=is_timed(tests))
    (pytester.path / "test_it.py").write_text(LIVE + tests, encoding="utf-8")
    return pytester.runpytest("--modelopt", "-p", "no:cacheprovider", *arguments)
