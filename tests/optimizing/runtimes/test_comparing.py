"""How far a converted program's outputs are from the model's: each by its own scale, and the same in form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pytest_modelopt.optimizing.runtimes.comparing import difference

LOGITS = torch.tensor([[4.0, -2.0]])


@pytest.mark.parametrize(
    ("answer", "apart"),
    [
        (LOGITS, 0.0),
        (LOGITS + 0.04, 0.01),
        (LOGITS[:, :1], math.inf),
        ((LOGITS, LOGITS), math.inf),
        (None, math.inf),
    ],
)
def test_one_output(answer: Any, apart: float) -> None:
    assert difference(answer, LOGITS) == pytest.approx(apart, rel=1e-5)


def test_an_output_that_is_zero_up_to_rounding_is_held_against_the_others() -> None:
    """1e-9 beside 4: of itself it would differ by 200%. Alone it has no other to be held against."""
    assert difference((LOGITS, torch.tensor(-1e-9)), (LOGITS, torch.tensor(1e-9))) == pytest.approx(2e-9 / 4e-5)
    assert difference(torch.tensor(-1e-9), torch.tensor(1e-9)) == pytest.approx(2.0)
    assert difference((LOGITS, torch.tensor(0.4)), (LOGITS, torch.tensor(0.2))) == pytest.approx(1.0)
