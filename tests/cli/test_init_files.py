"""`pytest-modelopt init` offers the files below `dist` that a runtime can load, and says why others are left out."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.cli.init_files import Found, find
from pytest_modelopt.cli.main import main
from pytest_modelopt.config.loader import load_budgets
from pytest_modelopt.optimizing.quantization import torch_ao
from pytest_modelopt.results.source import ProgramSource

SHOP = """
import torch
from torch import nn

def load_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 10)).eval()

def data():
    inputs = torch.randn(200, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, load_net()(inputs).argmax(1)
"""


class Halved(nn.Module):
    """Keeps its weights in 16 bits, and works in 32."""

    weight0: torch.Tensor
    bias0: torch.Tensor
    weight2: torch.Tensor
    bias2: torch.Tensor

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        for index in (0, 2):
            for kind in ("weight", "bias"):
                self.register_buffer(f"{kind}{index}", model.get_parameter(f"{index}.{kind}").detach().half())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.linear(x, self.weight0.float(), self.bias0.float()).relu()
        return nn.functional.linear(hidden, self.weight2.float(), self.bias2.float())


def write_files(folder: Path) -> None:
    shop: dict[str, Any] = {}
    exec(SHOP, shop)  # noqa: S102 -- our own text
    model = shop["load_net"]()
    (folder / "other").mkdir(parents=True)
    programs = {"half.pt": Halved(model), "whole.pt": model, "other/seven.pt": nn.Sequential(model, nn.Linear(10, 7))}
    with torch_ao.quiet():
        for name, program in programs.items():
            traced = torch.jit.trace(program.eval(), torch.zeros(2, 64))  # type: ignore[no-untyped-call]
            torch.jit.save(traced, folder / name)
    torch.save({"weights": Trap(folder / "unpickled")}, folder / "checkpoint.pt")
    (folder / "notes.txt").touch()


class Trap:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def test_files_that_pay_become_candidates_with_limits_that_hold(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    pytester.makepyfile(shop=SHOP)
    folder = pytester.path / "dist"
    write_files(folder)
    call = ["init", "shop:load_net", "--data", "shop:data", "--time-limit", "1 ms", "--recipe", "int8-static"]
    assert main(call) == 0
    told = capsys.readouterr().out
    assert "budgets.yaml: written, with 0 of 1 recipes and 1 of 4 files: check it by `pytest --modelopt`\n" in told
    assert "checkpoint.pt holds a pickle and no program, and is not loaded" in told
    assert not (folder / "unpickled").exists()
    assert "other-seven.pt: left out: dist/other/seven.pt answers (float32[1, 7]), and the original (" in told
    assert "whole.pt: left out: it saves less than 10%" in told
    text = (pytester.path / "budgets.yaml").read_text(encoding="utf-8")
    assert "# other-seven.pt: left out: dist/other/seven.pt answers" in text
    (case,) = load_budgets(pytester.path / "budgets.yaml", relative_to=pytester.path).cases
    assert case.candidate is not None
    assert (case.name, case.candidate.origin) == ("net/half.pt", ProgramSource("dist/half.pt"))
    limits = {limit.name: limit.value for limit in case.limits}
    size = (folder / "half.pt").stat().st_size
    assert size <= limits["max_size"] <= 1.06 * size
    assert {"max_memory", "max_accuracy_drop", "min_accuracy"} <= limits.keys()


def test_only_programs_inside_of_the_project_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "project" / "dist"
    (folder / "a").mkdir(parents=True)
    for name in ("a-c.tflite", "b.onnx", "a/c.tflite", "d.txt", "f.gguf", "h.pte"):
        (folder / name).touch()
    with zipfile.ZipFile(folder / "g.pt2", "w") as archive:
        archive.writestr("g/data/aotinductor/model/model.so", b"")
    (tmp_path / "outside.onnx").touch()
    (folder / "e.onnx").symlink_to(tmp_path / "outside.onnx")
    assert find(tmp_path / "project") == Found(
        (("a-c.tflite", "dist/a/c.tflite"), ("b.onnx", "dist/b.onnx"), ("h.pte", "dist/h.pte")),
        (
            ("dist/a-c.tflite", "another file is called a-c.tflite, too; name it below `candidates:` yourself"),
            ("dist/e.onnx", "it is a link to a file outside of the project"),
            ("dist/g.pt2", "it holds native code, which is run only where a budgets file names it"),
        ),
    )
    assert find(tmp_path) == Found()
