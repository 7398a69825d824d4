"""torchao-pt2e-int8: static int8 through torch.export and torch's compiler, with int8 kernels of oneDNN."""

from __future__ import annotations

import itertools
import os
import platform
import shutil
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from pytest_modelopt.optimizing import cpu_flags
from pytest_modelopt.optimizing.calibrating import fewer_batches, require_calibration, run_observers
from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.damage_check import DamageCheck
from pytest_modelopt.optimizing.describe import last_line, owners_in_words
from pytest_modelopt.optimizing.keeping import parameter_names
from pytest_modelopt.optimizing.modules.shared_tensors import shared_bytes
from pytest_modelopt.optimizing.quantization import torch_ao
from pytest_modelopt.optimizing.recipe import Applied, Context, Form, Kept, LayerRecipe, RecipeError
from pytest_modelopt.optimizing.runtimes.comparing import refuse_other_answers
from pytest_modelopt.optimizing.runtimes.exporting import export, refuse_other_precisions
from pytest_modelopt.results.figures import format_bytes

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

X86 = ("x86_64", "amd64", "i386", "i686")
LAYERS = ("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default", "aten.linear.default")
"""The operators of convolutions and Linear in an exported graph."""
LOWERED = (
    "qconv_unary_lower_count",
    "qconv2d_binary_lower_count",
    "qlinear_unary_lower_count",
    "qlinear_binary_lower_count",
)
"""Where the compiler counts the int8 kernels that it put in."""


class TorchaoPt2eInt8(LayerRecipe):
    """Int8 weights and activations, exported, quantized by X86InductorQuantizer and compiled with frozen weights.

    Scales come from `batches` calibration batches. Batch norms are folded into the convolutions before them.
    """

    recipe_name: ClassVar[str] = "torchao-pt2e-int8"
    summary: ClassVar[str] = "int8 convolutions and Linear, compiled; needs calibration data and a C++ compiler"
    int8_products: ClassVar[bool] = True
    extra: ClassVar[str | None] = "torchao"
    imports_compiler: ClassVar[bool] = True
    requires: ClassVar[tuple[str, ...]] = ("torchao",)
    one_step: ClassVar[bool] = True
    needs_calibration: ClassVar[bool] = True
    changes: ClassVar[tuple[str, ...]] = ("Conv2d", "Linear")
    keeps: ClassVar[Kept] = "form"  # batch norms are folded into convolutions that stay in floating point, too
    gives: ClassVar[Form | None] = "compiled"
    devices: ClassVar[tuple[str, ...]] = ("cpu",)

    batches: int = Field(default=4, ge=1, description="batches of calibration data")

    @classmethod
    def unfit(cls, device: str) -> str:
        reason = super().unfit(device)
        if reason:
            return reason
        if platform.machine().lower() not in X86:
            return (
                f"{cls.recipe_name} uses int8 kernels for x86, and this CPU is {platform.machine()}; use int8-dynamic"
            )
        compiler = os.environ.get("CXX", "g++")
        if not shutil.which(compiler):
            return (
                f"{cls.recipe_name} compiles C++ at the first call, and there is no {compiler} here: install one, or "
                f"name yours in the environment variable CXX; int8-static needs none"
            )
        return ""

    def apply(self, model: nn.Module, context: Context) -> Applied:
        require_calibration(context, self.recipe_name)
        refuse_other_precisions(model, self.recipe_name)
        with torch_ao.quiet():
            graph: Any = export(model, context, self.recipe_name).module()
            refuse_other_answers(model, graph, context.example_inputs, self.recipe_name)
            unused = _unused_weights(model, graph)
            kept = parameter_names(model, context.kept)
            prepared, excluded = _prepared(graph, kept)
            seen = run_observers(prepared, context, self.recipe_name, self.batches)
            converted = _converted(prepared)
        quantized = _quantized_layers(converted)
        notes = _left_notes(model, _held_by_graph(converted) - kept, excluded - kept, unused)
        if not quantized:
            return Applied(model, notes)
        with torch_ao.quiet():
            variant = self._compiled(converted, list(unused.values()), context)
        check = DamageCheck(model, [context.example_inputs, *_first_batch(context)])
        lowered = _lowered_by_a_call(variant, context)
        if check.answers_differently():
            raise RecipeError(_damage())
        notes += _cost_notes(converted, lowered, quantized)
        return Applied(variant, notes + fewer_batches(seen, self.batches))

    def _compiled(self, converted: fx.GraphModule, unused: list[nn.Parameter], context: Context) -> nn.Module:
        from pytest_modelopt.optimizing.quantization.pt2e_int8_module import Pt2eInt8

        return Pt2eInt8(export(converted, context, self.recipe_name), unused)


def _prepared(graph: fx.GraphModule, kept: Collection[str]) -> tuple[fx.GraphModule, set[str]]:
    """The graph with observers, and the names of the weights that are excluded: `kept` ones, and those that others
    use as they are."""
    from torch import fx
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    excluded: set[str] = set()

    class Quantizer(x86.X86InductorQuantizer):  # type: ignore[misc]
        def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
            annotated: fx.GraphModule = super().annotate(model)
            for node in dict.fromkeys((*_with_tied_weight(annotated), *_with_weight_of(annotated, kept))):
                node.meta.pop("quantization_annotation", None)
                excluded.add(str(node.args[1].target))
            return annotated

        def _get_input_idx_for_binary_node(self, layer: fx.Node, binary: fx.Node) -> Any:
            """torchao asserts that a layer's answer is added to a tensor; with a number there is nothing to fuse."""
            if not all(isinstance(arg, fx.Node) for arg in binary.args[:2]):
                return None, None
            return super()._get_input_idx_for_binary_node(layer, binary)

    quantizer = Quantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(reduce_range=not cpu_flags.vnni()))
    return prepare_pt2e(graph, quantizer), excluded


def _with_tied_weight(graph: fx.GraphModule) -> list[Any]:
    """Convolutions and Linear whose weight something else in the graph uses, too, and would keep in floating point."""
    weights = [node.args[1] for node in _layers(graph)]
    elsewhere = [
        _attribute(graph, node)
        for node in _attributes(graph)
        if _is_tensor(graph, node) and any(not _is_weight_of(node, user) for user in node.users)
    ]
    return [
        node
        for node, weight in zip(_layers(graph), weights, strict=True)
        if weight.op == "get_attr" and any(shared_bytes(_attribute(graph, weight), other) for other in elsewhere)
    ]


def _with_weight_of(graph: fx.GraphModule, names: Collection[str]) -> list[Any]:
    """Convolutions and Linear whose weight has one of these names."""
    return [node for node in _layers(graph) if node.args[1].op == "get_attr" and str(node.args[1].target) in names]


def _layers(graph: fx.GraphModule) -> list[Any]:
    return [node for node in graph.graph.nodes if node.op == "call_function" and str(node.target) in LAYERS]


def _is_weight_of(node: Any, user: Any) -> bool:
    return str(user.target) in LAYERS and user.args[1] is node


def _attribute(graph: fx.GraphModule, node: Any) -> Any:
    owner, _, name = str(node.target).rpartition(".")
    return getattr(graph.get_submodule(owner), name)


def _is_tensor(graph: fx.GraphModule, node: Any) -> bool:
    import torch

    return isinstance(_attribute(graph, node), torch.Tensor)


def _attributes(graph: fx.GraphModule) -> list[Any]:
    """Where the graph reads a weight or a buffer; torch.export reads those that it never uses, too."""
    return [node for node in graph.graph.nodes if node.op == "get_attr" and node.users]


def _held_by_graph(graph: fx.GraphModule) -> set[str]:
    return {str(node.target) for node in _attributes(graph)}


def _unused_weights(model: nn.Module, graph: fx.GraphModule) -> dict[str, nn.Parameter]:
    """What the forward pass never uses stays in the variant: to lose it is not what was asked for."""
    used = [_attribute(graph, node) for node in _attributes(graph) if _is_tensor(graph, node)]
    return {name: p for name, p in model.named_parameters() if not any(shared_bytes(p, tensor) for tensor in used)}


def _converted(prepared: fx.GraphModule) -> fx.GraphModule:
    """The graph with int8 weights, and without the float ones that it does not use any more."""
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    with torch.no_grad():  # it computes what is constant, in which the model may write a weight
        converted: fx.GraphModule = convert_pt2e(prepared)
    for node in converted.graph.nodes:
        if node.op == "get_attr" and not node.users:
            converted.graph.erase_node(node)
    held = _held_by_graph(converted)
    for name, _ in (
        *list(converted.named_parameters(remove_duplicate=False)),
        *list(converted.named_buffers(remove_duplicate=False)),
    ):
        if name not in held:
            owner, _, own_name = name.rpartition(".")
            delattr(converted.get_submodule(owner), own_name)
    converted.recompile()
    return converted


def _quantized_layers(converted: fx.GraphModule) -> int:
    """How many convolutions and Linear take int8 inputs and weights.

    Counted, since the quantizer says nothing where it finds no layer (pytorch/ao#4861).
    """
    return sum(all("dequantize" in str(argument.target) for argument in node.args[:2]) for node in _layers(converted))


def _lowered_by_a_call(variant: nn.Module, context: Context) -> int:
    """Call the variant, which compiles it; how many int8 kernels the compiler says that it put in."""
    import torch
    from torch._dynamo.utils import counters

    def lowered() -> int:
        return sum(counters["inductor"][name] for name in LOWERED)

    before = lowered()
    try:
        with torch.no_grad():
            call(variant, context.example_inputs)
    except Exception as error:
        raise RecipeError(
            f"torchao-pt2e-int8: torch's compiler fails on the quantized model: {last_line(error)}; int8-static needs "
            f"no compiler"
        ) from error
    return lowered() - before


def _first_batch(context: Context) -> list[Inputs]:
    assert context.calibration is not None
    return list(itertools.islice(context.calibration(), 1))


def _damage() -> str:
    """Seen on AMD EPYC with AVX2 and torch 2.13.0, and with Transformers only: from the first call of their int8
    program on, it and every float model of the process were wrong by tens of points, without an error."""
    processor, _ = cpu_flags.name_and_flags()
    return (
        f"torchao-pt2e-int8: since its int8 program has run, the model in floating point answers the same inputs "
        f"differently: on this processor ({processor}) torch's compiled int8 kernels damage whatever else runs in "
        f"their process, and their own answers are wrong; use int8-dynamic or int8-static"
    )


def _left_notes(
    model: nn.Module, held: set[str], excluded: set[str], unused_weights: Mapping[str, nn.Parameter]
) -> tuple[str, ...]:
    """Notes on the matrices that stay in floating point."""
    shared: list[nn.Module] = []
    others: list[nn.Module] = []
    unused: list[nn.Module] = []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.dim() < 2:
            continue
        owner = model.get_submodule(name.rpartition(".")[0])
        if name in excluded:
            shared.append(owner)
        elif name in held:
            others.append(owner)
        elif name in unused_weights:
            unused.append(owner)
    reasons = (
        (shared, "another module shares their weight, which would stay in float32 beside the int8 copy"),
        (
            others,
            "X86InductorQuantizer takes Conv2d and Linear only, and neither subclasses nor the parts of attention",
        ),
        (unused, "the forward pass never calls them"),
    )
    return tuple(
        f"{owners_in_words(dict.fromkeys(modules))} left in floating point: {why}"
        for modules, why in reasons
        if modules
    )


def _cost_notes(converted: fx.GraphModule, lowered: int, quantized: int) -> tuple[str, ...]:
    int8_bytes = sum(tensor.nbytes for tensor in _int8_tensors(converted))
    notes = [
        f"the variant is an exported program, compiled at the first call in each process and once more for another "
        f"batch size, which can take a minute; the compiled code keeps a packed copy of the int8 weights "
        f"({format_bytes(int8_bytes)}) that torch's allocator does not count"
    ]
    if lowered < quantized:
        notes.append(
            f"the compiler put in int8 kernels for {lowered} of {quantized} quantized layers: the others turn their "
            f"int8 weights into floating point in every call and gain nothing"
        )
    if not cpu_flags.vnni():
        notes.append(
            "this CPU has no VNNI: activations use 7 of the 8 bits, since sums of full int8 products would overflow"
        )
    return tuple(notes)


def _int8_tensors(converted: fx.GraphModule) -> Iterator[torch.Tensor]:
    import torch

    yield from (buffer for buffer in converted.buffers() if buffer.dtype is torch.int8)
