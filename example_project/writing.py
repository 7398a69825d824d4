"""documents-gpt: a Transformer that writes on, character by character, what this project's documents begin."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
DATA_PATH = HERE / "data" / "documents.txt"
WEIGHTS_PATH = HERE / "weights" / "documents_gpt.pt"

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
"""The vocabulary: an id is a place in it. Any other character is read as `?`."""
POSITIONS = 128
TEST_SHARE = 0.1
TEST_TOKENS = 128
"""Of each sequence of the test data."""

Cache = Sequence[tuple[Tensor, Tensor]]
"""Of each layer: keys and values [batch, heads, tokens so far, width of a head]."""


class Block(nn.Module):
    """Pre-norm attention, which looks back only, and a feed-forward layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, cache: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """States [batch, tokens, width], and what earlier tokens left; gives new states, and that of all tokens."""
        batch, tokens, width = x.shape
        parts = self.queries_keys_values(self.attention_norm(x)).chunk(3, dim=-1)
        queries, keys, values = (part.view(batch, tokens, self.heads, -1).transpose(1, 2) for part in parts)
        if cache is not None:
            keys, values = torch.cat([cache[0], keys], dim=2), torch.cat([cache[1], values], dim=2)
        seen = functional.scaled_dot_product_attention(queries, keys, values, is_causal=cache is None)
        x = x + self.dropout(self.attention_output(seen.transpose(1, 2).reshape(batch, tokens, width)))
        hidden = functional.gelu(self.expand(self.feedforward_norm(x)))
        return x + self.dropout(self.contract(hidden)), (keys, values)


class DocumentsGPT(nn.Module):
    """1.05 million weights, and a cache: one call takes a whole prompt, or one more token."""

    def __init__(self, width: int = 144, heads: int = 4, layers: int = 4, positions: int = POSITIONS) -> None:
        super().__init__()
        self.block_size = positions
        self.characters = nn.Embedding(len(CHARACTERS), width)
        self.positions = nn.Embedding(positions, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(CHARACTERS))

    def forward(self, ids: Tensor, cache: Cache | None = None) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Ids [batch, tokens], after those in the cache (one token then); gives logits [batch, tokens, 96] and the
        cache with these tokens in it."""
        start = 0 if cache is None else cache[0][0].shape[2]
        x = self.characters(ids) + self.positions(torch.arange(start, start + ids.shape[1], device=ids.device))
        kept = []
        for index, block in enumerate(self.blocks):
            x, own = block(x, None if cache is None else cache[index])
            kept.append(own)
        return self.head(self.norm(x)), kept


def encode(text: str) -> Tensor:
    """The ids [characters] of a text."""
    known = {character: index for index, character in enumerate(CHARACTERS)}
    return torch.tensor([known.get(character, known["?"]) for character in text])


def decode(ids: Tensor) -> str:
    """The text of ids [characters]."""
    return "".join(CHARACTERS[index] for index in ids.tolist())


def load_model() -> nn.Module:
    """The trained model in float32 and eval mode (its weights are stored in float16)."""
    model = DocumentsGPT()
    model.load_state_dict(torch.load(WEIGHTS_PATH, weights_only=True))
    return model.eval()


def test_data() -> Tensor:
    """What was not trained on: ids [48, 128], spread over the held-out end of the documents."""
    return spread(_parts()[1], 48)


def train_data() -> Tensor:
    """Likewise of what was trained on: ids [48, 128]."""
    return spread(_parts()[0], 48)


def spread(ids: Tensor, count: int) -> Tensor:
    """So many sequences of 128 tokens, none of which shares a character with another."""
    whole = ids[: len(ids) // TEST_TOKENS * TEST_TOKENS].view(-1, TEST_TOKENS)
    return whole[torch.linspace(0, len(whole) - 1, count).long()]


def _parts() -> tuple[Tensor, Tensor]:
    ids = encode(DATA_PATH.read_text(encoding="utf-8"))
    held_out = int(len(ids) * TEST_SHARE)
    return ids[:-held_out], ids[-held_out:]
