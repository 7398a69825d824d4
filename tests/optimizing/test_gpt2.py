"""GPT-2 as transformers makes it, briefly trained, through every built-in recipe: each works or says why not."""

from __future__ import annotations

import copy
import functools
import re
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from pytest_modelopt.optimizing.apply import optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from pytest_modelopt.optimizing.registry import BUILT_IN

TEXT = b"a gate that lies is worse than no gate at all, since everybody trusts it; " * 8
LENGTH = 32
SHARED = "the weight that `transformer.wte` and `lm_head` share (64 KiB) stays as it is"
TAKEN = "8 Conv1D (388 KiB) taken as Linear: each answers as one does, with its weight transposed"
CACHE = "the cache that a call returns (DynamicCache) is left out"

WORKS: dict[str, tuple[float, tuple[str, ...]]] = {
    "int8-dynamic": (0.05, (TAKEN, SHARED)),
    "int8-weight-only": (0.05, (TAKEN,)),
    "torchao-int8-dynamic": (0.05, (TAKEN, SHARED)),
    "torchao-int8-weight-only": (0.05, (TAKEN, SHARED, "1 Embedding and 8 Linear hold 8.47 bits a weight")),
    "torchao-int8-weight-only(group=32)": (0.05, ("hold 9.25 bits a weight, scales included",)),
    "bf16": (0.1, ()),
    "fp16": (0.05, ()),
    "prune-unstructured(ratio=0.2)": (0.3, (TAKEN, SHARED)),
    "prune-structured(ratio=0.1)": (1.0, (TAKEN, SHARED)),
    "prune-structured(ratio=0.25, heads=true)": (4.0, ("2 of 8 attention heads",)),
    "low-rank(ratio=0.9)": (0.6, (TAKEN, SHARED)),
    "onnxruntime-int8-dynamic": (0.1, (TAKEN, CACHE)),
}
"""By how much the loss may rise, in nats a token, where that of an untrained model is 5.5; and what the notes say."""
REFUSED = {
    "int8-static": "a decorator stands around its forward, which torch.fx cannot look through",
    "prune-unstructured(ratio=0.9) + sparse-csr": "fewer than 65,536 weights each",
    "channels-last": "channels-last changes Conv2d, Conv3d, ConvTranspose2d and ConvTranspose3d only",
    "fold-batchnorm": "the model holds no batch norm",
    "sparse-2:4": "only tensor cores skip zeros of this pattern",
    "torchao-float8-dynamic": "a CPU has no float8 arithmetic",
}
BY_HAND = {
    "compile", "torchao-pt2e-int8", "litert", "litert-int8", "onnxruntime", "onnxruntime-int8-static", "openvino",
    "openvino-int8",
}  # fmt: skip
"""They follow the same forward pass as onnxruntime-int8-dynamic does, and take many seconds each."""


@functools.cache
def trained() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=256, n_positions=64, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        loss(model).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


@functools.cache
def tokens() -> torch.Tensor:
    return torch.tensor(list(TEXT)).unfold(0, LENGTH, 37)[:8].clone()


def loss(model: Any) -> torch.Tensor:
    logits = model(input_ids=tokens()).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens()[:, 1:].flatten())


def optimized(recipe: str) -> Any:
    inputs: Any = {"input_ids": tokens()}
    context = Context(inputs, lambda: iter([inputs]), seed=0)
    return optimize(copy.deepcopy(trained()), parse(recipe).steps, context)


def test_every_recipe_stands_in_the_table() -> None:
    told = {step.recipe_name for text in (*WORKS, *REFUSED, *BY_HAND) for step in parse(text).steps}
    assert told == {recipe.recipe_name for recipe in BUILT_IN}


@pytest.mark.parametrize("recipe", WORKS)
def test_it_works_and_the_notes_say_what_was_done(recipe: str) -> None:
    rise, notes = WORKS[recipe]
    if recipe in ("bf16", "fp16") and (why := parse(recipe).steps[0].unfit("cpu")):
        with pytest.raises(RecipeError, match=re.escape(why)):
            optimized(recipe)
        return
    optimization = optimized(recipe)
    with torch.no_grad():
        before, after = float(loss(trained())), float(loss(optimization.model))
    assert before < 2.5
    assert after - before < rise
    told = " | ".join(optimization.notes)
    assert [note for note in notes if note not in told] == []
    assert optimization.coverage.share > 0.2


@pytest.mark.parametrize("recipe", REFUSED)
def test_it_says_why_it_does_not(recipe: str) -> None:
    with pytest.raises(RecipeError) as caught:
        optimized(recipe)
    assert REFUSED[recipe] in str(caught.value)
