"""What a model returned, taken apart and put together by example: a metric is given one entry for each example.

What a function is given of all batches is what the model would have returned for all examples in one batch: a tensor
stays a tensor, a list with one entry for each example stays such a list, and tuples, dicts, dataclasses and other
objects keep their form with all examples in each of their parts. Tensors of several shapes become a list of single
examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence, unpack_sequence

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.structure import is_array, is_sequence, parts, rebuilt, tensors_in
from pytest_modelopt.optimizing.finite import no_answers

_PLAIN = (str, bytes, bool, int, float, complex, type(None))


class Misfit(Exception):
    """Why a value has not one entry for each example."""


class Unusable:
    """Stands where a part of what a model returned cannot be given to a metric: whoever uses it is told why.

    A metric that takes the scores and leaves the loss or the mask beside them alone must not fail for these.
    """

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise VariantError(self.why)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del function, types
        raise VariantError(next(each.why for each in _unusable_in([args, kwargs])))


def _refuse(self: Unusable, *_: Any) -> Any:
    raise VariantError(self.why)


_USES = (
    "len iter getitem contains bool int float complex index call array eq ne lt le gt ge neg pos abs invert "
    "add sub mul matmul truediv floordiv mod pow and or xor radd rsub rmul rmatmul rtruediv rfloordiv rmod rpow rand "
    "ror rxor format str"
)
for _use in _USES.split():
    setattr(Unusable, f"__{_use}__", _refuse)


def _unusable_in(value: Any) -> Iterator[Unusable]:
    if isinstance(value, Unusable):
        yield value
    for part in () if isinstance(value, Unusable) else parts(value).values():
        yield from _unusable_in(part)


# --- all batches -----------------------------------------------------------------------------------------------------


def joined(batches: Sequence[Any], counts: Sequence[int], whose: str = "the model") -> Any:
    """What `batches` hold, which have so many examples each.

    Raises:
        VariantError: they have not one entry for each example.
    """
    try:
        found, has_entries = _joined(batches, counts)
    except Misfit as misfit:
        found, has_entries, why = None, False, str(misfit)
    else:
        why = f"{_told(batches[0])} for {_examples(counts[0])}"
    if not has_entries:
        raise VariantError(
            f"{whose} returned {why}: a metric is given one entry for each example; return a tensor or a list with one "
            "for each, or let a function make them: `prepare: package.module:function` below `metric`"
        )
    return found


def pick(value: Any, positions: Sequence[int]) -> Any:
    """Some examples of what `joined` made."""
    if isinstance(value, torch.Tensor) or is_array(value):
        return value[list(positions)]
    if isinstance(value, list):
        return [value[position] for position in positions]
    if isinstance(value, (Unusable, *_PLAIN)):
        return value
    return rebuilt(value, {name: pick(part, positions) for name, part in parts(value).items()})


def _joined(values: Sequence[Any], counts: Sequence[int]) -> tuple[Any, bool]:
    """(all of it, whether that has one entry for each example). Raises Misfit where it cannot be joined."""
    for value in values:
        if isinstance(value, Unusable):
            raise Misfit(value.why)
    if all(isinstance(value, PackedSequence) for value in values):
        values = [unpack_sequence(value) for value in values]
    if all(isinstance(value, torch.Tensor) or is_array(value) for value in values):
        return _of_tensors(values, counts), True
    if all(map(is_sequence, values)):
        return _of_sequences(values, counts)
    if all(isinstance(value, _PLAIN) for value in values):
        if all(value is None for value in values):
            return None, False
        if not all(count == 1 for count in counts):
            return _constant(values, counts), False
    elif _names(values[0]) and len({(type(value), *sorted(map(str, _names(value)))) for value in values}) == 1:
        held = _by_part(values, counts)
        if any(has_entries for _, has_entries in held.values()):
            return rebuilt(values[0], {name: part for name, (part, _) in held.items()}), True
    if all(count == 1 for count in counts):
        return list(values), True
    raise Misfit(f"{_told(values[0])} for {_examples(counts[0])}")


def _names(value: Any) -> list[Any]:
    return list(parts(value))


def _by_part(values: Sequence[Any], counts: Sequence[int]) -> dict[Any, tuple[Any, bool]]:
    """Each part of values that have the same ones; what does not fit is told to whoever uses it."""
    held: dict[Any, tuple[Any, bool]] = {}
    columns = [parts(value) for value in values]
    for name in columns[0]:
        try:
            held[name] = _joined([column[name] for column in columns], counts)
        except Misfit as misfit:
            why = (
                f"a metric uses the part {name!r} of what the model returned, and it has not one entry for each example"
            )
            held[name] = Unusable(f"{why}: {misfit}"), False
    return held


def _of_tensors(values: Sequence[Any], counts: Sequence[int]) -> Any:
    entries: list[Any] = []
    for value, count in zip(values, counts, strict=True):
        rows = value.unbind() if isinstance(value, torch.Tensor) and value.is_nested else value
        rows = rows.reshape(1) if count == 1 and not isinstance(rows, tuple) and rows.ndim == 0 else rows
        if (not isinstance(rows, tuple) and rows.ndim == 0) or len(rows) != count:
            raise Misfit(f"{_told(value)} for {_examples(count)}")
        entries.append(rows)
    if not any(isinstance(rows, tuple) for rows in entries) and len({rows.shape[1:] for rows in entries}) == 1:
        if len(entries) == 1:
            return entries[0]
        if all(isinstance(rows, torch.Tensor) for rows in entries):
            return torch.cat(entries)
        import numpy

        return numpy.concatenate(entries)
    return [entry for rows in entries for entry in rows]


def _of_sequences(values: Sequence[Any], counts: Sequence[int]) -> tuple[Any, bool]:
    """Lists with one entry for each example, or with one part of the outputs in each place, as (scores, boxes) is.

    Where both may be meant, a list is the former and a tuple the latter.
    """
    are_entries = all(len(value) == count for value, count in zip(values, counts, strict=True))
    is_tuple = isinstance(values[0], tuple) and not all(isinstance(part, _PLAIN) for part in values[0])
    if (is_tuple or not are_entries) and len({len(value) for value in values}) == 1:
        held = _by_part(values, counts)
        has_entries = any(has for _, has in held.values())
        all_fit = not any(isinstance(part, Unusable) for part, _ in held.values())
        if has_entries and (all_fit or (is_tuple and not are_entries)):
            return tuple(part for part, _ in held.values()), True
    if are_entries:
        return [entry for value in values for entry in value], True
    wrong = next((v, n) for v, n in zip(values, counts, strict=True) if len(v) != n)
    raise Misfit(f"{_told(wrong[0])} for {_examples(wrong[1])}")


def _constant(values: Sequence[Any], counts: Sequence[int]) -> Any:
    """A number or a text that is the same in all batches."""
    if any(type(value) is not type(values[0]) or value != values[0] for value in values):
        raise Misfit(f"{_told(values[0])} for {_examples(counts[0])}")
    return values[0]


def _told(value: Any) -> str:
    if isinstance(value, torch.Tensor) or is_array(value):
        return (
            f"a tensor of shape {tuple(value.shape)}" if not getattr(value, "is_nested", False) else "a nested tensor"
        )
    if is_sequence(value):
        kinds = ", ".join(dict.fromkeys(type(entry).__name__ for entry in value))
        entries = "1 entry" if len(value) == 1 else f"{len(value)} entries"
        return f"{entries} ({type(value).__name__} of {kinds})" if value else "0 entries"
    if isinstance(value, dict):
        shown = ", ".join(f"{name}: {_told(part)}" for name, part in list(value.items())[:5])
        return f"a {type(value).__name__} with {shown or 'nothing'}"
    return f"a {type(value).__name__}"


def _examples(count: int) -> str:
    return "1 example" if count == 1 else f"{count:,} examples"


# --- numbers that are no answers -------------------------------------------------------------------------------------


def refuse_no_answers(tensor: torch.Tensor, first: int) -> None:
    """NaN and +inf are an error before anything is made of them: argmax would quietly take them for an answer."""
    why = _no_answers(tensor, first)
    if why:
        raise VariantError(why)


def usable(outputs: Any, first: int) -> Any:
    """What a function of the project may use: parts beside others that hold NaN or +inf say so when they are used.

    Raises:
        VariantError: the outputs themselves, or entries of them, hold such numbers.
    """
    if any(_no_answers(tensor, first) for tensor in tensors_in(outputs)):
        return _marked(outputs, first)
    return outputs


def _marked(value: Any, first: int) -> Any:
    if isinstance(value, torch.Tensor) or is_array(value):
        for tensor in tensors_in(value):
            refuse_no_answers(tensor, first)
        return value
    if isinstance(value, list):
        return [_marked(entry, first + position) for position, entry in enumerate(value)]
    after: dict[Any, Any] = {}
    for name, part in parts(value).items():
        try:
            after[name] = _marked(part, first)
        except VariantError as error:
            after[name] = Unusable(str(error))
    return rebuilt(value, after) if after else value


def _no_answers(tensor: torch.Tensor, first: int) -> str:
    if not tensor.is_floating_point() or tensor.is_nested:
        return "".join(_no_answers(row, first) for row in tensor.unbind()) if tensor.is_nested else ""
    wrong = no_answers(tensor if tensor.layout is torch.strided else tensor.to_dense())
    if not bool(wrong.any()):
        return ""
    rows = wrong.reshape(len(wrong), -1).any(dim=1) if wrong.ndim else None
    where = f", first in example {first + int(rows.nonzero()[0])}" if rows is not None else ""
    return f"the model's outputs are not finite: {int(wrong.sum())} values are NaN or infinite{where}"
