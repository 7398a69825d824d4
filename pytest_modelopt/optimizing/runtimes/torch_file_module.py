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
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytest_modelopt.optimizing import cpu_flags
from pytest_modelopt.optimizing.quantization import torch_ao
from pytest_modelopt.optimizing.runtimes.program_file_module import FromFile, ProgramFileError, version_of
from pytest_modelopt.optimizing.runtimes.runtime_module import Signature

_FLAGS = {
    "AVX2": "avx2",
    "AVX512": "avx512f",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_TILE": "amx_tile",
}
"""What inductor calls the features of an x86 processor, and the kernel."""
_SAFE, _UNSAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


class File(FromFile):
    """The program, called as it is. Saved, it is the path: what is shipped is the file."""

    def __init__(self, file: str, signature: Signature) -> None:
        super().__init__()
        self.file = file
        self.files = (file,)
        self.signature = signature
        self.made_by, load = _loader(Path(file))
        self.program = load(file)
        self.training = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.file, self.signature)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.program(*args, **kwargs)


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
        raise ProgramFileError(
            f"{file.name} is neither a program of torch.export nor TorchScript: it is no archive, or not all of one"
        ) from None
    if any(name.startswith("data/aotinductor/") for name in names):
        for name in told:
            if name.endswith("_metadata.json"):
                _require_this_machine(file.name, json.loads(told[name]))
        return "AOTInductor, native code that is trusted like the project's own", _aotinductor
    if any(name.startswith(("models/", "serialized_exported_program")) for name in names):
        by = json.loads(told.get("models/model.json", b"{}")).get("torch_version")
        return "torch.export" + (f", by torch {version_of(str(by))}" if by else ""), exported
    if any(name.startswith("code/") for name in names) and "constants.pkl" in names:
        return f"TorchScript, version {version_of(told.get('version', b'?').decode('ascii', 'replace'))}", _scripted
    raise ProgramFileError(
        f"{file.name} holds a pickle and no program, and is not loaded, since a pickle can run any code: export the "
        "model (torch.export.save, torch.jit.save), or name a `factory:` that loads it"
    )


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
