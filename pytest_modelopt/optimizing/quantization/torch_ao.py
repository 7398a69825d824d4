"""The door to torch.ao.quantization, whose removal is announced: found or explained, quiet, and with an engine."""

from __future__ import annotations

import contextlib
import copyreg
import importlib
import warnings
from collections.abc import Iterator
from typing import Any

from pytest_modelopt.optimizing.recipe import RecipeError

KNOWN_WARNINGS = (
    r"torch\.ao\.quantization is deprecated and will be removed",
    r"torch\.quantize_per_tensor, torch\.quantize_per_channel and other quantized tensor creation functions",
    r"Please use quant_min and quant_max to specify the range for observers",
    r"TypedStorage is deprecated",
    r"Was not able to add assertion to guarantee correct input",
    # while the compiler is imported and while it compiles int8 layers: of its own code
    r"`torch\.jit\.\w+` is deprecated",
    r"To copy construct from a tensor, it is recommended to use sourceTensor",
    r"The input of maxpool2d is not quantized",  # its observer's own decision, on which the coverage tells
    r"The tensor attributes self\..*_flat_weights",  # of its own recurrent layers, while they are exported
    r"Int8Tensor does not implement _stable_hash_for_caching",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # in the code of its exported programs
)
"""How the warnings begin that torch raises about its own future while it makes, copies, loads or compiles quantized
weights; nothing in them concerns the user's model."""

PREFERRED_ENGINES = ("x86", "fbgemm", "onednn", "qnnpack")


def load(module: str, recipe_name: str) -> Any:
    """Import a module of torch.ao.

    Raises:
        RecipeError: where this torch no longer has it.
    """
    import torch

    try:
        return importlib.import_module(module)
    except ImportError:
        raise RecipeError(
            f"{recipe_name} needs {module}, which torch {torch.__version__} does not have: PyTorch announced its "
            f"removal in favour of torchao; use a torch that has it (2.13 does)"
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings that torch raises about its own quantization, and no others."""
    with warnings.catch_warnings():
        for message in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield


def ensure_engine(recipe_name: str) -> tuple[str, tuple[str, ...]]:
    """The engine that runs quantized operators, chosen where torch has none set; the notes say so."""
    import torch

    engine = torch.backends.quantized.engine
    if engine not in (None, "", "none"):
        return engine, ()
    supported = [name for name in torch.backends.quantized.supported_engines if name != "none"]
    for name in (*PREFERRED_ENGINES, *supported):
        if name in supported:
            torch.backends.quantized.engine = name
            return name, (f"torch had no quantized engine set; the variant was made and runs with '{name}'",)
    raise RecipeError(f"{recipe_name} cannot run here: this build of torch has no engine for quantized operators")


def make_convolutions_picklable() -> None:
    """Teach pickle, in this process, to save torch's quantized convolutions so that they load anywhere.

    Their own `__setstate__` does not initialize nn.Module: what torch.save writes of them cannot be used after loading.
    Here they are rebuilt by their constructor, and only then get their state; to load them takes nothing but torch.
    """
    quantized = load("torch.ao.nn.quantized", "int8-static")
    intrinsic = load("torch.ao.nn.intrinsic.quantized", "int8-static")
    for module in (quantized, intrinsic):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, quantized.modules.conv._ConvNd):
                copyreg.pickle(kind, _reduce_convolution)


def _reduce_convolution(module: Any) -> tuple[Any, ...]:
    arguments = [module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding]
    if module.transposed:
        arguments += [module.output_padding, module.groups, True, module.dilation, module.padding_mode]
    else:
        arguments += [module.dilation, module.groups, True, module.padding_mode]
    return type(module), tuple(arguments), module.__getstate__()
