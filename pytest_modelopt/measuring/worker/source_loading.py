"""From a source (a factory's name or a carried object) to what it stands for, with an error for each mistake."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pytest_modelopt.measuring.function_lookup import in_src
from pytest_modelopt.measuring.protocol import VariantError, error_text
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.calls.called_model import CalledModel, modules_in
from pytest_modelopt.optimizing.modules.sealed import in_training, put_into_eval_mode
from pytest_modelopt.results.source import Called, Carried, Source

_OF_NETWORK = {
    "ConnectionError",
    "ConnectError",
    "gaierror",
    "URLError",
    "OfflineModeIsEnabled",
    "LocalEntryNotFoundError",
}
"""Classes of errors of Python, requests, httpx and Hugging Face's hub."""


class Loader:
    """Makes what a variant names. Carried objects are read once, until `start_afresh`."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self._carried: dict[str, Any] | None = None

    def make(self, source: Source, what: str) -> Any:
        """What `source` stands for: the factory's result (called with what is stated, seeded) or the carried object.

        A carried function or class is a factory, too: it is called. A carried module is the model itself.
        """
        seed_everything(self.variant.seed)
        if isinstance(source, Carried):
            value = self._carried_object(source.key, what)
            is_factory = callable(value) and not isinstance(value, (nn.Module, Dataset, DataLoader))
            return _call_factory(value, f"{what} factory", what) if is_factory else value
        folder = self.variant.import_paths[0]
        if isinstance(source, Called):
            return _call_factory(import_name(source.name, what, folder), f"{what} `{source}`", what, **source.values)
        return _call_factory(import_name(source, what, folder), f"{what} `{source}`", what)

    def get(self, source: Source, what: str) -> Any:
        """What `source` names, not called: for a metric, which is itself a function."""
        if isinstance(source, Carried):
            return self._carried_object(source.key, what)
        assert isinstance(source, str)
        return import_name(source, what, self.variant.import_paths[0])

    def start_afresh(self) -> None:
        """Read carried objects again at their next use: an iterator among them may have been used up."""
        self._carried = None

    def _carried_object(self, key: str, what: str) -> Any:
        if self._carried is None:
            assert self.variant.carried_file is not None
            try:
                # Not untrusted: the pytest process wrote this file a moment ago, into a folder only this user can read.
                # What lay on a GPU comes by way of the CPU: `device` says where it is measured.
                self._carried = torch.load(self.variant.carried_file, weights_only=False, map_location="cpu")
            except Exception as error:
                raise VariantError(
                    f"the {what} could not be rebuilt in the worker process: {error_text(error)}; give a factory "
                    "instead: a function without arguments, or its name `package.module:function`"
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


@contextlib.contextmanager
def same_random_state() -> Iterator[None]:
    """What runs inside draws random numbers without changing those that come after it."""
    kept = random.getstate(), torch.random.get_rng_state()
    numpy: Any = sys.modules.get("numpy")
    of_numpy = numpy.random.get_state() if numpy is not None else None
    try:
        yield
    finally:
        random.setstate(kept[0])
        torch.random.set_rng_state(kept[1])
        if of_numpy is not None:
            numpy.random.set_state(of_numpy)


def import_name(name: str, what: str, folder: str) -> Any:
    """The object that `package.module:attribute` names."""
    module_name, _, attribute = name.partition(":")
    try:
        value: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise VariantError(
            f"{what} `{name}`: module `{module_name}` cannot be imported: {error_text(error)} (looked first in "
            f"{folder}){in_src(module_name, Path(folder))}"
        ) from error
    except Exception as error:
        raise VariantError(f"{what} `{name}`: importing `{module_name}` raised {error_text(error)}") from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            near = difflib.get_close_matches(part, [n for n in dir(value) if not n.startswith("_")], n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise VariantError(f"{what} `{name}`: `{module_name}` has no `{part}`{hint}")
        value = getattr(value, part)
    if not callable(value):
        raise VariantError(f"{what} `{name}` is a {type(value).__name__}, not a function that can be called")
    return value


def _call_factory(factory: Callable[..., Any], label: str, what: str, **arguments: Any) -> Any:
    try:
        return factory(**arguments)
    except (Exception, SystemExit) as error:
        given = "with those of `arguments:` only" if arguments else "without arguments"
        hint = f"; a {what} factory is called {given}" if _misfits(factory, error, arguments) else ""
        if _needs_network(error):
            hint = (
                "; it needs the network, and a gate that does measures something else when that changes: fetch the "
                "weights in a step before, and let the factory read the file"
            )
        raise VariantError(f"{label} raised {error_text(error)}{hint}") from error


def _needs_network(error: BaseException | None) -> bool:
    """Whether a connection that could not be made is among the causes."""
    while error is not None:
        names = {kind.__name__ for kind in type(error).__mro__}
        if names & _OF_NETWORK:
            return True
        error = error.__cause__ or error.__context__
    return False


def _misfits(factory: Callable[..., Any], error: BaseException, arguments: Mapping[str, Any]) -> bool:
    """Whether the arguments did not fit the factory. An error that the factory raises itself is another case."""
    if not isinstance(error, TypeError):
        return False
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # of C code: then no frame of its own is in the traceback
        return error.__traceback__ is None or error.__traceback__.tb_next is None
    try:
        signature.bind(**arguments)
    except TypeError:
        return True
    return False


def load_model(loader: Loader, source: Source, what: str = "model") -> tuple[nn.Module, tuple[str, ...]]:
    """The model in eval mode, as it is called, and what had to be done to it, in words.

    Under `call:` and `optimize:` it may be any object that holds modules, a pipeline.
    """
    made, variant = loader.make(source, what), loader.variant
    is_pipeline = variant.call is not None and variant.optimize and not isinstance(made, (nn.Module, type, Mapping))
    model = modules_in(made) if is_pipeline else made
    if not isinstance(model, nn.Module):
        hint = ""
        if isinstance(model, Mapping):
            hint = " (a state_dict? load it into the module and return the module)"
        elif isinstance(model, type):
            hint = " (a class: return an instance)"
        elif variant.call is not None:
            hint = " (of an object that holds modules `optimize:` must name the one that recipes change)"
        elif what == "model" and modules_in(model)._modules:
            names = ", ".join(f"`{name}`" for name in modules_in(model)._modules)
            hint = (
                f" (it holds {names}: name by `call:` a function (model, inputs) -> outputs that calls it, and by "
                "`optimize:` the module that recipes change)"
            )
        raise VariantError(f"the {what} factory returned a {type(model).__name__}, not a torch.nn.Module{hint}")
    training = in_training(model)
    which = f"the {what} was" if model in training else f"parts of the {what} were"
    if training:
        put_into_eval_mode(model)
    if variant.call is not None:
        model = CalledModel(made, loader.get(variant.call, "call"), _name_of_call(loader, variant.call))
    if not training:
        return model, ()
    return model, (
        f"{which} in training mode ({len(training)} modules) and put into eval mode for every measurement: "
        "call `eval()` in the factory",
    )


def _name_of_call(loader: Loader, call: Source) -> str:
    return call if isinstance(call, str) else str(getattr(loader.get(call, "call"), "__qualname__", "the function"))


def keep_environment(saved: Path, before: Mapping[str, str]) -> None:
    """Write down beside a saved variant which environment variables its code has set, as for the backend of Keras: a
    process that loads it must have them before it imports anything."""
    changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
    _environment_of(saved).write_text(json.dumps([changed, [name for name in before if name not in os.environ]]))


def restore_environment(saved: Path) -> None:
    """Set what `keep_environment` has found."""
    file = _environment_of(saved)
    if file.exists():
        changed, removed = json.loads(file.read_text())
        os.environ.update(changed)
        for name in removed:
            os.environ.pop(name, None)


def _environment_of(saved: Path) -> Path:
    return saved.with_suffix(".environment")
