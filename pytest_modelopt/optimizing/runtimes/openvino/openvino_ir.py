"""The door to OpenVINO: a model in its intermediate representation (IR), made quietly and compared with the original.

OpenVINO reads a torch.export program, except for nn.LSTM, nn.GRU and nn.RNN: torch.export unrolls these, one copy of
the weights' use per time step and for one length only, while OpenVINO knows them as they are in a traced model. So a
model that holds one is traced, and every other is exported, which is exact where a trace keeps what Python decided for
the example inputs. Both are then compared with the original on batches of other sizes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import last_line, type_name
from pytest_modelopt.optimizing.modules.fused_path import unfused
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from pytest_modelopt.optimizing.runtimes import telemetry
from pytest_modelopt.optimizing.runtimes.comparing import refuse_other_answers
from pytest_modelopt.optimizing.runtimes.exporting import (
    arguments,
    export,
    inputs_to_trace,
    refuse_other_inputs,
    refuse_other_precisions,
    refuse_projections,
    signature_of,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pytest_modelopt.optimizing.runtimes.openvino.openvino_module import OpenVinoModule
    from pytest_modelopt.optimizing.runtimes.runtime_module import Signature

KNOWN_WARNINGS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"`torch\.jit\.\w+` is deprecated",
)
"""How the warnings begin that torch raises about its own future while OpenVINO converts; none concerns the model."""


@dataclass(frozen=True)
class Converted:
    """The model in OpenVINO, with how it is called and what the user should know of the conversion."""

    ir: Any
    """An openvino.Model in float32, whose inputs and outputs are those of the call in order."""
    signature: Signature
    notes: tuple[str, ...]


def convert(model: nn.Module, context: Context, recipe_name: str) -> Converted:
    """The forward pass as an OpenVINO model for batches of any number of examples, and of sizes that vary.

    Raises:
        RecipeError: if the model cannot be converted, or what was made of it answers something else.
    """
    from torch import nn

    from pytest_modelopt.optimizing.runtimes.openvino.openvino_module import Flat, OpenVinoModule, packed
    from pytest_modelopt.optimizing.runtimes.program_file_module import ProgramFile

    refuse_other_inputs(context.example_inputs, recipe_name)
    varying = context.varying()
    context = replace(context, varying=lambda: varying)  # to ask runs through the project's data
    if isinstance(model, ProgramFile):
        with quiet():
            ir = read(model.file)
            _compare(model, OpenVinoModule(packed(ir), model.signature), context, recipe_name)
        return Converted(ir, model.signature, ())
    refuse_other_precisions(model, recipe_name)
    refuse_projections(model, recipe_name, "OpenVINO")
    signature = signature_of(model, context.example_inputs)
    if not signature.dtypes:
        raise RecipeError(f"{recipe_name} needs a model that returns tensors, and {type_name(model)} returns none")
    flat = Flat.of(model, context.example_inputs)
    recurrent = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    with quiet():
        if recurrent:
            ir, notes = _traced(flat, inputs_to_trace(context, varying), recipe_name)
        else:
            positional = replace(
                context,
                example_inputs=_tensors(context.example_inputs),
                batches=lambda: map(_tensors, context.batches()),
            )
            ir, notes = _loaded(export(flat, positional, recipe_name), recipe_name), ()
        _open_sizes(ir, context)
        variant = OpenVinoModule(packed(ir), signature)
        _compare(model, variant, context, recipe_name)
    return Converted(ir, signature, notes)


def read(file: str) -> Any:
    """The openvino.Model in an `.xml` or an `.onnx` file, with in float32 what it keeps in float16 to be smaller."""
    with telemetry.off():
        import openvino

    ir = openvino.Core().read_model(file)
    for operation in ir.get_ordered_ops():
        if operation.get_type_name() != "Convert" or operation.get_element_type().to_string() != "f32":
            continue
        source = operation.input(0).get_source_output().get_node()
        if source.get_type_name() == "Constant" and source.get_element_type().to_string() == "f16":
            constant = openvino.op.Constant(source.get_data().astype("float32"))
            constant.set_friendly_name(operation.get_friendly_name())
            operation.output(0).replace(constant.output(0))
    return ir


def variant_notes(variant: OpenVinoModule, model: nn.Module) -> tuple[str, ...]:
    """In which precision the variant computes, and what of the model it no longer is."""
    from pytest_modelopt.optimizing.runtimes.program_file_module import ProgramFile

    chosen = variant.engine.get_compiled_model().get_property("INFERENCE_PRECISION_HINT").to_string()
    if variant.precision == "auto":
        precision = f"on this CPU OpenVINO chose {chosen} for floating point; on another it may choose otherwise"
    else:
        precision = (
            "floating point is computed in float32: with precision=auto OpenVINO would take bfloat16 on CPUs that have "
            "it, and give other answers there"
        )
    if isinstance(model, ProgramFile):
        return (precision,)
    return precision, f"the variant runs in OpenVINO: of {type_name(model)} only forward remains"


def _traced(flat: nn.Module, inputs: Inputs, recipe_name: str) -> tuple[Any, tuple[str, ...]]:
    """The model by torch.jit.trace, and a note where Python decided something while it ran."""
    import torch
    from torch.jit._trace import TracerWarning

    with torch.no_grad(), unfused(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TracerWarning)
        ir = _loaded(flat, recipe_name, example_input=_tensors(inputs))
    places = {(Path(w.filename), w.lineno) for w in caught if w.category is TracerWarning}
    places = {(file, line) for file, line in places if "torch" not in file.parts}  # torch knows what it does
    decisions = {f"{file.name}:{line}" for file, line in places}
    for warning in caught:
        if warning.category is not TracerWarning:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if not decisions:
        return ir, ()
    return ir, (
        f"the model holds recurrent layers and was traced: what Python decides in {', '.join(sorted(decisions))} is "
        "now fixed as it was for the example inputs",
    )


def _loaded(source: Any, recipe_name: str, **arguments: Any) -> Any:
    """The program or module as an openvino.Model."""
    import openvino

    try:
        return openvino.convert_model(source, **arguments)
    except Exception as error:
        raise RecipeError(f"OpenVINO cannot convert the model for {recipe_name}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """OpenVINO writes pages: the line that names an operation, or the one after 'Exception:' where tracing failed."""
    lines = [line.strip("- ") for line in str(error).splitlines() if line.strip()]
    for before, line in zip(["", *lines], lines, strict=False):
        named = "No conversion rule found for operations" in line or "Conversion is failed for" in line
        if named or before == "Exception:":
            return line[:300]
    return last_line(error)


def _open_sizes(ir: Any, context: Context) -> None:
    """Fix what does not vary between the project's batches: a conversion may have taken it for a constant."""
    from openvino import PartialShape

    tensors = _tensors(context.example_inputs)
    varying = context.varying() or tuple(frozenset[int]() for _ in tensors)
    ir.reshape(
        {
            port: PartialShape([-1 if d in {0, *others} else size for d, size in enumerate(tensor.shape)])
            for port, tensor, others in zip(ir.inputs, tensors, varying, strict=True)
        }
    )


def _tensors(inputs: Inputs) -> tuple[torch.Tensor, ...]:
    args, kwargs = arguments(inputs)
    return (*args, *kwargs.values())


# --- compared with the original --------------------------------------------------------------------------------------


def _compare(model: nn.Module, variant: OpenVinoModule, context: Context, recipe_name: str) -> None:
    """Raise RecipeError if the variant's answers are others than those of the original, for any size that it takes."""
    import torch

    from pytest_modelopt.optimizing.runtimes.runtime_module import Signature

    for what, batch in other_batches(context):
        with torch.no_grad():
            try:
                expected = call(model, batch)
            except Exception:
                continue  # nor does the original take such a batch
        if Signature.of(batch, expected) != variant.signature:
            raise RecipeError(
                f"{recipe_name} needs a model whose outputs are tensors that keep their place, and for {what} "
                f"{type_name(model)} returns something else beside them"
            )
        refuse_other_answers(model, variant, batch, recipe_name, what)


def other_batches(context: Context) -> Iterator[tuple[str, Inputs]]:
    """Batches of other sizes, made of the example inputs."""
    from torch.utils._pytree import tree_map

    inputs, varying = context.example_inputs, context.varying()
    first = frozenset({0})

    def of_each(change: Callable[[torch.Tensor, frozenset[int]], torch.Tensor]) -> Inputs:
        remaining = iter(varying)
        changed: Inputs = tree_map(lambda tensor: change(tensor, next(remaining, first) - first), inputs)
        return changed

    yield "the example inputs", inputs
    yield "a batch of twice as many examples", of_each(lambda tensor, _: _doubled(tensor, first))
    if any(dimensions - first for dimensions in varying):
        yield "shorter inputs", of_each(_halved)
        yield "longer inputs", of_each(_doubled)
    yield from (("a call with another cache", others) for others in context.others)


def _halved(tensor: torch.Tensor, dimensions: frozenset[int]) -> torch.Tensor:
    for dimension in dimensions:
        tensor = tensor.narrow(dimension, 0, (tensor.shape[dimension] + 1) // 2)
    return tensor.contiguous()


def _doubled(tensor: torch.Tensor, dimensions: frozenset[int]) -> torch.Tensor:
    return tensor.repeat([2 if dimension in dimensions else 1 for dimension in range(tensor.ndim)])


# --- quiet -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """OpenVINO and NNCF without the warnings of torch that they raise and what they send home; loggers are restored."""
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        with warnings.catch_warnings(), telemetry.off():
            for message in KNOWN_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        root.setLevel(level)  # openvino.convert_model leaves them changed where it fails
        root.filters[:], root.handlers[:] = filters, handlers


def load_nncf() -> Any:
    """The module nncf, imported without what it does to the process: a logger class for everybody."""
    kind = logging.getLoggerClass()
    try:
        with telemetry.off():
            import nncf
    finally:
        logging.setLoggerClass(kind)
    return nncf


@contextlib.contextmanager
def quiet_nncf() -> Iterator[None]:
    """NNCF logs tables and draws progress bars on stdout, whatever its log level."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
