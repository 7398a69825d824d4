"""A recipe of the project's own, and the hook by which its conftest.py registers it."""

from __future__ import annotations

ROUND = '''
from typing import ClassVar
from pydantic import Field
from pytest_modelopt import Applied, Recipe

class Round(Recipe):
    """Round the weights of Linear to multiples of `step`."""

    recipe_name: ClassVar[str] = "round"
    summary: ClassVar[str] = "rounds the weights of Linear"
    changes: ClassVar[tuple[str, ...]] = ("Linear",)
    step: float = Field(default=0.125, gt=0)

    def apply(self, model, context):
        from torch import nn
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.data = rounded(module.weight.data, self.step)
        return Applied(model, (f"rounded to multiples of {self.step}",))

def rounded(weight, step):
    return (weight / step).round() * step
'''
HOOK = """
def pytest_modelopt_register_recipes(register):
    register(Round)
"""
