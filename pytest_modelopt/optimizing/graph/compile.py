"""compile: torch.compile with inductor, each graph compiled once for the measured shape and once for any other."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import last_line, owners_in_words, weight_owners
from pytest_modelopt.optimizing.graph.compiled_graphs import LARGEST_COUNT, Captured, capture
from pytest_modelopt.optimizing.recipe import Applied, Context, Form, Recipe, RecipeError
from pytest_modelopt.optimizing.runtimes.exporting import arguments
from pytest_modelopt.results.figures import format_bytes

if TYPE_CHECKING:
    from torch import nn

    from pytest_modelopt.optimizing.graph.compiled_module import CompiledModule

SHOWN_BREAKS = 5


class Compile(Recipe):
    """Compile the model with torch.compile's inductor, in each process at the first call.

    `freezing` folds and packs the weights for the compiled graphs, which keep their own copy of them. `dynamic` says
    what is compiled for which sizes: `auto` compiles the measured shape for itself and all others with open sizes,
    `always` leaves them open for the measured shape, too, and `never` compiles each shape for itself. With
    `fullgraph`, a model that does not fit into one graph is an error.
    """

    recipe_name: ClassVar[str] = "compile"
    summary: ClassVar[str] = "torch.compile with inductor: fused kernels, compiled at the first call in each process"
    takes_exported: ClassVar[bool] = True
    imports_compiler: ClassVar[bool] = True
    takes: ClassVar[tuple[Form, ...]] = ("float", "low precision", "torchao")
    gives: ClassVar[Form | None] = "compiled"

    freezing: bool = Field(default=False, description="fold and pack the weights, in a copy of their own")
    dynamic: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="whether one graph serves all sizes; auto: one for the measured shape, one for the rest",
    )
    fullgraph: bool = Field(default=False, description="a model that does not fit into one graph is an error")

    @classmethod
    def unfit(cls, device: str) -> str:
        return super().unfit(device) or (_lacks_triton() if device == "cuda" else _lacks_compiler())

    def apply(self, model: nn.Module, context: Context) -> Applied:
        captured = self._captured(model, context.example_inputs)
        variant = self._compiled(model, context)
        return Applied(variant, (*_left_out(model, captured), self._how(variant)), captured.traced)

    def _captured(self, model: nn.Module, inputs: Inputs) -> Captured:
        from pytest_modelopt.optimizing.apply import RecipeDidNothing

        try:
            captured = capture(model, inputs)
        except Exception as error:
            raise RecipeError(f"compile: torch.compile cannot trace {type(model).__name__}: {_cause(error)}") from error
        if self.fullgraph and (captured.breaks or captured.graphs > 1):
            raise RecipeError(
                f"compile(fullgraph=true): the model does not fit into one graph: {_listed(captured.breaks)}; change "
                f"these lines, or leave fullgraph out to compile what lies between them"
            )
        if not captured.traced and (compiled := _compiled_before(model)):
            raise RecipeDidNothing(
                f"compile changed nothing: {compiled}, and torch.compile leaves that as it is; return the model from "
                "the factory without it"
            )
        if not captured.traced:
            raise RecipeDidNothing(
                f"compile changed nothing: no weight of the model is used in what torch.compile could trace"
                f"{_because(model, captured)}; put the layers around it into a module with a forward of its own, "
                "which torch.compile then compiles, or try int8-dynamic or onnxruntime"
            )
        return captured

    def _compiled(self, model: nn.Module, context: Context) -> CompiledModule:
        """The variant, which has compiled itself for the example inputs."""
        import torch

        from pytest_modelopt.optimizing.graph.compiled_module import CompiledModule, Settings

        args, kwargs = arguments(context.example_inputs)
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        varying = context.varying() or tuple(frozenset[int]() for _ in tensors)
        settings = Settings(
            self.freezing,
            self.dynamic,
            self.fullgraph,
            tuple(tensor.shape for tensor in tensors),
            tuple(frozenset({0, *dimensions}) for dimensions in varying),
        )
        variant = CompiledModule(model, settings)
        try:
            with torch.inference_mode():
                call(variant, context.example_inputs)
        except Exception as error:
            raise RecipeError(f"compile: inductor cannot compile {type(model).__name__}: {_cause(error)}") from error
        return variant

    def _how(self, variant: CompiledModule) -> str:
        assert variant.compiler is not None
        graphs = variant.compiler.graphs
        count = "1 graph" if graphs == 1 else f"{graphs} graphs"
        others = {
            "auto": "the measured shape has its own; the first call with another batch size compiles once more, with "
            "open sizes",
            "always": "sizes are open, also for the measured shape",
            "never": f"each further shape compiles anew, {LARGEST_COUNT} at most",
        }[self.dynamic]
        kept = variant.compiler.kept_bytes()
        frozen = (
            f"; beside the weights they keep {format_bytes(kept)} of packed and folded ones, and so does each graph "
            "that comes later"
        )
        return f"compiled into {count} at the first call in each process: {others}{frozen if kept else ''}"


def _left_out(model: nn.Module, captured: Captured) -> list[str]:
    """Notes on the lines at which graphs end, and on the layers that are not in any."""
    notes = []
    if captured.breaks:
        notes.append(f"torch.compile leaves its graphs at {_listed(captured.breaks)}")
    fused = [model.get_submodule(name) for name in sorted(captured.opaque)]
    if fused:
        notes.append(
            f"{owners_in_words(fused)} run in torch's fused path of the transformer layers, one closed operator that "
            "the compiler calls as it is: they are no faster than in the original"
        )
    outside = [
        module for name, module in weight_owners(model) if name not in captured.traced and name not in captured.opaque
    ]
    if outside:
        notes.append(f"{owners_in_words(outside)} are in no graph: where the model calls them, they run uncompiled")
    return notes


def _compiled_before(model: nn.Module) -> str:
    """What the project has compiled in place: `torch.compile(model)` is no such, the recipe compiles what it wraps."""
    for name, module in model.named_modules():
        whose = f"`{name}`" if name else "the model"
        if getattr(module, "_compiled_call_impl", None) is not None:
            return f"{whose} is compiled already, by its method `compile()`"
        if hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable"):
            return f"{whose} is compiled already, in its `forward`"
    return ""


def _because(model: nn.Module, captured: Captured) -> str:
    if captured.breaks:
        return f", which ends at {_listed(captured.breaks)}"
    if captured.opaque:
        layers = [model.get_submodule(name) for name in sorted(captured.opaque)]
        return f", since {owners_in_words(layers)} run in torch's fused path, which it calls as it is"
    return " (it traced nothing at all, as where forward is marked with torch.compiler.disable)"


def _listed(breaks: tuple[str, ...]) -> str:
    more = f" and {len(breaks) - SHOWN_BREAKS} more" if len(breaks) > SHOWN_BREAKS else ""
    return "; ".join(breaks[:SHOWN_BREAKS]) + more


def _cause(error: Exception) -> str:
    """What went wrong inside, with the line of the model that torch.compile names."""
    if type(error).__name__ == "FailOnRecompileLimitHit":
        return f"it would compile one function more than {LARGEST_COUNT} times, since it depends on too many values"
    inner = getattr(error, "inner_exception", None) or error
    text = last_line(inner)
    lines = [line.strip() for line in str(error).splitlines()]
    user = [line for line in lines if line.startswith('File "')]
    return f"{text} ({user[-1]})" if user else text


def _lacks_compiler() -> str:
    """Why inductor could not build its C++ kernels here."""
    if sys.platform == "win32":
        compiler = os.environ.get("CXX", "cl")
    else:
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None and not os.environ.get("TORCH_INDUCTOR_INSTALL_GXX"):
        return (
            f"compile needs a C++ compiler, and {compiler} is not on the PATH: install it (on Debian or Ubuntu: "
            "apt install g++), or name another in the environment variable CXX"
        )
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").is_file():
        return (
            f"compile builds extension modules, and Python.h is not in {headers}: install Python's development files "
            "(on Debian or Ubuntu: apt install python3-dev)"
        )
    return ""


def _lacks_triton() -> str:
    import importlib.util

    if importlib.util.find_spec("triton") is None:
        return "compile needs triton on a GPU, and it is not installed: install torch's build for CUDA, which brings it"
    return ""
