"""Models with layers that do not behave like their class, in a user's project: judged by what the recipe costs."""

from __future__ import annotations

import pytest

from pytest_modelopt.results.json import read

MODELS = '''
import functools
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, 192), nn.Tanh(), nn.Linear(192, 192), nn.Tanh(), nn.Linear(192, 8)).eval()

def adapted():
    """The layer answers in another order than its weights say, as an adapter that was put over its forward."""
    model = net()
    layer, before = model[2], model[2].forward
    layer.forward = functools.partial(lambda layer, x: before(x).roll(1, -1), layer)
    return model

def told():
    """A hook takes the keyword arguments, too."""
    model = net()
    model[0].register_forward_pre_hook(lambda layer, args, kwargs: ((-args[0],), kwargs), with_kwargs=True)
    return model

def normed():
    model = net()
    nn.utils.weight_norm(model[0])
    return model.eval()

def parametrized():
    model = net()
    nn.utils.parametrizations.weight_norm(model[0])
    return model.eval()

def labelled(make):
    x = torch.randn(200, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, make()(x).argmax(1)

def calibration():
    return torch.randn(64, 48, generator=torch.Generator().manual_seed(2))
'''
FACTORIES = ("adapted", "told", "normed", "parametrized")
RECIPES = (
    "int8-dynamic",
    "int8-weight-only",
    "int8-static",
    "torchao-int8-weight-only",
    "prune-unstructured(ratio=0.05)",
)
MODEL = """
  {name}:
    factory: mine:{name}
    data: mine:of_{name}
    calibration: mine:calibration
    budget: {{max_flips: 10%, max_size: 1 MB, max_memory: 1 MB}}
    recipes: {{{recipes}}}
"""


def test_recipes_are_judged_by_what_they_cost_and_leave_such_layers_alone(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist's workers have it
    data = "".join(f"def of_{name}():\n    return labelled({name})\n\n" for name in FACTORIES)
    pytester.makepyfile(mine=MODELS + data)
    recipes = ", ".join(f'"{recipe}": {{}}' for recipe in RECIPES)
    models = "".join(MODEL.format(name=name, recipes=recipes) for name in FACTORIES)
    (pytester.path / "budgets.yaml").write_text(f"version: 1\nmodels:{models}", encoding="utf-8")
    quick = ("--modelopt-time-limit=1 ms", "-p", "no:cacheprovider", "-v")
    result = pytester.runpytest("--modelopt", "--modelopt-report=report", *quick)
    result.assert_outcomes(passed=len(FACTORIES) * len(RECIPES))
    record = read(pytester.path / "report" / "record.json")
    notes = {
        (case.model, case.recipe): " ".join(note for step in case.coverage.steps for note in step.notes)
        for case in record.cases
        if case.coverage is not None
    }
    assert 'remove_weight_norm(layer, "weight")' in notes["normed", "int8-dynamic"]
    assert 'remove_parametrizations(layer, "weight")' in notes["parametrized", "int8-dynamic"]
    left = {model: [line for line in result.outlines if _tells_layers(line, model)] for model in FACTORIES}
    assert {model: len(lines) for model, lines in left.items()} == dict.fromkeys(FACTORIES, 1)
    assert left["adapted"][0].startswith(
        f"NOTE adapted ({', '.join(RECIPES[:4])}): 1 layer is left as it is, `2`: they have a `forward` of their own"
    )
    assert left["told"][0].startswith(
        f"NOTE told ({', '.join(RECIPES[:3])}): 1 layer is left as it is, `0`: they carry"
    )
    for model, remover in (("normed", "remove_weight_norm"), ("parametrized", "remove_parametrizations")):
        assert left[model][0].startswith(f"NOTE {model} ({', '.join(RECIPES)}): 1 layer is left as it is, `0`: ")
        assert remover in " ".join(result.outlines[result.outlines.index(left[model][0]) :][:3])
    summary = (pytester.path / "report" / "summary.md").read_text(encoding="utf-8")
    assert summary.count("left as it is, &#96;2&#96;: they have a") == 1
    for recipe in RECIPES[:4]:
        assert "they have a `forward` of their own, which would be lost" in notes["adapted", recipe]


def _tells_layers(line: str, model: str) -> bool:
    return line.startswith(f"NOTE {model} (") and "layer is left" in line
