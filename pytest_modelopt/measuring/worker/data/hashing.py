"""Hashes of single examples: what tells whether two of them are the same, and what the data as a whole was."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Targets
from pytest_modelopt.optimizing.modules.nested_values import columns, held

HASH_BYTES = 16
"""Of one example: by chance no two of a billion different ones have the same."""


def hashes_of_inputs(batch: Batch) -> list[bytes]:
    """Of each example of a batch: the bytes, types and shapes of its inputs, and their names. Not of its targets.

    Of a batch that is not cut they are hashes of its whole inputs, with the number of the example in it.
    """
    if not batch.is_cut:
        whole = _digest([(described(batch.inputs),)])
        return [_digest([(whole, index.to_bytes(8, "little"))]) for index in range(batch.examples)]
    named = sorted(columns(batch.inputs), key=lambda column: column[0])
    return [_digest(rows) for rows in zip(*(_column(*each, batch.examples) for each in named), strict=True)]


def hashes_with_targets(of_inputs: Sequence[bytes], targets: Targets | None) -> list[bytes]:
    """Of each example of a batch, from the hash of its inputs."""
    if targets is None:
        return list(of_inputs)
    rows = _rows("", targets) if isinstance(targets, torch.Tensor) else ((described(entry),) for entry in targets)
    return [_digest([(digest,), row]) for digest, row in zip(of_inputs, rows, strict=True)]


class Fingerprint:
    """SHA-256 over the hashes of all examples in order, however they are cut into batches."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, batch: Batch) -> tuple[list[bytes], list[bytes]]:
        """Take a batch; the hashes of its examples' inputs, and of the examples with their targets."""
        of_inputs = hashes_of_inputs(batch)
        whole = hashes_with_targets(of_inputs, batch.targets)
        self._hash.update(b"".join(whole))
        return of_inputs, whole

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


_Row = Sequence[Any]
"""Bytes of one example, in parts."""


def _digest(rows: Sequence[_Row]) -> bytes:
    found = hashlib.blake2b(digest_size=HASH_BYTES)
    for row in rows:
        for part in row:
            found.update(part)
    return found.digest()


def _column(name: str, part: Any, count: int) -> Iterator[_Row]:
    """A part of the inputs, example by example; what belongs to all of them is the same in each."""
    if isinstance(part, torch.Tensor):
        yield from _rows(name, part)
    elif isinstance(part, list):
        yield from ((_part(name), described(entry)) for entry in part)
    else:
        yield from [(_part(name), described(part))] * count


def _rows(name: str, tensor: torch.Tensor) -> Iterator[_Row]:
    """Name, type and shape of each row of a tensor, and its bytes: no copy, so valid until the next row is drawn."""
    whole = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    header = _part(f"{name}:{whole.dtype}:{tuple(whole.shape[1:])}")
    size = whole.nbytes // len(whole) if len(whole) else 0
    if not size:
        yield from ((header,) for _ in range(len(whole)))
        return
    view = memoryview((ctypes.c_ubyte * whole.nbytes).from_address(whole.data_ptr()))  # any dtype, without numpy
    for index in range(len(whole)):
        yield header, view[index * size : (index + 1) * size]


def described(value: Any) -> bytes:
    """A nest of plain values, as `batches` makes them, without two ways to read it; the order of a dict is no
    difference, and neither is the process."""
    if isinstance(value, torch.Tensor):
        return b"".join(b"".join(row) for row in _rows("", value.unsqueeze(0)))
    if isinstance(value, bytes):
        return _part("bytes") + len(value).to_bytes(8, "little") + value
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return _part(f"{type(value).__name__}{len(value)}") + b"".join(map(described, value))
    inner = held(value) if not isinstance(value, dict) else value
    if inner is None:
        return _part(f"{type(value).__name__}:{value!r}")
    entries = _in_order(inner)
    return _part(f"{type(value).__qualname__}{len(inner)}") + b"".join(key + described(part) for key, part in entries)


def _in_order(inner: dict[Any, Any]) -> list[tuple[bytes, Any]]:
    return sorted(((described(key), part) for key, part in inner.items()), key=lambda entry: entry[0])


def _part(text: str) -> bytes:
    """Text behind its length, so that two texts in a row are not read as one."""
    encoded = text.encode("utf-8", "surrogatepass")
    return len(encoded).to_bytes(4, "little") + encoded
