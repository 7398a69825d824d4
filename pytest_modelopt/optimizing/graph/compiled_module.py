"""A model that torch.compile runs: it compiles at the first call in each process, and is saved as the plain model."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch._dynamo
import torch._inductor.config
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from torch.utils import _pytree

from pytest_modelopt.optimizing.calling import ForOneCall, Inputs
from pytest_modelopt.optimizing.graph.compiled_graphs import entry, limit_that_is_told
from pytest_modelopt.optimizing.modules.nested_values import tensors

with warnings.catch_warnings():
    # Torch's own code, as it is imported: `torch.utils.mkldnn` is written in TorchScript.
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.script_method` is deprecated")
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner

Dynamic = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class Settings:
    """How a model is compiled. `shapes` are those of the measured call's tensors, in the order of its arguments.

    `open_dimensions` are, for each of these tensors, the dimensions whose size differs from call to call.
    """

    freezing: bool
    dynamic: Dynamic
    fullgraph: bool
    shapes: tuple[torch.Size, ...]
    open_dimensions: tuple[frozenset[int], ...]


class CompiledModule(ForOneCall, nn.Module):
    """Runs `_orig_mod` (the name that torch.compile gives it) as inductor compiled it for such inputs.

    Always in inference mode, so that one compilation serves whatever mode it is called in; outside of that mode the
    answers are ordinary tensors.
    """

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        super().__init__()
        self._orig_mod = model
        self.settings = settings
        self._start_afresh()

    def _start_afresh(self) -> None:
        self.compiler: Compiler | None = None

    def stand_for(self, inputs: Inputs) -> None:
        self.settings = replace(self.settings, shapes=tuple(tensor.shape for tensor in tensors(inputs)))
        self._start_afresh()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.compiler is None:
            self.compiler = Compiler(self._orig_mod, self.settings)
        if torch.is_inference_mode_enabled():
            return self.compiler.run(args, kwargs)
        with torch.inference_mode():
            answer = self.compiler.run(args, kwargs)
        return _pytree.tree_map_only(torch.Tensor, torch.clone, answer)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "compiler": None}

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._start_afresh()  # other weights, or on another device
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._start_afresh()  # frozen weights are those of the moment of compilation
        return super().load_state_dict(*args, **kwargs)

    def extra_repr(self) -> str:
        return f"freezing={self.settings.freezing}, dynamic={self.settings.dynamic}"


class _NotInForce(Exception):
    """A graph came to be compiled without the settings of the recipe: something else than the sizes has changed."""


class Compiler:
    """The compiled forms of one model in this process, and what they hold beside the model's own weights."""

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self.graphs = 0
        """How many graphs inductor has compiled so far."""
        self.constants: list[torch.Tensor] = []
        """What the compiled graphs keep for themselves: with freezing, folded and packed copies of the weights."""
        self._own = [*model.parameters(), *model.buffers()]
        self._settings = settings
        self._in_force = False
        self._seen: set[tuple[bool, tuple[torch.Size, ...]]] = set()

        # Separate ones: a graph with open sizes, once there is one, would also answer for the measured shape.
        def compiled(dynamic: bool | None) -> Callable[..., Any]:
            def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
                return self._compile(graph, inputs)

            run: Callable[..., Any] = torch.compile(
                entry(model), backend=backend, dynamic=dynamic, fullgraph=settings.fullgraph
            )
            return run

        self._for_one_shape = compiled(False)
        self._for_open_sizes = compiled(None)

    def kept_bytes(self) -> int:
        """Bytes of the constants, those aside that lie in the memory of the model's own weights."""
        own = {tensor.untyped_storage().data_ptr() for tensor in self._own if _has_storage(tensor)}
        kept = {}
        for tensor in self.constants:
            if tensor.is_mkldnn:
                operators: Any = torch.ops.mkldnn
                kept[operators.data_ptr(tensor)] = int(operators._nbytes(tensor))
            elif _has_storage(tensor) and tensor.untyped_storage().data_ptr() not in own:
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return sum(kept.values())

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The answer of the form that is meant for such inputs, compiled now if it has to be."""
        shapes = _shapes(args, kwargs)
        is_open = self._settings.dynamic == "always" or (
            self._settings.dynamic == "auto" and shapes != self._settings.shapes
        )
        run = self._for_open_sizes if is_open else self._for_one_shape
        if is_open:
            self._mark_open_dimensions(args, kwargs)
        if (is_open, shapes) not in self._seen:
            self._seen.add((is_open, shapes))
            return self._run_in_force(run, args, kwargs)
        try:
            return run(*args, **kwargs)
        except BackendCompilerFailed as failed:
            if not isinstance(failed.inner_exception, _NotInForce):
                raise
        return self._run_in_force(run, args, kwargs)

    def _mark_open_dimensions(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        tensors = _tensors(args, kwargs)
        if len(tensors) != len(self._settings.open_dimensions):
            return
        for tensor, dimensions in zip(tensors, self._settings.open_dimensions, strict=True):
            for dimension in dimensions:
                if dimension < tensor.ndim:
                    torch._dynamo.maybe_mark_dynamic(tensor, dimension)

    def _run_in_force(self, run: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        with self._settings_in_force():
            return run(*args, **kwargs)

    @contextlib.contextmanager
    def _settings_in_force(self) -> Iterator[None]:
        """Around the call, since torch.compile's `options` would come too late.

        Whether weights are lifted out of a graph, so that nothing is left to freeze, is decided while it is traced, by
        the setting of the process. To patch it around every call would take longer than a small model does.
        """
        patch: Any = torch._inductor.config.patch
        # One thread: no pool of processes or threads stays behind, which would share the cores with what is timed.
        with patch(freezing=self._settings.freezing, compile_threads=1), limit_that_is_told():
            self._in_force = True
            try:
                yield
            finally:
                self._in_force = False

    def _compile(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        if not self._in_force:
            raise _NotInForce

        def inner(inner_graph: torch.fx.GraphModule, *args: Any, **kwargs: Any) -> Any:
            compiled = compile_fx_inner(inner_graph, *args, **kwargs)
            self.constants += _constants(compiled, inner_graph)
            return compiled

        result = compile_fx(graph, inputs, inner_compile=inner)
        self.graphs += 1
        return result


def _constants(compiled: Any, graph: torch.fx.GraphModule) -> list[torch.Tensor]:
    """What the compiled form of `graph` keeps alive. Of frozen weights it names the places in the graph."""
    frozen = [getattr(graph, name) for name in (getattr(compiled, "frozen_param_names", None) or {}).values()]
    others = (getattr(compiled, "constants", None) or {}).values()
    return [value for value in (*frozen, *others) if isinstance(value, torch.Tensor)]


def _has_storage(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided and not hasattr(tensor, "__tensor_flatten__")


def _tensors(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Sequence[torch.Tensor]:
    return [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]


def _shapes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[torch.Size, ...]:
    return tuple([value.shape for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)])
