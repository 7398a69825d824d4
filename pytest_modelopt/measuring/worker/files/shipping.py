"""Files of a variant that are shipped: those of a candidate, its runtime's own format, or one of torch's that runs no
pickle when it is loaded."""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import importlib
import importlib.util
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.optimizing.calling import call
from pytest_modelopt.optimizing.describe import last_line
from pytest_modelopt.optimizing.quantization import torch_ao
from pytest_modelopt.optimizing.recipe import Context
from pytest_modelopt.optimizing.runtimes.comparing import difference
from pytest_modelopt.optimizing.runtimes.exporting import arguments, export
from pytest_modelopt.optimizing.runtimes.openvino.openvino_ir import other_batches
from pytest_modelopt.optimizing.runtimes.program_file_module import FromFile
from pytest_modelopt.optimizing.runtimes.runtime_module import HoldsPrograms
from pytest_modelopt.optimizing.runtimes.torch_file_module import exported

LARGEST_DIFFERENCE = 1e-4
"""Of the largest number of an output: float32 sums in another order differ by some 1e-6."""
_HEAD = '"""Loads '
_LOADER = (
    _HEAD
    + '''the `.pt` beside it, which pytest-modelopt has written: `load()` returns the model that was measured."""

from pathlib import Path

import torch
from torch.serialization import safe_globals

{imports}

ALLOWED = [
    {allowed},
]
"""The classes in the file; torch refuses any other, so that loading it runs no code of the file."""


def load() -> torch.nn.Module:
    """The model in eval mode, on the CPU."""
    with safe_globals(ALLOWED):
        return torch.load(Path(__file__).with_name({file!r}), map_location="cpu", weights_only=True)
'''
)
_NAMES_OF_LOADER = ("ALLOWED", "Path", "load", "safe_globals", "torch")
_Written = tuple[list[Path], Callable[..., Any]]


def sums(model: nn.Module) -> dict[str, str]:
    """SHA-256 of each file that `write` makes of a variant on another runtime, by suffix; empty for one of torch's."""
    if not isinstance(model, HoldsPrograms):
        return {}
    return {suffix: hashlib.sha256(content).hexdigest() for suffix, content in model.parts().items()}


def write(model: nn.Module, path: Path, context: Context) -> tuple[Path, ...]:
    """Write the variant to `path`, which has no suffix, and return the files; what loads them first reads the first.

    What torch runs is exported (`.pt2`); where that cannot be done, or answers otherwise, its weights and structure are
    written with the code that loads them (`.pt` and `.py`); else it is traced (`.pt`, TorchScript). Of a candidate that
    is a file, its files are copied into the folder under their own names.

    Raises:
        VariantError: with why none of these would be the variant that was measured.
    """
    if isinstance(model, FromFile):
        return _copied(model.files, path.parent)
    if isinstance(model, HoldsPrograms):
        files = {path.with_name(path.name + suffix): content for suffix, content in model.parts().items()}
        for file, content in files.items():
            file.write_bytes(content)
        return tuple(files)
    reasons = []
    for name, form in (("torch.export", _exported), ("weights", _weights), ("TorchScript", _traced)):
        with tempfile.TemporaryDirectory() as folder:  # what fails half written must not lie beside what is good
            try:
                with torch_ao.quiet(), torch.no_grad(), _as_elsewhere():
                    written, loaded = form(model, Path(folder) / path.name, context)
                    why = _otherwise(model, loaded, context) or _in_the_way(written, path)
            except Exception as error:
                why = last_line(error)
            if not why:
                return tuple(Path(shutil.move(file, path.with_name(file.name))) for file in written)
        reasons.append(f"{name}: {why}")
    raise VariantError(f"the variant cannot be written as a file that others load ({'; '.join(reasons)})")


def _copied(files: Sequence[str], folder: Path) -> tuple[Path, ...]:
    """The files under their own names, and in the folders below that of the first one: by these they find each other.

    Raises:
        VariantError: another file is in the way, which may be another candidate; nothing is written then.
    """
    places = [(Path(file), folder / Path(file).relative_to(Path(files[0]).parent)) for file in files]
    for file, place in places:
        if place.exists() and not filecmp.cmp(file, place, shallow=False):
            raise VariantError(
                f"{place.name} stands there with other content, and a candidate's files keep their names: remove it, "
                "or choose another --output"
            )
    for file, place in places:
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_name(place.name + ".part")
            shutil.copyfile(file, part)
            part.replace(place)
    return tuple(place for _, place in places)


@contextlib.contextmanager
def _as_elsewhere() -> Iterator[None]:
    """Without the classes that libraries, once they are imported, let torch unpickle: who loads the file may have none
    of them imported."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _in_the_way(written: list[Path], path: Path) -> str:
    """Code of somebody else where ours would stand; '' where there is none."""
    for file in (path.with_name(each.name) for each in written if each.suffix == ".py"):
        if file.exists() and not file.read_text(encoding="utf-8", errors="replace").startswith(_HEAD):
            return f"{file.name} exists, and was not written by this command: choose another --name"
    return ""


def _otherwise(model: nn.Module, loaded: Callable[..., Any], context: Context) -> str:
    """What is loaded answers as the model does, for other numbers of examples, too; else how it does not."""
    for what, batch in other_batches(context):
        try:
            expected = call(model, batch)
        except Exception:
            continue  # nor does the variant take such a batch
        answer = call(loaded, batch)
        apart = difference(answer, expected)
        if apart > LARGEST_DIFFERENCE:
            return f"loaded again, it answers differently on {what}, by {apart:.1%} of the largest number"
        if not all(map(_is_same_count, tree_leaves(answer), tree_leaves(expected))):
            return f"loaded again, it answers differently on {what}, in whole numbers"
    return ""


def _is_same_count(one: Any, other: Any) -> bool:
    """Whole numbers and truth values, of which `difference` looks at the shapes only."""
    return not isinstance(other, torch.Tensor) or other.is_floating_point() or torch.equal(one, other)


def _exported(model: nn.Module, path: Path, context: Context) -> _Written:
    program = export(model, context, "torch.export", any_precision=True)
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths on this machine
    file = path.with_name(f"{path.name}.pt2")
    torch.export.save(program, file)
    return [file], exported(str(file))


def _weights(model: nn.Module, path: Path, _: Context) -> _Written:
    file = path.with_name(f"{path.name}.pt")
    loader = path.with_name(re.sub(r"\W", "_", f"_{path.name}" if path.name[0].isdigit() else path.name) + ".py")
    size.save(model, file)
    names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    if unsafe := [name for name in names if not _is_harmless(name)]:
        raise VariantError(f"its file would need {', '.join(unsafe)}, which can run any code")
    called: list[str] = []
    imports = []
    for module, _dot, kind in (name.rpartition(".") for name in names):
        called.append(f"{kind}_{len(called)}" if kind in (*called, *_NAMES_OF_LOADER) else kind)
        # not by its whole name: a function may stand where a package of that name is on the way
        imports.append(f"from {module} import {kind}" + (f" as {called[-1]}" if called[-1] != kind else ""))
    text = _LOADER.format(file=file.name, imports="\n".join(imports), allowed=",\n    ".join(called))
    loader.write_text(text, encoding="utf-8", newline="\n")
    return [file, loader], _run_loader(loader)


def _is_harmless(name: str) -> bool:
    """Whether it is a class, or a function by which torch or this package puts tensors and modules together."""
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        return False
    return isinstance(found, type) or module.startswith(("torch._utils", "torch._tensor", "pytest_modelopt."))


def _run_loader(loader: Path) -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location("modelopt_shipped", loader)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded: Callable[..., Any] = module.load()
    return loaded


def _traced(model: nn.Module, path: Path, context: Context) -> _Written:
    args, kwargs = arguments(context.example_inputs)
    traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
        model, args or None, example_kwarg_inputs=kwargs or None, check_trace=False, strict=False
    )
    file = path.with_name(f"{path.name}.pt")
    torch.jit.save(traced, file)
    loaded: Callable[..., Any] = torch.jit.load(file)  # type: ignore[no-untyped-call]
    return [file], loaded
