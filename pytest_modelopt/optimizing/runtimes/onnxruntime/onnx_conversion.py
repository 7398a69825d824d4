"""From a model to an ONNX program, for all recipes of ONNX Runtime: quietly, and knowing where each weight went."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.describe import SHOWN_LINE_CHARACTERS, modules_in_words
from pytest_modelopt.optimizing.keeping import parameter_names
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from pytest_modelopt.optimizing.runtimes.comparing import refuse_other_answers
from pytest_modelopt.optimizing.runtimes.exporting import export, refuse_projections, signature_of
from pytest_modelopt.results.figures import format_bytes

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pytest_modelopt.optimizing.runtimes.onnxruntime.onnx_module import OnnxModule
    from pytest_modelopt.optimizing.runtimes.program_file_module import ProgramFile
    from pytest_modelopt.optimizing.runtimes.runtime_module import Signature

LARGEST_PROGRAM_BYTES = 2**31 - 1
"""What protobuf, the format of ONNX files, can hold in one message."""

KNOWN_WARNINGS = (r"`isinstance\(treespec, LeafSpec\)` is deprecated",)
"""How the warnings begin that torch.onnx raises about torch itself; nothing in them concerns the user's model."""

KNOWN_LOG_LINES = {
    "torch.onnx._internal.exporter._registration": r"torchvision is not installed\. Skipping torchvision::",
    "onnxscript.optimizer._constant_folding": r"Skipping constant folding for op ",
    "onnx_ir.passes.common.initializer_deduplication": r"Skipped deduplication of initializer ",
}
"""By logger: what is said of operators that the model does not need, and of optimizations that were not made."""

QUANTIZED_NAME = re.compile(r"_quantized\Z")
"""The end that ONNX Runtime's quantizer gives to the name of a weight in int8."""


@dataclass(frozen=True)
class Conversion:
    """A model as an ONNX program in floating point.

    `sources` names, for each constant of the program, the parameters of the model from which it was computed: itself
    only, or several ones, as where batch norm was folded into a convolution.
    """

    model: nn.Module
    proto: Any
    signature: Signature
    names: tuple[str, ...]
    sources: Mapping[str, frozenset[str]]

    def variant(self, proto: Any) -> OnnxModule:
        """The module that runs `proto`: this program, or what was made of it."""
        from pytest_modelopt.optimizing.runtimes.onnxruntime.onnx_module import OnnxModule

        del proto.graph.value_info[:]  # shapes within the graph, which ONNX Runtime infers for itself
        return OnnxModule(proto.SerializeToString(), self.signature, self.names, self._folded(proto))

    def tied_notes(self, proto: Any) -> tuple[str, ...]:
        """Notes on the weights that several modules share and that the program holds more than once."""
        holders: dict[int, list[nn.Module]] = {}
        for module in self.model.modules():
            for parameter in {*module._parameters.values()} - {None}:
                holders.setdefault(id(parameter), []).append(module)
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        notes = []
        constants = [(tensor.name, len(tensor.raw_data)) for tensor in proto.graph.initializer]
        for key, modules in holders.items():
            names = {name for name, parameter in parameters.items() if id(parameter) == key}
            copies = [size for name, size in constants if self._sources_of(name) & names]
            if len(modules) > 1 and len(copies) > 1:
                notes.append(
                    f"{modules_in_words(modules)} share a weight, which the program holds {len(copies)} times, "
                    f"together {format_bytes(sum(copies))}"
                )
        return tuple(notes)

    def nodes_of(self, program: Path, kept: Collection[nn.Module]) -> list[str]:
        """Names of the operators of the program in a file that work with weights of these modules, and of the two into
        which ONNX Runtime's quantizers part a Gemm."""
        import onnx

        if not kept:
            return []
        proto, names = onnx.load(program), parameter_names(self.model, kept)
        found = [node for node in proto.graph.node if any(self._sources_of(name) & names for name in node.input)]
        for number, node in enumerate(found):
            node.name = node.name or f"kept_{number}"
        onnx.save(proto, program)
        return [name for node in found for name in (node.name, f"{node.name}_MatMul", f"{node.name}_Add")]

    def _folded(self, proto: Any) -> list[torch.Tensor]:
        """The parameters that went into constants which `proto` holds in floating point."""
        floats = [tensor.name for tensor in proto.graph.initializer if tensor.data_type == tensor.FLOAT]
        names = {source for name in floats for source in self.sources.get(name, ())}
        parameters = self.model.named_parameters(remove_duplicate=False)
        return [parameter.detach() for name, parameter in parameters if name in names]

    def _sources_of(self, name: str) -> frozenset[str]:
        return self.sources.get(QUANTIZED_NAME.sub("", name), frozenset())


def convert(model: nn.Module, context: Context, recipe_name: str) -> Conversion:
    """The model as an ONNX program; one that is such a program in a file is read from there.

    Raises:
        RecipeError: the model is too large, cannot be exported, uses what ONNX has no operator for, or then answers
            something else.
    """
    import torch

    from pytest_modelopt.optimizing.runtimes.onnxruntime.onnx_module import OnnxModule
    from pytest_modelopt.optimizing.runtimes.program_file_module import ProgramFile

    if isinstance(model, ProgramFile):
        return _read(model, recipe_name)
    _refuse_too_large(sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())), recipe_name)
    refuse_projections(model, recipe_name, "ONNX")
    with quiet():
        exported = export(model, context, recipe_name)
        _drop_constant_outputs(exported)
        try:
            program: Any = torch.onnx.export(exported, dynamo=True, optimize=False, verbose=False)
            sources = _sources(program.model.graph)
            program.optimize()
        except Exception as error:
            raise RecipeError(
                f"{recipe_name}: {type(model).__name__} cannot be converted to ONNX: {_first_cause(error)}"
            ) from error
    proto = program.model_proto
    _strip_developers_paths(proto)
    names = tuple(value.name for value in proto.graph.input)
    signature = signature_of(model, context.example_inputs)
    converted = OnnxModule(proto.SerializeToString(), signature, names)
    for inputs in (context.example_inputs, *context.others):
        refuse_other_answers(model, converted, inputs, recipe_name)
    return Conversion(model, proto, signature, names, sources)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what torch.onnx says about itself, and nothing else."""
    filters = [(logging.getLogger(name), _without(pattern)) for name, pattern in KNOWN_LOG_LINES.items()]
    for logger, known in filters:
        logger.addFilter(known)
    try:
        with warnings.catch_warnings():
            for message in KNOWN_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, known in filters:
            logger.removeFilter(known)


def _without(pattern: str) -> logging.Filter:
    class Known(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            return not re.match(pattern, record.getMessage())

    return Known()


def _read(program: ProgramFile, recipe_name: str) -> Conversion:
    import onnx

    _refuse_too_large(sum(Path(file).stat().st_size for file in program.files), recipe_name)
    proto = onnx.load(program.file)
    _strip_developers_paths(proto)
    names = tuple(port.name for port in program.signature.ports or ())
    return Conversion(program, proto, program.signature, names, {})


def _refuse_too_large(size: int, recipe_name: str) -> None:
    if size > LARGEST_PROGRAM_BYTES:
        raise RecipeError(
            f"{recipe_name} keeps the whole model in one ONNX file, which holds at most "
            f"{format_bytes(LARGEST_PROGRAM_BYTES)}, and the model has {format_bytes(size)} of weights; recipes that "
            f"stay in torch, such as int8-dynamic, have no such limit"
        )


def _drop_constant_outputs(exported: torch.export.ExportedProgram) -> None:
    """ONNX has outputs that are tensors only; the signature knows the numbers and the Nones between them."""
    from torch.export.graph_signature import TensorArgument
    from torch.utils._pytree import tree_structure

    (node,) = exported.graph.find_nodes(op="output")
    specs = exported.graph_signature.output_specs
    kept = [position for position, spec in enumerate(specs) if isinstance(spec.arg, TensorArgument)]
    node.args = (tuple(node.args[0][position] for position in kept),)
    exported.graph_signature.output_specs[:] = [specs[position] for position in kept]
    (whole,) = (entry.signature for entry in exported.module_call_graph if not entry.fqn)
    assert whole is not None
    whole.out_spec = tree_structure(tuple(kept))


def _sources(graph: Any) -> dict[str, frozenset[str]]:
    """For each value of the graph that is computed from parameters alone, by name, which ones.

    torch.onnx names initializers after the parameters, and optimizers keep the name of what they compute in advance.
    A batch norm that is folded into the layer before it changes this layer's weight and bias, under their names.
    """
    found = {name: frozenset({name}) for name in graph.initializers}
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        names = [value.name for value in inputs]
        is_constant = all(name in found for name in names) and not _has_graph(node)
        if is_constant:
            union = frozenset().union(*(found[name] for name in names))
            found.update({output.name: union for output in node.outputs})
        layer = inputs[0].producer() if node.op_type == "BatchNormalization" else None
        if layer is not None and not is_constant:
            folded = frozenset().union(*(found.get(name, frozenset()) for name in names[1:]))
            changed = [value.name for value in layer.inputs[1:] if value is not None and value.name in found]
            for name in (*changed, f"{changed[0]}_bias" if changed else ""):
                found[name] = found.get(name, frozenset()) | folded
    return found


def _has_graph(node: Any) -> bool:
    return any(attribute.type.name in ("GRAPH", "GRAPHS") for attribute in node.attributes.values())


def _strip_developers_paths(proto: Any) -> None:
    """torch.onnx writes the stack trace of each operator into the file, which can be larger than the weights."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.ClearField("doc_string")


def _first_cause(error: BaseException) -> str:
    """What torch.onnx stumbled over, without its advice for its own developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return in_one_line(error)


def in_one_line(error: BaseException) -> str:
    """What it said in its first paragraph: these libraries end their messages with general advice."""
    text = " ".join(str(error).split("\n\n")[0].split())
    return f"{type(error).__name__}: {text[:SHOWN_LINE_CHARACTERS]}"
