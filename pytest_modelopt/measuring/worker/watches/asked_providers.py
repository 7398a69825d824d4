"""The execution providers that the project's code asks ONNX Runtime for; a session itself keeps those that it got.

Where one of them is there, the session is made to note which operators each provider gets. A session is what it would
be without this, and ONNX Runtime is not imported here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import inspect
import sys
import weakref
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

_MODULE = "onnxruntime.capi.onnxruntime_inference_collection"
_RECORDS = "session.record_ep_graph_assignment_info"
"""Entry of the options from ONNX Runtime 1.24 on: asked when a session is made, told by it afterwards."""
_CPU = ("CPUExecutionProvider", "AzureExecutionProvider")

_asked: dict[int, tuple[weakref.ref[Any], tuple[str, ...]]] = {}
"""By the session's identity; the reference says whether it is still the same object."""


def watch() -> None:
    """Note the providers of all sessions that are made from now on, whenever ONNX Runtime is imported. Once for a
    process."""
    module = sys.modules.get(_MODULE)
    if module is not None:
        _note_sessions_of(module)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def asked_by(session: Any) -> tuple[str, ...]:
    """The providers that were asked for, in order; empty where none was named."""
    known = _asked.get(id(session))
    return known[1] if known is not None and known[0]() is session else ()


class _Finder:
    """Finds one module as Python does, and has its class noted as soon as it is there."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if name == _MODULE else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_note(module: ModuleType) -> None:
            execute(module)
            with contextlib.suppress(Exception):  # of a version that has no such class, nothing is noted
                _note_sessions_of(module)

        spec.loader.exec_module = execute_and_note  # type: ignore[method-assign]
        return spec


def _note_sessions_of(module: ModuleType) -> None:
    kind: Any = module.InferenceSession
    if not hasattr(kind.__init__, "notes_providers"):
        kind.__init__ = _noting(kind.__init__, module)
        kind.set_providers = _noting(kind.set_providers, module)


def _noting(method: Callable[..., None], module: ModuleType) -> Callable[..., None]:
    signature = inspect.signature(method)

    @functools.wraps(method)
    def noting(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            given = signature.bind(self, *args, **kwargs)
        except TypeError:
            return method(self, *args, **kwargs)
        providers = given.arguments.get("providers")
        if providers is not None and providers is getattr(self, "_fallback_providers", None):
            return method(self, *args, **kwargs)  # ONNX Runtime itself, where a call has failed
        names = _names(providers)
        if "path_or_bytes" in signature.parameters and _can_tell(names, module):
            with contextlib.suppress(Exception):
                given.arguments["sess_options"] = _recording(given.arguments.get("sess_options"), module)
        method(*given.args, **given.kwargs)
        with contextlib.suppress(TypeError):  # a subclass without weak references
            _asked[id(self)] = weakref.ref(self), names
        return None

    noting.notes_providers = True  # type: ignore[attr-defined]
    return noting


def _names(providers: Any) -> tuple[str, ...]:
    if not isinstance(providers, (list, tuple)):
        return ()
    names = (each[0] if isinstance(each, tuple) and each else each for each in providers)
    return tuple(name for name in names if isinstance(name, str))


def _can_tell(names: Sequence[str], module: ModuleType) -> bool:
    """Whether one of them is available beside the CPU's, and this ONNX Runtime can report which operators it runs."""
    there = set(module.C.get_available_providers()).difference(_CPU)
    return bool(there.intersection(names)) and hasattr(module.InferenceSession, "get_provider_graph_assignment_info")


def _recording(options: Any, module: ModuleType) -> Any:
    """The options with the entry, unless the project's code has set it."""
    made = module.C.SessionOptions() if options is None else options
    try:
        made.get_session_config_entry(_RECORDS)
    except RuntimeError:
        made.add_session_config_entry(_RECORDS, "1")
    return made
