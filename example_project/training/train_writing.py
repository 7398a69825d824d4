"""Train documents-gpt and write weights/documents_gpt.pt.

Run as `python -m example_project.training.train_writing`; takes minutes on one core. What it learns from is
data/documents.txt, a copy of this project's own documents: `--collect` writes that file anew.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from example_project.training.saving import save_weights
from example_project.writing import DATA_PATH, POSITIONS, WEIGHTS_PATH, DocumentsGPT, _parts, test_data

SEED = 7
STEPS = 1200
BATCH_SIZE = 8
LEARNING_RATE = 2e-3
WARMING = 20
WEIGHT_DECAY = 0.1
REPORT_STEPS = 100
DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "benchmarks/RESULTS.md",
    "example_project/README.md",
    "docs/measuring.md",
)


def collect() -> str:
    """The project's documents in one text."""
    root = Path(__file__).resolve().parents[2]
    return "\n\n".join((root / name).read_text(encoding="utf-8") for name in DOCUMENTS)


def batch(ids: Tensor) -> Tensor:
    """Pieces of the text [batch, positions + 1] that begin anywhere."""
    starts = torch.randint(len(ids) - POSITIONS - 1, (BATCH_SIZE,))
    return torch.stack([ids[start : start + POSITIONS + 1] for start in starts.tolist()])


def loss_of(model: DocumentsGPT, ids: Tensor) -> Tensor:
    """Mean over all positions of -log p of the next character, in nats."""
    logits, _ = model(ids[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def train() -> None:
    """Writes the weights each time that it reports, and at its end."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    model = DocumentsGPT()
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)  # with torch's own, embeddings drown what the layers add
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY)
    training, start = _parts()[0], time.monotonic()
    for step in range(1, STEPS + 1):
        share = step / WARMING if step < WARMING else 0.5 + 0.5 * math.cos(math.pi * step / STEPS)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * share
        loss = loss_of(model, batch(training))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % REPORT_STEPS == 0 or step == STEPS:
            model.eval()
            with torch.inference_mode():
                held_out = math.exp(float(loss_of(model, test_data())))
            model.train()
            save_weights(model, WEIGHTS_PATH)
            print(
                f"step {step}, {time.monotonic() - start:.0f} s: perplexity {held_out:.2f} on held-out text", flush=True
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collect", action="store_true", help="write data/documents.txt anew, and train nothing")
    if parser.parse_args().collect:
        DATA_PATH.write_text(collect(), encoding="utf-8")
    else:
        train()
