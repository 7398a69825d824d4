"""prune-structured on every kind of model and trap: smaller, told, reloaded, and the same bits at each making."""

from __future__ import annotations

import pytest
import torch
from recipe_models import KINDS, TRAPS, apply, make, outputs, run, saved_and_loaded

from pytest_modelopt.recipes.optimize import RecipeDidNothing

EXPRESSIONS = ("prune-structured(ratio=0.5, heads=true)", "prune-structured(ratio=0.25, round_to=1)")


@pytest.mark.parametrize("kind", [*KINDS, *TRAPS])
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_kind_of_model(expression: str, kind: str) -> None:
    model, inputs = make(kind)
    if kind == "tied":
        with pytest.raises(RecipeDidNothing, match="another module shares a weight with them"):
            apply(expression, model, inputs)
        return
    original, size = outputs(run(model, inputs)), sum(parameter.nbytes for parameter in model.parameters())
    optimization = apply(expression, model, inputs)
    variant = optimization.model
    answers = outputs(run(variant, inputs))
    assert [answer.shape for answer in answers] == [answer.shape for answer in original]
    assert sum(parameter.nbytes for parameter in variant.parameters()) < size
    assert 0 < optimization.coverage.share <= 1
    assert optimization.notes[0].startswith("removed ")
    reloaded = outputs(run(saved_and_loaded(variant), inputs))
    again = outputs(run(apply(expression, *make(kind)).model, inputs))
    for answer, one, other in zip(answers, reloaded, again, strict=True):
        assert torch.equal(answer, one)
        assert torch.equal(answer, other)
