"""An ExecuTorch program as its flatbuffer says it: methods, inputs, operators and backends. Nothing of it is loaded.

The runtime's own reader is not asked, since it ends the process where an operator or a backend is missing in some
builds, and says neither which inputs have open sizes nor how they lie in memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_IDENTIFIER = b"ET"
"""In the place of a flatbuffer's file identifier, followed by two digits."""
_HEAD_BYTES, _HEADER_AT, _HEADER = 48, 8, b"eh"
"""ExecuTorch's own header: its mark, its length, the bytes of the flatbuffer, and where the weights begin."""
# Slots of the tables in ExecuTorch's program.fbs.
_VERSION, _PLANS, _SEGMENTS = 0, 1, 4
_NAME, _VALUES, _INPUTS, _OPERATORS, _DELEGATES = 0, 2, 3, 6, 7
_KIND, _VALUE, _KIND_TENSOR = 0, 1, 5
_TYPE, _SIZES, _ORDER, _DYNAMISM, _EXTRA = 0, 2, 3, 8, 9
_LOCATION, _EXTERNAL = 2, 1


class NoProgram(ValueError):
    """What the file holds is no ExecuTorch program."""


@dataclass(frozen=True)
class Input:
    """A tensor that a method takes. `sizes` are the largest ones where some are open."""

    scalar_type: int
    """As torch and ExecuTorch number them."""
    sizes: tuple[int, ...]
    is_open: bool
    order: tuple[int, ...]
    """Its dimensions as they lie in memory, the outermost first."""


@dataclass(frozen=True)
class Method:
    """`inputs` has None for each that is no tensor; operators are named as the runtime does: 'aten::add.out'."""

    name: str
    inputs: tuple[Input | None, ...]
    operators: tuple[str, ...]
    backends: tuple[str, ...]
    has_external_data: bool


@dataclass(frozen=True)
class Program:
    version: int
    methods: tuple[Method, ...]


def read(file: Path) -> Program:
    """The program in a `.pte` file, of which the weights behind the flatbuffer are not read.

    Raises:
        NoProgram: it is of another format, or ends too early.
    """
    length = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(_HEAD_BYTES)
        if head[4:6] != _IDENTIFIER:
            raise NoProgram("it has no mark of an ExecuTorch program (`ET` in bytes 4 and 5)")
        try:
            has_header = head[_HEADER_AT : _HEADER_AT + 2] == _HEADER
            size = _number(head, "<Q", _HEADER_AT + 8) if has_header else length
            behind = _number(head, "<Q", _HEADER_AT + 16) if has_header else 0
            content = head + opened.read(max(0, min(size, length) - len(head)))
            root = _Table(content, _number(content, "<I", 0))
            program = Program(root.number(_VERSION, "<I"), tuple(_method(plan) for plan in root.tables(_PLANS)))
            ends = [each.number(0, "<Q") + each.number(1, "<Q") for each in root.tables(_SEGMENTS)]
        except (struct.error, UnicodeDecodeError, IndexError) as error:
            raise NoProgram("it is cut off, or damaged") from error
    needed = max([size, *(behind + end for end in ends)])
    if needed > length:
        raise NoProgram(f"it is cut off: its parts take {needed:,} bytes, and the file has {length:,}")
    return program


def _method(plan: _Table) -> Method:
    values = list(plan.tables(_VALUES))
    tensors = [_tensor(value) for value in values]
    operators = (f"{each.text(0)}.{each.text(1)}".rstrip(".") for each in plan.tables(_OPERATORS))
    return Method(
        plan.text(_NAME),
        tuple(_input(tensors[index]) for index in plan.numbers(_INPUTS, "<i")),
        tuple(operators),
        tuple(dict.fromkeys(each.text(0) for each in plan.tables(_DELEGATES))),
        any(map(_is_external, tensors)),
    )


def _tensor(value: _Table) -> _Table | None:
    return value.table(_VALUE) if value.number(_KIND, "<B") == _KIND_TENSOR else None


def _input(tensor: _Table | None) -> Input | None:
    if tensor is None:
        return None
    return Input(
        tensor.number(_TYPE, "<b"),
        tuple(tensor.numbers(_SIZES, "<i")),
        tensor.number(_DYNAMISM, "<b") != 0,
        tuple(tensor.numbers(_ORDER, "<B")),
    )


def _is_external(tensor: _Table | None) -> bool:
    extra = None if tensor is None else tensor.table(_EXTRA)
    return extra is not None and extra.number(_LOCATION, "<b") == _EXTERNAL


# --- flatbuffers -----------------------------------------------------------------------------------------------------


def _number(content: bytes, kind: str, position: int) -> int:
    return int(struct.unpack_from(kind, content, position)[0])


@dataclass(frozen=True)
class _Table:
    """A flatbuffer's table at `position`; a slot that it leaves out is 0, nothing or empty."""

    content: bytes
    position: int

    def _place(self, slot: int) -> int:
        """Where the slot's value stands; 0 where the table leaves it out."""
        slots = self.position - _number(self.content, "<i", self.position)
        entry = 4 + 2 * slot
        offset = _number(self.content, "<H", slots + entry) if entry < _number(self.content, "<H", slots) else 0
        return self.position + offset if offset else 0

    def number(self, slot: int, kind: str) -> int:
        place = self._place(slot)
        return _number(self.content, kind, place) if place else 0

    def table(self, slot: int) -> _Table | None:
        place = self._place(slot)
        return self._at(place) if place else None

    def text(self, slot: int) -> str:
        start, length = self._vector(slot)
        return self.content[start : start + length].decode()

    def numbers(self, slot: int, kind: str) -> Iterator[int]:
        start, length = self._vector(slot)
        return (_number(self.content, kind, start + each * struct.calcsize(kind)) for each in range(length))

    def tables(self, slot: int) -> Iterator[_Table]:
        start, length = self._vector(slot)
        return (self._at(start + 4 * each) for each in range(length))

    def _at(self, place: int) -> _Table:
        return _Table(self.content, place + _number(self.content, "<I", place))

    def _vector(self, slot: int) -> tuple[int, int]:
        """Where the entries of a vector or a text begin, and how many there are."""
        place = self._place(slot)
        if not place:
            return 0, 0
        start = place + _number(self.content, "<I", place)
        return start + 4, _number(self.content, "<I", start)
