"""torch's own files: programs of torch.export and packages of AOTInductor (`.pt2`), TorchScript (`.pt`)."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import platform
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree

from pytest_modelopt.optimizing import cpu_flags
from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.optimizing.quantization import torch_ao
from pytest_modelopt.optimizing.runtimes.program_file_module import FromFile, ProgramFileError, arguments, version_of
from pytest_modelopt.optimizing.runtimes.runtime_module import Signature

_FLAGS = {
    "AVX2": "avx2",
    "AVX512": "avx512f",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_TILE": "amx_tile",
}
"""What inductor calls the features of an x86 processor, and the kernel."""
_NATIVE = "AOTInductor"
_ARCHIVE = b"PK\x03\x04"
_SAFE, _UNSAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


class File(FromFile):
    """The program, called as it is. Saved, it is the path: what is shipped is the file.

    `at_a_time`: how many examples a call takes, where that is fixed; 0: any number. Native code that was compiled for a
    fixed number does not say so: it answers the first ones, and leaves in the others' places what was in memory.
    """

    def __init__(self, file: str, signature: Signature, at_a_time: int = 0) -> None:
        super().__init__()
        self.file = file
        self.files = (file,)
        self.signature = signature
        self.at_a_time = at_a_time
        self.made_by, load = _loader(Path(file))
        self.program = load(file)
        self.training = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.file, self.signature, self.at_a_time)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self.at_a_time or _examples((args, kwargs)) in (0, self.at_a_time):
            return self.program(*args, **kwargs)
        return in_parts(self.program, self.at_a_time, args, kwargs)

    def look_at_batches(self, inputs: Inputs) -> None:
        """Find whether it takes more examples than there are in `inputs`, by a call with as many zeros beside them.

        Raises:
            ProgramFileError: it takes fewer.
        """
        call = arguments(inputs)
        examples, is_native = _examples(call), self.made_by.startswith(_NATIVE)
        if not examples:
            return
        alone = self._answers(call)
        expected = [torch.cat(pair) for pair in zip(alone, self._answers(_each(call, torch.zeros_like)), strict=True)]
        try:
            together = self._answers(_each(call, lambda each: torch.cat([each, torch.zeros_like(each)])))
        except Exception:  # a program of torch.export says so
            together = None
        if together is not None and _are_alike(together, expected):
            return
        if examples == 1:
            self.at_a_time = int(is_native or together is None)
        elif self._answers_each_by_itself(call, alone):
            self.at_a_time = examples
        elif is_native:
            raise ProgramFileError(
                f"{Path(self.file).name} was compiled for fewer examples than the {examples} of a call, and answers "
                "only the first ones: compile it with an open first size, or set `batch_size:`"
            )

    def _answers_each_by_itself(self, call: Any, alone: list[torch.Tensor]) -> bool:
        """Whether no example's answer depends on its place or on the last one: a sequence is no batch."""
        turned = [each.flip(0) for each in self._answers(_each(call, lambda each: each.flip(0)))]
        without = self._answers(_each(call, lambda each: torch.cat([each[:-1], torch.zeros_like(each[-1:])])))
        return _are_alike(turned, alone) and _are_alike([each[:-1] for each in without], [each[:-1] for each in alone])

    def _answers(self, call: Any) -> list[torch.Tensor]:
        with torch.no_grad():
            return _numbers(self.program(*call[0], **call[1]))


def _each(call: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The call with each of its tensors changed."""
    return _pytree.tree_map_only(torch.Tensor, change, call)


def in_parts(program: Callable[..., Any], at_a_time: int, args: Any, kwargs: Any) -> Any:
    """What the program answers to any number of examples, in calls of `at_a_time`: the last one is filled up with
    examples of its own."""
    examples = _examples((args, kwargs))
    answers, layout = [], None
    for start in range(0, examples, at_a_time):
        chosen = torch.arange(start, start + at_a_time).clamp(max=examples - 1)
        given, named = _each((args, kwargs), partial(torch.index_select, dim=0, index=chosen))
        leaves, layout = _pytree.tree_flatten(program(*given, **named))
        answers.append(leaves)
    assert layout is not None
    whole = [
        torch.cat(parts)[:examples] if isinstance(parts[0], torch.Tensor) else parts[0]
        for parts in zip(*answers, strict=True)
    ]
    return _pytree.tree_unflatten(whole, layout)


def _examples(call: Any) -> int:
    """The first size that all tensors of a call have in common; 0 where there is none."""
    sizes = {each.shape[:1] for each in _numbers(call)}
    return next(iter(sizes))[0] if len(sizes) == 1 and () not in sizes else 0


def _numbers(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _are_alike(found: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    return len(found) == len(expected) and all(map(_alike, found, expected))


def _alike(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """But for the order in which kernels for another number of examples add up."""
    if found.shape != expected.shape:
        return False
    room = 0.01 * expected.double().abs().nan_to_num(0, 0, 0).max().item() if expected.numel() else 0.0
    return torch.allclose(found.double(), expected.double(), rtol=0.01, atol=room, equal_nan=True)


def _loader(file: Path) -> tuple[str, Callable[[str], Any]]:
    """What the file is and of which version, by the parts of its archive, and what loads it."""
    told: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
            for name in archive.namelist():
                if name.endswith(("_metadata.json", "/models/model.json", "/version")):
                    told[name.partition("/")[2]] = archive.read(name)
    except zipfile.BadZipFile:
        raise ProgramFileError(f"{file.name} {_no_archive(file)}") from None
    if any(name.startswith("data/aotinductor/") for name in names):
        for name in told:
            if name.endswith("_metadata.json"):
                _require_this_machine(file.name, json.loads(told[name]))
        return f"{_NATIVE}, native code that is trusted like the project's own", _aotinductor
    if any(name.startswith(("models/", "serialized_exported_program")) for name in names):
        by = json.loads(told.get("models/model.json", b"{}")).get("torch_version")
        return "torch.export" + (f", by torch {version_of(str(by))}" if by else ""), exported
    if any(name.startswith("code/") for name in names) and "constants.pkl" in names:
        return f"TorchScript, version {version_of(told.get('version', b'?').decode('ascii', 'replace'))}", _scripted
    if not any(name.endswith(".pkl") for name in names):
        raise ProgramFileError(
            f"{file.name} is an archive without a program of torch: export the model (torch.export.save, "
            "torch.jit.save)"
        )
    raise ProgramFileError(
        f"{file.name} holds a pickle and no program, and is not loaded, since a pickle can run any code: export the "
        "model (torch.export.save, torch.jit.save), or name a `factory:` that loads it"
    )


def _no_archive(file: Path) -> str:
    """What a file is that is no whole archive, by its first bytes."""
    with file.open("rb") as opened:
        first = opened.read(4)
    if not first:
        return "is empty: build it again"
    if first == _ARCHIVE:
        return f"is cut off after {file.stat().st_size:,} bytes: build or copy it again"
    if first[:1] == b"\x80":
        return (
            "is a pickle and no program, and is not loaded, since a pickle can run any code: export the model "
            "(torch.export.save, torch.jit.save), or name a `factory:` that loads it"
        )
    return "is neither a program of torch.export nor TorchScript, which are archives: export the model again"


def _require_this_machine(name: str, compiled_for: dict[str, str]) -> None:
    """Before native code is loaded, which would end the process where the processor lacks what it uses."""
    _, flags = cpu_flags.name_and_flags()
    theirs = tuple(compiled_for.get(key, "?") for key in ("AOTI_MACHINE", "AOTI_PLATFORM"))
    ours = (platform.machine(), sys.platform)
    wanted = [part for part in compiled_for.get("AOTI_CPU_ISA", "").split() if part in _FLAGS]
    lacking = [part for part in wanted if flags and _FLAGS[part] not in flags]
    if theirs != ours:
        why = "{} on {}, and this machine is {} on {}".format(*theirs, *ours)
    elif lacking:
        why = f"{' and '.join(lacking)}, which this processor lacks"
    else:
        return
    raise ProgramFileError(f"{name} was compiled for {why}: compile it for this machine, or run its case on such a one")


def _scripted(file: str) -> nn.Module:
    with torch_ao.quiet():
        return torch.jit.load(file, map_location="cpu").eval()  # type: ignore[no-any-return, no-untyped-call]


def exported(file: str) -> nn.Module:
    """The program of torch.export, of which nothing but tensors and plain values is unpickled.

    Raises:
        ProgramFileError: where it holds other objects.
    """
    try:
        with torch_ao.quiet(), _weights_only():
            return torch.export.load(file).module()
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise ProgramFileError(
            f"{Path(file).name} holds a pickle of {found[1] if found else 'other objects than tensors'} beside its "
            "program, and is not loaded, since a pickle can run any code: export the model without it, or name a "
            "`factory:` that loads it"
        ) from None


def _aotinductor(file: str) -> Callable[..., Any]:
    """Native code of the project's own, trusted as its modules are: a worker runs it, and no other process."""
    loaded: Callable[..., Any] = torch._inductor.aoti_load_package(file)
    return loaded


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """torch.export falls back to unpickling whatever there is; torch refuses to be told both."""
    before = {name: os.environ.pop(name, None) for name in (_SAFE, _UNSAFE)}
    os.environ[_SAFE] = "1"
    try:
        yield
    finally:
        del os.environ[_SAFE]
        os.environ.update({name: value for name, value in before.items() if value is not None})
