"""What a model that generates answers to the sequences of the data: to their own tokens, and left to itself."""

from __future__ import annotations

from typing import Any

import torch

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.calls.generation import Step, greedy
from pytest_modelopt.results.generation import Generation

KEPT_BYTES = 128 << 20
"""Of the original's log-probabilities, of the first sequences: by these a divergence is known."""


class Forced:
    """Each sequence as it stands in the data: prompt and steps with a cache, as the model is called.

    ids (sequences, context) -> `losses` (sequences, new_tokens), -log p of each token after the prompt, in nats;
    `most_probable`, the likeliest token there; `log_probabilities` (sequences, new_tokens, vocabulary) of the first
    sequences of a pass. For one pass.
    """

    def __init__(self, step: Step, generation: Generation) -> None:
        self._step, self._generation = step, generation
        self._room = KEPT_BYTES

    def __call__(self, ids: torch.Tensor) -> dict[str, Any]:
        losses, most_probable, kept = [], [], []
        prompt, context = self._generation.prompt, self._generation.context
        logits, cache = self._step(ids[:, :prompt], None)
        rows = self._rows_kept(ids, logits.shape[-1])
        for at in range(prompt, context):
            log_p = logits.float().log_softmax(dim=-1)
            self._refuse_unknown(ids[:, at], logits.shape[-1])
            losses.append(-log_p.gather(1, ids[:, at : at + 1]).squeeze(1).double())
            most_probable.append(logits.argmax(dim=-1))
            kept += [log_p[:rows]] if rows else []
            if at + 1 < context:
                logits, cache = self._step(ids[:, at : at + 1], cache)
        found = {"losses": torch.stack(losses, dim=1), "most_probable": torch.stack(most_probable, dim=1)}
        return found | ({"log_probabilities": torch.stack(kept, dim=1)} if rows else {})

    def _rows_kept(self, ids: torch.Tensor, vocabulary: int) -> int:
        of_one = 4 * self._generation.new_tokens * vocabulary
        rows = min(len(ids), self._room // of_one)
        self._room = self._room - rows * of_one if rows == len(ids) else 0  # later ones would not be the first
        return rows

    def _refuse_unknown(self, ids: torch.Tensor, vocabulary: int) -> None:
        if int(ids.max()) >= vocabulary:
            raise VariantError(
                f"the data holds the id {int(ids.max())}, and the model gives logits of {vocabulary} tokens: its "
                "vocabulary is another one than the data's"
            )


class FreeRunning:
    """What follows each prompt of the data by itself: ids (sequences, context) -> tokens (sequences, new_tokens)."""

    def __init__(self, step: Step, generation: Generation) -> None:
        self._step, self._generation = step, generation

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        return greedy(self._step, ids[:, : self._generation.prompt], self._generation.new_tokens)
