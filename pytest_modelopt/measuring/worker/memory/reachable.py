"""Where else than in its instance a model can keep numbers: what the code of its classes names, and raw memory."""

from __future__ import annotations

import contextlib
import ctypes
import dis
import functools
import gc
import itertools
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch.utils.dlpack

from pytest_modelopt.measuring.installation import is_installed, is_of_project

_LRU_CACHE: type = type(functools.lru_cache(maxsize=None)(len))


def of_class(kind: type) -> list[Any]:
    """What a class of the project keeps in its attributes, its methods included; nothing of an installed one."""
    if not is_of_project(kind.__module__):
        return []
    values = [vars(kind)[name] for name in vars(kind) if name not in ("__dict__", "__weakref__", "__doc__")]
    return [*values, *(base for base in kind.__bases__ if base is not object)]


def of_function(function: types.FunctionType) -> list[Any]:
    """The global variables that a function of the project reads, by name; of modules of the project, those that it
    imports itself included, what it takes of them."""
    if is_installed(function.__code__.co_filename):
        return []
    found = []
    for code in _codes(function.__code__):
        for value in (*_read(code, function.__globals__), *_imported(code, function.__globals__)):
            found += _of_module(value, code) if isinstance(value, types.ModuleType) else [value]
    return found


def _read(code: types.CodeType, variables: dict[str, Any]) -> Iterator[Any]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") and instruction.argval in variables:
            yield variables[instruction.argval]


def _imported(code: types.CodeType, variables: dict[str, Any]) -> Iterator[types.ModuleType]:
    """The modules that the code's own import statements name, where they are loaded, and the packages around them."""
    names: set[str] = set()
    arguments: list[Any] = [0, 0]  # of the instructions before: the number of dots comes before what is taken
    module = ""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            module = _absolute(instruction.argval, arguments[-2], variables.get("__package__") or "")
            names.update(itertools.accumulate(module.split("."), "{}.{}".format))
        elif instruction.opname == "IMPORT_FROM":
            names.add(f"{module}.{instruction.argval}")
        if instruction.opname not in ("EXTENDED_ARG", "CACHE"):
            arguments.append(instruction.argval)
    yield from (sys.modules[name] for name in sorted(names) if name in sys.modules)


def _absolute(name: str, dots: int, package: str) -> str:
    around = package.split(".")[: len(package.split(".")) + 1 - dots] if dots else []
    return ".".join(filter(None, [*around, name]))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _of_module(module: types.ModuleType, code: types.CodeType) -> list[Any]:
    """What the code names of a module of the project, and of modules in there that it names."""
    found, pending, seen = [], [module], {id(module)}
    while pending:
        module = pending.pop()
        if is_of_project(module.__name__):
            values = [vars(module)[name] for name in code.co_names if name in vars(module)]
            found += [value for value in values if not isinstance(value, types.ModuleType)]
            inner = [value for value in values if isinstance(value, types.ModuleType) and id(value) not in seen]
            seen |= set(map(id, inner))
            pending += inner
    return found


def of_descriptor(value: Any) -> list[Any] | None:
    """What lies behind a wrapper of a function: a cache with its entries, a class's method, a property; else None."""
    if isinstance(value, _LRU_CACHE):
        return [item for item in gc.get_referents(value) if item is not type(value)]
    if isinstance(value, (staticmethod, classmethod)):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget]
    if isinstance(value, functools.cached_property):
        return [value.func]
    return None


@dataclass(frozen=True)
class Memory:
    """Of an object that is not torch's: where its numbers lie, and what else it leads to."""

    ranges: tuple[tuple[int, int], ...] = ()
    """(address, bytes)."""
    others: tuple[Any, ...] = ()


class _Buffer(ctypes.Structure):
    """Python's `Py_buffer`."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


def memory_of(value: Any) -> Memory | None:
    """The memory of an array or of raw bytes: numpy's, `bytes`, `bytearray`, array.array, mmap, ctypes, what other
    libraries hand out by `__dlpack__`. None for an object that is nothing of the kind."""
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "nbytes"):
        return _of_numpy(value)
    if isinstance(value, memoryview):
        return Memory(others=(value.obj,))
    piece = _in_one_piece(value)
    if piece is not None:
        return Memory((piece,), tuple(getattr(value, "__dict__", {}).values()))
    if hasattr(type(value), "__dlpack__"):
        with contextlib.suppress(Exception):
            return Memory(others=(torch.utils.dlpack.from_dlpack(value),))
    return None


def _of_numpy(value: Any) -> Memory:
    """Of an array; a single number is none. Names, dates and records take their bytes, too; objects are looked into."""
    import numpy

    if not isinstance(value, numpy.ndarray):
        return Memory()
    others = (*getattr(value, "__dict__", {}).values(), *(value.ravel().tolist() if value.dtype.hasobject else ()))
    if value.base is not None:
        return Memory(others=(*others, value.base))
    return Memory(((int(value.__array_interface__["data"][0]), int(value.nbytes)),), others)


def _in_one_piece(value: Any) -> tuple[int, int] | None:
    try:
        memoryview(value).release()
        buffer = _Buffer()
        ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(value), ctypes.byref(buffer), 0)  # PyBUF_SIMPLE
    except (TypeError, ValueError, BufferError):
        return None
    try:
        return int(buffer.buf or 0), int(buffer.len)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
