"""Targets of which a model needs some to run: its decoder is given them, and no answer may see its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.bench import Bench
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.results.metric import MetricSpec

SOURCE = """
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

def t5():
    torch.manual_seed(0)
    return T5ForConditionalGeneration(
        T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    ).eval()

class Cheats(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(32, 32)
    def forward(self, input_ids, labels):
        return self.table(labels)

def cheats():
    return Cheats().eval()

class Breaks(nn.Module):
    def forward(self, input_ids, labels=None):
        raise ValueError("of another reason")

def breaks():
    return Breaks().eval()

def data():
    ids = torch.randint(1, 32, (6, 5), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": ids[start:start + 3], "labels": ids[start:start + 3, :4]} for start in (0, 3)]

def score(outputs, targets):
    return float(torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), targets.flatten()))
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Bench]]:
    import sys

    (tmp_path / "labels_user.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    before = torch.get_num_threads()

    def make(model: str) -> Bench:
        return Bench(
            Variant(
                f"labels_user:{model}",
                parse("int8-dynamic"),
                "labels_user:data",
                None,
                None,
                MetricSpec("labels_user:score", higher_is_better=False),
                (str(tmp_path),),
                str(tmp_path),
            )
        )

    yield make
    sys.modules.pop("labels_user", None)
    torch.set_num_threads(before)


def test_the_decoder_is_given_them_and_what_is_scored_is_its_own(bench: Callable[[str], Bench]) -> None:
    made = bench("t5")
    notes = made.load().notes
    assert "the model runs with its targets only, so each call is given them as `labels`" in " ".join(notes)
    torch.manual_seed(0)
    config = T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config).eval()
    ids = torch.randint(1, 32, (6, 5), generator=torch.Generator().manual_seed(0))
    shifted = torch.cat([torch.zeros(6, 1, dtype=torch.long), ids[:, :3]], 1)
    with torch.no_grad():
        logits = model(input_ids=ids, decoder_input_ids=shifted).logits
    by_hand = float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, :4].flatten()))
    assert made.score().score == pytest.approx(by_hand, rel=1e-5)
    made.optimize()
    assert made.score().score == pytest.approx(by_hand, rel=0.05)


def test_a_model_whose_answers_see_them_is_refused(bench: Callable[[str], Bench]) -> None:
    with pytest.raises(VariantError, match="it would be scored on what it was told"):
        bench("cheats").load()


def test_a_model_that_does_not_run_with_them_either_says_its_own_reason(bench: Callable[[str], Bench]) -> None:
    with pytest.raises(VariantError, match="of another reason"):
        bench("breaks").load()
