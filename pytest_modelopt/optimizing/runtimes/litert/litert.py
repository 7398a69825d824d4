"""litert: the model converted to Google's LiteRT (once TensorFlow Lite), which runs it in place of torch."""

from __future__ import annotations

import contextlib
import logging
import os
import traceback
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_modelopt.optimizing.calling import call
from pytest_modelopt.optimizing.describe import modules_in_words, root_cause, user_line
from pytest_modelopt.optimizing.finite import largest_difference
from pytest_modelopt.optimizing.modules.fused_path import unfused
from pytest_modelopt.optimizing.recipe import Applied, Context, Form, NoExamplesFirst, Recipe, RecipeError
from pytest_modelopt.optimizing.runtimes import exporting
from pytest_modelopt.optimizing.runtimes.comparing import refuse_other_answers
from pytest_modelopt.optimizing.runtimes.exporting import (
    arguments,
    refuse_other_inputs,
    refuse_other_precisions,
    refuse_state,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pytest_modelopt.optimizing.runtimes.litert.litert_module import Flattened
    from pytest_modelopt.optimizing.runtimes.runtime_module import Signature

ALTERNATIVES = "onnxruntime and openvino"
"""The runtimes that take sizes which vary."""

BATCH_TOLERANCE = 1e-3
"""How far an answer may move, relative to the largest, when the batch grows: kernels add up in another order then."""

KNOWN_WARNINGS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    *exporting.KNOWN_WARNINGS,
    r"Warning: Enabling `experimental_preserve_all_tensors`",
)
"""How the warnings begin that litert_torch and the quantizer cause by their own use of torch and of LiteRT."""


CONVERTED = (
    *("Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose2d", "Embedding", "LSTM", "GRU", "RNN"),
    "MultiheadAttention",
)
"""Module classes with weights that LiteRT runs, among many others."""


class Litert(Recipe):
    """Float32 as before; LiteRT's kernels (XNNPACK) do the work. Every size is fixed at the example inputs'."""

    recipe_name: ClassVar[str] = "litert"
    summary: ClassVar[str] = "runs the model in LiteRT, Google's runtime, in float32"
    extra: ClassVar[str | None] = "litert"
    requires: ClassVar[tuple[str, ...]] = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
    one_step: ClassVar[bool] = True
    fixes_sizes: ClassVar[bool] = True
    imports_compiler: ClassVar[bool] = True
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    takes: ClassVar[tuple[Form, ...]] = ("float",)
    gives: ClassVar[Form | None] = "runtime"

    def apply(self, model: nn.Module, context: Context) -> Applied:
        from pytest_modelopt.optimizing.runtimes.litert.litert_module import LiteRT

        program, signature, notes = convert(model, context, self.recipe_name)
        return Applied(LiteRT(program, signature), notes, frozenset({""}))


def convert(model: nn.Module, context: Context, recipe_name: str) -> tuple[bytes, Signature, tuple[str, ...]]:
    """The model's LiteRT program for the sizes of the example inputs, how it is called, and notes.

    Raises:
        RecipeError: for what such a program cannot do, litert_torch cannot convert, or what then answers something
            else.
    """
    from pytest_modelopt.optimizing.runtimes.exporting import signature_of
    from pytest_modelopt.optimizing.runtimes.litert.litert_module import Flattened, LiteRT

    refuse_other_inputs(context.example_inputs, recipe_name)
    refuse_other_precisions(model, recipe_name)
    refuse_state(model, context.example_inputs, recipe_name)
    _refuse_varying(context, recipe_name)
    args, kwargs = arguments(context.example_inputs)
    tensors = (*args, *kwargs.values())
    examples = _examples(tensors, recipe_name)
    flat = Flattened(model, tuple(kwargs)).eval()
    _refuse_batches_that_cannot_be_cut(flat, tensors, recipe_name)
    _refuse_computed_constants(flat, tensors, recipe_name)
    with quiet(), unfused():
        program = _converted(flat, tensors, recipe_name)
    signature = signature_of(model, context.example_inputs)
    refuse_other_answers(model, LiteRT(program, signature), context.example_inputs, recipe_name)
    return program, signature, (_batch_note(examples), *_unrolled(model))


def _converted(flat: Flattened, tensors: tuple[torch.Tensor, ...], recipe_name: str) -> bytes:
    import litert_torch
    import torch

    name = type(flat.model).__name__
    try:
        with torch.no_grad():
            return bytes(litert_torch.convert(flat, tensors).model_content())
    except Exception as error:
        if any(frame.name == "export_torch_signature" for frame in traceback.extract_tb(error.__traceback__)):
            what = f"needs a model that torch.export can trace, and {name} is not{user_line(error)}"
        else:
            what = f"cannot convert {name}: litert_torch has no form of something in it"
        raise RecipeError(
            f"{recipe_name} {what}: {root_cause(error)}; {ALTERNATIVES} convert other operators"
        ) from error


def _refuse_varying(context: Context, recipe_name: str) -> None:
    inputs = context.example_inputs
    names = list(inputs) if isinstance(inputs, Mapping) else []
    for position, dimensions in enumerate(context.varying()):
        if dimensions:
            words = " and ".join(str(dimension) for dimension in sorted(dimensions))
            which = f"input `{names[position]}`" if names else f"input {position + 1}"
            raise RecipeError(
                f"{recipe_name} converts for fixed sizes, and dimension {words} of {which} differs between the "
                f"project's batches: pad them to one size; {ALTERNATIVES} leave such a size open"
            )


def _examples(tensors: tuple[torch.Tensor, ...], recipe_name: str) -> int:
    """How many examples the inputs hold, in the first dimension of each."""
    sizes = {tuple(tensor.shape[:1]) for tensor in tensors}
    if len(sizes) != 1 or sizes & {(), (0,)}:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise RecipeError(
            f"{recipe_name} runs a batch in parts of a fixed number of examples, which must be the first dimension of "
            f"every input; their shapes are {shapes}: {ALTERNATIVES} need no such parts"
        )
    return int(tensors[0].shape[0])


def _refuse_batches_that_cannot_be_cut(flat: Flattened, tensors: tuple[torch.Tensor, ...], recipe_name: str) -> None:
    """Compare the answers with those for the first example once more behind the others: each output must grow, the
    others stay as they are, and the last answer be the first. The last is not where the model goes along the first
    dimension, as a recurrent layer does along the steps of a sequence."""
    import torch

    examples = len(tensors[0])
    with torch.no_grad():
        answers = call(flat, tensors)
        try:
            longer = call(flat, tuple(torch.cat([tensor, tensor[:1]]) for tensor in tensors))
        except Exception:  # a model for one size of batch: there is nothing to cut
            longer = tuple(torch.cat([a, a[:1]]) if a.ndim else a for a in answers)
    if not answers:
        raise RecipeError(f"{recipe_name} needs a model that returns tensors, and {type(flat.model).__name__} does not")
    for number, (answer, more) in enumerate(zip(answers, longer, strict=True), 1):
        if answer.shape[:1] != (examples,) or more.shape[:1] != (examples + 1,):
            raise NoExamplesFirst(
                f"{recipe_name} runs a batch in parts of {examples}, and output {number} of the model, of shape "
                f"{tuple(answer.shape)} for {examples} examples, does not have them in its first dimension; "
                f"{ALTERNATIVES} need no such parts"
            )
        apart, largest = largest_difference(torch.cat([answer, answer[:1]]).double(), more.double())
        if apart > BATCH_TOLERANCE * largest:
            raise NoExamplesFirst(
                f"{recipe_name} runs a batch in parts of {examples}, and the model's answers depend on the other "
                f"examples in the batch (output {number} moves by {apart:.2g} when the first of them is added at the "
                "end): give it inputs with the examples in the first dimension, each answered by itself; "
                f"{ALTERNATIVES} need no such parts"
            )


def _refuse_computed_constants(flat: Flattened, tensors: tuple[torch.Tensor, ...], recipe_name: str) -> None:
    """What is no tensor in the output stays as it was at the conversion."""
    import torch

    with torch.no_grad():
        constants = flat.constants(*tensors)
        try:
            others = flat.constants(*(torch.cat([tensor, tensor[:1]]) for tensor in tensors))
        except Exception:
            return
    if constants != others:
        raise RecipeError(
            f"{recipe_name}: the output of {type(flat.model).__name__} holds numbers that depend on how many examples "
            "there are, and a converted model returns tensors only: leave them out of the output"
        )


def _batch_note(examples: int) -> str:
    one = "1 example" if examples == 1 else f"{examples} examples"
    return (
        f"the program takes {one} at a time, as many as the example inputs: a larger batch runs in parts, and the last "
        "part is filled up with examples whose answers are dropped"
    )


def _unrolled(model: nn.Module) -> tuple[str, ...]:
    from torch import nn

    recurrent = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    if not recurrent:
        return ()
    return (f"{modules_in_words(recurrent)} unrolled: the program repeats their operators for each step of the input",)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let litert_torch and the quantizer work without progress bars, and put back what they change in the process.

    They set environment variables, add a handler to the root logger, take torch's loggers away and draw random numbers.
    """
    import numpy
    import torch

    root = logging.getLogger()
    handlers, environment, drawn = list(root.handlers), dict(os.environ), numpy.random.get_state()
    os.environ.update({"LITERT_TORCH_SHOW_PROGRESS": "n", "LITERT_TORCH_SILENCE_TORCH_LOGS": "n"})
    root.addFilter(_concerns_the_user)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            for message in KNOWN_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        root.removeFilter(_concerns_the_user)
        root.handlers[:] = handlers
        numpy.random.set_state(drawn)
        os.environ.clear()
        os.environ.update(environment)


def _concerns_the_user(record: Any) -> bool:
    """Not so the remark that int64 becomes int32: modules/litert.py turns both ways."""
    return "downcasts 64-bit model I/O" not in str(record.msg)
