"""Variants as files that are shipped: they answer alike, are no bare pickle, and a file that does not is not left."""

from __future__ import annotations

import importlib
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.files import shipping
from pytest_modelopt.optimizing.apply import optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context
from pytest_modelopt.optimizing.runtimes.program_file_module import FromFile

INPUTS = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))


def context() -> Context:
    return Context(INPUTS, lambda: iter([INPUTS, 2 * INPUTS]), seed=0)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).eval()


def variant(recipe: str) -> nn.Module:
    return optimize(model(), parse(recipe).steps, context()).model


def answers(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.cat([INPUTS, -INPUTS, INPUTS]))
        return found


@pytest.mark.parametrize("recipe", ["low-rank(ratio=0.5)", "bf16", "int8-weight-only"])
def test_what_torch_exports_is_a_program(tmp_path: Path, recipe: str) -> None:
    made = variant(recipe)
    (file,) = shipping.write(made, tmp_path / "m-1.5", context())
    assert file == tmp_path / "m-1.5.pt2"
    assert torch.equal(answers(torch.export.load(file).module()), answers(made))


class Shifted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def test_a_program_does_not_name_the_folders_of_this_machine(tmp_path: Path) -> None:
    (file,) = shipping.write(Shifted().eval(), tmp_path / "m", context())
    with zipfile.ZipFile(file) as archive:
        assert not any(Path(__file__).name.encode() in archive.read(name) for name in archive.namelist())


def test_packed_weights_come_with_the_code_that_loads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = variant("int8-dynamic")
    files = shipping.write(made, tmp_path / "m-int8", context())
    assert [file.name for file in files] == ["m-int8.pt", "m_int8.py"]
    monkeypatch.syspath_prepend(tmp_path)
    import m_int8  # type: ignore[import-not-found]

    loaded = m_int8.load()
    assert torch.equal(answers(loaded), answers(made))
    assert not loaded.training
    with pytest.raises(pickle.UnpicklingError, match="WeightsUnpickler error: Unsupported global"):
        torch.load(files[0], weights_only=True)
    assert "weights_only=True" in files[1].read_text(encoding="utf-8")


def test_classes_of_a_library_are_named_by_what_loads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchao lets torch unpickle its classes once it is imported; where the file is loaded it need not be."""
    made = variant("torchao-int8-weight-only")
    files = shipping.write(made, tmp_path / "m", context())
    assert [file.name for file in files] == ["m.pt", "m.py"]
    monkeypatch.setattr(torch._weights_only_unpickler, "_marked_safe_globals_set", set())
    monkeypatch.syspath_prepend(tmp_path)
    assert torch.equal(answers(importlib.import_module("m").load()), answers(made))


class Named(nn.Linear):
    """Is called `own.torch`, below."""


Named.__name__ = Named.__qualname__ = "torch"


def test_classes_with_the_names_of_the_loader_s_own_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own", types.ModuleType("own"))
    sys.modules["own"].torch, Named.__module__ = Named, "own"  # type: ignore[attr-defined]
    made = Named(64, 3).eval()
    written, loaded = shipping._weights(made, tmp_path / "own-1", context())
    assert "from own import torch as torch_0" in written[1].read_text(encoding="utf-8")
    assert torch.equal(answers(loaded), answers(made))


def test_a_graph_of_torch_fx_is_traced(tmp_path: Path) -> None:
    """Its pickle holds the text of its code, which loading would run."""
    made = variant("int8-static")
    (file,) = shipping.write(made, tmp_path / "static", context())
    assert sorted(tmp_path.iterdir()) == [file]
    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.load"):
        loaded = torch.jit.load(file)  # type: ignore[no-untyped-call]
    assert torch.equal(answers(loaded), answers(made))


class OfSizes(nn.Module):
    """Decides by the number of examples, in Python."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.tanh() if len(x.tolist()) > 5 else x.sin()

    def __reduce__(self) -> Any:
        return eval, ("None",)


def test_what_would_answer_otherwise_is_not_left(tmp_path: Path) -> None:
    mine = {name: f"mine: {name}".encode() for name in ("m.pt", "m.pt2", "m.py")}
    for name, content in mine.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(VariantError) as caught:
        shipping.write(OfSizes().eval(), tmp_path / "m", context())
    told = str(caught.value)
    assert told.startswith("the variant cannot be written as a file that others load (torch.export: ")
    assert "which can run any code" in told
    assert "TorchScript: loaded again, it answers differently on a batch of twice as many examples" in told
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == mine


class Counted(nn.Module):
    """Answers with whole numbers."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.argmax(1) + self.first


def test_whole_numbers_are_compared_too() -> None:
    assert shipping._otherwise(Counted(0), Counted(0), context()) == ""
    told = shipping._otherwise(Counted(0), Counted(1), context())
    assert told.startswith("loaded again, it answers differently on ")
    assert told.endswith(", in whole numbers")


def test_code_of_the_project_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("mine = 1\n", encoding="utf-8")
    files = shipping.write(variant("int8-dynamic"), tmp_path / "m", context())
    assert [file.name for file in files] == ["m.pt"]  # as TorchScript, which needs no code
    assert (tmp_path / "m.py").read_text(encoding="utf-8") == "mine = 1\n"


def test_the_files_of_a_candidate_keep_their_names_and_places(tmp_path: Path) -> None:
    """External data is found by its path from the program. What stands there already, as in its own folder, is left."""
    source, target = tmp_path / "source", tmp_path / "target"
    files = (source / "m.onnx", source / "data" / "weights.bin")
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(file.name.encode())
    program = FromFile()
    program.file, program.files = str(files[0]), tuple(map(str, files))
    target.mkdir()
    for folder in (target, target, source):
        written = shipping.write(program, folder / "another-name", context())
        assert written == (folder / "m.onnx", folder / "data" / "weights.bin")
        assert {file.name: file.read_bytes().decode() for file in folder.rglob("*.*")} == {
            file.name: file.name for file in files
        }
    (target / "m.onnx").unlink()
    written[1].write_bytes(b"built anew")
    with pytest.raises(VariantError, match=r"weights.bin stands there with other content, and a candidate's files"):
        shipping.write(program, target / "m", context())
    assert [file.name for file in target.rglob("*.*")] == ["weights.bin"]
