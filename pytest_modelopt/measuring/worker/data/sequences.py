"""From what projects give as text in token ids to batches of sequences, each cut to the tokens of one call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from pytest_modelopt.measuring.protocol import VariantError, error_text
from pytest_modelopt.measuring.worker.data.batches import SCORING_BATCH, NoExamples, checked_targets, plain
from pytest_modelopt.measuring.worker.metrics.scorer import Batch
from pytest_modelopt.optimizing.modules import nested_values
from pytest_modelopt.results.generation import Generation

_FORMS = (
    "give token ids: a tensor (sequences, tokens), or a list, Dataset or iterable of sequences (tensors or lists of "
    "ids, or dicts with `input_ids`); with targets (ids, targets)"
)


def batches(data: Any, generation: Generation, what: str = "data") -> Iterator[Batch]:
    """Sequences of as many ids as a call has, the first ones of each. Their targets are what the data gives, or else
    the tokens after the prompt.

    Raises:
        VariantError: the data holds no ids, a sequence is too short, or the data is empty or raises.
    """
    rows: list[torch.Tensor] = []
    targets: list[Any] = []
    first = 0
    for number, (ids, target) in enumerate(_sequences(data, what)):
        rows.append(_cut(ids, generation, f"sequence {number} of the {what}"))
        targets.append(target)
        if len(rows) == SCORING_BATCH:
            yield _batch(rows, targets, first, generation, what)
            first, rows, targets = first + len(rows), [], []
    if rows:
        yield _batch(rows, targets, first, generation, what)
    elif not first:
        raise NoExamples(f"the {what} is empty, so there is no sequence to measure on: give at least one")


def _batch(rows: Sequence[torch.Tensor], targets: list[Any], first: int, generation: Generation, what: str) -> Batch:
    ids = torch.stack(list(rows))
    if any(target is _NONE for target in targets):
        return Batch(ids, ids[:, generation.prompt :].clone(), first)
    return Batch(ids, checked_targets(targets, first // SCORING_BATCH, what), first)


_NONE = object()


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or nested_values.is_array(value)


def _sequences(data: Any, what: str) -> Iterator[tuple[Any, Any]]:
    """Each sequence with its target, or `_NONE`."""
    try:
        if isinstance(data, tuple) and len(data) == 2 and _is_many(data[0]):
            yield from _paired(data[0], data[1], what)
            return
        given = [data] if _is_array(data) or isinstance(data, Mapping) else data
        if not (isinstance(given, Iterable) or _is_indexed(given)) or isinstance(given, (str, bytes)):
            raise VariantError(f"the {what} is a {type(data).__name__}; {_FORMS}")
        for each in _entries(given):
            if isinstance(each, (tuple, list)) and len(each) == 1 and _is_array(each[0]):  # of a TensorDataset
                yield from ((ids, _NONE) for ids in _rows(each[0], what))
            elif isinstance(each, (tuple, list)) and len(each) == 2 and (isinstance(each, tuple) or _is_array(each[0])):
                ids, targets = each
                yield from _paired(ids, targets, what) if _is_many(ids) else [(ids, targets)]
            else:
                yield from ((ids, _NONE) for ids in _rows(each, what))
    except VariantError:
        raise
    except (Exception, SystemExit) as error:
        raise VariantError(f"the {what} raised {error_text(error)}") from error


def _entries(data: Any) -> Iterator[Any]:
    """Of a Dataset by its length: it need not know where iterating ends."""
    return (data[index] for index in range(len(data))) if _is_indexed(data) else iter(data)


def _is_indexed(data: Any) -> bool:
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _is_many(value: Any) -> bool:
    """Whether it holds several sequences, and not one."""
    if isinstance(value, Mapping):
        return "input_ids" in value and _is_many(value["input_ids"])
    return value.ndim == 2 if _is_array(value) else isinstance(value, (list, tuple)) and not _are_ids(value)


def _are_ids(value: Sequence[Any]) -> bool:
    return bool(value) and all(isinstance(each, int) and not isinstance(each, bool) for each in value)


def _paired(ids: Any, targets: Any, what: str) -> Iterator[tuple[Any, Any]]:
    rows = list(_rows(ids, what)) if _is_array(ids) or isinstance(ids, Mapping) else list(ids)
    if len(rows) != len(targets):
        raise VariantError(f"the {what} has {len(rows)} sequences but {len(targets)} targets")
    yield from zip(rows, targets, strict=True)


def _rows(value: Any, what: str) -> Iterator[Any]:
    """The sequences in a tensor, a list of ids or a dict with `input_ids`, without what its mask says is padding."""
    if isinstance(value, Mapping):
        if "input_ids" not in value:
            raise VariantError(f"the {what} holds a dict without `input_ids`; {_FORMS}")
        mask = value.get("attention_mask")
        rows = list(_rows(value["input_ids"], what))
        masks = list(_rows(mask, what)) if mask is not None else [None] * len(rows)
        for row, kept in zip(rows, masks, strict=True):
            yield row if kept is None else torch.as_tensor(row)[torch.as_tensor(kept).bool()]
    elif _is_array(value) and value.ndim > 1:
        yield from value
    else:
        yield value


def _cut(ids: Any, generation: Generation, which: str) -> torch.Tensor:
    if not _is_array(ids) and not (isinstance(ids, (list, tuple)) and _are_ids(ids)):
        kind = f"a {type(ids).__name__}"
        raise VariantError(f"{which} is {kind}, which holds no token ids; {_FORMS}")
    tensor = plain(torch.as_tensor(ids))
    if tensor.ndim != 1 or tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool:
        found = f"a tensor of shape {tuple(tensor.shape)} and {str(tensor.dtype)[6:]}"
        raise VariantError(f"{which} is {found}, which holds no token ids; {_FORMS}")
    if len(tensor) < generation.context:
        raise VariantError(
            f"{which} has {len(tensor)} tokens, and prompt + new_tokens are {generation.prompt} + "
            f"{generation.new_tokens} = {generation.context}: give longer sequences, or make one of the two smaller"
        )
    cut = tensor[: generation.context].long()
    if int(cut.min()) < 0:
        raise VariantError(f"{which} holds the id {int(cut.min())}: ids are numbers from 0 on; leave padding out")
    return cut.clone()
