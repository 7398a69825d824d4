"""int8-static: int8 weights and int8 activations, with scales taken from calibration data."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from pytest_modelopt.optimizing.answers import other_answers
from pytest_modelopt.optimizing.bisection import in_words
from pytest_modelopt.optimizing.calibrating import fewer_batches, require_calibration, run_observers
from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import last_line, modules_in_words, total_bytes
from pytest_modelopt.optimizing.modules.fused_path import unfused
from pytest_modelopt.optimizing.modules.fx_tracing import defaults_of_absent_arguments, traced_whole
from pytest_modelopt.optimizing.modules.hook_writes import told_hook_writes
from pytest_modelopt.optimizing.modules.nested_values import mapped
from pytest_modelopt.optimizing.modules.own_behavior import named, own_behavior
from pytest_modelopt.optimizing.modules.shared_tensors import tied_parameters
from pytest_modelopt.optimizing.modules.uncompiled import step_by_step, uncompiled
from pytest_modelopt.optimizing.quantization import torch_ao
from pytest_modelopt.optimizing.quantization.in_place import cut_at_observers, use_what_writes_answer
from pytest_modelopt.optimizing.quantization.no_floats import without_observers_of_no_floats
from pytest_modelopt.optimizing.recipe import Applied, Context, Form, LayerRecipe, RecipeError
from pytest_modelopt.optimizing.runtimes.exporting import refuse_other_precisions

if TYPE_CHECKING:
    from torch import fx, nn

READ = (
    "forward reads their weight besides calling them, and a packed layer's `weight` is a method, not a tensor: call "
    "the layer in forward instead of reading its weight"
)


class Int8Static(LayerRecipe):
    """Int8 weights and activations through torch's FX graph mode; scales come from `batches` calibration batches."""

    recipe_name: ClassVar[str] = "int8-static"
    summary: ClassVar[str] = "int8 weights and activations for convolutions and Linear; needs calibration data"
    int8_products: ClassVar[bool] = True
    needs_calibration: ClassVar[bool] = True
    imports_compiler: ClassVar[bool] = True
    changes: ClassVar[tuple[str, ...]] = ("Conv1d", "Conv2d", "Conv3d", "Linear")
    gives: ClassVar[Form | None] = "packed"
    devices: ClassVar[tuple[str, ...]] = ("cpu",)

    batches: int = Field(default=4, ge=1, description="batches of calibration data")

    def apply(self, model: nn.Module, context: Context) -> Applied:
        require_calibration(context, self.recipe_name)
        refuse_other_precisions(model, self.recipe_name)
        quantize_fx = torch_ao.load("torch.ao.quantization.quantize_fx", self.recipe_name)
        engine, notes = torch_ao.ensure_engine(self.recipe_name)
        torch_ao.make_convolutions_picklable()
        model, compile_notes = uncompiled(model)
        with torch_ao.quiet():
            graph = _traced(model, context.example_inputs)
            leaves = context.free(_opaque_leaves(graph))
            unused = _never_called(model, graph)
            tied = _tied_modules(graph, context.kept)
            own = own_behavior(model, context.example_inputs, context.free(_called_layers(graph)))
            read = {module: READ for module in context.free(_read_layers(graph)) if module not in own}
            kept = _fenced(graph, {*own, *read, *context.kept})
            expected = _expected(model, context.example_inputs)
            prepared = _prepared(quantize_fx, graph, engine, context.example_inputs, [*tied, *kept])
            _require_the_same(model, prepared, expected)
            seen = run_observers(prepared, context, self.recipe_name, self.batches)
            converted = _without_fences(quantize_fx.convert_fx(prepared))
        for name, module in unused.items():
            converted.add_submodule(name, module)  # FX drops them, and to lose them is not what was asked for
        notes += compile_notes + fewer_batches(seen, self.batches)
        if leaves:
            notes += (f"{modules_in_words(leaves)} left in floating point: FX sees such a module as one closed box",)
        if tied:
            notes += (
                f"{modules_in_words(map(model.get_submodule, tied))} left as they are: another module shares their "
                f"weight, which would stay in float32 beside the int8 copy",
            )
        with_weights = {module: reason for module, reason in (own | read).items() if total_bytes(module)}
        notes += tuple(in_words(with_weights, modules_in_words, "left as they are"))
        if unused:
            notes += (f"{modules_in_words(unused.values())} left as they are: the forward pass never calls them",)
        notes += (f"the variant is a torch.fx.GraphModule: of {type(model).__name__} only forward remains",)
        return Applied(converted, notes, unlike_class=named(graph, own))


def _tied_modules(graph: fx.GraphModule, kept: Collection[nn.Module]) -> list[str]:
    """Names of the called Linear layers and convolutions whose weight another module holds too, `kept` ones aside."""
    from torch import nn

    tied = tied_parameters(graph)
    return [
        name
        for name, module in graph.named_modules()
        if module not in kept and isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and id(module.weight) in tied
    ]


def _called_layers(graph: fx.GraphModule) -> list[nn.Module]:
    """Modules without others inside, which FX may quantize or fuse; recurrent ones stay in any case."""
    from torch import nn
    from torch.nn.utils.parametrize import is_parametrized

    called = [graph.get_submodule(str(node.target)) for node in graph.graph.nodes if node.op == "call_module"]
    return [
        module
        for module in dict.fromkeys(called)
        if not isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and (is_parametrized(module) or not module._modules)
    ]


def _read_layers(graph: fx.GraphModule) -> list[nn.Module]:
    """Modules that the graph calls and of which it reads a parameter besides, if only its dtype."""
    owners = {str(node.target).rpartition(".")[0] for node in graph.graph.find_nodes(op="get_attr")}
    called = [str(node.target) for node in graph.graph.find_nodes(op="call_module")]
    return [graph.get_submodule(name) for name in dict.fromkeys(called) if name in owners]


def _fenced(graph: fx.GraphModule, modules: Collection[nn.Module]) -> list[str]:
    """Names of `modules` in the graph, with a `+x` around their calls: FX would fuse them with their neighbors."""
    import torch

    names = [name for name, module in graph.named_modules(remove_duplicate=False) if module in modules]
    for node in [node for node in graph.graph.nodes if node.op == "call_module" and node.target in names]:
        for before in node.all_input_nodes[:1]:
            with graph.graph.inserting_before(node):
                node.replace_input_with(before, graph.graph.call_function(torch.positive, (before,)))
        with graph.graph.inserting_after(node):
            fence = graph.graph.call_function(torch.positive, (node,))
        node.replace_all_uses_with(fence, delete_user_cb=lambda user, fence=fence: user is not fence)
    graph.recompile()
    return names


def _without_fences(graph: fx.GraphModule) -> fx.GraphModule:
    import torch

    for node in graph.graph.find_nodes(op="call_function", target=torch.positive):
        node.replace_all_uses_with(node.args[0])
        graph.graph.erase_node(node)
    graph.recompile()
    return graph


def _traced(model: nn.Module, inputs: Inputs) -> fx.GraphModule:
    """The model as a graph of the calls that it makes on such inputs; arguments that are not given keep their default.

    Raises:
        RecipeError: with the line of the model that cannot be traced.
    """
    from torch.ao.quantization.fx.tracer import QuantizationTracer
    from torch.fx import GraphModule

    otherwise = "int8-dynamic needs no tracing, and onnxruntime-int8-static traces in another way"
    needs = "int8-static needs a model that torch.fx can trace"
    graph = traced_whole(lambda: QuantizationTracer([], []), model, inputs, needs, otherwise)
    defaults = defaults_of_absent_arguments(model, inputs)
    specialized = re.compile(f"({'|'.join(map(re.escape, defaults))})_\\d+")
    for node in [node for node in graph.nodes if node.op == "placeholder" and specialized.fullmatch(str(node.target))]:
        if defaults:
            _erase_with_users(node)
    for node in graph.nodes:
        node.type = None  # annotations written as text would end up in the saved code, which then cannot be loaded
        _let_copy(node)
    use_what_writes_answer(graph, model)
    return GraphModule(model, graph)


def _let_copy(node: fx.Node) -> None:
    """Make `view` a `reshape`: quantized convolutions answer in channels_last, of which there is no view in one row."""
    import torch

    if node.op != "call_method" or any(isinstance(value, torch.dtype) for value in (*node.args, *node.kwargs.values())):
        return
    node.target = {"view": "reshape", "view_as": "reshape_as"}.get(str(node.target), node.target)
    if node.target == "reshape" and "size" in node.kwargs:
        node.kwargs = {"shape": node.kwargs["size"]}


def _erase_with_users(node: fx.Node) -> None:
    """Erase an argument that is fixed at its default, with the assertions that FX made of it."""
    for user in list(node.users):
        _erase_with_users(user)
    node.graph.erase_node(node)


def _prepared(quantize_fx: Any, graph: fx.GraphModule, engine: str, inputs: Inputs, excluded: list[str]) -> nn.Module:
    from torch import nn

    quantization = torch_ao.load("torch.ao.quantization", Int8Static.recipe_name)
    backend = "x86" if engine in ("x86", "fbgemm", "onednn") else engine
    mapping = quantization.get_default_qconfig_mapping(backend)
    for kind in (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell, nn.MultiheadAttention):
        mapping = mapping.set_object_type(kind, None)
    for name in excluded:
        mapping = mapping.set_module_name(name, None)
    if isinstance(inputs, Mapping):
        example: tuple[Any, ...] = tuple(inputs.values())
    else:
        example = inputs if type(inputs) is tuple else (inputs,)
    prepared: fx.GraphModule = quantize_fx.prepare_fx(graph, mapping, example)
    return without_observers_of_no_floats(prepared, inputs)


def _answers(model: nn.Module, inputs: Inputs) -> Any:
    import torch

    with torch.random.fork_rng([]), torch.no_grad(), unfused(), step_by_step():
        torch.manual_seed(0)
        return call(model, inputs)


def _expected(model: nn.Module, inputs: Inputs) -> list[tuple[Inputs, Any]]:
    """The measured inputs and others of their sizes, each with what the model answers to them.

    The measured ones are called last: what a call writes into the model is then of them, and a graph that does not
    write it, but reads it, answers the others wrong.
    """
    others = mapped(inputs, _other_numbers)
    found = []
    with contextlib.suppress(Exception):  # not every model takes any numbers
        found.append((others, _answers(model, others)))
    return [(inputs, _answers(model, inputs)), *found]


def _other_numbers(value: Any) -> Any:
    import torch

    if not isinstance(value, torch.Tensor) or not value.ndim:
        return value
    return value * 0.5 if value.is_floating_point() else value.flip(-1)


def _require_the_same(model: nn.Module, prepared: Any, expected: list[tuple[Inputs, Any]]) -> None:
    """What was traced answers as the model, whatever the converted graph copies.

    Raises:
        RecipeError: it does not.
    """
    from torch.utils import _pytree

    name = type(model).__name__
    for number, (inputs, answers) in enumerate(expected):
        try:
            traced = _answers(cut_at_observers(prepared), inputs)
        except Exception as error:
            raise RecipeError(
                f"int8-static: the graph that torch.fx traced of {name} does not run on "
                f"{'inputs with other numbers' if number else 'the measured inputs'}: {last_line(error)}"
            ) from error
        if len(_pytree.tree_leaves(traced)) != len(_pytree.tree_leaves(answers)):
            return  # torch.fx gives back other containers than some models do, of which no tree is known
        how_far = other_answers(answers, traced)
        if how_far and not other_answers(answers, _answers(model, inputs)):
            raise RecipeError(f"int8-static: {(_frozen if number else _copying)(model, inputs, how_far)}")


def _copying(model: nn.Module, _: Inputs, how_far: str) -> str:
    return (
        f"even before it is quantized, the graph that torch.fx traced of {type(model).__name__} "
        f"answers differently from the model once its steps work on copies, as quantized steps do (the answers "
        f"{how_far}): so it is where a write in place has to show in a view or under a second name, and where "
        f"forward does more than torch.fx sees; write such lines out of place, or take int8-dynamic, which needs "
        f"no tracing"
    )


def _frozen(model: nn.Module, inputs: Inputs, how_far: str) -> str:
    by_hooks = told_hook_writes(model, inputs) or "Compute it from the inputs in forward, and keep it nowhere"
    return (
        f"the graph that torch.fx traced of {type(model).__name__} answers differently from the model to inputs with "
        f"other numbers (the answers {how_far}): a call of the model writes what it then reads, and the graph reads "
        f"what was written last. {by_hooks}; or take int8-dynamic, which needs no tracing"
    )


def _opaque_leaves(graph: fx.GraphModule) -> list[nn.Module]:
    """Modules that the graph calls as a whole although they hold Linear layers or recurrent weights."""
    from torch import nn

    called = {
        node.target: graph.get_submodule(str(node.target)) for node in graph.graph.nodes if node.op == "call_module"
    }
    recurrent = (nn.RNNBase, nn.RNNCellBase)
    return [
        module
        for module in called.values()
        if isinstance(module, recurrent) or any(isinstance(child, nn.Linear) for child in list(module.modules())[1:])
    ]


def _never_called(model: nn.Module, graph: fx.GraphModule) -> dict[str, nn.Module]:
    """The outermost modules with weights of which the graph holds none."""
    held = {id(parameter) for parameter in graph.parameters()}
    absent = {
        name: module
        for name, module in model.named_modules()
        if name and total_bytes(module) and not any(id(parameter) in held for parameter in module.parameters())
    }
    return {name: module for name, module in absent.items() if name.rpartition(".")[0] not in absent}
