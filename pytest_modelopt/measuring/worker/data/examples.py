"""The evaluation data, read once for each model: into a file from which the workers of all variants take it."""

from __future__ import annotations

import contextlib
import io
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import torch

from pytest_modelopt.measuring.protocol import Examples, VariantError, error_text
from pytest_modelopt.measuring.worker.data.batches import NoExamples
from pytest_modelopt.measuring.worker.data.hashing import HASH_BYTES, Fingerprint
from pytest_modelopt.measuring.worker.data.known_targets import TargetsSeen
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.metrics.scorer import Batch
from pytest_modelopt.measuring.worker.source_loading import same_random_state
from pytest_modelopt.optimizing.modules.nested_values import cut
from pytest_modelopt.optimizing.modules.own_memory import in_own_memory
from pytest_modelopt.results.figures import format_bytes

MOST_BYTES = 4 * 1024**3
SHARE_OF_DISK = 0.25
"""Bounds of the file: what is larger is read from its source by each variant."""
LOOKED_AT_AGAIN = 256
"""Examples by which a second reading of the source is compared with the first."""
MOST_SLICES = 1_000
MOST_CHARACTERS = 100
"""Of the name of a slice."""

DIFFERS = "the data differs from one load to the next: "
_WAY_OUT = (
    "the data factory must give the same examples in the same order each time (seed what is random, and open anew what "
    "is used up)"
)
_LENGTH = 8
"""Bytes of the number in front of each batch in the file."""


class Slices:
    """The project's function (inputs, target) -> slice name, asked about every example."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        if not callable(function):
            raise VariantError(f"`slices` is a {type(function).__name__}; give a function (inputs, target) -> name")
        self._function = function
        self._known: dict[str, int] = {}
        self.of: array[int] = array("H")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._known)

    def add(self, batch: Batch) -> None:
        with same_random_state():  # the data may draw at random, too, and is read again without this function
            for row in range(batch.examples):
                target = None if batch.targets is None else batch.targets[row]
                inputs = cut(batch.inputs, row) if batch.is_cut else batch.inputs
                self.of.append(self._number(inputs, target, batch.first + row))

    def _number(self, inputs: Any, target: Any, index: int) -> int:
        try:
            name = self._function(inputs, target)
        except (Exception, SystemExit) as error:
            raise VariantError(
                f"the slice function raised {error_text(error)} on example {index}; it is called as "
                "function(inputs, target) with one example, which has no batch dimension (with the whole inputs of a "
                "batch that cannot be cut)"
            ) from error
        if not isinstance(name, (str, int)):
            raise VariantError(
                f"the slice function gave a {type(name).__name__} for example {index}, and must give the name of its "
                "slice: text or a whole number"
                + (" (`.item()` makes one of a tensor of one element)" if hasattr(name, "item") else "")
            )
        text = str(name)
        if not text.strip() or not text.isprintable() or len(text) > MOST_CHARACTERS:
            raise VariantError(
                f"the slice function gave {text[:MOST_CHARACTERS]!r} for example {index}: a name has 1 to "
                f"{MOST_CHARACTERS} printable characters, and this one has {len(text)}"
            )
        number = self._known.setdefault(text, len(self._known))
        if number >= MOST_SLICES:
            raise VariantError(
                f"the slice function gave more than {MOST_SLICES:,} different names up to example {index} (the last "
                f"one is {text!r}): a slice is a part of the data, not a single example"
            )
        return number


# --- the first reading -----------------------------------------------------------------------------------------------


def keep(batches: Iterable[Batch], path: Path, count: int) -> str:
    """Write the first batches that hold `count` examples to the file `path`; its name."""
    have = 0
    with path.open("xb") as file:
        for batch in batches:
            file.write(_packed(batch))
            have += batch.examples
            if have >= count:
                break
    return str(path)


def read(batches: Iterable[Batch], path: Path, slices: Slices | None = None, most_bytes: int | None = None) -> Examples:
    """One pass over the data: its batches go to `path`, the hashes of its inputs beside it, as they come.

    Nothing stays in memory but some bytes for each example. Files appear whole, or not at all; the batches not, where
    they are larger than `most_bytes` (default: `MOST_BYTES`, and `SHARE_OF_DISK` of what is free there).
    """
    bound = _bound(path.parent) if most_bytes is None else most_bytes
    hashes_path = path.with_name(path.name + ".hashes")
    fingerprint, targets, first, count = Fingerprint(), TargetsSeen(), list[bytes](), 0
    with _Written(path, bound) as kept, _Written(hashes_path, None) as hashes:
        for batch in batches:
            of_inputs, whole = fingerprint.add(batch)
            targets.add(batch)
            first += whole[: LOOKED_AT_AGAIN - len(first)]
            count += len(whole)
            hashes.write(b"".join(of_inputs))
            if kept.is_open:
                kept.write(_packed(batch))
            if slices is not None:
                slices.add(batch)
    notes = [f"{kept.why_not}, so every variant reads the data from its source"] if kept.why_not else []
    if count == 1:
        notes.append("the data is one single example, which says nothing about others")
    return Examples(
        path=None if kept.why_not else str(path),
        count=count,
        fingerprint=fingerprint.hexdigest(),
        first=tuple(first),
        slice_names=slices.names if slices is not None else (),
        slice_of=slices.of if slices is not None else None,
        hashes_path=str(hashes_path),
        notes=tuple(notes),
        targets=targets.known(),
    )


def _bound(folder: Path) -> int:
    return min(MOST_BYTES, int(SHARE_OF_DISK * shutil.disk_usage(folder).free))


class _Written:
    """A file under a temporary name, which it loses when all went well; given up where it becomes too large."""

    def __init__(self, path: Path, bound: int | None) -> None:
        self._path, self._bound = path, bound
        self._temporary = path.with_name(path.name + ".part")
        self._file: BinaryIO | None = None
        self._size = 0
        self.why_not = ""
        """Why it was given up."""

    def __enter__(self) -> _Written:
        self._file = self._temporary.open("xb")
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._file is None:
            return
        self._file.close()
        if kind is None:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink()

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def write(self, data: bytes) -> None:
        assert self._file is not None
        self._size += len(data)
        if self._bound is None:
            self._file.write(data)
        elif self._size > self._bound:
            self._give_up(f"the batches of the data take more than {format_bytes(self._bound)}")
        else:
            try:
                self._file.write(data)
            except OSError as error:
                self._give_up(f"the batches of the data could not be kept ({error_text(error)})")

    def _give_up(self, why: str) -> None:
        assert self._file is not None
        self.why_not = why
        self._file.close()
        self._file = None
        self._temporary.unlink()


def _packed(batch: Batch) -> bytes:
    """A batch behind its length. Tensors are copied: a view would be saved with all that it is a view of."""
    buffer = io.BytesIO()
    content = {"inputs": in_own_memory(batch.inputs), "targets": in_own_memory(batch.targets), "stated": batch.stated}
    if has_objects := not _is_data(batch.inputs):
        size.write(content, buffer)  # of the project's own classes
    else:
        torch.save(content, buffer)
    data = bytes([has_objects]) + buffer.getvalue()
    return len(data).to_bytes(_LENGTH, "little") + data


def _unpacked(data: bytes, first: int) -> Batch:
    """Objects are those of the project's classes, which our own worker wrote into a folder of this user's alone."""
    found = torch.load(io.BytesIO(data[1:]), weights_only=not data[0])
    return Batch(found["inputs"], found["targets"], first, stated=found["stated"])


def _is_data(value: Any) -> bool:
    """Whether torch loads it without running code: plain containers, tensors, texts and numbers."""
    if type(value) in (list, tuple):
        return all(map(_is_data, value))
    if type(value) is dict:
        return all(type(key) in (str, int) and _is_data(part) for key, part in value.items())
    return type(value) in (torch.Tensor, str, bool, int, float, type(None))


# --- what the workers of a model's variants do -----------------------------------------------------------------------


def read_batches(data: Examples) -> Iterator[Batch]:
    """The batches from the file."""
    assert data.path is not None
    first = 0
    for batch in kept_batches(data.path):
        yield _with_slices(batch, data)
        first += batch.examples
    if first != data.count:
        raise VariantError(f"the file of the data holds {first} examples, and {data.count} were read")


def kept_batches(path: str) -> Iterator[Batch]:
    """The batches in a file of `read` or `keep`."""
    first = 0
    with Path(path).open("rb") as file:
        while length := file.read(_LENGTH):
            batch = _unpacked(file.read(int.from_bytes(length, "little")), first)
            yield batch
            first += batch.examples


class Pass:
    """One pass over the examples, from the file or from their source; afterwards it knows their fingerprint."""

    def __init__(
        self,
        batches: Iterator[Batch],
        data: Examples | None,
        *,
        is_from_file: bool,
        given: Callable[[Batch], Batch] = lambda batch: batch,
    ) -> None:
        self._batches, self._data, self._given = batches, data, given
        self._fingerprint = None if is_from_file else Fingerprint()

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            if self._fingerprint is None:
                yield self._given(batch)  # its slices are in it, and nobody else wrote the file
                continue
            self._fingerprint.add(batch)
            yield self._given(_with_slices(batch, self._data))

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is not None:
            return self._fingerprint.hexdigest()
        assert self._data is not None
        return self._data.fingerprint


def _with_slices(batch: Batch, data: Examples | None) -> Batch:
    if data is None or data.slice_of is None:
        return batch
    stop = batch.first + batch.examples
    if stop > data.count:
        raise VariantError(f"{DIFFERS}there are more than the {data.count:,} examples of the first time; {_WAY_OUT}")
    return replace(batch, slices=tuple(data.slice_of[batch.first : stop]))


# --- the second reading ----------------------------------------------------------------------------------------------


def compare_with_first(batches: Iterable[Batch], data: Examples) -> None:
    """Compare the first examples of a second reading with those of the first.

    Raises:
        VariantError: they are not the same, in the same order.
    """
    asked, again = len(data.first), list[bytes]()
    fingerprint = Fingerprint()
    with contextlib.suppress(NoExamples):
        for batch in batches:
            again += fingerprint.add(batch)[1]
            if len(again) > asked or (len(again) == asked and asked < data.count):
                break
    difference = _difference(data, again)
    if difference:
        raise VariantError(f"{DIFFERS}{difference}; {_WAY_OUT}")


def _difference(data: Examples, again: list[bytes]) -> str:
    first = data.first
    if not again:
        return f"the second time there was no example, and {data.count:,} the first time"
    other = [index for index, (before, after) in enumerate(zip(first, again, strict=False)) if before != after]
    if other:
        known = set(first)
        moved = [index for index in other if again[index] in known]
        if moved:
            return f"example {moved[0]} of the second time stood elsewhere the first time ({_of(len(moved), first)})"
        return f"example {other[0]} was another one the second time ({_of(len(other), first)} differ)"
    if len(again) < len(first):
        return f"the second time there were {len(again):,} examples, and {data.count:,} the first time"
    if len(again) > len(first) == data.count:
        return f"the second time there were more than the {data.count:,} examples of the first time"
    return ""


def _of(number: int, looked_at: tuple[bytes, ...]) -> str:
    return f"{number:,} of the {len(looked_at):,} that were compared"


# --- for calibration -------------------------------------------------------------------------------------------------


class Positions:
    """Where an example stands in the evaluation data, by the hash of its inputs."""

    def __init__(self, hashes_path: str) -> None:
        data = bytearray(Path(hashes_path).read_bytes())
        halves = torch.frombuffer(data, dtype=torch.int64).reshape(-1, HASH_BYTES // 8)
        self._order = halves[:, 0].argsort(stable=True)
        self._halves = halves[self._order]
        self._sorted = self._halves[:, 0].contiguous()

    def find(self, hashes: Iterable[bytes]) -> list[int | None]:
        """The first index of each, None where it is not there."""
        wanted = torch.frombuffer(bytearray(b"".join(hashes)), dtype=torch.int64).reshape(-1, HASH_BYTES // 8)
        places = torch.searchsorted(self._sorted, wanted[:, 0].contiguous()).clamp(max=len(self._sorted) - 1)
        is_there = (self._halves[places] == wanted).all(dim=1)
        found = zip(self._order[places].tolist(), is_there.tolist(), strict=True)
        return [index if there else None for index, there in found]
