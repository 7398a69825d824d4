"""A small GPT with a cache and sequences for it, and the loop that a person would write by hand to call it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

VOCABULARY, WIDTH, HEADS, LAYERS, POSITIONS = 50, 32, 4, 1, 64
Cache = Sequence[tuple[torch.Tensor, torch.Tensor]]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.inward, self.outward = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, cache: Any) -> Any:
        count, tokens, _ = x.shape
        parts = self.inward(self.before(x)).chunk(3, dim=-1)
        query, key, value = (part.view(count, tokens, HEADS, -1).transpose(1, 2) for part in parts)
        if cache is not None:
            key, value = torch.cat([cache[0], key], dim=2), torch.cat([cache[1], value], dim=2)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=cache is None)
        x = x + self.outward(seen.transpose(1, 2).reshape(count, tokens, WIDTH))
        return x + self.down(functional.gelu(self.up(self.between(x)))), (key, value)


class GPT(nn.Module):
    """forward(ids, cache) -> (logits, cache)."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(POSITIONS, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids: torch.Tensor, cache: Cache | None = None) -> tuple[torch.Tensor, Cache]:
        start = 0 if cache is None else cache[0][0].shape[2]
        x = self.tokens(ids) + self.places(torch.arange(start, start + ids.shape[1]))
        kept = []
        for index, block in enumerate(self.blocks):
            x, own = block(x, None if cache is None else cache[index])
            kept.append(own)
        return self.head(self.norm(x)), kept


def gpt() -> nn.Module:
    """Random, with a head that is sure of itself: flips then need more than rounding."""
    torch.manual_seed(0)
    model = GPT().eval()
    with torch.no_grad():
        model.head.weight.mul_(4)
    return model


class Streaming(nn.Module):
    """Has no forward of steps: `step` knows how it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = gpt()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(ids)[0]
        return logits


def streaming() -> nn.Module:
    return Streaming().eval()


def step(model: Any, ids: torch.Tensor, cache: Any) -> Any:
    return model.inner(ids, cache)


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(VOCABULARY, 8), nn.Linear(8, 4)).eval()


class Short(GPT):
    block_size = 16


def short() -> nn.Module:
    return Short().eval()


def held_out() -> torch.Tensor:
    return torch.randint(VOCABULARY, (8, 40), generator=torch.Generator().manual_seed(2))


def train(model: Any, batches: Any) -> None:
    """On each next token of the sequences as they come."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(5):
        for ids, targets in batches():
            assert torch.equal(targets, ids[:, -targets.shape[1] :]), "the tokens after the prompt"
            optimizer.zero_grad()
            logits = model(ids)[0][:, :-1]
            functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


class NoTuple(GPT):
    def forward(self, ids: torch.Tensor, cache: Any = None) -> Any:
        return super().forward(ids, cache)[0]


def no_tuple() -> nn.Module:
    return NoTuple().eval()


class Forgetful(GPT):
    """Has steps in float32 only."""

    def forward(self, ids: torch.Tensor, cache: Any = None) -> Any:
        found = super().forward(ids, cache)
        return found if found[0].dtype is torch.float32 else found[0]


def forgetful() -> nn.Module:
    return Forgetful().eval()


class Sampling(GPT):
    def __init__(self) -> None:
        super().__init__()
        self.generation_config = type("Settings", (), {"do_sample": True, "num_beams": 4})()


def sampling() -> nn.Module:
    return Sampling().eval()


def data() -> torch.Tensor:
    """20 sequences of 40 tokens."""
    return torch.randint(VOCABULARY, (20, 40), generator=torch.Generator().manual_seed(1))


def unknown_ids() -> torch.Tensor:
    return data() + VOCABULARY


def unknown_new_ids() -> torch.Tensor:
    """The prompts are known, one of the tokens after them is not."""
    ids = data()
    ids[3, 15] = VOCABULARY
    return ids


def texts() -> tuple[torch.Tensor, list[str]]:
    """With a target for each sequence."""
    return data(), ["a"] * 20


@dataclass(frozen=True)
class ByHand:
    """What a person's loop finds: (sequences, new tokens) each; probabilities with the vocabulary behind."""

    losses: torch.Tensor
    top: torch.Tensor
    log_probabilities: torch.Tensor
    cache: Any
    """Once all tokens are in it."""


@torch.inference_mode()
def by_hand(model: nn.Module, ids: torch.Tensor, prompt: int) -> ByHand:
    logits, cache = model(ids[:, :prompt], None)
    losses, top, all_log = [], [], []
    for at in range(prompt, ids.shape[1]):
        log = torch.log_softmax(logits[:, -1], dim=-1)
        losses.append(torch.stack([-log[row, ids[row, at]] for row in range(len(ids))]))
        top.append(logits[:, -1].argmax(dim=-1))
        all_log.append(log)
        logits, cache = model(ids[:, at : at + 1], cache)
    return ByHand(torch.stack(losses, 1), torch.stack(top, 1), torch.stack(all_log, 1), cache)


@torch.inference_mode()
def continued_by_hand(model: nn.Module, ids: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """Greedy, without a cache: the whole text again for each token."""
    for _ in range(new_tokens):
        ids = torch.cat([ids, model(ids)[0][:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    return ids[:, -new_tokens:]


def prompts() -> torch.Tensor:
    """Three of the project's own."""
    return data()[:3]


class Nested(GPT):
    """Two layers, whose cache is a tuple of dicts, each with a tuple of its keys and values and a name."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks.append(Block())

    def forward(self, ids: torch.Tensor, cache: Any = None) -> tuple[torch.Tensor, Any]:
        logits, kept = super().forward(ids, None if cache is None else [layer["held"] for layer in cache])
        return logits, tuple({"name": "attention", "held": tuple(layer)} for layer in kept)


def nested() -> nn.Module:
    torch.manual_seed(0)
    return Nested().eval()


class Counting(GPT):
    """Keeps a number beside the tensors, which grows."""

    def forward(self, ids: torch.Tensor, cache: Any = None) -> tuple[torch.Tensor, Any]:
        logits, kept = super().forward(ids, None if cache is None else cache["layers"])
        return logits, {"layers": kept, "seen": ids.shape[1] + (0 if cache is None else cache["seen"])}


def counting() -> nn.Module:
    return Counting().eval()


class Growing(GPT):
    """Keeps the keys and values of each call in tensors of their own."""

    def forward(self, ids: torch.Tensor, cache: Any = None) -> tuple[torch.Tensor, Any]:
        given = None if cache is None else [(torch.cat([k for k, _ in cache], 2), torch.cat([v for _, v in cache], 2))]
        before = 0 if given is None else given[0][0].shape[2]
        logits, kept = super().forward(ids, given)
        return logits, [*(cache or ()), tuple(part[:, :, before:] for part in kept[0])]


def growing() -> nn.Module:
    return Growing().eval()


class TokensFirst(GPT):
    """The cache has the tokens in its first dimension."""

    def forward(self, ids: torch.Tensor, cache: Any = None) -> tuple[torch.Tensor, Any]:
        given = None if cache is None else [(k.permute(1, 2, 0, 3), v.permute(1, 2, 0, 3)) for k, v in cache]
        logits, kept = super().forward(ids, given)
        return logits, [(k.permute(2, 0, 1, 3), v.permute(2, 0, 1, 3)) for k, v in kept]


def tokens_first() -> nn.Module:
    return TokensFirst().eval()
