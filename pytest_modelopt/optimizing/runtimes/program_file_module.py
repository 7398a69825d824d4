"""A model in a file that another pipeline made: loaded from its place, called and answering as the original is."""

from __future__ import annotations

import contextlib
import importlib
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import last_line
from pytest_modelopt.optimizing.runtimes.runtime import not_measured, runtimes
from pytest_modelopt.optimizing.runtimes.runtime_module import EngineModule, Fed, Signature

FORMATS = {
    **{
        runtime.suffix: (f"{folder}.{runtime.file_module}", runtime.name, runtime.way_in)
        for folder, runtime in runtimes().items()
    },
    ".pt2": ("torch_file_module", "torch.export", ""),
    ".pt": ("torch_file_module", "TorchScript", ""),
}
"""The module with the class `File`, the name, and the way in, of each suffix."""
ITS_OWN = object()
"""In place of what the original answers, where the program is the original."""
_POINTER = b"version https://git-lfs"


class ProgramFileError(ValueError):
    """A file that cannot be measured; the message says why, and the way out, in words."""


@dataclass(frozen=True)
class Port:
    """One input of a program. `shape` holds None for each size that is open, and is None where all of it is."""

    name: str
    dtype: torch.dtype | None
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        sizes = "..." if self.shape is None else ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name}: {_type(self.dtype)}[{sizes}]"


def _type(dtype: torch.dtype | None) -> str:
    return "unknown" if dtype is None else str(dtype).removeprefix("torch.")


class FromFile(nn.Module):
    """A model that is a file: `file` is its path, `files` are all that belong to it, the named one first, and `made_by`
    is what the file says of its origin."""

    file: str
    files: tuple[str, ...]
    made_by: str

    @classmethod
    def described(cls, file: str) -> tuple[tuple[str, ...], str]:
        """All files that belong to the program, the named one first, and 'ONNX opset 18, by pytorch 2.13.0', '' where
        only the loaded program tells. Nothing is loaded."""
        return (file,), ""

    def look_at_batches(self, inputs: Inputs) -> None:
        """Where only a call tells how many examples it takes: find out, and take any number from then on."""


class ProgramFile(EngineModule, FromFile):
    """Runs a file in its runtime. Saved, it is the paths: what is shipped are the files."""

    setting = ""
    """What a user has to set to serve the file as it is measured; '' where that is nothing."""

    def __init__(self, file: str, signature: Signature, files: tuple[str, ...] = (), made_by: str = "") -> None:
        super().__init__(signature)
        self.file, self.files, self.made_by = file, files or (file,), made_by
        self.eval()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.file, self.signature, self.files, self.made_by)

    @classmethod
    def described(cls, file: str) -> tuple[tuple[str, ...], str]:
        return (file,), cls.runtime

    @abstractmethod
    def ports(self, engine: Any) -> list[Port]:
        """The inputs of the program, in its own order."""

    @abstractmethod
    def output_names(self, engine: Any) -> list[str]:
        """Of its outputs, in its own order."""

    def weights(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        """Name, operator and numbers of each constant that it holds in float32, for what a recipe changes of them."""
        yield from ()


def load(
    file: str,
    shown: str,
    inputs: Inputs,
    output: Any,
    names: Mapping[str, int | str],
    check: Callable[[Sequence[str]], None] = lambda files: None,
    parameters: Sequence[str] = (),
) -> FromFile:
    """The program in `file`, which answers as the original did with `output` on `inputs`.

    `shown` is what messages call the file. `names` are the arguments that its inputs get, where the names differ.
    `parameters` are the names by which the original takes positional arguments: inputs of these names get them.
    `check` is given all files that belong to it, before it is loaded.
    With `ITS_OWN` as output it is an original itself: one tensor is returned as it is, several in a dict by name.

    Raises:
        ProgramFileError: with what does not fit, both sides shown.
    """
    path = Path(file)
    if path.suffix not in FORMATS:
        raise ProgramFileError(f"{shown} {not_measured(path.suffix, FORMATS)}")
    module_name, runtime, way_in = FORMATS[path.suffix]
    try:
        kind: Any = importlib.import_module(f"{__package__}.{module_name}").File
        files, made_by = kind.described(file)
        check(files)
        program: FromFile = kind(file, Signature.of(inputs, output))
        if isinstance(program, ProgramFile):
            program.files, program.made_by = files, made_by
            program = _bound(program, shown, inputs, names, parameters)
            program.signature = replace(program.signature, order=_order(program.output_names(program.engine), output))
    except ProgramFileError:
        raise
    except ModuleNotFoundError as error:
        if not way_in or not error.name:
            raise
        raise ProgramFileError(f"{shown} needs {runtime}, and {error.name} is not installed: {way_in}") from None
    except ImportError as error:  # a library of another version than the package was built for
        raise ProgramFileError(
            f"{shown} needs {runtime}, which is installed and cannot be imported: {last_line(error)}; install versions "
            "that fit each other and torch"
        ) from error
    except Exception as error:
        raise ProgramFileError(
            f"{runtime} cannot load {shown}: {last_line(error)}; is the file whole, and of the format that its suffix "
            "says?"
        ) from error
    answer = _answer(program, shown, inputs)
    program.look_at_batches(inputs)
    if output is not ITS_OWN:
        _require_same_outputs(answer, shown, output)
    elif isinstance(program, ProgramFile):
        program.signature = _answering_by_itself(program, answer, inputs)
    return program


def _answering_by_itself(program: ProgramFile, answer: Sequence[torch.Tensor], inputs: Inputs) -> Signature:
    names = program.output_names(program.engine)
    output = answer[0] if len(answer) == 1 else dict(zip(names, answer, strict=True))
    return replace(Signature.of(inputs, output), ports=program.signature.ports)


def require_content(path: Path, shown: str) -> None:
    """That there is a file with something in it, and not what Git LFS leaves in its place.

    Raises:
        ProgramFileError: with what there is.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(64)
    except OSError as error:
        raise ProgramFileError(f"{shown} cannot be read: {error.strerror or error}") from None
    if beginning.startswith(_POINTER):
        raise ProgramFileError(
            f"{shown} is a Git LFS pointer and not the file itself: run `git lfs pull --include {shown}` first"
        )
    if not beginning:
        raise ProgramFileError(f"{shown} is empty")


# --- the contract ----------------------------------------------------------------------------------------------------


def _bound(
    program: ProgramFile, shown: str, inputs: Inputs, names: Mapping[str, int | str], parameters: Sequence[str]
) -> ProgramFile:
    """The same with the arguments that its inputs get, which fit in number, name, type and shape."""
    ports = program.ports(program.engine)
    keys: list[int | str] = list(inputs) if isinstance(inputs, Mapping) else list(range(program.signature.positional))
    tensors = program.signature.flat_inputs(*arguments(inputs))
    takes = f"{shown} takes ({', '.join(map(str, ports))})"
    gives = f"the data gives ({', '.join(_given(key, tensor) for key, tensor in zip(keys, tensors, strict=True))})"
    unknown = [name for name in names if name not in {port.name for port in ports}]
    if unknown:
        raise ProgramFileError(f"`inputs:` names {', '.join(unknown)}, but {takes}")
    fed = []
    known = parameters[: program.signature.positional]
    by_name = not names and all(port.name in known for port in ports)
    for number, port in enumerate(ports):
        index = known.index(port.name) if by_name else _argument(number, port, ports, keys, names, takes, gives)
        why = _misfit(port, tensors[index])
        if why:
            raise ProgramFileError(f"{takes}, but {gives}: {why}")
        fed.append(Fed(port.name, index, port.dtype is torch.int32))
    program.signature = replace(program.signature, ports=tuple(fed))
    return program


def arguments(inputs: Inputs) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Of a call, by position and by name."""
    if isinstance(inputs, Mapping):
        return (), inputs
    return (inputs if type(inputs) is tuple else (inputs,)), {}


def _given(key: int | str, tensor: torch.Tensor) -> str:
    return f"{key}: {_type(tensor.dtype)}[{', '.join(map(str, tensor.shape))}]"


def _argument(
    index: int,
    port: Port,
    ports: Sequence[Port],
    keys: Sequence[int | str],
    names: Mapping[str, int | str],
    takes: str,
    gives: str,
) -> int:
    """Which of the call's tensors a port gets: by `inputs:`, by its name, or by its position where no name tells."""
    if port.name in names:
        if names[port.name] not in keys:
            raise ProgramFileError(f"`inputs:` gives {port.name} the argument {names[port.name]!r}, but {gives}")
        return keys.index(names[port.name])
    if port.name in keys:
        return keys.index(port.name)
    by_position = len(ports) == len(keys) and not names and (len(ports) == 1 or not isinstance(keys[0], str))
    if not by_position:
        raise ProgramFileError(
            f"{takes}, but {gives}: say which argument each input gets, for example `inputs: {{{port.name}: "
            f"{keys[0]}}}`"
        )
    return index


def _misfit(port: Port, tensor: torch.Tensor) -> str:
    """Why a tensor is none for a port; '' where it is."""
    is_narrowed = tensor.dtype is torch.int64 and port.dtype is torch.int32
    if port.dtype is not None and tensor.dtype != port.dtype and not is_narrowed:
        return f"{port.name} is {_type(port.dtype)} and not {_type(tensor.dtype)}"
    if port.shape is None:
        return ""
    sizes = tuple(tensor.shape)
    if len(sizes) == len(port.shape) and all(
        size in (None, given) for size, given in zip(port.shape[1:], sizes[1:], strict=True)
    ):
        first = port.shape[0] if port.shape else None
        return "" if first in (None, sizes[0]) else _of_batch(port, sizes[0])
    if len(sizes) == 4 == len(port.shape) and port.shape[1:] == (*sizes[2:], sizes[1]):
        return f"{port.name} has its channels last (NHWC), and the data has them second (NCHW)"
    return f"the shapes of {port.name} differ"


def _of_batch(port: Port, examples: int) -> str:
    return (
        f"it was made for batches of {port.shape[0] if port.shape else '?'}, and is called with {examples}: export it "
        "with an open first size, or set `batch_size:`"
    )


def _order(names: Sequence[str], output: Any) -> tuple[int, ...] | None:
    """The place of each tensor that the original returns by name, among outputs of the same names; None elsewhere."""
    keys = list(output) if isinstance(output, Mapping) else []
    if keys == list(names) or set(keys) != set(names) or len(keys) != len(names):
        return None
    return tuple(map(list(names).index, keys))


def _answer(program: FromFile, shown: str, inputs: Inputs) -> list[torch.Tensor]:
    """The tensors of its answer, in the order of the original's; of another runtime in its own types."""
    with _running(shown), torch.no_grad():
        if isinstance(program, ProgramFile):
            tensors = program.run(program.engine, program.signature.flat_inputs(*arguments(inputs)))
            return list(program.signature.ordered(tensors))
        return _tensors(call(program, inputs))


@contextlib.contextmanager
def _running(shown: str) -> Iterator[None]:
    try:
        yield
    except ProgramFileError:
        raise
    except Exception as error:
        raise ProgramFileError(f"{shown} does not run on the data: {last_line(error)}") from error


def _require_same_outputs(found: Sequence[torch.Tensor], shown: str, output: Any) -> None:
    wanted = _tensors(output)
    told = [f"({', '.join(f'{_type(each.dtype)}{list(each.shape)}' for each in side)})" for side in (found, wanted)]
    differs = f"{shown} answers {told[0]}, and the original {told[1]}"
    if [each.shape for each in found] != [each.shape for each in wanted]:
        raise ProgramFileError(differs)
    if any(ours.is_floating_point() > each.is_floating_point() for each, ours in zip(found, wanted, strict=True)):
        raise ProgramFileError(
            f"{differs}: whole numbers in place of floating point, as of a program whose outputs were quantized, too; "
            "convert it with outputs of floating point"
        )


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def version_of(text: str) -> str:
    """A text of the file, on one line and not too long."""
    return re.sub(r"[^\x20-\x7e]+", " ", text)[:80].strip()
