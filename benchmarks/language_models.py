"""One GPT judged by both ways: by a forward pass, and as it is called, step by step with its cache.

The model is documents-gpt of `example_project`. Both ways stand in one budgets file with the same recipe and the same
limits; what each side writes by itself is counted by a loop by hand. Beside it BERT-base and a small GPT-2 without
pretrained weights, for `benchmarks.cost`: what the gate costs does not depend on the values of weights. They need
transformers.
"""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

from benchmarks import common
from benchmarks.common import REPOSITORY
from example_project import writing
from pytest_modelopt.limits.latency import interval_of, speedup_of
from pytest_modelopt.optimizing.apply import optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context
from pytest_modelopt.results import json as record_json
from pytest_modelopt.results.case import Case

BATCHES, BATCH, LENGTH = 2, 16, 64
PROMPT, STEPS = 96, 32
RECIPE = "int8-dynamic"
BUDGETS = f"""version: 1
defaults:
  budget: {{max_accuracy_drop: 0.1, min_speedup: 1x}}
  recipes: {{{RECIPE}: {{}}}}
models:
  by one forward pass:
    factory: benchmarks.language_models:of_one_pass
    data: benchmarks.language_models:next_characters
    metric: torchmetrics.text.Perplexity
  as it is called:
    factory: example_project.writing:load_model
    data: example_project.writing:test_data
    call: {{generate: {{new_tokens: {STEPS}, prompt: {PROMPT}}}}}
"""


def main() -> None:
    common.print_origins([common.origin()])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "budgets.yaml"
        file.write_text(BUDGETS, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "--modelopt", "--rootdir", folder, "-p", "no:cacheprovider"]
        command += ["--modelopt-report", f"{folder}/report", "--modelopt-time-limit", "10 s", str(file)]
        subprocess.run(command, cwd=REPOSITORY, check=False, stdout=subprocess.DEVNULL)
        cases = record_json.read(Path(folder) / "report" / "record.json").cases
    print(tabulate([_row(case) for case in cases], headers="keys", disable_numparse=True))
    changed, written = characters_changed()
    print(f"\nCharacters that the variant writes by itself and that are others: {changed} of {written}.")


def _row(case: Case) -> dict[str, str]:
    if case.error is not None or case.reference is None or case.variant is None or case.timing is None:
        sys.exit(f"{case.model}: {case.error}")
    low, high = interval_of(speedup_of(case.timing), 1)
    tokens = case.tokens
    changed = "-" if tokens is None else f"{tokens.flips} of {tokens.sequences * tokens.positions}"
    return {
        "way": case.model,
        "perplexity": f"{case.reference.score:.4g} -> {case.variant.score:.4g}",
        "speedup": f"{low:.3g}x to {high:.3g}x",
        "next characters changed": changed,
        "verdicts": ", ".join(f"{verdict.limit.name} {verdict.outcome}" for verdict in case.verdicts),
    }


@torch.inference_mode()
def characters_changed() -> tuple[int, int]:
    """Greedily, each side with a cache of its own and after its own characters: how many differ, of how many."""
    torch.set_num_threads(1)
    prompts = writing.test_data()[:, :PROMPT]
    original = writing.load_model()
    context = Context((prompts[:1],), None, seed=0)
    variant = optimize(copy.deepcopy(original), parse(RECIPE).steps, context).model
    one, other = (_written(model, prompts) for model in (original, variant))
    return int((one != other).sum()), one.numel()


def _written(model: nn.Module, prompts: torch.Tensor) -> torch.Tensor:
    """The characters (sequences, STEPS + 1): one of the prompt, one of each step."""
    logits, cache = model(prompts, None)
    characters = [logits[:, -1].argmax(1, keepdim=True)]
    for _ in range(STEPS):
        logits, cache = model(characters[-1], cache)
        characters.append(logits[:, -1].argmax(1, keepdim=True))
    return torch.cat(characters, 1)


class OnePass(nn.Module):
    """The logits (sequences, characters, vocabulary) of a whole text, without a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.model = writing.load_model()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(ids, None)[0]
        return logits


def of_one_pass() -> nn.Module:
    return OnePass().eval()


def next_characters() -> tuple[torch.Tensor, torch.Tensor]:
    ids = writing.test_data()
    return ids[:, :-1], ids[:, 1:]


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
    return _batches(BATCHES)


def more_token_ids() -> list[tuple[Any]]:
    """As many as a small evaluation set has: 256 sequences."""
    return _batches(256 // BATCH)


def _batches(count: int) -> list[tuple[Any]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randint(1000, 20000, (BATCH, LENGTH), generator=generator),) for _ in range(count)]


if __name__ == "__main__":
    main()
