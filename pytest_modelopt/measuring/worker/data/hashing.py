"""Hashes of single examples: what tells whether two of them are the same, and what the data as a whole was."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Targets
from pytest_modelopt.optimizing.calling import Inputs

HASH_BYTES = 16
"""Of one example: by chance no two of a billion different ones have the same."""


def hashes_of_inputs(inputs: Inputs) -> list[bytes]:
    """Of each example of a batch: the bytes, types and shapes of its inputs, and their names. Not of its targets."""
    columns = [_rows(name, tensor) for name, tensor in _named(inputs)]
    return [_digest(rows) for rows in zip(*columns, strict=True)]


def hashes_with_targets(of_inputs: Sequence[bytes], targets: Targets | None) -> list[bytes]:
    """Of each example of a batch, from the hash of its inputs."""
    if targets is None:
        return list(of_inputs)
    rows = _rows("", targets) if isinstance(targets, torch.Tensor) else ((_described(entry),) for entry in targets)
    return [_digest([(digest,), row]) for digest, row in zip(of_inputs, rows, strict=True)]


class Fingerprint:
    """SHA-256 over the hashes of all examples in order, however they are cut into batches."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, batch: Batch) -> tuple[list[bytes], list[bytes]]:
        """Take a batch; the hashes of its examples' inputs, and of the examples with their targets."""
        of_inputs = hashes_of_inputs(batch.inputs)
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


def _named(inputs: Inputs) -> list[tuple[str, torch.Tensor]]:
    """The tensors by argument: their order in a dict is no difference."""
    if isinstance(inputs, torch.Tensor):
        return [("", inputs)]
    if isinstance(inputs, dict):
        return sorted(inputs.items())
    return [(str(place), tensor) for place, tensor in enumerate(inputs)]


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


def _described(value: Any) -> bytes:
    """The target of one example, which `batches` has made of plain values, without two ways to read it."""
    if isinstance(value, torch.Tensor):
        return b"".join(b"".join(row) for row in _rows("", value.unsqueeze(0)))
    if isinstance(value, dict):
        return _part(f"dict{len(value)}") + b"".join(_part(key) + _described(value[key]) for key in sorted(value))
    if isinstance(value, list):
        return _part(f"list{len(value)}") + b"".join(map(_described, value))
    return _part(f"{type(value).__name__}:{value!r}")


def _part(text: str) -> bytes:
    """Text behind its length, so that two texts in a row are not read as one."""
    encoded = text.encode("utf-8", "surrogatepass")
    return len(encoded).to_bytes(4, "little") + encoded
