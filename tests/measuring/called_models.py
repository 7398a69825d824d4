"""A project whose models are called by functions of its own: a pipeline with texts, detection, bags, dataclasses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.bench import Bench
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.results.metric import MetricSpec

NAME = "called_user"
SOURCE = '''
"""Models of the project under test, and how they are called."""
from dataclasses import dataclass
import torch
from torch import nn

KNOWN = "the cat dog sat ran on a mat log fast slow red blue old".split()
WORDS = {word: number for number, word in enumerate(KNOWN, 1)}
SAID = ["the cat sat", "a dog ran fast", "the old red log", "a blue mat on the log", "slow", "the dog sat on a mat"] * 4

def tokenized(texts):
    rows = [[WORDS[word] for word in text.split()] for text in texts]
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])

class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(16, 64)
        self.encoder = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
        self.head = nn.Linear(64, 4)

def reader():
    torch.manual_seed(0)
    return Reader().eval()

def answer(model, texts):
    """Tokenize, embed, encode, and give scores under names: no call of the model itself."""
    ids = tokenized(texts)
    encoded = model.encoder(model.embed(ids))
    return {"scores": model.head((encoded * (ids != 0).unsqueeze(-1)).sum(1))}

def texts():
    with torch.no_grad():
        return SAID, answer(reader(), SAID)["scores"].argmax(1)

class Pipeline:
    """No module, but it holds one."""
    def __init__(self):
        self.words, self.net = dict(WORDS), reader()

def pipeline():
    return Pipeline()

class Slotted:
    """Likewise, in a slot, and in training mode."""
    __slots__ = ("net",)
    def __init__(self):
        self.net = reader().train()

def slotted():
    return Slotted()

KNOWN_ANSWERS = {}
def from_cache(model, texts):
    key = tuple(texts)
    if key not in KNOWN_ANSWERS:
        KNOWN_ANSWERS[key] = answer(model, texts)
    return KNOWN_ANSWERS[key]

def of_pipeline(pipeline, texts):
    return answer(pipeline.net, texts)

def held_out():
    said = ["a cat ran slow", "the mat", "old dog sat", "red log"] * 2
    with torch.no_grad():
        return said, answer(reader(), said)["scores"].argmax(1)

def distill(encoder, batches):
    """Train the encoder alone, after that of the original, on what it gets in the call; keeps what it was given."""
    teacher, optimizer = reader().encoder, torch.optim.Adam(encoder.parameters(), lr=1e-2)
    for _ in range(20):
        for embedded, targets in batches():
            distill.seen = tuple(embedded.shape), targets.tolist()
            optimizer.zero_grad()
            (encoder(embedded) - teacher(embedded)).square().mean().backward()
            optimizer.step()

def raises(model, texts):
    return {"scores": model.encoder(texts)}

class Detector(nn.Module):
    """Takes a list of images of any sizes, and gives a dict for each."""
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)
    def forward(self, images):
        assert isinstance(images, list)
        found = [self.head(torch.relu(self.body(image[None])).mean((2, 3)))[0] for image in images]
        return [{"boxes": scores[:4], "score": scores[4].sigmoid()} for scores in found]

def detector():
    torch.manual_seed(0)
    return Detector().eval()

def images():
    drawn = torch.Generator().manual_seed(1)
    inputs = [torch.rand(3, 8 + row % 3, 9 + row % 5, generator=drawn) for row in range(10)]
    with torch.no_grad():
        return inputs, [{"box": each["boxes"]} for each in detector()(inputs)]

def closeness(outputs, targets):
    """Of the boxes: one number for each image."""
    return [1 - float((one["boxes"] - other["box"]).abs().max()) for one, other in zip(outputs, targets, strict=True)]

class Bags(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(100, 32, mode="sum")
        self.head = nn.Linear(32, 3)
    def forward(self, ids, offsets):
        return self.head(self.bag(ids, offsets))

def bags():
    torch.manual_seed(0)
    return Bags().eval()

def bagged():
    drawn = torch.Generator().manual_seed(2)
    for count in (4, 3, 4):
        lengths = torch.randint(1, 6, (count,), generator=drawn)
        ids = torch.randint(0, 100, (int(lengths.sum()) + count, ), generator=drawn)
        offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]])
        with torch.no_grad():
            yield (ids, offsets), bags()(ids, offsets).argmax(1)

@dataclass
class Asked:
    ids: torch.Tensor
    mask: torch.Tensor
    texts: list
    hint: object = None

class Asking(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
    def forward(self, asked):
        assert asked.hint is None and all(isinstance(text, str) for text in asked.texts)
        return self.layer(asked.ids * asked.mask)

def asking():
    torch.manual_seed(0)
    return Asking().eval()

def asked():
    ids = torch.randn(8, 6, generator=torch.Generator().manual_seed(3))
    given = Asked(ids, (ids > -1).float(), [f"text {row}" for row in range(8)])
    with torch.no_grad():
        yield given, asking()(given).argmax(1)

class Collated(nn.Module):
    """Called as a whole collator batch: texts and None beside the tensors."""
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
    def forward(self, ids, mask=None, names=None):
        assert mask is None and isinstance(names, list)
        return self.layer(ids)

def collated_model():
    torch.manual_seed(0)
    return Collated().eval()

def collated():
    ids = torch.randn(8, 6, generator=torch.Generator().manual_seed(3))
    for rows in (slice(0, 5), slice(5, 8)):
        batch = {"ids": ids[rows], "mask": None, "names": [str(row) for row in range(8)][rows]}
        with torch.no_grad():
            yield {**batch, "labels": collated_model()(**batch).argmax(1)}
'''


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    """Makes a loaded Bench in this process, by names in the project's module and fields of `Variant`."""
    (tmp_path / f"{NAME}.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop(NAME, None)
    threads = torch.get_num_threads()

    def make(model: str, data: str, recipe: str = "", *, metric: MetricSpec | None = None, **fields: Any) -> Bench:
        if "call" in fields:
            fields["call"] = f"{NAME}:{fields['call']}"
        folder, scored = str(tmp_path), metric or MetricSpec()
        variant = Variant(f"{NAME}:{model}", None, f"{NAME}:{data}", None, None, scored, (folder,), folder)
        variant = replace(variant, recipe=parse(recipe) if recipe else None, **fields)
        bench = Bench(variant)
        path = tmp_path / f"examples-{len(list(tmp_path.iterdir()))}"
        bench.load(examples=bench.read(str(path)))
        if recipe:
            bench.optimize()
        return bench

    yield make
    sys.modules.pop(NAME, None)
    torch.set_num_threads(threads)
