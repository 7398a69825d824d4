"""Bytes of the saved variant: state and structure, as `torch.save` of the module writes them."""

from __future__ import annotations

import contextlib
import copyreg
import hashlib
import io
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from torch import nn
from torch.nn.utils import parametrize

from pytest_modelopt.measuring.worker.calls.called_model import modules_in
from pytest_modelopt.measuring.worker.files import compiled_saving
from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.optimizing.quantization import torch_ao


class _Counter:
    """A file that keeps nothing but the number of bytes written to it."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, data: bytes) -> int:
        size = memoryview(data).nbytes
        self.written += size
        return size

    def flush(self) -> None:
        pass


class _Hasher(_Counter):
    """And their SHA-256."""

    def __init__(self) -> None:
        super().__init__()
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return super().write(data)


def saved_bytes(model: Any) -> int:
    """Size in bytes of the saved model. The same model gives the same number in every process; of TorchScript in every
    one that has made as much of it before, since torch numbers its classes, and each digit is shipped.

    The whole module is saved, not its state_dict: structured pruning, low rank and quantization change the structure,
    and what is shipped must load again. cloudpickle writes importable classes by name, as pickle does, and carries
    those that only exist in a test (whose code, with the path of its file, then counts, too). TorchScript has a format
    of its own, and no other. What the model reads from other files when it is loaded is not in it: see
    `pytest_modelopt.measuring.worker.watches.opened_files`.
    """
    counter = _Counter()
    make_parametrized_picklable(model)
    write(model, counter)
    return counter.written


def saved_digest(value: nn.Module | torch.Tensor) -> str:
    """SHA-256 of a saved module or tensor, in hexadecimal: the same for the same one in every process."""
    hasher = _Hasher()
    if isinstance(value, nn.Module):
        make_parametrized_picklable(value)
    write(value, hasher)
    return hasher.sha256.hexdigest()


def make_parametrized_picklable(model: Any) -> None:
    """Teach pickle, in this process, to save layers with parametrized weights (as by weight norm): torch refuses.

    torch makes a class of its own for each such layer, and none of its functions makes one around given weights.
    """
    for module in (model if isinstance(model, nn.Module) else modules_in(model)).modules():
        if parametrize.is_parametrized(module):
            copyreg.pickle(type(module), _reduce_parametrized)


def _reduce_parametrized(module: nn.Module) -> tuple[Any, ...]:
    names = tuple(module.parametrizations)  # type: ignore[arg-type]
    kind = parametrize.type_before_parametrizations(module)
    state = kind.__getstate__(module) if hasattr(kind, "__getstate__") else vars(module)
    return blank_parametrized, (kind, names), state


def blank_parametrized(kind: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    """A layer of that class without its state, whose weights of these names will be parametrized."""
    module = kind.__new__(kind)
    parametrize._inject_new_class(module)
    for name in names:
        parametrize._inject_property(module, name)
    return module


def save(value: nn.Module | Inputs, path: Path) -> None:
    """Write a module, or the inputs of a call, to `path`, whole or not at all."""
    if isinstance(value, nn.Module):
        make_parametrized_picklable(value)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:  # given a path, torch.save would write the file's name into the archive
        write(value, file)
    temporary.replace(path)


def what_is_not_saved(model: nn.Module) -> str:
    """The first attribute that has no saved form, and what to do about it; empty where it lies elsewhere."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute == "_modules":
                continue
            try:
                write(value, _Counter())
            except Exception:
                place = f"{name}.{attribute}" if name else attribute
                return (
                    f"; its `{place}` (a {type(value).__qualname__}) has no form that could be saved: make it at the "
                    "first call, and leave it out of the model's state in `__getstate__`"
                )
    return ""


def write(value: Any, file: Any) -> None:
    """As `torch.save`, with all that models hold: code of tests, TorchScript, functions that were compiled."""
    if isinstance(value, nn.Module):
        _intern_strings(value)
    holder, names = _scripts_of(value)

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        """As cloudpickle's, and takes TorchScript, which has a format of its own: all of it in one archive, where what
        several of the modules share is written once."""

        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is types.CellType:
                _intern_cell(obj)
            if not isinstance(obj, torch.jit.ScriptModule):
                usual = super().reducer_override(obj)
                # A function that can be imported is written by name, as whatever it is.
                is_by_name = usual is NotImplemented and isinstance(obj, types.FunctionType)
                return usual if is_by_name else compiled_saving.reduced(obj) or usual
            if id(obj) in names:
                return getattr, (holder, names[id(obj)])
            archive = io.BytesIO()
            torch.jit.save(obj, archive)
            # Not bytes, which pickle's protocol 2 has no form for: it makes text of them, half as long again.
            return _load_script, (torch.frombuffer(archive.getbuffer(), dtype=torch.uint8),)

    module: Any = types.SimpleNamespace(Pickler=Pickler, __name__=cloudpickle.__name__)
    with torch_ao.quiet():
        torch.save(value, file, pickle_module=module)


def _intern_strings(model: nn.Module) -> None:
    """Make equal strings of a model's attributes one object, in place.

    pickle writes a string once for each object. Which of them are one is chance: `str(0)`, by which `nn.Sequential`
    names its first layer, is a new object each time, and a loaded "0" is not. Without this, a model would be some
    bytes larger or smaller once it was loaded.
    """
    seen: dict[int, Any] = {}
    for module in model.modules():
        _interned(vars(module), seen)


def _interned(value: Any, seen: dict[int, Any]) -> Any:
    """The same value with its strings interned; `seen` holds the containers by their id, and keeps them alive."""
    if type(value) is str:
        return sys.intern(value)
    if type(value) not in (dict, OrderedDict, list, tuple):
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    seen[id(value)] = value, value
    if type(value) is tuple:
        items = tuple(_interned(item, seen) for item in value)
        if any(item is not old for item, old in zip(items, value, strict=True)):
            seen[id(value)] = value, items
    elif type(value) is list:
        value[:] = [_interned(item, seen) for item in value]
    else:
        pairs = [(_interned(key, seen), _interned(item, seen)) for key, item in value.items()]
        if any(key is not old for (key, _), old in zip(pairs, value, strict=True)):
            value.clear()
        value.update(pairs)
    return seen[id(value)][1]


def _intern_cell(cell: types.CellType) -> None:
    with contextlib.suppress(ValueError):  # an empty cell
        cell.cell_contents = _interned(cell.cell_contents, {})


class _Holder(nn.Module):
    """Has the TorchScript modules of a model as its own, so that they are written together."""

    def forward(self) -> None:
        pass


def _scripts_of(value: Any) -> tuple[nn.Module | None, dict[int, str]]:
    """All of a model's TorchScript modules in one, and the name of each in there by its id.

    Without those that are frozen, which torch does not take as parts: their weights are constants of their own.
    """
    if not isinstance(value, nn.Module):
        return None, {}
    scripts = [module for module in value.modules() if isinstance(module, torch.jit.ScriptModule)]
    inner = {id(child) for script in scripts for child in script.modules() if child is not script}
    outer = [script for script in scripts if id(script) not in inner and not _is_frozen(script)]
    if len(outer) < 2:
        return None, {}
    holder = _Holder()
    for number, script in enumerate(outer):
        holder.add_module(f"part{number}", script)
    with torch_ao.quiet():
        return torch.jit.script(holder), {id(script): f"part{number}" for number, script in enumerate(outer)}


def _is_frozen(script: torch.jit.ScriptModule) -> bool:
    """Freezing removes the mode with all other attributes."""
    return not script._c.hasattr("training")


def _load_script(archive: torch.Tensor) -> Any:
    with torch_ao.quiet():
        return torch.jit.load(io.BytesIO(archive.numpy().tobytes()))  # type: ignore[no-untyped-call]


def load(path: Path) -> Any:
    """What `save` wrote: a file of our own workers, in a folder that only this user can read."""
    with torch_ao.quiet():
        return torch.load(path, weights_only=False)
