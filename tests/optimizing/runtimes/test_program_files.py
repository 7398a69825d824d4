"""Originals that are files: how they are called and answer, and the recipes that take them; programs made by hand."""

from __future__ import annotations

import io
import json
import os
import pickle
import platform
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13
from torch import nn

from pytest_modelopt.measuring.worker.files.program_files import parameters_of
from pytest_modelopt.measuring.worker.files.size import load as load_saved
from pytest_modelopt.optimizing import cpu_flags
from pytest_modelopt.optimizing.apply import Optimization, optimize
from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.coverage import snapshot
from pytest_modelopt.optimizing.expression import parse, unfit_for_file
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from pytest_modelopt.optimizing.runtimes.program_file_module import ITS_OWN, ProgramFileError, load

ROWS, WIDTH, CLASSES = 16, 64, 8
GENERATOR = np.random.default_rng(0)
TABLE = GENERATOR.standard_normal((ROWS, WIDTH)).astype("float32")
WEIGHT = GENERATOR.standard_normal((WIDTH, CLASSES)).astype("float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def two(folder: Path) -> str:
    """(scale, ids as int32) -> (logits, doubled): the calls below give ids first, as int64, and a tensor more."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Mul", ["rows", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "weight"], ["logits"]),
        helper.make_node("Add", ["logits", "logits"], ["doubled"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, ["n", WIDTH]),
            helper.make_tensor_value_info("ids", TensorProto.INT32, ["n"]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES]),
            helper.make_tensor_value_info("doubled", TensorProto.FLOAT, ["n", CLASSES]),
        ],
        [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(WEIGHT, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "two.onnx")
    return str(folder / "two.onnx")


@pytest.fixture(scope="module")
def halved(folder: Path) -> str:
    """One product in OpenVINO, whose weights the file keeps in float16, as `openvino.save_model` does."""
    given = opset13.parameter([-1, WIDTH], np.float32, name="x")
    product = opset13.matmul(given, opset13.constant(WEIGHT), False, False)
    openvino.save_model(openvino.Model([product], [given], "halved"), folder / "halved.xml")
    return str(folder / "halved.xml")


def batch(examples: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "ids": torch.randint(0, ROWS, (examples,), generator=generator),
        "unused": torch.zeros(examples, 1),
        "scale": torch.rand(examples, WIDTH, generator=generator),
    }


def expected(given: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.from_numpy((TABLE[given["ids"].numpy()] * given["scale"].numpy()) @ WEIGHT)


def original(file: str, inputs: Inputs) -> nn.Module:
    return load(file, Path(file).name, inputs, ITS_OWN, {})


def optimized(file: str, recipe: str, inputs: Inputs, calibration: Inputs | None = None) -> Optimization:
    context = Context(inputs, None if calibration is None else lambda: iter([calibration]), seed=0)
    return optimize(original(file, inputs), parse(recipe).steps, context)


def test_several_outputs_are_a_dict_and_one_is_a_tensor(two: str, halved: str) -> None:
    found = call(original(two, batch()), batch())
    assert list(found) == ["logits", "doubled"]
    torch.testing.assert_close(found["logits"], expected(batch()))
    torch.testing.assert_close(found["doubled"], 2 * expected(batch()))
    x = torch.ones(3, WIDTH)
    torch.testing.assert_close(call(original(halved, x), x), x @ torch.from_numpy(WEIGHT), rtol=0.01, atol=0.05)


def test_outputs_are_taken_by_the_names_that_the_original_gives_them(two: str, folder: Path) -> None:
    """Both have one shape: by their order alone they would be taken for each other."""
    answer = {"doubled": 2 * expected(batch()), "logits": expected(batch())}
    program = load(two, "two.onnx", batch(), answer, {})
    torch.save(program, folder / "by_name.pt")
    for model in (program, load_saved(folder / "by_name.pt")):
        found = call(model, batch())
        assert list(found) == list(answer)
        for name in answer:
            torch.testing.assert_close(found[name], answer[name])
    other = load(two, "two.onnx", batch(), {"first": answer["logits"], "second": answer["doubled"]}, {})
    torch.testing.assert_close(call(other, batch())["first"], answer["logits"])


class Two(nn.Module):
    def forward(self, ids: torch.Tensor, scale: torch.Tensor, *, scaled: bool = True) -> None:
        """Takes them in another order than the file."""


def test_inputs_get_the_arguments_of_their_names_by_which_the_original_takes_them(two: str) -> None:
    given = (batch()["ids"], batch()["scale"])
    answer = {"logits": expected(batch()), "doubled": 2 * expected(batch())}
    assert parameters_of(Two()) == ("ids", "scale")
    program = load(two, "two.onnx", given, answer, {}, parameters=parameters_of(Two()))
    torch.testing.assert_close(call(program, given)["logits"], answer["logits"])
    with pytest.raises(ProgramFileError, match="scale is float32 and not int64"):
        load(two, "two.onnx", given, answer, {}, parameters=("x", "y"))
    more = load(two, "two.onnx", (given[0], torch.zeros(4), given[1]), answer, {}, parameters=("ids", "mask", "scale"))
    torch.testing.assert_close(call(more, (given[0], torch.zeros(4), given[1]))["logits"], answer["logits"])
    assert parameters_of(nn.Linear(1, 1)) == ("input",)
    assert parameters_of(original(two, batch())) == ()


def test_answers_in_other_numbers_or_of_another_count_are_told_with_both_sides(two: str, folder: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["counted"], to=TensorProto.INT8)]
    ports = (("x", TensorProto.FLOAT), ("counted", TensorProto.INT8))
    given, counted = ([helper.make_tensor_value_info(name, kind, ["n", 3])] for name, kind in ports)
    graph = helper.make_graph(nodes, "counts", given, counted)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "counts.onnx"
    )
    x = torch.ones(2, 3)
    told = r"c answers \(int8\[2, 3\]\), and the original \(float32\[2, 3\]\): whole numbers in place of floating point"
    with pytest.raises(ProgramFileError, match=told):
        load(str(folder / "counts.onnx"), "c", x, x, {})
    for whole in (x.long(), x.bool()):
        assert torch.equal(call(load(str(folder / "counts.onnx"), "c", x, whole, {}), x), whole)
    told = r"t answers \(float32\[4, 8\], float32\[4, 8\]\), and the original \(float32\[4, 8\]\)$"
    with pytest.raises(ProgramFileError, match=told):
        load(two, "t", batch(), expected(batch()), {})


def test_whole_numbers_beyond_the_program_s_are_refused(two: str) -> None:
    program = original(two, batch())
    with pytest.raises(ValueError, match="the input ids holds whole numbers beyond the 32 bits"):
        call(program, batch() | {"ids": torch.full((4,), 2**40)})


@pytest.mark.parametrize(
    "recipe",
    ["onnxruntime-int8-dynamic", "onnxruntime-int8-static", "openvino-int8(weights_only=true)", "openvino-int8"],
)
def test_a_recipe_starts_from_the_file_and_is_called_as_it_is(two: str, recipe: str) -> None:
    """Other order, other whole numbers and a tensor that the program does not take, in the variant as in the file."""
    found = optimized(two, recipe, batch(), calibration=batch(64))
    assert found.coverage.share == 1
    assert {layer.type for layer in found.coverage.layers} == {"Gather", "MatMul"}
    saved = io.BytesIO()
    torch.save(found.model, saved)
    saved.seek(0)
    for model in (found.model, torch.load(saved, weights_only=False)):
        answer = call(model, batch(9))
        assert list(answer) == ["logits", "doubled"]
        apart = (answer["logits"] - expected(batch(9))).abs().max() / expected(batch(9)).abs().max()
        assert 0 < apart < 0.05


def test_float16_weights_of_an_openvino_file_are_quantized(halved: str) -> None:
    x = torch.rand(5, WIDTH)
    found = optimized(halved, "openvino-int8(weights_only=true)", x)
    assert found.coverage.share == 1
    assert [weight.nbytes for weight in snapshot(original(halved, x)).weights] == [WEIGHT.nbytes]
    wanted = x @ torch.from_numpy(WEIGHT)
    assert 0 < (call(found.model, x) - wanted).abs().max() / wanted.abs().max() < 0.05


def test_openvino_takes_an_onnx_file_as_it_is(two: str) -> None:
    found = optimized(two, "openvino", batch())
    torch.testing.assert_close(call(found.model, batch(7))["logits"], expected(batch(7)))
    assert not any("only forward remains" in note for note in found.notes)


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("int8-dynamic", "int8-dynamic cannot start from .onnx files; those that do are onnxruntime-int8-dynamic, "),
        ("litert-int8", "litert-int8 cannot start from .onnx files"),
        ("onnxruntime", "onnxruntime cannot start from .onnx files"),
    ],
)
def test_a_recipe_that_does_not_fit_names_those_that_do(two: str, recipe: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        optimized(two, recipe, batch())
    assert str(caught.value).startswith(told)


def test_files_that_no_recipe_takes_say_what_to_do() -> None:
    assert unfit_for_file(parse("bf16").steps, ".pt2") == (
        "bf16 takes a model of torch, and no recipe takes .pt2 files; name a `factory:`, or state what was made of the "
        "file below `candidates:`"
    )
    assert unfit_for_file(parse("litert-int8").steps, ".tflite") == ""


def test_a_format_that_is_not_measured_says_why(folder: Path) -> None:
    (folder / "small.gguf").write_bytes(b"GGUF")
    with pytest.raises(ProgramFileError, match=r"small.gguf is a model for llama.cpp, .* no wheel on PyPI and would"):
        original(str(folder / "small.gguf"), torch.ones(1))
    with pytest.raises(ProgramFileError, match=r"small.h5 is of a format that cannot be measured: the suffixes are"):
        original(str(folder / "small.h5"), torch.ones(1))


def test_an_original_that_does_not_run_says_so(two: str) -> None:
    with pytest.raises(ProgramFileError, match=r"two.onnx does not run on the data: .*indices"):
        original(two, batch() | {"ids": torch.full((4,), ROWS + 1)})


def test_the_module_of_a_file_is_saved_as_its_path(two: str, folder: Path) -> None:
    torch.save(original(two, batch()), folder / "saved.pt")
    assert (folder / "saved.pt").stat().st_size < TABLE.nbytes
    loaded = load_saved(folder / "saved.pt")
    torch.testing.assert_close(call(loaded, batch())["logits"], expected(batch()))


@pytest.mark.parametrize(
    ("machine", "isa", "told"),
    [
        (
            "s390x",
            "ZVECTOR",
            r"package.pt2 was compiled for s390x on linux, and this machine is \w+ on \w+: ",
        ),
        (platform.machine(), "AVX512 AMX_TILE", r"was compiled for AVX512 and AMX_TILE, which this processor lacks"),
    ],
)
def test_native_code_for_another_machine_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, isa: str, told: str
) -> None:
    """The metadata is what torch 2.13 wrote into a package; the code beside it would end the process."""
    (tmp_path / "cpuinfo").write_text("model name : Old\nflags : sse2 avx2\n", encoding="utf-8")
    monkeypatch.setattr(cpu_flags, "CPUINFO", tmp_path / "cpuinfo")
    described = {"AOTI_DEVICE_KEY": "cpu", "AOTI_PLATFORM": sys.platform, "AOTI_MACHINE": machine, "AOTI_CPU_ISA": isa}
    with zipfile.ZipFile(tmp_path / "package.pt2", "w") as archive:
        archive.writestr("m/data/aotinductor/model/a.wrapper_metadata.json", json.dumps(described))
        archive.writestr("m/data/aotinductor/model/a.wrapper.so", b"\x7fELF")
    with pytest.raises(ProgramFileError, match=told):
        original(str(tmp_path / "package.pt2"), torch.ones(1))


class OfTwo(nn.Module):
    """Answers two examples of a call, as native code does that was compiled for two: the others' places hold what was
    in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        found = torch.randn(x.size(0), 8)
        found[:2] = self.linear(x[:2])
        return {"logits": found}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_program_for_a_fixed_number_of_examples_gets_so_many_at_a_time(tmp_path: Path) -> None:
    model, fixed, x = OfTwo().eval(), nn.Linear(WIDTH, CLASSES).eval(), torch.randn(5, WIDTH)
    torch.jit.save(torch.jit.trace(model, x, strict=False, check_trace=False), tmp_path / "two.pt")  # type: ignore[no-untyped-call]
    torch.export.save(torch.export.export(fixed, (x[:2],)), tmp_path / "two.pt2")
    torch.jit.save(torch.jit.trace(fixed, x[:1]), tmp_path / "any.pt")  # type: ignore[no-untyped-call]
    for name, expected_ in (("two.pt", model.linear), ("two.pt2", fixed), ("any.pt", fixed)):
        program = original(str(tmp_path / name), x[:2])
        torch.save(program, tmp_path / "saved")
        for each in (program, load_saved(tmp_path / "saved")):
            assert vars(each)["at_a_time"] == (0 if name == "any.pt" else 2)
            for examples in (5, 2, 1):
                answer = call(each, x[:examples])
                found = answer["logits"] if name == "two.pt" else answer
                torch.testing.assert_close(found, expected_(x[:examples]))


class Running(nn.Module):
    """Each step's answer is the sum of those until then: what comes first is no number of examples."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.cumsum(0)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_sequence_is_no_batch_and_is_never_cut(tmp_path: Path) -> None:
    x = torch.randn(5, WIDTH)
    torch.jit.save(torch.jit.trace(Running(), x), tmp_path / "sequence.pt")  # type: ignore[no-untyped-call]
    program = original(str(tmp_path / "sequence.pt"), x[:3])
    assert vars(program)["at_a_time"] == 0
    torch.testing.assert_close(call(program, x), x.cumsum(0))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty: build it again"),
        (b"PK\x03\x04" + bytes(60), "is cut off after 64 bytes: build or copy it again"),
        (pickle.dumps({"weight": 1}), "is a pickle and no program, and is not loaded"),
        (b"solid model", "is neither a program of torch.export nor TorchScript, which are archives"),
    ],
    ids=["empty", "cut", "pickle", "other"],
)
@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_what_is_no_archive_of_torch_is_called_what_it_is(
    tmp_path: Path, suffix: str, content: bytes, told: str
) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(ProgramFileError, match=f"^a{suffix} {told}"):
        original(str(tmp_path / f"a{suffix}"), torch.ones(1))


def test_an_archive_without_a_program_is_no_pickle(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(ProgramFileError, match=r"^a.pt2 is an archive without a program of torch"):
        original(str(tmp_path / "a.pt2"), torch.ones(1))


class Trap:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("part", ["/weights/weight_", "/sample_inputs/"])
def test_a_pickle_within_a_program_is_never_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """torch.export by itself unpickles anything that its archive holds, whatever the variable says."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    linear, x = nn.Linear(WIDTH, CLASSES).eval(), torch.ones(2, WIDTH)
    torch.export.save(torch.export.export(linear, (x,)), tmp_path / "whole.pt2")
    torch.testing.assert_close(call(original(str(tmp_path / "whole.pt2"), x), x), linear(x))
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    pickled = io.BytesIO()
    torch.save(Trap(tmp_path / "trace"), pickled)
    with zipfile.ZipFile(tmp_path / "whole.pt2") as whole, zipfile.ZipFile(tmp_path / "trap.pt2", "w") as trap:
        for name in whole.namelist():
            content = whole.read(name)
            if "weights" in part:
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
            trap.writestr(name, pickled.getvalue() if part in name else content)
    with pytest.raises(ProgramFileError, match=r"trap\.pt2 holds a pickle of \w+\.mkdir beside its program"):
        original(str(tmp_path / "trap.pt2"), x)
    assert not (tmp_path / "trace").exists()
