"""torch's own files: programs of torch.export and packages of AOTInductor (`.pt2`), TorchScript (`.pt`)."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytest_modelopt.optimizing.quantization import torch_ao
from pytest_modelopt.optimizing.runtimes.program_file_module import ProgramFileError
from pytest_modelopt.optimizing.runtimes.runtime_module import Signature


class File(nn.Module):
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
    """What the file is, by the parts of its archive, and what loads it."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except zipfile.BadZipFile:
        raise ProgramFileError(
            f"{file.name} is neither a program of torch.export nor TorchScript: it is no archive, or not all of one"
        ) from None
    if any(name.startswith("data/aotinductor/") for name in names):
        return "AOTInductor", _aotinductor
    if any(name.startswith(("models/", "serialized_exported_program")) for name in names):
        return "torch.export", _exported
    if any(name.startswith("code/") for name in names) and "constants.pkl" in names:
        return "TorchScript", _scripted
    raise ProgramFileError(
        f"{file.name} holds a pickle and no program, and is not loaded, since a pickle can run any code: export the "
        "model (torch.export.save, torch.jit.save), or name a `factory:` that loads it"
    )


def _scripted(file: str) -> nn.Module:
    with torch_ao.quiet():
        return torch.jit.load(file, map_location="cpu").eval()  # type: ignore[no-any-return, no-untyped-call]


def _exported(file: str) -> nn.Module:
    with torch_ao.quiet(), _weights_only():
        return torch.export.load(file).module()


def _aotinductor(file: str) -> Callable[..., Any]:
    """Native code of the project's own, trusted as its modules are: a worker runs it, and no other process."""
    loaded: Callable[..., Any] = torch._inductor.aoti_load_package(file)
    return loaded


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """torch.export falls back to unpickling whatever there is."""
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        yield
    finally:
        del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        if before is not None:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before
