"""Modules, bytes and errors in words, for the notes and errors of recipes: `6 Conv2d (4.5 MiB)`."""

from __future__ import annotations

import linecache
import re
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pytest_modelopt.results.figures import format_bytes

if TYPE_CHECKING:
    from torch import nn

SHOWN_LINE_CHARACTERS = 300

CONTAINERS = frozenset({"Module", "Sequential", "ModuleList", "ModuleDict"})
"""What everybody derives models from: no layers."""

ADVICE = re.compile(
    r"(For (more|extended|C\+\+)|If you|To fix|The error above|The following call|Caused by|Please |See ).*"
)
"""How the sentences begin in which torch's errors send their reader elsewhere."""


WITHIN_GRAPH = re.compile(r"\n+While executing %")


def own_bytes(module: nn.Module) -> int:
    """Bytes of the parameters that a module holds itself, not through its children."""
    return sum(parameter.nbytes for parameter in module._parameters.values() if parameter is not None)


def total_bytes(module: nn.Module) -> int:
    """Bytes of all parameters of a module and its children, shared ones once."""
    return sum(parameter.nbytes for parameter in module.parameters())


def modules_in_words(modules: Iterable[nn.Module]) -> str:
    """Counts and bytes (children included) by type, the largest first."""
    return types_in_words((type_name(module), total_bytes(module)) for module in modules)


def owners_in_words(modules: Iterable[nn.Module]) -> str:
    """Counts and bytes (of what they hold themselves) by type, the largest first."""
    return types_in_words((type_name(module), own_bytes(module)) for module in modules)


def types_in_words(found: Iterable[tuple[str, int]]) -> str:
    """Counts and bytes by type name, the largest first."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for name, size in found:
        counts[name] += 1
        sizes[name] += size
    return ", ".join(f"{counts[name]} {name} ({format_bytes(size)})" for name, size in sizes.most_common())


def type_name(module: nn.Module) -> str:
    """The class name that the author knows: that of before `torch.nn.utils.parametrize` changed it."""
    from torch.nn.utils import parametrize

    return str(parametrize.type_before_parametrizations(module).__name__)


def known_base(module: nn.Module) -> str:
    """The layer of torch.nn from which a class of the project's own was derived, as 'Conv2d'; '' for all others."""
    from torch.nn.utils import parametrize

    kind = parametrize.type_before_parametrizations(module)
    if kind.__module__.startswith(("torch.", "torchao.")):
        return ""  # torch's own derivations are no mistake of anybody
    own = (base for base in kind.__mro__ if base.__module__.startswith("torch.nn.modules."))
    return next((base.__name__ for base in own if base.__name__ not in CONTAINERS), "")


def author_name(name: str) -> str:
    """A module's or a parameter's name without what torch.compile puts into it."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def weight_owners(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module that holds parameters itself, once, with its name. Parametrizations count as their owner's."""
    for name, module in model.named_modules():
        if ".parametrizations." not in f".{name}." and own_bytes(module):
            yield name, module


def last_line(error: BaseException) -> str:
    """`TypeError: what it said`, one line of it, without the node of a graph at which torch.fx adds that it came up."""
    lines = [line.strip() for line in WITHIN_GRAPH.split(str(error))[0].splitlines() if line.strip()]
    return _in_words(error, lines[-1] if lines else "")


def root_cause(error: BaseException) -> str:
    """`ValueError: what was wrong`, one line of the exception that torch wrapped in its own, without torch's advice."""
    root = _root(error)
    lines = [line.strip() for line in str(root).splitlines() if line.strip()]
    if any(line.startswith("Traceback (most recent call last)") for line in lines):
        return last_line(root)
    told = [ADVICE.sub("", line).strip() for line in lines if not ADVICE.match(line)]
    details = [line for line in told[1:] if line.startswith("- ")]
    return _in_words(root, " ".join([*told[:1], *details[:1]]))


def _root(error: BaseException) -> BaseException:
    """The exception from which torch's own came, that of the model's code where there is one."""
    while type(error).__module__.split(".")[0] == "torch":
        inner = getattr(error, "inner_exception", None) or error.__cause__
        inner = inner or (None if error.__suppress_context__ else error.__context__)
        if inner is None:
            break
        error = inner
    return error


def _in_words(error: BaseException, text: str) -> str:
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= SHOWN_LINE_CHARACTERS else text[:SHOWN_LINE_CHARACTERS] + "..."


def user_line(error: BaseException) -> str:
    """' (model.py:12: `if x.sum() > 0:`)', the last line of the traceback outside of torch; '' if there is none."""
    frames = traceback.extract_tb(error.__traceback__) + traceback.extract_tb(_root(error).__traceback__)
    for frame in reversed(frames):
        parts = frame.filename.replace("\\", "/").split("/")
        if "torch" in parts or "pytest_modelopt" in parts or frame.filename.startswith("<"):
            continue
        code = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
        return f" ({parts[-1]}:{frame.lineno}: `{code}`)"
    return ""
