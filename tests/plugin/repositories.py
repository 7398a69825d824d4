"""A user's project under git, for checks of head against base: what a change changes stands in its settings."""

from __future__ import annotations

import subprocess

import pytest
import torch
from torch import nn

from pytest_modelopt.results import json as record_json
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.record import Record

GROWS = "{max_memory_growth: 5%, max_size_growth: 5%, max_accuracy_loss: 1 pp, max_slowdown: 50%}"

MODELS = '''
"""Models and data of the project under test; what a change would change stands in `settings`."""
import pathlib
import torch
from torch import nn
import settings

HERE = pathlib.Path(__file__).parent

def mlp(width):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)).eval()

def steady():
    model = mlp(256)
    model.load_state_dict(torch.load("weights.pt", weights_only=True))
    return model

def wide():
    return mlp(settings.WIDTH)

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlp(256)
    def forward(self, x):
        for _ in range(settings.TIMES):
            answer = self.body(x)
        return answer

def slow():
    return Slow().eval()

def fragile():
    if settings.BROKEN:
        raise FileNotFoundError("weights/best.pt")
    return mlp(32)

def data():
    inputs = torch.randn(settings.EXAMPLES, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, mlp(256)(inputs).argmax(1)
'''
SETTINGS = {"WIDTH": 256, "TIMES": 1, "BROKEN": False, "EXAMPLES": 200}


def model(name: str, regression: str = GROWS, recipes: str = "int8-dynamic: {}") -> str:
    return (
        f"  {name}:\n    factory: shop:{name}\n    data: shop:data\n    regression: {regression}\n"
        f"    recipes:\n      {recipes}\n"
    )


class Repository:
    """A user's project under git, in the folder of a pytester."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester, self.path = pytester, pytester.path
        pytester.makepyfile(shop=MODELS)
        self.settings()
        self.git("init", "--quiet", "--initial-branch=main")
        self.write(".gitignore", "report/\n__pycache__/\n")
        self.train()

    def settings(self, **changed: object) -> None:
        text = "".join(f"{name} = {value!r}\n" for name, value in (SETTINGS | changed).items())
        self.write("settings.py", text)

    def train(self, favourite: int | None = None) -> None:
        """Write the weights of `shop.mlp(256)`, which then prefer a class to all others."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
        if favourite is not None:
            with torch.no_grad():
                model.get_parameter("2.bias")[favourite] += 9
        torch.save(model.state_dict(), self.path / "weights.pt")

    def budgets(self, *models: str, time_limit: str = "1 ms") -> None:
        """So short a time gives a single pair, which decides nothing: tests of verdicts on time give more."""
        self.write("budgets.yaml", f"version: 1\ndefaults: {{time_limit: {time_limit}}}\nmodels:\n" + "".join(models))

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
        done = subprocess.run(["git", *who, *arguments], cwd=self.path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a commit")
        return self.git("rev-parse", "HEAD")

    def run(self, *arguments: str) -> pytest.RunResult:
        return self.pytester.runpytest("--modelopt", "--modelopt-report=report", "-p", "no:cacheprovider", *arguments)

    def against(self, revision: str, *arguments: str) -> pytest.RunResult:
        return self.run("--modelopt-against", revision, *arguments)

    @property
    def record(self) -> Record:
        return record_json.read(self.path / "report" / "record.json")

    @property
    def cases(self) -> dict[str, Case]:
        """Those against the base, by name."""
        return {case.name: case for case in self.record.cases if case.base is not None}

    def is_as_it_was(self) -> bool:
        """Whether git knows of no other worktree, and the user's files are those of before."""
        return len(self.git("worktree", "list").splitlines()) == 1


def outcomes(case: Case) -> dict[str, str]:
    return {verdict.limit.name: verdict.outcome for verdict in case.verdicts}
