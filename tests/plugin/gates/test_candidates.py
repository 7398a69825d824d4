"""Candidates: what a project has optimized itself is gated like a recipe, as a factory and as a file."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pytest_modelopt.measuring.controller.process import Worker
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.optimizing.runtimes.program_file_module import FORMATS as FORMATS_OF_FILES
from pytest_modelopt.optimizing.runtimes.program_file_module import Port, _misfit
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.json import read
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.record import Record
from tests.optimizing.make_pte_files import LARGE_WIDTH
from tests.plugin import candidate_files, plain_memory

Project = Callable[..., pytest.Pytester]
MIB = 1024**2

MODELS = """
from shop import *

def student():
    model = classifier()
    kept = model[0].weight.norm(dim=1).topk(448).indices
    small = nn.Sequential(nn.Linear(64, 448), nn.ReLU(), nn.Linear(448, 64), nn.ReLU(), nn.Linear(64, 10))
    with torch.no_grad():
        small[0].weight.copy_(model[0].weight[kept]), small[0].bias.copy_(model[0].bias[kept])
        small[2].weight.copy_(model[2].weight[:, kept]), small[2].bias.copy_(model[2].bias)
        small[4].load_state_dict(model[4].state_dict())
    return small.eval()

def damaged():
    model = student()
    nn.init.normal_(model[0].weight, generator=torch.Generator().manual_seed(5))
    return model

def again():
    return classifier()

def of_seven_classes():
    return nn.Linear(64, 7).eval()

def of_other_inputs():
    return nn.Linear(7, 10).eval()
"""
HEAD = """version: 1
models:
  reader:
    factory: shop:classifier
    data: shop:data
    budget: {max_accuracy_drop: 25 pp, min_coverage: 10%}
    candidates:
"""
FORMATS = {
    "onnx": ("reader.onnx",),
    "external": ("external.onnx", "weights.bin"),
    "intel": ("reader.xml", "reader.bin"),
    "mobile": ("reader.tflite",),
    "edge": ("reader.pte",),
    "program": ("reader.pt2",),
    "script": ("reader.pt",),
}
"""Candidates by name, each with its files, the named one first."""
MADE_BY = {
    "onnx": "ONNX opset 20, by pytorch 2.",
    "external": "ONNX opset 20, by pytorch 2.",
    "intel": "OpenVINO IR 11, by OpenVINO 20",
    "mobile": "LiteRT, schema 3",
    "edge": "ExecuTorch program of version 0, for XnnpackBackend",
    "program": f"torch.export, by torch {torch.__version__}",
    "script": "TorchScript, version 3",
}
"""The beginning of what each file says of its making."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "tests.plugin.candidate_files", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def make(project: Project, files: Path) -> Callable[[str], pytest.Pytester]:
    """The project with these candidates; all files lie in `dist`."""

    def made(candidates: str) -> pytest.Pytester:
        pytester = project(HEAD + candidates)
        pytester.makepyfile(made=MODELS)
        shutil.copytree(files, pytester.path / "dist")
        return pytester

    return made


def gated(pytester: pytest.Pytester, *arguments: str) -> tuple[pytest.RunResult, Record]:
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report", "-p", "no:cacheprovider", *arguments)
    return result, read(pytester.path / "report" / "record.json")


def by_recipe(record: Record) -> dict[str, Case]:
    return {case.recipe: case for case in record.cases}


# --- the figures -----------------------------------------------------------------------------------------------------


def test_each_format_has_the_figures_that_its_own_runtime_gives(make: Callable[[str], pytest.Pytester]) -> None:
    lines = [f"      {name}: {{file: dist/{named}}}" for name, (named, *_) in FORMATS.items()]
    pytester = make("\n".join(lines) + "\n")
    result, record = gated(pytester, "-v")
    result.assert_outcomes(passed=len(FORMATS))
    cases, folder = by_recipe(record), pytester.path / "dist"
    _, targets = candidate_files.shop().data()
    for name, parts in FORMATS.items():
        variant = cases[name].variant
        assert variant is not None
        assert variant.provenance is not None
        sizes = {f"dist/{part}": (folder / part).stat().st_size for part in parts}
        assert variant.provenance.files == sizes
        assert variant.size_bytes == sum(sizes.values()), name
        sums = {f"dist/{part}": hashlib.sha256((folder / part).read_bytes()).hexdigest() for part in parts}
        assert variant.provenance.sums == sums
        assert variant.provenance.made_by.startswith(MADE_BY[name])
        right = np.load(folder / f"{parts[0]}.npy").argmax(1) == targets.numpy()
        assert variant.score == right.sum() / 200, name
        assert variant.unmeasured == {}
    assert "`min_coverage` of `budget:` does not bind it" in result.stdout.str()
    assert "candidate" in result.stdout.str()


ORIGINALS = """version: 1
models:
  onnx:
    file: dist/external.onnx
    inputs: {features: 0}
    data: shop:data
    original: {min_accuracy: 97%, max_size: 0.2 MB}
    budget: {max_accuracy_drop: 5 pp, min_coverage: 90%}
    recipes: {onnxruntime-int8-dynamic: {max_size: 0.1 MB}}
    candidates: {same: {file: dist/external.onnx}, shipped: {file: dist/reader.pt}}
  mobile:
    file: dist/reader.tflite
    data: shop:data
    budget: {max_accuracy_drop: 5 pp, min_coverage: 90%}
    recipes: {litert-int8: {max_size: 0.1 MB}}
  script: {file: dist/reader.pt2, example_inputs: made:one, original: {max_size: 1 MB}}
  pointer: {file: dist/pointer.onnx, data: shop:data, original: {max_size: 1 MB}}
"""


def test_an_original_may_be_a_file(make: Callable[[str], pytest.Pytester]) -> None:
    pytester = make("")
    (pytester.path / "budgets.yaml").write_text(ORIGINALS, encoding="utf-8")
    with (pytester.path / "made.py").open("a") as made:
        made.write("\ndef one():\n    return torch.ones(1, 64)\n")
    result, record = gated(pytester)
    result.assert_outcomes(passed=4, failed=3)
    cases = {case.name: case for case in record.cases}
    folder, (_, targets) = pytester.path / "dist", candidate_files.shop().data()
    original = cases["onnx/original"].variant
    assert original is not None
    assert original.provenance is not None
    assert set(original.provenance.files) == {"dist/external.onnx", "dist/weights.bin"}
    assert original.size_bytes == sum((folder / name).stat().st_size for name in ("external.onnx", "weights.bin"))
    assert original.score == (np.load(folder / "external.onnx.npy").argmax(1) == targets.numpy()).sum() / 200
    outcomes = {verdict.limit.name: verdict.outcome for verdict in cases["onnx/original"].verdicts}
    assert outcomes == {"min_accuracy": "pass", "max_size": "fail"}
    for name in ("onnx/onnxruntime-int8-dynamic", "mobile/litert-int8"):
        variant = cases[name].variant
        assert variant is not None
        assert variant.provenance is None
        assert not any("it is dist" in note for note in variant.notes)
    assert (error := cases["onnx/same"].error) is not None
    assert "the candidate same is the file of the original once more" in error.message
    assert (error := cases["pointer/original"].error) is not None
    assert "run `git lfs pull --include dist/pointer.onnx` first" in error.message


def test_damaged_weights_break_the_budget_that_whole_ones_keep(make: Callable[[str], pytest.Pytester]) -> None:
    pytester = make(
        "      student: {factory: made:student, max_memory: 0.25 MB}\n"
        "      broken-student: {factory: made:damaged}\n"
        "      broken-onnx: {file: dist/damaged.onnx}\n"
    )
    result, record = gated(pytester)
    result.assert_outcomes(passed=1, failed=2)
    outcomes = {name: [verdict.outcome for verdict in case.verdicts] for name, case in by_recipe(record).items()}
    assert outcomes == {"student": ["pass", "pass"], "broken-student": ["fail"], "broken-onnx": ["fail"]}
    small = by_recipe(record)["student"].variant
    assert small is not None
    assert small.weights_bytes == 4 * (64 * 448 + 448 + 448 * 64 + 64 + 64 * 10 + 10)


# --- what cannot be measured -----------------------------------------------------------------------------------------

WRONG = {
    "missing": ("{file: dist/gone.onnx}", "dist/gone.onnx cannot be read: No such file or directory"),
    "empty": ("{file: dist/empty.onnx}", "dist/empty.onnx is empty"),
    "pointer": ("{file: dist/pointer.onnx}", "run `git lfs pull --include dist/pointer.onnx` first"),
    "truncated": ("{file: dist/truncated.onnx}", "ONNX Runtime cannot load dist/truncated.onnx"),
    "other-format": ("{file: dist/other_format.tflite}", "LiteRT cannot load dist/other_format.tflite"),
    "custom": ("{file: dist/custom.onnx}", "our.company"),
    "pickle": ("{file: dist/pickle.pt}", "pickle.pt holds a pickle and no program, and is not loaded"),
    "alone": ("{file: dist/alone.xml}", "alone.xml has no alone.bin beside it"),
    "more-inputs": (
        "{file: dist/mask.onnx}",
        "dist/mask.onnx takes (x: float32[?, 64], mask: float32[?, 64]), but the data gives (0: float32[1, 64])",
    ),
    "no-such-argument": ("{file: dist/mask.onnx, inputs: {x: 0, mask: 1}}", "`inputs:` gives mask the argument 1"),
    "no-such-input": ("{file: dist/reader.onnx, inputs: {pixels: 0}}", "`inputs:` names pixels, but dist/reader.onnx"),
    "sum": (f"{{file: dist/reader.onnx, sha256: a{'0' * 63}}}", "it is not the file that was meant"),
    "other-answers": (
        "{file: dist/seven.pt}",
        "dist/seven.pt answers (float32[1, 7]), and the original (float32[1, 10])",
    ),
    "link": (
        "{file: dist/link.onnx}",
        "dist/link.onnx is a link, or lies behind one, that leads out of the repository",
    ),
    "link-folder": ("{file: dist/out/reader.onnx}", "dist/out/reader.onnx is a link, or lies behind one, that leads"),
    "again": ("{factory: made:again}", "the candidate again is the original once more"),
    "pte-cut": ("{file: dist/cut.pte}", "ExecuTorch cannot load cut.pte: it is cut off: its parts take "),
    "pte-format": ("{file: dist/onnx.pte}", "ExecuTorch cannot load onnx.pte: it has no mark of an ExecuTorch program"),
    "pte-backend": ("{file: dist/backend.pte}", "backend.pte was made for CompanyBackend, which ExecuTorch lacks"),
    "pte-operator": ("{file: dist/operator.pte}", "operator.pte needs the operators ours::addmm.out, which are not"),
    "seven-classes": (
        "{factory: made:of_seven_classes}",
        "is not one of the model's 7 classes: the model answers (1, 7) float32, and the targets of the data are "
        "(examples,) int64, from 5 to 9",
    ),
    "misfit": ("{factory: made:of_other_inputs}", "mat1 and mat2 shapes cannot be multiplied"),
}


DROPS_CLASSES = """
def pytest_modelopt_register_recipes(register):
    from typing import ClassVar
    from torch import nn
    from pytest_modelopt import Applied, Recipe

    class DropsClasses(Recipe):
        recipe_name: ClassVar[str] = "drops-classes"
        summary: ClassVar[str] = "leaves seven classes"

        def apply(self, model, context):
            model[4] = nn.Linear(64, 7)
            return Applied(model)

    register(DropsClasses)
"""


def test_what_cannot_be_measured_is_the_error_of_its_own_case(
    make: Callable[[str], pytest.Pytester], files: Path
) -> None:
    lines = [f"      {name}: {stated}" for name, (stated, _) in WRONG.items()]
    lines += ["      healthy: {file: dist/within.onnx}", "    recipes: {drops-classes: }"]
    pytester = make("\n".join(lines) + "\n")
    dist = pytester.path / "dist"
    (dist / "within.onnx").symlink_to("reader.onnx")
    (dist / "link.onnx").symlink_to(files / "reader.onnx")
    (dist / "out").symlink_to(files)
    pytester.makeconftest(DROPS_CLASSES)
    result, record = gated(pytester)
    assert "Traceback" not in result.stdout.str()
    cases = by_recipe(record)
    dropped = cases["drops-classes"]
    assert dropped.error is not None
    assert WRONG["seven-classes"][1] in dropped.error.message
    assert dropped.variant is None
    for name, (_, told) in WRONG.items():
        error = cases[name].error
        assert error is not None, name
        assert told in error.message, name
        assert error.stage == "load" or name == "again"
        assert cases[name].variant is None or name == "again", "something was measured before"
    assert cases["healthy"].error is None


def test_what_a_program_takes_is_held_against_the_data() -> None:
    images = torch.zeros(2, 3, 8, 8)
    fits = Port("image", torch.float32, (None, 3, 8, None))
    assert _misfit(fits, images) == ""
    assert _misfit(replace(fits, shape=None), images) == ""
    assert "channels last (NHWC)" in _misfit(replace(fits, shape=(None, 8, 8, 3)), images)
    assert _misfit(replace(fits, shape=(None, 3, 9, 8)), images) == "the shapes of image differ"
    assert _misfit(fits, images.half()) == "image is float32 and not float16"
    assert _misfit(Port("ids", torch.int32, (None, 4)), torch.zeros(2, 4, dtype=torch.int64)) == ""
    assert "batches of 1, and is called with 2" in _misfit(replace(fits, shape=(1, 3, 8, 8)), images)


def test_a_program_for_another_batch_says_so(make: Callable[[str], pytest.Pytester]) -> None:
    pytester = make("      fixed: {file: dist/of_one.onnx}\n")
    budgets = pytester.path / "budgets.yaml"
    budgets.write_text(budgets.read_text().replace("models:", "defaults: {batch_size: 4}\nmodels:", 1))
    _, record = gated(pytester)
    assert record.cases[0].error is not None
    assert "it was made for batches of 1, and is called with 4" in record.cases[0].error.message


MISTAKES = {
    "int8-dynamic: {factory: made:student}": "is called as a recipe; rename it",
    "original: {factory: made:student}": "is called as the model itself",
    "a: {file: dist/a.onnx, factory: made:student}": "it has a `factory:` and a `file:`",
    "a: {}": "it has neither a `factory:` nor a `file:`",
    "a: {factory: shop:classifier}": "has the factory of reader itself: nothing would be compared",
    "a: {file: ../a.onnx}": "lies outside of the project",
    "a: {file: /etc/a.onnx}": "is not a path from the folder of this file",
    "a: {file: dist/a.gguf}": (
        "'dist/a.gguf' is a model for llama.cpp, whose package llama-cpp-python has no wheel on PyPI and would have to "
        "be compiled; an `nn.Module` that runs it is measured by `factory:`"
    ),
    "a: {file: dist/a.pth}": "is of a format that cannot be measured",
    "a: {factory: made:student, sha256: 00}": "`sha256:` belongs to a `file:`",
    "a: {file: a.onnx, sha256: 12ab}": "is no SHA-256 sum",
    "a: {file: a.onnx, inputs: {x: -1}}": "is neither a position from 0 on nor a keyword",
    "a: {file: a.onnx, inputs: {x: 0, y: 0}}": "two inputs get the same argument",
    "a: {file: a.pt2, inputs: {x: 0}}": "`inputs:` would change nothing: a.pt2 is called as the model itself",
    "a: {factory: made:student, min_coverage: 1%}": "`min_coverage` is about what a recipe changes",
    "a: {factory: made:student, max_flip: 1%}": "did you mean 'max_flips'?",
    "a: {factory: made:student, fil: x}": "did you mean 'file'?",
}


@pytest.mark.parametrize("stated", MISTAKES)
def test_a_wrong_statement_is_refused_before_anything_runs(project: Project, stated: str) -> None:
    result = project(f"{HEAD}      {stated}\n").runpytest("--modelopt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert MISTAKES[stated] in " ".join(result.stderr.str().split())
    assert "budgets.yaml:8: " in result.stderr.str()


# --- memory, beside a script that knows nothing of the gate ----------------------------------------------------------

ROOM = {"onnx": 1.5, "xml": 5.0, "tflite": 1.5, "pte": 1.5, "pt2": 4.0, "pt": 1.5}
"""MiB by which the gate's figure and the kernel's may differ, where 8 MiB of weights make 9 to 20 MiB. In three runs
the script read 13.4, 16.1, 16.2, 15.9, 9.4 and 11.6 MiB, in this order, and the gate 14.1, 20.0, 17.1, 17.0, 12.6 and
12.1, each time the same within 0.15 MiB. The gate reads more, since it counts the bytes that are asked for, and the
kernel the pages that are touched: 0.4 to 1.1 MiB of bookkeeping, 3 MiB of Python's objects for the graph of
torch.export, 4 MiB of blocks that OpenVINO asks for while it compiles and does not fill."""


@pytest.mark.parametrize("suffix", ROOM)
def test_memory_is_what_a_plain_script_reads_from_the_kernel(files: Path, tmp_path: Path, suffix: str) -> None:
    """Of a fresh process that loads the file by its runtime and calls it once, at its peak."""
    folder = files / "large"
    file = folder / f"a.{suffix}"
    runtime = FORMATS_OF_FILES[file.suffix][1]
    worker = Worker(variant_of(folder), tmp_path, suffix)
    try:
        gate, meter = worker.request(
            "process_memory",
            limit_s=60,
            model=str(file.with_suffix(f".{suffix}.saved")),
            inputs=str(folder / "inputs"),
            runtime=None if suffix in ("pt", "pt2") else runtime,
        )
    finally:
        worker.close()
    plain = plain_memory.read(file, LARGE_WIDTH)
    assert meter == "memray"
    assert plain > 8 * MIB, "the weights"
    assert abs(gate - plain) < ROOM[suffix] * MIB, f"{gate / MIB:.2f} and {plain / MIB:.2f} MiB"


def variant_of(folder: Path) -> Variant:
    return Variant(
        model="shop:none",
        recipe=None,
        data=None,
        calibration=None,
        example_inputs=None,
        metric=MetricSpec(),
        import_paths=(str(folder),),
        working_directory=str(folder),
    )
