"""From a source (a factory's name or a carried object) to a model, data and inputs, with an error for each mistake."""

from __future__ import annotations

import difflib
import importlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pytest_modelopt.measure.replies import VariantError
from pytest_modelopt.measure.variant import Carried, Source, Variant
from pytest_modelopt.recipes.calling import Inputs

SCORING_BATCH = 64
"""Examples per batch where the data does not come in batches of its own."""

LABELS = ("labels", "label")
"""Names of the targets in a batch that is one dict."""

Batch = tuple[Inputs, torch.Tensor]


class Loader:
    """Makes what a variant names. Carried objects are read once, until `start_afresh`."""

    def __init__(self, variant: Variant) -> None:
        self._variant = variant
        self._carried: dict[str, Any] | None = None

    def make(self, source: Source, what: str) -> Any:
        """What `source` stands for: the factory's result (called without arguments, seeded) or the carried object.

        A carried function or class is a factory, too: it is called. A carried module is the model itself.
        """
        seed_everything(self._variant.seed)
        if isinstance(source, Carried):
            value = self._carried_object(source.key, what)
            is_factory = callable(value) and not isinstance(value, (nn.Module, Dataset, DataLoader))
            return _call_factory(value, f"{what} factory", what) if is_factory else value
        return _call_factory(import_name(source, what, self._variant.import_paths[0]), f"{what} `{source}`", what)

    def get(self, source: Source, what: str) -> Any:
        """What `source` names, not called: for a metric, which is itself a function."""
        if isinstance(source, Carried):
            return self._carried_object(source.key, what)
        return import_name(source, what, self._variant.import_paths[0])

    def start_afresh(self) -> None:
        """Read carried objects again at their next use: an iterator among them may have been used up."""
        self._carried = None

    def _carried_object(self, key: str, what: str) -> Any:
        if self._carried is None:
            assert self._variant.carried_file is not None
            try:
                # Not untrusted: the pytest process wrote this file a moment ago, into a folder only this user can read.
                # What lay on a GPU comes by way of the CPU: `device` says where it is measured.
                self._carried = torch.load(self._variant.carried_file, weights_only=False, map_location="cpu")
            except Exception as error:
                raise VariantError(
                    f"the {what} could not be rebuilt in the worker process: {_words(error)}; give a factory instead: "
                    "a function without arguments, or its name `package.module:function`"
                ) from error
        return self._carried[key]


def seed_everything(seed: int) -> None:
    """Seed torch, Python and, where it is installed, numpy."""
    random.seed(seed)
    torch.manual_seed(seed)
    try:
        import numpy
    except ImportError:
        return
    numpy.random.seed(seed)


def import_name(name: str, what: str, folder: str) -> Any:
    """The object that `package.module:attribute` names."""
    module_name, _, attribute = name.partition(":")
    try:
        value: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise VariantError(
            f"{what} `{name}`: module `{module_name}` cannot be imported: {_words(error)} (looked first in {folder})"
        ) from error
    except Exception as error:
        raise VariantError(f"{what} `{name}`: importing `{module_name}` raised {_words(error)}") from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            near = difflib.get_close_matches(part, [n for n in dir(value) if not n.startswith("_")], n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise VariantError(f"{what} `{name}`: `{module_name}` has no `{part}`{hint}")
        value = getattr(value, part)
    if not callable(value):
        raise VariantError(f"{what} `{name}` is a {type(value).__name__}, not a function that can be called")
    return value


def _call_factory(factory: Callable[[], Any], label: str, what: str) -> Any:
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise VariantError(f"{label} raised {_words(error)}; a {what} factory is called without arguments") from error


def load_model(loader: Loader, source: Source) -> tuple[nn.Module, tuple[str, ...]]:
    """The model in eval mode, and what had to be done to it, in words."""
    model = loader.make(source, "model")
    if not isinstance(model, nn.Module):
        hint = ""
        if isinstance(model, Mapping):
            hint = " (a state_dict? load it into the module and return the module)"
        elif isinstance(model, type):
            hint = " (a class: return an instance)"
        raise VariantError(f"the model factory returned a {type(model).__name__}, not a torch.nn.Module{hint}")
    training = sum(module.training for module in model.modules())
    if not training:
        return model, ()
    which = "the model was" if model.training else "parts of the model were"
    model.eval()
    return model, (
        f"{which} in training mode ({training} modules) and put into eval mode for every measurement: "
        "call `eval()` in the factory",
    )


# --- data ------------------------------------------------------------------------------------------------------------


def batches(data: Any, what: str = "data") -> Iterator[Batch]:
    """(inputs, targets) batch by batch, from tensors, a Dataset, a DataLoader, or any iterable of batches.

    A batch, or all the data, may also be one dict that holds the targets as `labels`, as Hugging Face's collators give
    it: the other entries are then the model's keyword arguments.

    Raises:
        VariantError: the data is empty, inputs and targets differ in number, or the form is none of these.
    """
    index = -1
    for index, batch in enumerate(_raw_batches(data, what)):
        yield _checked(batch, index, what)
    if index < 0:
        raise VariantError(f"the {what} is empty: no example to measure on")


def _raw_batches(data: Any, what: str) -> Iterable[Any]:
    if _is_tensor_pair(data) or _labels_name(data):
        return _sliced(data, what)
    if isinstance(data, Dataset):
        if not isinstance(data, IterableDataset) and len(data) == 0:  # type: ignore[arg-type]
            return []
        return DataLoader(data, batch_size=SCORING_BATCH)
    if isinstance(data, torch.Tensor):
        raise VariantError(f"the {what} is one tensor; give (inputs, targets)")
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes, Mapping)):
        return data
    raise VariantError(
        f"the {what} is a {type(data).__name__}; give (inputs, targets) tensors, a Dataset, a DataLoader or an "
        "iterable of such batches"
        + (" (a dict must hold the targets as `labels`)" if isinstance(data, Mapping) else "")
    )


def _is_tensor_pair(data: Any) -> bool:
    return isinstance(data, (tuple, list)) and len(data) == 2 and _is_array(data[1]) and not _is_pair_of_batches(data)


def _is_pair_of_batches(data: Any) -> bool:
    return isinstance(data, list) and isinstance(data[0], (tuple, list))


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or type(value).__module__ == "numpy"


def _sliced(data: Any, what: str) -> Iterator[Batch]:
    inputs, targets = _checked(data, 0, what)
    for start in range(0, len(targets), SCORING_BATCH):
        stop = start + SCORING_BATCH
        yield take(inputs, start, stop), targets[start:stop]


def _labels_name(batch: Any) -> str:
    """Under which name a dict holds its targets; empty where it is no dict, or holds none."""
    return next((name for name in LABELS if isinstance(batch, Mapping) and name in batch), "")


def _checked(batch: Any, index: int, what: str) -> Batch:
    labels = _labels_name(batch)
    if labels:
        batch = {name: value for name, value in batch.items() if name != labels}, batch[labels]
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise VariantError(
            f"batch {index} of the {what} is a {type(batch).__name__}"
            + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else "")
            + "; each batch must be (inputs, targets), or a dict with `labels`"
        )
    inputs, targets = tensors(batch[0], f"inputs of the {what}"), batch[1]
    if not _is_array(targets):
        raise VariantError(f"the targets of the {what} are a {type(targets).__name__}, not a tensor")
    targets = torch.as_tensor(targets)
    if targets.ndim == 0:
        raise VariantError(f"the targets of the {what} are a single number, not one per example")
    count = examples(inputs)
    if count != len(targets):
        raise VariantError(f"the {what} has {count} inputs but {len(targets)} targets (batch {index})")
    return inputs, targets


def tensors(value: Any, what: str) -> Inputs:
    """A model's inputs as tensors: one, a tuple of them, or a dict of them by argument name."""
    if _is_array(value):
        return torch.as_tensor(value)
    if isinstance(value, (tuple, list)) and value and all(_is_array(v) for v in value):
        return tuple(torch.as_tensor(v) for v in value)
    if isinstance(value, Mapping) and value and all(_is_array(v) for v in value.values()):
        return {str(k): torch.as_tensor(v) for k, v in value.items()}
    raise VariantError(f"the {what} are a {type(value).__name__}; give a tensor, a tuple of tensors, or a dict of them")


def leaves(inputs: Inputs) -> list[torch.Tensor]:
    """The tensors of one call's inputs, in order."""
    if isinstance(inputs, torch.Tensor):
        return [inputs]
    return list(inputs.values()) if isinstance(inputs, dict) else list(inputs)


def examples(inputs: Inputs) -> int:
    """Number of examples in a batch: the first dimension, which all of its tensors share."""
    sizes = {tensor.shape[0] if tensor.ndim else 0 for tensor in leaves(inputs)}
    if len(sizes) != 1:
        raise VariantError(f"the input tensors of one batch have different first dimensions: {sorted(sizes)}")
    return sizes.pop()


def take(inputs: Inputs, start: int, stop: int) -> Inputs:
    """Examples `start` to `stop` of a batch."""
    if isinstance(inputs, torch.Tensor):
        return inputs[start:stop]
    if isinstance(inputs, dict):
        return {name: tensor[start:stop] for name, tensor in inputs.items()}
    return tuple(tensor[start:stop] for tensor in inputs)


def varying_dimensions(batches: Iterable[Inputs]) -> tuple[frozenset[int], ...]:
    """For each tensor of a batch, the dimensions whose size differs between the batches, the first one aside."""
    seen: list[set[tuple[int, ...]]] = []
    names: list[str] | None = None
    for inputs in batches:
        if isinstance(inputs, dict):
            names = names or list(inputs)
            inputs = {name: inputs[name] for name in names if name in inputs} if len(inputs) == len(names) else {}
        tensors = leaves(inputs)
        seen = seen or [set() for _ in tensors]
        if len(tensors) != len(seen):
            raise VariantError(
                "the batches hold different inputs, and a model can be converted for one set of them only"
            )
        for shapes, tensor in zip(seen, tensors, strict=True):
            shapes.add(tuple(tensor.shape[1:]))
    if any(len({len(shape) for shape in shapes}) > 1 for shapes in seen):
        raise VariantError("an input has more dimensions in some batches than in others, and a model has one form")
    return tuple(
        frozenset(index + 1 for index, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1)
        for shapes in seen
    )


def first_examples(source_batches: Iterable[Inputs], count: int, what: str) -> Inputs:
    """The first `count` examples, of as many batches as that takes, in tensors of their own."""
    collected: list[Inputs] = []
    have = 0
    for inputs in source_batches:
        collected.append(take(inputs, 0, count - have))
        have += examples(collected[-1])
        if have >= count:
            break
    if have < count:
        raise VariantError(f"`batch_size` is {count} but the {what} holds only {have} examples")
    try:
        columns = [torch.cat(column) for column in zip(*(leaves(inputs) for inputs in collected), strict=True)]
    except (RuntimeError, ValueError) as error:
        raise VariantError(
            f"the first examples of the {what} cannot be put into one batch of {count}: {_words(error)}; "
            "give `example_inputs`"
        ) from error
    first = collected[0]
    if isinstance(first, torch.Tensor):
        return columns[0]
    return dict(zip(first, columns, strict=True)) if isinstance(first, dict) else tuple(columns)


def _words(error: BaseException) -> str:
    """An exception in one line: its type and message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:500]}" if message else type(error).__name__
