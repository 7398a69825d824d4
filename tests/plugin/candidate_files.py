"""Files of the project's `classifier` in every format that can be measured, and damaged ones.

`python -m tests.plugin.candidate_files FOLDER` writes them: exporters warn about each other, and in the tests warnings
are errors.
"""

from __future__ import annotations

import lzma
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pytest_modelopt.measuring.worker.files.size import save
from pytest_modelopt.optimizing.runtimes.program_file_module import FORMATS, ITS_OWN, load
from tests.optimizing.make_pte_files import FOLDER as PTE_FILES
from tests.optimizing.make_pte_files import LARGE_WIDTH, large
from tests.plugin import small_project


def shop() -> Any:
    """The project's models as a module."""
    module = types.ModuleType("shop")
    exec(small_project.MODELS, module.__dict__)  # noqa: S102 -- our own text
    return module


def write_files(folder: Path) -> None:
    """Every file of the tests; a few seconds for all."""
    model = shop().classifier()
    inputs = torch.randn(2, 64)
    _write_onnx(model, inputs, folder)
    _write_torch(model, inputs, folder)
    _write_others(model, inputs, folder)
    _write_executorch(folder)
    for name in (
        "reader.onnx",
        "external.onnx",
        "reader.xml",
        "reader.tflite",
        "reader.pte",
        "reader.pt2",
        "reader.pt",
    ):
        np.save(folder / f"{name}.npy", answers_of(folder / name, shop().data()[0]))
    _write_large(folder / "large")
    damaged = shop().classifier()
    with torch.no_grad():
        damaged[0].weight.copy_(torch.randn(512, 64))
    _write_onnx(damaged, inputs, folder, "damaged.onnx")


def _write_onnx(model: nn.Module, inputs: torch.Tensor, folder: Path, name: str = "reader.onnx") -> None:
    import onnx

    torch.onnx.export(
        model, (inputs,), folder / name, input_names=["features"], dynamic_shapes=({0: "n"},), verbose=False
    )
    proto = onnx.load(folder / name)
    onnx.save(proto, folder / name)
    if name != "reader.onnx":
        return
    onnx.save(proto, folder / "external.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    proto = onnx.load(folder / name)
    proto.graph.node[0].domain, proto.graph.node[0].op_type = "our.company", "Secret"
    onnx.save(proto, folder / "custom.onnx")
    torch.onnx.export(model, (inputs[:1],), folder / "of_one.onnx", verbose=False, dynamo=False)
    torch.onnx.export(
        _WithMask(model), (inputs, torch.ones(2, 64)), folder / "mask.onnx", input_names=["x", "mask"], verbose=False,
        dynamic_shapes=({0: "n"}, {0: "n"}),
    )  # fmt: skip
    (folder / "truncated.onnx").write_bytes((folder / name).read_bytes()[:5000])


def _write_torch(model: nn.Module, inputs: torch.Tensor, folder: Path) -> None:
    exported = torch.export.export(model, (inputs,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(exported, folder / "reader.pt2")
    torch.jit.save(torch.jit.trace(model, inputs), folder / "reader.pt")  # type: ignore[no-untyped-call]
    torch.save(model.state_dict(), folder / "pickle.pt")
    seven = nn.Sequential(model, nn.Linear(10, 7)).eval()
    torch.jit.save(torch.jit.trace(seven, inputs), folder / "seven.pt")  # type: ignore[no-untyped-call]


def _write_others(model: nn.Module, inputs: torch.Tensor, folder: Path) -> None:
    import litert_torch
    import openvino

    openvino.save_model(openvino.convert_model(model, example_input=inputs), folder / "reader.xml")
    shutil.copy(folder / "reader.xml", folder / "alone.xml")
    litert_torch.convert(model, (inputs[:1],)).export(str(folder / "reader.tflite"))
    shutil.copy(folder / "reader.onnx", folder / "other_format.tflite")
    (folder / "pointer.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 274073\n")
    (folder / "empty.onnx").touch()


def _write_executorch(folder: Path) -> None:
    """Those of `make_pte_files`, and damaged ones."""
    content = {name: (PTE_FILES / f"{name}.pte").read_bytes() for name in ("reader", "fixed")}
    (folder / "reader.pte").write_bytes(content["reader"])
    (folder / "cut.pte").write_bytes(content["reader"][:-5000])
    (folder / "onnx.pte").write_bytes((folder / "reader.onnx").read_bytes())
    (folder / "backend.pte").write_bytes(content["reader"].replace(b"XnnpackBackend", b"CompanyBackend"))
    (folder / "operator.pte").write_bytes(content["fixed"].replace(b"aten::addmm", b"ours::addmm"))


def _write_large(folder: Path) -> None:
    """A model of several MiB in each format, and each as the gate saves it for a fresh process."""
    import litert_torch
    import openvino

    folder.mkdir()
    model, inputs = large(), torch.zeros(1, LARGE_WIDTH)
    torch.onnx.export(model, (inputs,), folder / "a.onnx", verbose=False, external_data=False)
    openvino.save_model(openvino.convert_model(model, example_input=inputs), folder / "a.xml")
    litert_torch.convert(model, (inputs,)).export(str(folder / "a.tflite"))
    torch.export.save(torch.export.export(model, (inputs,)), folder / "a.pt2")
    torch.jit.save(torch.jit.trace(model, inputs), folder / "a.pt")  # type: ignore[no-untyped-call]
    (folder / "a.pte").write_bytes(lzma.decompress((PTE_FILES / "large.pte.xz").read_bytes()))
    save(inputs, folder / "inputs")
    for file in (folder / f"a{suffix}" for suffix in FORMATS):
        save(load(str(file), file.name, inputs, ITS_OWN, {}), file.with_suffix(f"{file.suffix}.saved"))


def answers_of(file: Path, inputs: torch.Tensor) -> np.ndarray:
    """A plain loop over the runtime, one example at a time."""
    examples = [row[None].numpy() for row in inputs]
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file))
        return np.concatenate([session.run(None, {"features": each})[0] for each in examples])
    if file.suffix == ".xml":
        import openvino

        model = openvino.Core().compile_model(str(file), "CPU")
        return np.concatenate([model(each)[0] for each in examples])
    if file.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(file))
        runner = interpreter.get_signature_runner()
        return np.concatenate([next(iter(runner(args_0=each).values())) for each in examples])
    if file.suffix == ".pte":
        from executorch.extension.pybindings import _C as executorch

        method = executorch._load_for_executorch(str(file))
        return np.concatenate([method.forward((torch.from_numpy(each),))[0].numpy() for each in examples])
    program = torch.jit.load(file) if file.suffix == ".pt" else torch.export.load(file).module()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return np.concatenate([program(torch.from_numpy(each)).numpy() for each in examples])


class _WithMask(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:
        return self.model(x * mask)


if __name__ == "__main__":
    write_files(Path(sys.argv[1]))
