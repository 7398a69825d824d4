"""`sha256:` of a program in several files: none of them can be damaged, or left out, unnoticed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import helper, numpy_helper
from openvino import opset13

from pytest_modelopt.config.candidate_schema import parse_sha256
from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.files.program_files import Made, load_file
from pytest_modelopt.optimizing.runtimes.program_file_module import ITS_OWN
from pytest_modelopt.results.source import ProgramSource

WEIGHT = np.random.default_rng(0).standard_normal((8, 4), dtype=np.float32)


def onnx_program(folder: Path) -> str:
    sizes = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", n]) for name, n in (("x", 8), ("y", 4))]
    weight = numpy_helper.from_array(WEIGHT, "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", sizes[:1], sizes[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "a.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    return "a.onnx"


def openvino_program(folder: Path) -> str:
    given = opset13.parameter([-1, 8], np.float32, name="x")
    product = opset13.matmul(given, opset13.constant(WEIGHT), False, False)
    openvino.save_model(openvino.Model([product], [given], "a"), folder / "a.xml", compress_to_fp16=False)
    return "a.xml"


def load(folder: Path, name: str, sums: object) -> Made:
    source = ProgramSource(str(folder / name), parse_sha256(sums))
    return load_file(source, folder.parent, torch.ones(2, 8), lambda: ITS_OWN)


@pytest.mark.parametrize(("make", "beside"), [(onnx_program, "weights.bin"), (openvino_program, "a.bin")])
def test_each_file_must_be_the_one_that_was_meant(tmp_path: Path, make: Callable[[Path], str], beside: str) -> None:
    folder = tmp_path / "dist"
    folder.mkdir()
    name = make(folder)
    sums = {each: hashlib.sha256((folder / each).read_bytes()).hexdigest() for each in (name, beside)}
    program, _, provenance = load(folder, name, sums)
    torch.testing.assert_close(program(torch.ones(2, 8)), torch.ones(2, 8) @ torch.from_numpy(WEIGHT))
    assert provenance is not None
    assert provenance.sums == {f"dist/{each}": found for each, found in sums.items()}
    with pytest.raises(VariantError, match=f"^dist/{name} consists of {name} and {beside}, and `sha256:` .*") as one:
        load(folder, name, sums[name])
    told = re.search(r"state `sha256: (\{.*\})`", str(one.value))
    assert told is not None
    assert told[1] == f"{{{name}: '{sums[name]}', {beside}: '{sums[beside]}'}}"
    with pytest.raises(VariantError, match=rf"and `sha256:` in the budgets file speaks of {name} and other\.bin"):
        load(folder, name, {name: sums[name], "other.bin": sums[beside]})

    content = bytearray((folder / beside).read_bytes())
    content[-1] ^= 1
    (folder / beside).write_bytes(content)
    load(folder, name, sums=sums | {beside: hashlib.sha256(content).hexdigest()})
    with pytest.raises(VariantError, match=f"^{beside} of dist/{name} has the SHA-256 .*it is not the file"):
        load(folder, name, sums)
    (folder / beside).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(VariantError, match=f"dist/{beside} is a Git LFS pointer"):
        load(folder, name, sums)


def test_weights_of_a_program_in_another_folder_are_not_read(tmp_path: Path) -> None:
    model = onnx.load(tmp_path / onnx_program(tmp_path), load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../weights.bin"
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(VariantError, match=r"a\.onnx keeps weights in \.\./weights\.bin, which ONNX allows"):
        load_file(ProgramSource(str(tmp_path / "a.onnx")), tmp_path, torch.ones(2, 8), lambda: ITS_OWN)


@pytest.mark.parametrize("stated", [{"a.bin": "12"}, {"a.bin": 3}, {}, []])
def test_what_is_no_sum_is_refused(stated: object) -> None:
    with pytest.raises(ValueError, match="is no SHA-256 sum"):
        parse_sha256(stated)
