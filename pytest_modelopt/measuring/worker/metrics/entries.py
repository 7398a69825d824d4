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
from pytest_modelopt.measuring.worker.calls.structure import is_array, is_sequence, parts, rebuilt, tensors_in
from pytest_modelopt.optimizing.finite import no_answers

_PLAIN = (str, bytes, bool, int, float, complex, type(None))


class Misfit(Exception):
    """Why a value has not one entry for each example."""


class Ambiguous(Misfit):
    """Why a list may hold one entry for each example as well as parts with a row for each."""


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
        VariantError: they have not one entry for each example, or nobody can tell.
    """
    try:
        found, has_entries = _joined(batches, counts)
    except Ambiguous as ambiguous:
        raise VariantError(f"{whose} returned {ambiguous}") from None
    except Misfit as misfit:
        found, has_entries, why = None, False, str(misfit)
    else:
        why = _why(batches, counts)
    if not has_entries:
        raise VariantError(
            f"{whose} returned {why}: a metric is given one entry for each example; return a tensor or a list with one "
            "for each, or let a function make them: `prepare: package.module:function` below `metric`"
        )
    return found


def check(outputs: Any, count: int, whose: str = "the model") -> None:
    """Refuse what one batch of several cannot hold. What its list is the other batches may tell.

    Raises:
        VariantError: it has not one entry for each example.
    """
    if not _fits([outputs], [count]):
        joined([outputs], [count], whose)


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
    elif _names(values[0]) and len({type(value) for value in values}) == 1 and _can_be_by_part(values):
        held = _by_part(values, counts)
        if any(has_entries for _, has_entries in held.values()):
            return rebuilt(values[0], {name: part for name, (part, _) in held.items()}), True
    if all(count == 1 for count in counts):
        return list(values), True
    raise Misfit(_why(values, counts))


def _names(value: Any) -> list[Any]:
    return list(parts(value))


def _can_be_by_part(values: Sequence[Any]) -> bool:
    """Whether parts of one name belong together: places in tuples do only where all have as many."""
    return not isinstance(values[0], (tuple, list)) or len({len(value) for value in values}) == 1


def _by_part(values: Sequence[Any], counts: Sequence[int]) -> dict[Any, tuple[Any, bool]]:
    """Each part of the values; what does not fit, or is not in all of them, is told to whoever uses it."""
    held: dict[Any, tuple[Any, bool]] = {}
    columns = [parts(value) for value in values]
    for name in dict.fromkeys(name for column in columns for name in column):
        without = [number for number, column in enumerate(columns, 1) if name not in column]
        if without:
            held[name] = Unusable(f"{_use_of(name)} {_batches(without)} it"), False
            continue
        try:
            held[name] = _joined([column[name] for column in columns], counts)
        except Ambiguous as ambiguous:
            held[name] = Unusable(f"{_use_of(name)} it holds {ambiguous}"), True
        except Misfit as misfit:
            held[name] = Unusable(f"{_use_of(name)} it has not one entry for each example: {misfit}"), False
    return held


def _use_of(name: Any) -> str:
    return f"a metric uses the part {name!r} of what the model returned, and"


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

    Where both may be meant, a tuple is the latter and a list the former, but for one of tensors: whose rows these are
    is not to be guessed.
    """
    are_entries = all(len(value) == count for value, count in zip(values, counts, strict=True))
    if are_entries and isinstance(values[0], list) and _all_have_rows(values, counts):
        raise Ambiguous(
            f"{_told(values[0])} for {_examples(counts[0])}, and {_tensors_of_rows(counts[0])}"
            f"{', and so on in all batches' if len(values) > 1 else ''}: that may be one entry for each example, or "
            "parts with one row for each; return a tuple of parts, one tensor of all entries "
            "(`torch.stack`), or take batches of another size"
        )
    is_tuple = isinstance(values[0], tuple) and not all(isinstance(part, _PLAIN) for part in values[0])
    if (is_tuple or not are_entries) and len({len(value) for value in values}) == 1:
        held = _by_part(values, counts)
        has_entries = any(has for _, has in held.values())
        all_fit = all(has or not isinstance(part, Unusable) for part, has in held.values())
        if has_entries and (all_fit or (is_tuple and not are_entries)):
            return tuple(part for part, _ in held.values()), True
    if are_entries:
        return [entry for value in values for entry in value], True
    raise Misfit(_why(values, counts))


def _all_have_rows(values: Sequence[Sequence[Any]], counts: Sequence[int]) -> bool:
    """Whether each part of each batch is a tensor with a row for each example, and all batches have as many parts."""
    return len({len(value) for value in values}) == 1 and all(
        (isinstance(part, torch.Tensor) or is_array(part)) and part.ndim > 0 and len(part) == count
        for value, count in zip(values, counts, strict=True)
        for part in value
    )


def _constant(values: Sequence[Any], counts: Sequence[int]) -> Any:
    """A number or a text that is the same in all batches."""
    if any(type(value) is not type(values[0]) or value != values[0] for value in values):
        raise Misfit(_why(values, counts))
    return values[0]


def _why(values: Sequence[Any], counts: Sequence[int]) -> str:
    """The first batch that has not one entry for each example or, where each by itself has, that is unlike the first.

    Of one batch among several it says which one.
    """
    if len(values) == 1:
        return f"{_told(values[0])} for {_examples(counts[0])}"
    each = list(zip(values, counts, strict=True))
    for number, (value, count) in enumerate(each, 1):
        if not _fits([value], [count]):
            return _of_batch(value, count, number)
    for number, (value, count) in enumerate(each[1:], 2):
        if len(values) == 2 or not _fits([values[0], value], [counts[0], count]):
            return f"{_of_batch(values[0], counts[0], 1)} and {_of_batch(value, count, number)}, which cannot be joined"
    return f"{_told(values[0])} for {_examples(counts[0])}"


def _fits(values: Sequence[Any], counts: Sequence[int]) -> bool:
    try:
        return _joined(values, counts)[1]
    except Ambiguous:
        return True
    except Misfit:
        return False


def _of_batch(value: Any, count: int, number: int) -> str:
    return f"{_told(value)} for the {_examples(count)} of batch {number:,}"


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


def _tensors_of_rows(count: int) -> str:
    rows = "1 row" if count == 1 else f"{count:,} rows"
    return f"each of them is a tensor with {rows}" if count > 1 else f"it is a tensor with {rows}"


def _batches(numbers: Sequence[int]) -> str:
    """'batches 2, 3, 5 and 9 more lack'"""
    shown = ", ".join(f"{number:,}" for number in numbers[:3])
    more = f" and {len(numbers) - 3:,} more" if len(numbers) > 3 else ""
    return f"batch {shown} lacks" if len(numbers) == 1 else f"batches {shown}{more} lack"


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
