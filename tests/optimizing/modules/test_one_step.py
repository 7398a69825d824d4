"""Decoders in recipes that follow forward: without their cache, and refused where forward is a loop over steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.optimizing.modules.one_step import one_step, refuse_loop
from pytest_modelopt.optimizing.recipe import RecipeError
from tests.optimizing.recipe_models import run

VOCABULARY, WIDTH = 32, 16


class Cache:
    """As transformers': torch knows nothing of what is in it."""

    def __init__(self, keys: torch.Tensor) -> None:
        self.keys = keys


class Decoder(nn.Module):
    """Returns its cache beside the logits, unless its config says otherwise."""

    def __init__(self, config: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = config
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.body = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids: torch.Tensor) -> Any:
        hidden = self.table(ids).cumsum(1)
        logits = self.head(torch.tanh(self.body(hidden)))
        if self.config is not None and not self.config.use_cache:
            return {"logits": logits}
        return {"logits": logits, "cache": Cache(hidden)}


class Generates(nn.Module):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.step, self.steps = Decoder(), steps

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        for _ in range(self.steps):
            ids = torch.cat([ids, self.step(ids)["logits"][:, -1:].argmax(-1)], 1)
        logits: torch.Tensor = self.step(ids)["logits"]
        return logits


class Towers(nn.Module):
    """One encoder for several texts that are all given: no step depends on another one."""

    def __init__(self, texts: int) -> None:
        super().__init__()
        self.encoder, self.texts = Decoder(), texts

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.encoder(ids + text)["logits"].mean(1) for text in range(self.texts)])


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = (torch.zeros(len(x), 8), torch.zeros(len(x), 8))
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return state[0]


def ids() -> torch.Tensor:
    return torch.arange(12).view(2, 6)


@pytest.mark.parametrize("config", [None, SimpleNamespace(use_cache=True)])
def test_the_cache_is_left_out_for_the_time_of_the_block_and_told(config: Any) -> None:
    model = Decoder(config).eval()
    before = run(model, ids())
    with one_step(model, ids()) as notes:
        answer = run(model, ids())
        exported = torch.export.export(model, (ids(),)).module()(ids())
    assert answer.get("cache") is None
    assert torch.equal(answer["logits"], before["logits"])
    torch.testing.assert_close(exported["logits"], before["logits"])
    assert "the cache that a call returns (Cache) is left out" in " ".join(notes)
    assert isinstance(run(model, ids())["cache"], Cache)
    assert config is None or config.use_cache is True


def test_nothing_is_done_to_a_model_without_one() -> None:
    model = nn.Linear(4, 4)
    with one_step(model, torch.randn(2, 4)) as notes:
        assert not model._forward_hooks
    assert notes == ()


@pytest.mark.parametrize("steps", [3, 40])
def test_a_loop_that_feeds_itself_is_refused_by_name(steps: int) -> None:
    with pytest.raises(
        RecipeError, match=rf"goes through `step` {steps + 1} times in one call, taking its next tokens"
    ):
        refuse_loop(Generates(steps).eval(), ids(), "onnxruntime")


def test_a_long_loop_of_any_kind_is_refused_and_a_short_one_is_not() -> None:
    refuse_loop(Cells(), torch.randn(2, 20, 4), "onnxruntime")
    with pytest.raises(RecipeError, match="goes through `cell` 300 times in one call, as a loop over a sequence does"):
        refuse_loop(Cells(), torch.randn(2, 300, 4), "onnxruntime")


@pytest.mark.parametrize("model", [Decoder(), Towers(6), Generates(1)])
def test_one_pass_and_towers_of_one_encoder_are_no_loop(model: nn.Module) -> None:
    refuse_loop(model.eval(), ids(), "onnxruntime")
