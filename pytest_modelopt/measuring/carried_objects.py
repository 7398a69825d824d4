"""Carry live objects (a model, tensors, a function of the test) to the workers, in one file.

`torch.save` with cloudpickle keeps tied weights tied, writes tensors raw, and takes along classes and functions that
only exist in the test module. The file lies in a folder that only this user can read, and is read by our own workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pytest_modelopt.measuring.protocol import error_text


class CarryError(Exception):
    """An object cannot be taken to another process; the message says which and why, and to give a factory."""


def carry(objects: Mapping[str, Any], path: Path, *, by_value: Sequence[ModuleType] = ()) -> None:
    """Write `objects` to `path`. Code of the modules `by_value` (the test's own) travels with them.

    Raises:
        CarryError: naming the first object that cannot be carried.
    """
    import cloudpickle
    import torch

    from pytest_modelopt.measuring.worker.files.size import make_parametrized_picklable, write

    for value in objects.values():
        if isinstance(value, torch.nn.Module):
            make_parametrized_picklable(value)
    for module in by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        with path.open("wb") as file:
            write(dict(objects), file)
    except Exception as error:
        path.unlink(missing_ok=True)
        raise CarryError(_explain(objects, error, path)) from error
    finally:
        for module in by_value:
            cloudpickle.unregister_pickle_by_value(module)


def _explain(objects: Mapping[str, Any], error: Exception, path: Path) -> str:
    from pytest_modelopt.measuring.worker.files.size import write

    culprit = next(iter(objects))
    for name, value in objects.items():
        try:
            with path.open("wb") as file:
                write(value, file)
        except Exception:
            culprit = name
            break
        finally:
            path.unlink(missing_ok=True)
    return (
        f"the {culprit} ({type(objects[culprit]).__qualname__}) cannot be carried to the worker process: "
        f"{error_text(error, 300)}; give a factory instead: a function without arguments that makes it, or "
        "its name `package.module:function`"
    )
