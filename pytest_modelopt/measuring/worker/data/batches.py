"""From any form of data that projects have to batches of examples, with one clear error for each mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from pytest_modelopt.measuring.protocol import VariantError, error_text
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Targets
from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.optimizing.modules.nested_values import PLAIN, cut, held, mapped, sizes, tensors
from pytest_modelopt.optimizing.modules.own_memory import joined_in_own_memory

SCORING_BATCH = 64
"""Examples per batch where the data does not come in batches of its own."""

_NAMES_SHOWN = 8

LABELS = ("labels", "label")
"""Names of the targets in a batch that is one dict."""

_UNLABELLED = "without targets only `metric: agreement`, `cosine` and `sqnr` can score"


class NoExamples(VariantError):
    """The data is empty."""


BatchOf = int | Callable[[Any], Any] | None
"""How many examples are in each batch, or a function of the project's that says it of the inputs of one."""


def batches(data: Any, what: str = "data", *, needs_targets: bool = True, batch_of: BatchOf = None) -> Iterator[Batch]:
    """The examples batch by batch, from tensors, a Dataset, a DataLoader, or any iterable of batches.

    A batch, and all the data, is (inputs, targets), or one dict that holds the targets as `labels`, as Hugging Face's
    collators give it: the other entries are then the model's keyword arguments. Inputs are a tuple (positional
    arguments), a dict (keyword arguments), or one argument: a tensor, a list, a dataclass; in them is anything of that
    kind, text, numbers and None. Targets are a tensor, or a list with one entry for each example: text, tensors of
    their own length, dicts of tensors.

    There are as many examples in a batch as it has targets. Without targets all its tensors and lists have one entry
    for each, unless `batch_of` says how many there are.

    Without `needs_targets` inputs may also stand alone: a tensor, a dict, or `(inputs,)`. A pair is still (inputs,
    targets): several inputs without targets come as a dict, or as `((first, second),)`.

    Raises:
        VariantError: the data is empty, raises, changes its form between batches, inputs and targets differ in number,
            or the form is none of these.
    """
    first, number, form = 0, 0, ""
    try:
        for raw in _raw_batches(data, what, needs_targets=needs_targets, batch_of=batch_of):
            batch = replace(_checked(raw, number, what, needs_targets=needs_targets, batch_of=batch_of), first=first)
            if batch.examples:  # a batch without an example: nothing to measure, and nothing lost
                form = _one_form(form, _form(batch.inputs, batch.targets), f"batch {number} of the {what}")
                yield batch
            first, number = first + batch.examples, number + 1
    except VariantError:
        raise
    except (Exception, SystemExit) as error:
        raise VariantError(
            f"the {what} raised {error_text(error)} when batch {number} was asked for, after {first} examples"
        ) from error
    if not first:
        raise NoExamples(f"the {what} is empty, so there is no example to measure on: give at least one")


def _one_form(before: str, form: str, which: str) -> str:
    if before and form != before:
        raise VariantError(f"{which} holds {form}, and those before it {before}: give all batches in one form")
    return form


# --- the forms -------------------------------------------------------------------------------------------------------


def _raw_batches(data: Any, what: str, *, needs_targets: bool, batch_of: BatchOf) -> Iterable[Any]:
    if _is_whole_pair(data) or _labels_name(data):
        if not needs_targets:
            _refuse_two_alike(data, what)
        return _cut(_checked(data, 0, what, needs_targets=needs_targets, batch_of=batch_of))
    if isinstance(data, DataLoader) and data.collate_fn is default_collate:
        return map(_as_dataset_gave, data)
    if isinstance(data, Dataset):
        if not isinstance(data, IterableDataset) and len(data) == 0:  # type: ignore[arg-type]
            return []
        return DataLoader(data, batch_size=SCORING_BATCH, collate_fn=partial(_collated, what))
    if not needs_targets and _are_whole_inputs(data):
        return _cut(_checked(data, 0, what, needs_targets=False, batch_of=batch_of))
    if _are_numbers(data):
        kind = "tensor" if isinstance(data, torch.Tensor) else "array"
        raise VariantError(f"the {what} is one {kind}; give (inputs, targets): {_UNLABELLED}")
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes, Mapping)):
        return data
    raise VariantError(
        f"the {what} is a {type(data).__name__}; give (inputs, targets) tensors, a Dataset, a DataLoader or an "
        "iterable of such batches" + (_no_labels(data) if isinstance(data, Mapping) and needs_targets else "")
    )


def _no_labels(batch: Mapping[Any, Any]) -> str:
    """What a dict without targets holds, among which they may stand under another name."""
    names = ", ".join(f"`{name}`" for name in list(batch)[:_NAMES_SHOWN])
    return f"; this dict holds {names or 'nothing'}, and no `labels`: put the targets into it under that name"


def _is_whole_pair(data: Any) -> bool:
    """Whether this is (inputs, targets) of all examples, and not two batches."""
    if not isinstance(data, (tuple, list)) or len(data) != 2 or _labels_name(data[0]):
        return False
    inputs, targets = data
    if _are_numbers(targets):
        return not (isinstance(data, list) and isinstance(inputs, (tuple, list)))
    if not isinstance(targets, (tuple, list)):
        return False
    if _are_numbers(inputs) or isinstance(inputs, Mapping):
        return True
    return isinstance(data, tuple) and isinstance(inputs, (tuple, list)) and not _could_be_a_batch(targets)


def _could_be_a_batch(value: Sequence[Any]) -> bool:
    return len(value) in (1, 2) and not isinstance(value[0], (str, int, float))


def _are_whole_inputs(data: Any) -> bool:
    """Whether this is the inputs of all examples, and nothing else: a tensor, a dict, `(inputs,)`."""
    return _are_numbers(data) or isinstance(data, Mapping) or (isinstance(data, tuple) and len(data) == 1)


def _refuse_two_alike(data: Any, what: str) -> None:
    """A list of two tensors of one kind: two batches of inputs, or images and the images to make of them?"""
    if not isinstance(data, list) or not all(isinstance(part, torch.Tensor) and part.ndim for part in data):
        return
    first, second = data
    if first.dtype == second.dtype and first.shape[1:] == second.shape[1:]:
        raise VariantError(
            f"the {what} is a list of two tensors of one kind: (inputs, targets), or two batches of inputs? "
            "Write a tuple for the first and [(inputs,), (inputs,)] for the second"
        )


def _labels_name(batch: Any) -> str:
    """Under which name a dict holds its targets; empty where it is no dict, or holds none."""
    return next((name for name in LABELS if isinstance(batch, Mapping) and name in batch), "")


def _are_numbers(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or type(value).__module__ == "numpy"


def _cut(batch: Batch) -> Iterator[Any]:
    step = SCORING_BATCH if batch.is_cut else max(1, batch.examples)
    for start in range(0, batch.examples, step):
        rows = slice(start, start + step)
        part = cut(batch.inputs, rows) if batch.is_cut else batch.inputs
        yield (part,) if batch.targets is None else (part, batch.targets[rows])


def _as_dataset_gave(batch: Any) -> Any:
    """torch's own collate function makes lists of the tuples that a Dataset gives: positional arguments again."""
    if not isinstance(batch, list) or not batch or not isinstance(batch[0], list) or not batch[0]:
        return batch
    return [batch[0] if isinstance(batch[0][0], (str, bytes)) else tuple(batch[0]), *batch[1:]]


def _collated(what: str, rows: list[Any]) -> Any:
    """One batch of a Dataset's examples: as torch does it, but targets that do not stack stay a list."""
    labels = _labels_name(rows[0])
    if labels:
        pairs = [({name: value for name, value in row.items() if name != labels}, row[labels]) for row in rows]
    elif isinstance(rows[0], (tuple, list)) and len(rows[0]) == 2:
        pairs = rows
    else:
        return _stacked(rows, what)
    inputs, targets = zip(*pairs, strict=True)
    return _stacked(inputs, what), _stacked(targets, what) if _do_stack(targets) else list(targets)


def _stacked(rows: Sequence[Any], what: str) -> Any:
    try:
        made = default_collate(list(rows))
        return tuple(made) if type(rows[0]) is tuple else made
    except (RuntimeError, TypeError) as error:
        raise VariantError(
            f"{len(rows)} examples of the {what} cannot be put into one batch: {error_text(error)}; give a DataLoader "
            "whose `collate_fn` makes batches of them"
        ) from error


def _do_stack(targets: Sequence[Any]) -> bool:
    """Whether these are numbers, or tensors of one shape."""
    if any(
        isinstance(target, str) or not (isinstance(target, (int, float)) or _are_numbers(target)) for target in targets
    ):
        return False
    return len({tuple(getattr(target, "shape", ())) for target in targets}) == 1


# --- one batch -------------------------------------------------------------------------------------------------------


def _checked(batch: Any, index: int, what: str, *, needs_targets: bool, batch_of: BatchOf) -> Batch:
    labels = _labels_name(batch)
    if labels:
        batch = {name: value for name, value in batch.items() if name != labels}, batch[labels]
    elif not needs_targets and (_are_numbers(batch) or isinstance(batch, Mapping)):
        batch = (batch,)
    if not isinstance(batch, (tuple, list)) or len(batch) not in ((2,) if needs_targets else (1, 2)):
        alone = isinstance(batch, torch.Tensor) or (isinstance(batch, (tuple, list)) and len(batch) == 1)
        raise VariantError(
            f"batch {index} of the {what} is a {type(batch).__name__}"
            + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else "")
            + "; each batch must be (inputs, targets), or a dict with `labels`"
            + (f": {_UNLABELLED}" if alone else "" if needs_targets else ", or (inputs,)")
            + (_no_labels(batch) if isinstance(batch, Mapping) else "")
        )
    _refuse_single_example(batch, index, what)
    inputs = inputs_of(batch[0], f"inputs of the {what}")
    made = Batch(inputs, None if len(batch) == 1 else checked_targets(batch[1], index, what))
    if batch_of is not None:
        return replace(made, stated=_stated_examples(batch_of, made, index, what))
    _require_examples(made, index, what)
    return made


def _refuse_single_example(batch: Sequence[Any], index: int, what: str) -> None:
    """(inputs, one target), as in a list of examples: a batch has a target for each of its examples."""
    target = batch[1] if len(batch) == 2 else None
    if isinstance(target, (int, float, str)) or (target is not None and _are_numbers(target) and not target.ndim):
        raise VariantError(
            f"entry {index} of the {what} is (inputs, one target), which is a single example and no batch: give all "
            "examples at once, (torch.stack(inputs), torch.tensor(targets)), or a Dataset or DataLoader of them"
        )


def _stated_examples(batch_of: BatchOf, batch: Batch, index: int, what: str) -> int:
    count = batch_of(batch.inputs) if callable(batch_of) else batch_of
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise VariantError(f"`batch_of` gave {count!r} for batch {index} of the {what}, and not a number of examples")
    if batch.targets is not None and count != len(batch.targets):
        raise VariantError(
            f"batch {index} of the {what} has {len(batch.targets)} targets, and `batch_of` says {count} examples"
        )
    return count


def _require_examples(batch: Batch, index: int, what: str) -> None:
    """That the data says which example is which: by its targets, or by entries of its inputs."""
    found = sizes(batch.inputs)
    kind = type(batch.inputs).__name__
    if not found:
        raise VariantError(
            f"the inputs of the {what} are a {kind}; give a tensor, a list with one entry for each example, or a tuple "
            "or dict of these"
        )
    if batch.targets is None and (len(found) > 1 or not all(tensor.ndim for tensor in tensors(batch.inputs))):
        raise VariantError(
            f"the input tensors of one batch have different first dimensions: {sorted(found)}, and there are no "
            "targets that say how many examples it holds: state it by `batch_of`"
        )
    if batch.targets is not None and len(found) == 1 and found != {len(batch.targets)}:
        raise VariantError(
            f"the {what} has {found.pop()} inputs but {len(batch.targets)} targets (batch {index}); where the parts "
            "of its inputs are not cut along the examples, state by `batch_of` how many there are"
        )


def checked_targets(value: Any, index: int, what: str) -> Targets:
    """A tensor, or a list of plain values; a list of numbers is a tensor, too."""
    if _are_numbers(value) and not _holds_objects(value):
        targets = torch.as_tensor(value)
        if targets.ndim == 0:
            raise VariantError(f"the targets of the {what} are a single number, not one per example")
        return plain(targets)
    if not isinstance(value, (tuple, list)) and not _are_numbers(value):
        raise VariantError(
            f"the targets of the {what} are a {type(value).__name__}, not a tensor or a list with one entry per example"
        )
    entries = [_entry(entry, f"target {number} of batch {index} of the {what}") for number, entry in enumerate(value)]
    if entries and all(isinstance(entry, (int, float)) for entry in entries):
        return torch.tensor(entries, dtype=torch.float64 if any(isinstance(e, float) for e in entries) else torch.int64)
    return entries


def _entry(value: Any, what: str) -> Any:
    """The target of one example, made of plain values only."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bool, int, float)):
        return getattr(value, "item", lambda: value)()  # numpy's float64 is a float, too
    if _are_numbers(value):
        return value.tolist() if _holds_objects(value) else _unwrapped(plain(torch.as_tensor(value)))
    if isinstance(value, Mapping):
        return {str(key): _entry(entry, what) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_entry(entry, what) for entry in value]
    raise VariantError(f"{what} is a {type(value).__name__}; give text, numbers, tensors, or lists and dicts of these")


def _unwrapped(tensor: torch.Tensor) -> Any:
    return tensor if tensor.ndim else tensor.item()


def _holds_objects(array: Any) -> bool:
    """Of numpy: text and objects, which no tensor can hold."""
    return not isinstance(array, torch.Tensor) and array.dtype.kind in "OUST"


def _form(inputs: Inputs, targets: Targets | None) -> str:
    """Of a batch, in words: what must not change from one batch to the next."""
    kinds = {torch.Tensor: "one tensor", dict: "a dict", list: "a list"}
    told = f"a tuple of {len(inputs)}" if type(inputs) is tuple else f"a {type(inputs).__name__}"
    form = f"inputs in {kinds.get(type(inputs), told)}"
    if targets is None:
        return f"{form} without targets"
    return f"{form} with targets in {'one tensor' if isinstance(targets, torch.Tensor) else 'a list'}"


def inputs_of(value: Any, what: str) -> Inputs:
    """A model's inputs, with arrays as tensors, and a mapping as a dict.

    Raises:
        VariantError: something in them is no data that is the same in every process.
    """
    if isinstance(value, torch.Tensor) and value.ndim == 0:
        raise VariantError(f"the {what} are a single number, not one per example")

    def checked(leaf: Any) -> Any:
        if _are_numbers(leaf):
            return _tensor(leaf, what)
        if isinstance(leaf, PLAIN) or (held(leaf) is None and isinstance(leaf, (list, tuple, torch.Size))):
            return leaf
        raise VariantError(
            f"the {what} hold a {type(leaf).__name__}; give tensors, text, bytes, numbers and None, or lists, tuples, "
            "dicts and dataclasses of these"
        )

    return mapped(dict(value) if isinstance(value, Mapping) else value, checked)


def _tensor(value: Any, what: str) -> torch.Tensor:
    if _holds_objects(value):
        raise VariantError(f"the {what} are an array of {value.dtype}; give numbers")
    tensor = torch.as_tensor(value)
    if tensor.layout is not torch.strided:
        raise VariantError(f"the {what} are a tensor in layout {str(tensor.layout)[6:]}; give a dense one")
    return plain(tensor)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers without a subclass (torchvision's images, parameters) and without a graph behind them."""
    tensor = tensor.detach()
    return tensor if type(tensor) is torch.Tensor else tensor.as_subclass(torch.Tensor)


def in_order_of(first: Inputs, inputs: Inputs) -> Inputs:
    """Tensors by name in the order of `first`; none where the names are others."""
    if not isinstance(first, dict) or not isinstance(inputs, dict):
        return inputs
    return {name: inputs[name] for name in first} if set(inputs) == set(first) else {}


# --- all batches -----------------------------------------------------------------------------------------------------


def varying_dimensions(batches: Iterable[Inputs]) -> tuple[frozenset[int], ...]:
    """For each tensor of a batch, the dimensions whose size differs between the batches, the first one aside."""
    seen: list[set[tuple[int, ...]]] = []
    first: Inputs | None = None
    for inputs in batches:
        first = inputs if first is None else first
        found = tensors(in_order_of(first, inputs))
        seen = seen or [set() for _ in found]
        if len(found) != len(seen):
            raise VariantError(
                "the batches hold different inputs, and a model can be converted for one set of them only"
            )
        for shapes, tensor in zip(seen, found, strict=True):
            shapes.add(tuple(tensor.shape[1:]))
    if any(len({len(shape) for shape in shapes}) > 1 for shapes in seen):
        raise VariantError("an input has more dimensions in some batches than in others, and a model has one form")
    return tuple(
        frozenset(index + 1 for index, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1)
        for shapes in seen
    )


def first_examples(source_batches: Iterable[Batch], count: int, what: str) -> tuple[Inputs, int]:
    """The first `count` examples, of as many batches as that takes, in memory of their own; and how many they are: a
    first batch of which no example can be taken out is used whole."""
    collected: list[Inputs] = []
    have = 0
    for batch in source_batches:
        if not batch.is_cut and not collected:
            return batch.inputs, batch.examples
        if not batch.is_cut:
            break
        collected.append(cut(batch.inputs, slice(0, count - have)))
        have += min(batch.examples, count - have)
        if have >= count:
            break
    if have < count:
        raise VariantError(f"`batch_size` is {count} but the {what} holds only {have} examples")
    try:
        return joined_in_own_memory(collected), count
    except (RuntimeError, ValueError) as error:
        raise VariantError(
            f"the first examples of the {what} cannot be put into one batch of {count}: {error_text(error)}; "
            "give `example_inputs`"
        ) from error
