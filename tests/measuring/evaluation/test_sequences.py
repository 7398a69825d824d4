"""Token ids in every form in which projects have them: the same sequences, or one clear error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.data import sequences
from pytest_modelopt.results.generation import Generation

CALL = Generation(new_tokens=2, prompt=3)
IDS = torch.arange(70 * 6).reshape(70, 6)
RAGGED = [row[: 5 + index % 2] for index, row in enumerate(IDS)]
PADDED = torch.cat([torch.zeros(70, 2, dtype=torch.long), IDS], dim=1)
MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1]]).expand(70, 8)


class Rows(Dataset[Any]):
    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        if index >= 70:
            raise RuntimeError("asked beyond its end")
        return self.rows[index]


FORMS: dict[str, Any] = {
    "tensor": IDS,
    "array": IDS.numpy(),
    "int32": IDS.int(),
    "ragged tensors": RAGGED,
    "lists of ids": [row.tolist() for row in RAGGED],
    "dict": {"input_ids": IDS},
    "dict of a tokenizer": {"input_ids": PADDED, "attention_mask": MASK},
    "dataset": Rows(RAGGED),
    "dataset of dicts": Rows([{"input_ids": row} for row in RAGGED]),
    "dataset of dicts of lists": Rows(
        [{"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in RAGGED]
    ),
    "loader": DataLoader(TensorDataset(IDS), batch_size=7),
    "loader of dicts": DataLoader(Rows([{"input_ids": row} for row in IDS]), batch_size=7),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_sequences(form: str) -> None:
    found = list(sequences.batches(FORMS[form], CALL))
    assert [len(batch.inputs) for batch in found] == [64, 6]
    assert [batch.first for batch in found] == [0, 64]
    inputs: list[Any] = [batch.inputs for batch in found]
    assert torch.equal(torch.cat(inputs), IDS[:, :5])
    targets: list[Any] = [batch.targets for batch in found]
    assert torch.equal(torch.cat(targets), IDS[:, 3:5]), "the tokens after the prompt"


@pytest.mark.parametrize(
    "data",
    [
        (IDS, [f"text {index}" for index in range(70)]),
        (RAGGED, [f"text {index}" for index in range(70)]),
        [(row, f"text {index}") for index, row in enumerate(RAGGED)],
        Rows([(row, f"text {index}") for index, row in enumerate(RAGGED)]),
        [(IDS[at : at + 7], [f"text {at + index}" for index in range(7)]) for at in range(0, 70, 7)],
        DataLoader(Rows([(row, f"text {index}") for index, row in enumerate(IDS)]), batch_size=7),
    ],
    ids=["tensor", "ragged", "pairs", "dataset", "batches", "loader"],
)
def test_targets_stay_with_their_sequences(data: Any) -> None:
    found = list(sequences.batches(data, CALL))
    targets: list[Any] = [target for batch in found for target in batch.targets or ()]
    assert targets == [f"text {index}" for index in range(70)]
    assert torch.equal(torch.cat([batch.inputs for batch in found]), IDS[:, :5])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (IDS[:, :4], r"sequence 0 of the data has 4 tokens, and prompt \+ new_tokens are 3 \+ 2 = 5: give longer"),
        ([IDS[0], IDS[1, :3]], "sequence 1 of the data has 3 tokens"),
        (
            IDS.float(),
            r"sequence 0 of the data is a tensor of shape \(6,\) and float32, which holds no token ids; give",
        ),
        (IDS[None], "sequence 0 of the data is a tensor of shape"),
        (["a text", "another"], "sequence 0 of the data is a str, which holds no token ids; give token ids"),
        ({"ids": IDS}, "the data holds a dict without `input_ids`; give token ids"),
        (IDS - 1, "sequence 0 of the data holds the id -1: ids are numbers from 0 on; leave padding out"),
        ((IDS, ["a"]), "the data has 70 sequences but 1 targets"),
        ([], "the data is empty"),
        (7, "the data is a int; give token ids"),
        (None, "the data is a NoneType; give token ids"),
    ],
)
def test_what_holds_no_sequences_says_why(data: Any, told: str) -> None:
    with pytest.raises(VariantError, match=told):
        list(sequences.batches(data, CALL))


def test_what_the_data_raises_is_told() -> None:
    def broken() -> Any:
        yield IDS[0]
        raise OSError("gone")

    with pytest.raises(VariantError, match="the data raised OSError: gone"):
        list(sequences.batches(broken(), CALL))
