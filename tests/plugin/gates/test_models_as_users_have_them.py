"""Models as they stand in users' repositories: Hugging Face style, several inputs, lengths that vary, tuples."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_modelopt.results.case import Case
from pytest_modelopt.results.json import read

Project = Callable[..., pytest.Pytester]

MODELS = '''
"""A BERT from its configuration, and a tagger of sequences; nothing is downloaded."""
from pathlib import Path
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

def bert():
    from transformers import BertConfig, BertForSequenceClassification
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=32, num_labels=4,
    )
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(20)
    return model

class Sentences(Dataset):
    """Dicts as a tokenizer makes them, of different lengths, labelled by the model itself."""

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        lengths = torch.randint(3, 20, (96,), generator=generator).tolist()
        self.tokens = [torch.randint(1, 100, (length,), generator=generator) for length in lengths]
        if not Path("labels.pt").exists():  # else the second process that reads would import transformers, too
            batch = collated([{"input_ids": tokens, "labels": 0} for tokens in self.tokens])
            with torch.no_grad():
                inputs = {name: value for name, value in batch.items() if name != "labels"}
                torch.save(bert()(**inputs).logits.argmax(1).tolist(), "labels.pt")
        self.labels = torch.load("labels.pt")

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index], "labels": self.labels[index]}

def collated(items):
    """Padded to the longest of the batch, with the attention mask."""
    tokens = nn.utils.rnn.pad_sequence([item["input_ids"] for item in items], batch_first=True)
    return {
        "input_ids": tokens,
        "attention_mask": (tokens > 0).long(),
        "labels": torch.tensor([item["labels"] for item in items]),
    }

def sentences():
    return DataLoader(Sentences(), batch_size=16, collate_fn=collated)

def all_at_once():
    return collated([Sentences()[index] for index in range(96)])

class Tuples(nn.Module):
    """Scores beside hidden states, as models with `return_dict=False` answer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(100, 64)
        self.recurrent = nn.GRU(64, 64, batch_first=True)
        self.head = nn.Linear(64, 4)

    def forward(self, tokens, mask):
        hidden, last = self.recurrent(self.embed(tokens) * mask.unsqueeze(-1))
        return self.head(hidden[:, -1]), hidden, (last, None)

def tuples():
    return Tuples().eval()

def tuple_data():
    tokens = torch.randint(0, 100, (50, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(50, 9)
    with torch.no_grad():
        return (tokens, mask), tuples()(tokens, mask)[0].argmax(1)
'''


BUDGETS = """
version: 1
models:
  sentences:
    factory: zoo:bert
    data: zoo:sentences
    calibration: zoo:sentences
    budget: {min_accuracy: 80%, max_accuracy_drop: 20 pp}
    recipes:
      int8-dynamic: {min_coverage: 80%}
      int8-static:
  all-at-once:
    factory: zoo:bert
    data: zoo:all_at_once
    budget: {min_accuracy: 80%, max_accuracy_drop: 20 pp}
    recipes:
      int8-dynamic: {min_coverage: 80%}
  tagger:
    factory: zoo:tuples
    data: zoo:tuple_data
    budget: {min_accuracy: 90%}
    recipes:
      int8-dynamic: {min_coverage: 50%}
"""


def test_models_as_users_have_them(project: Project) -> None:
    """In one run, since each of its processes that has a model of transformers takes seconds to import that."""
    pytester = project(BUDGETS)
    pytester.makepyfile(zoo=MODELS)
    result = pytester.runpytest("--modelopt", "--modelopt-report", "out", "--modelopt-time-limit", "1 ms")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        ["sentences/int8-static: *BertForSequenceClassification is not: a decorator stands around*"]
    )
    result.stdout.fnmatch_lines(["sentences/int8-static: *int8-dynamic needs no tracing*"])
    cases = {(case.model, case.recipe): case for case in read(pytester.path / "out" / "record.json").cases}
    for batches in ("sentences", "all-at-once"):
        _check_bert(cases[batches, "int8-dynamic"])
    assert cases["tagger", "int8-dynamic"].agreement is not None, "the one tensor of scores was found"


def _check_bert(dynamic: Case) -> None:
    assert dynamic.reference is not None
    assert (dynamic.reference.score, dynamic.reference.examples) == (1.0, 96)
    assert dynamic.coverage is not None
    attention = 4 * 64 * 64
    feed_forward = 2 * 64 * 128
    pooler, classifier = 64 * 64, 64 * 4
    assert dynamic.coverage.changed_bytes == 4 * (2 * (attention + feed_forward) + pooler + classifier)
    assert dynamic.coverage.multiply_adds_share is not None
    assert 0.9 < dynamic.coverage.multiply_adds_share < 1  # attention between activations stays in float
