"""A model that generates: how its calls look, and what was found of its cache and of its tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Generation:
    """One call: the prompt, then steps of one token each, with a cache that is made afresh.

    Both sides do the same work: the tokens of the steps are the original's, and the end of a sequence is ignored.
    """

    new_tokens: int
    """Steps after the prompt; each is given one token."""
    prompt: int
    """Tokens of the prompt."""
    step: str | None = None
    """The name of a function (model, ids, cache) -> (logits, cache); None: the module itself is called so, or as
    transformers does."""

    @property
    def context(self) -> int:
        """Tokens in the cache once the call is over."""
        return self.prompt + self.new_tokens

    @property
    def text(self) -> str:
        """As a budgets file has it."""
        step = f", step: {self.step}" if self.step else ""
        return f"{{generate: {{new_tokens: {self.new_tokens}, prompt: {self.prompt}{step}}}}}"


@dataclass(frozen=True, slots=True)
class CallMemory:
    """What the memory of one call that generates is made of, beside the weights; `Measurement.call_peak_bytes` is the
    peak of all of it."""

    cache_bytes: int
    """Of the cache's tensors, once the whole context is in it."""
    context: int
    """Tokens of each sequence in it then."""
    sequences: int
    prefill_peak_bytes: int | None = None
    """Peak of what the allocator handed out during the prefill, the cache that it leaves included; None on a GPU
    and in another runtime."""
    step_peak_bytes: int | None = None
    """Likewise of the last step, beside the cache that it was given."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """Kullback-Leibler divergence of the next token's probabilities, original against variant, in nats."""

    mean: float
    largest: float
    positions: int
    """That were compared: of the first sequences, as many as the original's probabilities were kept of."""


@dataclass(frozen=True, slots=True)
class TokenAgreement:
    """The most probable next token of both sides, position by position, each after the same tokens of the data.

    Tokens of one sequence are not independent: what they say of other data follows from the counts by sequence.
    """

    sequences: int
    positions: int
    """Of each sequence."""
    flips: int
    """Positions at which the two differ."""
    squares: int
    """The sum over the sequences of their flips squared."""
    divergence: Divergence | None = None

    @property
    def share(self) -> float:
        """Of the positions that differ, 0..1."""
        return self.flips / (self.sequences * self.positions)
