"""A `.pte` file in ExecuTorch, on the CPU."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from pytest_modelopt.optimizing.runtimes.executorch import pte
from pytest_modelopt.optimizing.runtimes.fixed_sizes_module import Place, run_in_parts
from pytest_modelopt.optimizing.runtimes.program_file_module import Port, ProgramFile, ProgramFileError, version_of

_FORWARD = "forward"
_TYPES = (
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64,
    None, None, None, torch.bool, None, None, None, torch.bfloat16,
)  # fmt: skip
"""By the number that torch and ExecuTorch give them."""


@dataclass(frozen=True)
class Engine:
    """A loaded method of a program. `is_open`: it takes inputs of other sizes, up to those of `inputs`."""

    program: Any
    method: Any
    inputs: tuple[Place, ...]
    outputs: tuple[Place, ...]
    orders: tuple[tuple[int, ...], ...]
    """Of each input: its dimensions as they lie in memory, the outermost first."""
    is_open: bool


class File(ProgramFile):
    """A batch that is larger than the program takes is run in parts, and where its sizes are fixed the last one is
    filled up, as LiteRT's are.

    ExecuTorch has one thread pool for the whole process. What it has loaded points to that pool, so all programs are
    given up before the number of threads changes, and each is loaded again at its next call.
    """

    runtime: ClassVar[str] = "ExecuTorch"
    _loaded: ClassVar[weakref.WeakSet[File]] = weakref.WeakSet()

    @classmethod
    def described(cls, file: str) -> tuple[tuple[str, ...], str]:
        """With the `.ptd` of the same name, where the program keeps weights outside of its file."""
        program, method = _read(file)
        data = Path(file).with_suffix(".ptd")
        if method.has_external_data and not data.exists():
            raise ProgramFileError(
                f"{Path(file).name} keeps weights outside of itself, and there is no {data.name} beside it: put the "
                "`.ptd` file that was exported with it there, under this name"
            )
        delegated = version_of(", ".join(method.backends))
        made_by = f"ExecuTorch program of version {program.version}" + (f", for {delegated}" if delegated else "")
        return (file, str(data)) if method.has_external_data else (file,), made_by

    def start(self, threads: int) -> Engine:
        # The extension itself: what wraps it imports the exporter with torch's compiler, which takes seconds.
        from executorch.extension.pybindings import _C as library

        _, method = _read(self.file)
        given = _tensors(Path(self.file).name, method)
        self.setting = _told_orders(given)
        _require_parts(Path(self.file).name, method, library)
        _set_threads(threads, library)
        program = library._load_program(
            self.file,
            program_verification=library.Verification.InternalConsistency,
            data_path=self.files[1] if len(self.files) > 1 else None,
        )
        loaded = program.load_method(method.name)
        File._loaded.add(self)
        meta = loaded.method_meta()
        outputs = [meta.output_tensor_meta(index) for index in range(meta.num_outputs())]
        return Engine(
            program,
            loaded,
            tuple(_place(self.file, "input", index, each.scalar_type, each.sizes) for index, each in enumerate(given)),
            tuple(
                _place(self.file, "output", index, each.dtype(), tuple(each.sizes()))
                for index, each in enumerate(outputs)
            ),
            tuple(each.order for each in given),
            any(each.is_open for each in given),
        )

    def ports(self, engine: Engine) -> list[Port]:
        """Its inputs have no names; open sizes are bounded, and which of them are open it does not say."""
        return [
            Port(
                f"input_{place.index}",
                place.dtype,
                (None,) * len(place.shape) if engine.is_open else (None, *place.shape[1:]) if place.shape else (),
            )
            for place in engine.inputs
        ]

    def output_names(self, engine: Engine) -> list[str]:
        return [f"output_{place.index}" for place in engine.outputs]

    def run(self, engine: Engine, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        invoke = partial(_invoke, engine)
        if not engine.is_open:
            return run_in_parts(invoke, inputs, engine.inputs, engine.outputs, self.runtime)
        parts = _within_bounds(inputs, engine.inputs)
        return [torch.cat(found) if len(parts) > 1 else found[0] for found in zip(*map(invoke, parts), strict=True)]


def _within_bounds(inputs: list[torch.Tensor], places: Sequence[Place]) -> list[list[torch.Tensor]]:
    """The call in parts of at most as many examples as an open program takes.

    Raises:
        ValueError: another size is beyond what the program takes.
    """
    examples, most = ({each.shape[:1] for each in side} for side in (inputs, places))
    (step,) = most.pop() if len(examples) == len(most) == 1 and () not in most else (0,)
    for place, tensor in zip(places, inputs, strict=True):
        sizes = tuple(tensor.shape)
        if any(size > bound for size, bound in zip(sizes[bool(step) :], place.shape[bool(step) :], strict=True)):
            raise ValueError(
                f"the program takes inputs of at most {place.shape}, and is called with {sizes}: export it with larger "
                "bounds"
            )
    if not step or len(inputs[0]) <= step:
        return [inputs]
    return [[tensor[start : start + step] for tensor in inputs] for start in range(0, len(inputs[0]), step)]


def _read(file: str) -> tuple[pte.Program, pte.Method]:
    """The program, and its one method or the one that is called forward."""
    try:
        program = pte.read(Path(file))
    except pte.NoProgram as error:
        raise ProgramFileError(f"ExecuTorch cannot load {Path(file).name}: {error}; is the file whole?") from error
    by_name = {method.name: method for method in program.methods}
    if not by_name:
        raise ProgramFileError(f"ExecuTorch cannot load {Path(file).name}: it has no method; is the file whole?")
    if len(by_name) != 1 and _FORWARD not in by_name:
        told = version_of(", ".join(by_name))
        raise ProgramFileError(
            f"{Path(file).name} has the methods {told}, and none that is called `{_FORWARD}`: name a "
            "`factory:` of an `nn.Module` that runs the one that is meant"
        )
    return program, by_name.get(_FORWARD) or program.methods[0]


def _require_parts(name: str, method: pte.Method, library: Any) -> None:
    """Before it is loaded: the runtime would name no operator, or end the process."""
    backends = [each for each in method.backends if not library._is_available(each)]
    known = set(library._get_operator_names())
    operators = [each for each in method.operators if each not in known]
    if backends:
        here = ", ".join(filter(library._is_available, library._get_registered_backend_names()))
        raise ProgramFileError(
            f"{name} was made for {version_of(', '.join(backends))}, which ExecuTorch lacks on this machine (it has "
            f"{here}): measure it on such a device, or export it for one of these"
        )
    if operators:
        raise ProgramFileError(
            f"{name} needs the operators {version_of(', '.join(operators))}, which are not registered here: name a "
            "`factory:` of an `nn.Module` that registers them and runs it"
        )


def _set_threads(threads: int, library: Any) -> None:
    """Of the pool of the process, and that it has them: the number of threads is stated beside each figure."""
    if library._threadpool_get_thread_count() != threads:
        for program in list(File._loaded):
            program._engine = None
        library._unsafe_reset_threadpool(threads)
    found = library._threadpool_get_thread_count()
    if found != threads:
        raise ProgramFileError(f"ExecuTorch works with {found} threads and cannot be set to {threads}")


def _tensors(name: str, method: pte.Method) -> list[pte.Input]:
    """Its inputs. Raises ProgramFileError where one is a plain number or a list."""
    given = [each for each in method.inputs if each is not None]
    if len(given) < len(method.inputs):
        raise ProgramFileError(f"{name} takes inputs that are no tensors: name a `factory:` that runs it")
    return given


def _place(file: str, what: str, index: int, scalar_type: int, sizes: tuple[int, ...]) -> Place:
    dtype = _TYPES[scalar_type] if 0 <= scalar_type < len(_TYPES) else None
    if dtype is None:
        raise ProgramFileError(
            f"{what} {index} of {Path(file).name} is of type {scalar_type}, which torch lacks here: name a "
            "`factory:` that runs it"
        )
    return Place(index, sizes, dtype)


def _invoke(engine: Engine, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(
        engine.method([_in_order(each.detach(), order) for each, order in zip(inputs, engine.orders, strict=True)])
    )


def _in_order(tensor: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """The same numbers, with the dimensions in memory as the program reads them: ExecuTorch looks at no strides."""
    back = sorted(range(len(order)), key=lambda each: order[each])
    return tensor.permute(order).contiguous().permute(back)


def _told_orders(given: Sequence[pte.Input]) -> str:
    """What has to be known of inputs that are not laid out as torch does by itself; '' where there are none."""
    other = [
        f"input_{index} in the order {each.order}"
        for index, each in enumerate(given)
        if each.order != tuple(range(len(each.sizes)))
    ]
    if not other:
        return ""
    return (
        f"the program reads the dimensions of {' and '.join(other)} from memory, and is given them so; ExecuTorch does "
        "not look how a tensor lies in memory and answers wrongly without an error, so serve it with such tensors"
    )
