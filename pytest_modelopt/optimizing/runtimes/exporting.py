"""From a model to a torch.export program, which other runtimes convert: for any number of examples in a batch."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import author_name, root_cause, user_line
from pytest_modelopt.optimizing.modules.fused_path import unfused
from pytest_modelopt.optimizing.modules.hook_writes import told_hook_writes
from pytest_modelopt.optimizing.recipe import Context, NoExamplesFirst, RecipeError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pytest_modelopt.optimizing.runtimes.runtime_module import Signature

KNOWN_WARNINGS = (
    r"The tensor attributes? (self\.[\w.]*(_flat_weights\[\d+\]|weight)(, )?)+ (was|were) assigned during export",
)
"""How the warnings begin that torch.export raises about torch's own recurrent layers, and about weights that a hook of
torch's computes anew in each call, as weight norm does."""

_FIRST_IS_FIXED = re.compile(r"Constraints violated \(.*\.size\(\)\[0\]")
"""What torch.export says where the trace holds for one size only of a first dimension."""


def export(
    model: nn.Module, context: Context, recipe_name: str, *, any_precision: bool = False
) -> torch.export.ExportedProgram:
    """The model's forward pass as a graph, with the sizes that vary left open: the number of examples, and `varying`.

    Weights in other floating-point types than float32 are refused, which other runtimes do not take, but for
    `any_precision`.

    Raises:
        RecipeError: with the line of the model that cannot be exported, or with what no graph of it would do.
    """
    import torch

    refuse_other_inputs(context.example_inputs, recipe_name)
    varying = context.varying()
    inputs = inputs_to_trace(context, varying)
    if not any_precision:
        refuse_other_precisions(model, recipe_name)
    refuse_state(model, inputs, recipe_name)
    args, kwargs = arguments(inputs)
    open_sizes = dynamic_sizes(inputs, varying)
    # torch.export takes the names of forward's parameters where the arguments are given by position
    shapes: Any = dict(zip(kwargs, open_sizes, strict=True)) if kwargs else tuple(open_sizes)
    shapes = _by_parameter(model, shapes)
    with torch.no_grad(), unfused(), warnings.catch_warnings():
        for message in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        printed = io.StringIO()
        try:
            with contextlib.redirect_stderr(printed):  # where it fails, torch prints the graph as far as it came
                exported = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            told = (
                f"{recipe_name} needs a model that torch.export can trace, and {type(model).__name__} is not"
                f"{user_line(error)}: {root_cause(error)}"
            )
            if by_hooks := told_hook_writes(model, inputs):
                told = f"{told} {by_hooks}"
            if _FIRST_IS_FIXED.search(str(error)):
                raise NoExamplesFirst(
                    f"{told} The first dimension of each input is left open for the number of examples: give the model "
                    "inputs with the examples there, and let nothing in forward fix how many they are"
                ) from error
            raise RecipeError(told) from error
        sys.stderr.write(printed.getvalue())
    _refuse_computed_numbers(exported, model, recipe_name)
    return exported


def signature_of(model: nn.Module, inputs: Inputs) -> Signature:
    """How the model is called and what it returns for `inputs`."""
    import torch

    from pytest_modelopt.optimizing.runtimes.runtime_module import Signature

    with torch.no_grad():
        return Signature.of(inputs, call(model, inputs))


def arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments of the call `calling.call(model, inputs)`."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (inputs if type(inputs) is tuple else (inputs,)), {}


def refuse_other_inputs(inputs: Inputs, recipe_name: str) -> None:
    """Raise a RecipeError where an argument is no tensor: a converted program takes tensors only, each by itself."""
    import torch

    args, kwargs = arguments(inputs)
    named = {**{f"argument {number}": value for number, value in enumerate(args, 1)}, **kwargs}
    others = [f"`{name}` is a {type(v).__name__}" for name, v in named.items() if not isinstance(v, torch.Tensor)]
    if others:
        raise RecipeError(
            f"{recipe_name} takes calls with tensors only, each an argument of its own, and here "
            f"{' and '.join(others[:3])}: name by `optimize:` a module below that gets tensors"
        )


def inputs_to_trace(context: Context, varying: tuple[frozenset[int], ...]) -> Inputs:
    """Inputs without a 1 among the sizes that are left open: torch.export would take it for a constant.

    The example inputs; where another size than the number of examples is 1 there, two examples of the first of the
    project's batches that has none. What then is 1 is doubled.
    """

    def open_sizes(inputs: Inputs) -> Iterator[tuple[torch.Tensor, frozenset[int]]]:
        args, kwargs = arguments(inputs)
        tensors = [*args, *kwargs.values()]
        return zip(tensors, varying or [frozenset[int]() for _ in tensors], strict=True)

    def is_long(inputs: Inputs) -> bool:
        return all(tensor.shape[d] > 1 for tensor, others in open_sizes(inputs) for d in others if d < tensor.ndim)

    inputs = context.example_inputs
    if not is_long(inputs):
        found = next((batch for batch in context.batches() if is_long(batch)), None)
        inputs = inputs if found is None else _of_each(found, [tensor[:2] for tensor, _ in open_sizes(found)])
    return _of_each(inputs, [_doubled_ones(tensor, {0, *others}) for tensor, others in open_sizes(inputs)])


def _doubled_ones(tensor: torch.Tensor, dimensions: set[int]) -> torch.Tensor:
    """In memory of its own: of a view, torch.export writes checks about the tensor that it was cut from."""
    times = [2 if d in dimensions and size == 1 else 1 for d, size in enumerate(tensor.shape)]
    return tensor.repeat(times)


def _of_each(inputs: Inputs, tensors: list[torch.Tensor]) -> Inputs:
    """The same form of inputs, with other tensors in it."""
    if isinstance(inputs, Mapping):
        return dict(zip(inputs, tensors, strict=True))
    return tuple(tensors) if type(inputs) is tuple else tensors[0]


def dynamic_sizes(inputs: Inputs, varying: tuple[frozenset[int], ...]) -> list[dict[int, Any]]:
    """For each tensor of the call, the dimensions that torch.export must leave open."""
    from torch.export import Dim

    args, kwargs = arguments(inputs)
    tensors = [*args, *kwargs.values()]
    others = varying or tuple(frozenset[int]() for _ in tensors)
    return [
        {dimension: Dim.DYNAMIC for dimension in sorted({0, *more}) if dimension < tensor.ndim}
        for tensor, more in zip(tensors, others, strict=True)
    ]


def refuse_other_precisions(model: nn.Module, recipe_name: str) -> None:
    """Raise a RecipeError for a model with floating-point weights that are not float32."""
    import torch

    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()} - {torch.float32}
    if dtypes:
        words = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise RecipeError(f"{recipe_name} needs float32 weights, and the model holds {words}: call .float() on it")


def refuse_projections(model: nn.Module, recipe_name: str, runtime: str) -> None:
    """Raise a RecipeError for LSTMs with projections: ONNX and OpenVINO know plain ones only."""
    from torch import nn

    names = [name for name, module in model.named_modules() if isinstance(module, nn.LSTM) and module.proj_size]
    if names:
        told = ", ".join(f"`{author_name(name)}`" for name in names[:3]) + " and others" * (len(names) > 3)
        raise RecipeError(
            f"{recipe_name}: {runtime} has no LSTM with projections, and {told} {'has' if len(names) == 1 else 'have'} "
            "`proj_size`: recipes that stay in torch, such as int8-dynamic, change the layers around it"
        )


def refuse_state(model: nn.Module, inputs: Inputs, recipe_name: str) -> None:
    """What a model keeps from call to call would be frozen at its present value."""
    import torch

    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        call(model, inputs)
    changed = [
        name for name, buffer in model.named_buffers() if name not in before or not _is_same(buffer, before[name])
    ]
    if changed:
        raise RecipeError(
            f"{recipe_name}: {type(model).__name__} changes {', '.join(changed)} in each call, and a converted model "
            f"keeps nothing from call to call; recipes that stay in torch, such as int8-dynamic, keep it"
        )


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    import torch

    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())


def _refuse_computed_numbers(exported: torch.export.ExportedProgram, model: nn.Module, recipe_name: str) -> None:
    """Of what is no tensor in the output, a converted model returns always the same."""
    from torch.export.graph_signature import ConstantArgument, TensorArgument

    specs = exported.graph_signature.output_specs
    for position, spec in enumerate(specs, 1):
        if not isinstance(spec.arg, (TensorArgument, ConstantArgument)):
            raise RecipeError(
                f"{recipe_name}: output {position} of {len(specs)} of {type(model).__name__} is a number that depends "
                f"on the sizes of its inputs, and a converted model returns tensors only: leave it out of the output"
            )


def _by_parameter(model: nn.Module, shapes: Any) -> Any:
    """A model whose forward takes `*args` wants its tuple wrapped once more."""
    import inspect

    parameters = list(inspect.signature(model.forward).parameters.values())
    if isinstance(shapes, tuple) and parameters and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:
        return (shapes,)
    return shapes
