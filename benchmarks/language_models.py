"""BERT-base and a small GPT-2 without pretrained weights, and token ids for them: what the gate costs does not depend
on the values of weights. They need transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

BATCHES, BATCH, LENGTH = 2, 16, 64


class Logits(nn.Module):
    """A model of transformers whose one output is the tensor that is scored."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(ids).logits
        return logits if logits.dim() == 2 else logits[:, -1]


def bert_base() -> nn.Module:
    """110 million parameters in 418 MiB."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    return Logits(BertForSequenceClassification(BertConfig(num_labels=2)))


def gpt2_small() -> nn.Module:
    """GPT-2's own shape but for four layers: 67 million parameters in 255 MiB."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return Logits(GPT2LMHeadModel(GPT2Config(n_layer=4, use_cache=False)))


def token_ids() -> list[tuple[Any]]:
    """Batches of ids without targets, for `metric: agreement`."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randint(1000, 20000, (BATCH, LENGTH), generator=generator),) for _ in range(BATCHES)]
