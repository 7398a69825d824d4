"""`.pte` files: what is read of them, how they are called, and the threads in which they run."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.memory import process_memory
from pytest_modelopt.optimizing.calling import call
from pytest_modelopt.optimizing.modules.foreign_runtimes import runtime_of
from pytest_modelopt.optimizing.runtimes.executorch import pte
from pytest_modelopt.optimizing.runtimes.program_file_module import ITS_OWN, ProgramFile, ProgramFileError, load
from tests.optimizing.make_pte_files import FOLDER, MOST, WIDTH, small


def batch(examples: int) -> torch.Tensor:
    return torch.rand(examples, WIDTH, generator=torch.Generator().manual_seed(examples))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def loaded(file: Path, inputs: torch.Tensor) -> ProgramFile:
    program = load(str(file), file.name, inputs, ITS_OWN, {})
    assert isinstance(program, ProgramFile)
    return program


def test_what_a_file_says_of_itself() -> None:
    (of_open,), (of_fixed,) = (pte.read(FOLDER / name).methods for name in ("open.pte", "fixed.pte"))
    assert (of_open.name, of_open.backends, of_fixed.backends) == ("forward", ("XnnpackBackend",), ())
    assert of_open.inputs == (pte.Input(6, (MOST, WIDTH), is_open=True, order=(0, 1)),)
    assert of_fixed.inputs == (pte.Input(6, (2, WIDTH), is_open=False, order=(0, 1)),)
    assert "aten::addmm.out" in of_fixed.operators
    assert not of_open.has_external_data


def test_what_is_cut_off_or_damaged_is_refused_before_native_code_sees_it(tmp_path: Path) -> None:
    """Of 300 damaged headers and tables each is read or refused, and nothing else is raised."""
    file, content = tmp_path / "a.pte", (FOLDER / "open.pte").read_bytes()
    for length in (0, 5, 7, 40, 200, len(content) // 2, len(content) - 200):
        file.write_bytes(content[:length])
        with pytest.raises(pte.NoProgram):
            pte.read(file)
    generator, refused = random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(4):
            damaged[generator.randrange(1200)] = generator.choice((0, 1, 127, 128, 255))
        file.write_bytes(damaged)
        try:
            pte.read(file)
        except pte.NoProgram:
            refused += 1
    assert 30 < refused < 300


@pytest.mark.parametrize(
    ("name", "examples"), [("open", 1), ("open", 8), ("open", 21), ("fixed", 2), ("fixed", 7), ("outside", 2)]
)
def test_a_file_answers_as_the_model_that_it_was_made_of(name: str, examples: int) -> None:
    """Larger batches in parts; an answer is not written over by the next call."""
    program = loaded(FOLDER / f"{name}.pte", batch(2))
    answer = call(program, batch(examples))
    kept = answer.clone()
    call(program, batch(examples) + 1)
    assert torch.equal(answer, kept)
    with torch.no_grad():
        torch.testing.assert_close(answer, small()(batch(examples)))


def test_a_program_without_a_method_is_not_whole(tmp_path: Path) -> None:
    file = tmp_path / "none.pte"
    file.write_bytes(bytes(4) + (FOLDER / "open.pte").read_bytes()[4:])
    with pytest.raises(ProgramFileError, match=r"cannot load none.pte: it has no method; is the file whole\?"):
        loaded(file, batch(2))


def test_weights_outside_of_the_file_belong_to_it(tmp_path: Path) -> None:
    program = loaded(FOLDER / "outside.pte", batch(2))
    assert program.files == (str(FOLDER / "outside.pte"), str(FOLDER / "outside.ptd"))
    alone = tmp_path / "alone.pte"
    alone.write_bytes((FOLDER / "outside.pte").read_bytes())
    with pytest.raises(ProgramFileError, match=r"keeps weights outside of itself, and there is no alone.ptd beside it"):
        loaded(alone, batch(2))


def test_an_input_is_given_as_it_lies_in_memory() -> None:
    """Channels last in the program: ExecuTorch itself takes any tensor, and answers wrongly without a word."""
    image = torch.rand(2, 3, 4, 4)
    program = loaded(FOLDER / "image.pte", image)
    assert not torch.equal(program.engine.method([image])[0], image + image)
    for given in (image, image.to(memory_format=torch.channels_last)):
        assert torch.equal(call(program, given), image + image)
    assert "reads the dimensions of input_0 in the order (0, 2, 3, 1)" in program.setting
    assert loaded(FOLDER / "open.pte", batch(2)).setting == ""


def test_sizes_that_the_program_does_not_take_are_told() -> None:
    with pytest.raises(ProgramFileError, match=r"fixed.pte takes \(input_0: float32\[\?, 12\]\), but the data gives"):
        loaded(FOLDER / "fixed.pte", torch.zeros(2, 9))
    with pytest.raises(ProgramFileError, match=r"takes inputs of at most \(8, 12\), and is called with \(2, 13\)"):
        loaded(FOLDER / "open.pte", torch.zeros(2, 13))


def test_each_program_runs_in_as_many_threads_as_torch(threads: None) -> None:
    """The pool belongs to the process: when one program changes it, the other is not left with what it freed."""
    from executorch.extension.pybindings import _C as library

    programs = [loaded(FOLDER / name, batch(2)) for name in ("open.pte", "fixed.pte", "open.pte")]
    with torch.no_grad():
        expected = small()(batch(2))
    first, second, third = programs
    for number, called in ((2, (first, second, third)), (1, (second,)), (2, (first, second)), (3, (third, first))):
        torch.set_num_threads(number)
        for program in called:
            torch.testing.assert_close(call(program, batch(2)), expected)
            assert library._threadpool_get_thread_count() == number


def test_its_memory_is_that_of_another_runtime() -> None:
    """Torch does not allocate it, so the meter of the whole process reads it."""
    program = loaded(FOLDER / "open.pte", batch(2))
    assert runtime_of(program.engine.method) == "ExecuTorch"
    assert runtime_of(program.engine.program) == "ExecuTorch"


class OfTheProject(nn.Linear):
    """May hold an object of any class of ExecuTorch."""


def test_what_a_file_needs_is_imported_before_its_memory_is_read_and_no_exporter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would take seconds in each fresh process, and packages that only the exporter asks for."""
    needed = []
    for number, model in enumerate((loaded(FOLDER / "open.pte", batch(2)), OfTheProject(2, 2))):
        size.save(model, tmp_path / f"{number}.pt")
        needed.append(
            process_memory._packages("ExecuTorch", process_memory._modules_named_in(tmp_path / f"{number}.pt"))
        )
    assert needed == [
        ("executorch.extension.pybindings._C",),
        ("executorch.extension.pybindings", "executorch.runtime"),
    ]
    ours = "pytest_modelopt.optimizing.runtimes.executorch.pte_file_module"
    monkeypatch.delitem(sys.modules, ours)
    process_memory.import_libraries(tmp_path / "0.pt", "ExecuTorch")
    assert ours in sys.modules, "half a MiB of our own code is not what the model takes"


def forget_executorch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "executorch"]:
        monkeypatch.delitem(sys.modules, name)


def test_without_the_package_the_ways_to_install_it_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_executorch(monkeypatch)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not (Path(path) / "executorch").exists()])
    told = (
        'open.pte needs ExecuTorch, and executorch is not installed: run `pip install "pytest-modelopt[executorch]"`; '
        "to run files, `pip install --no-deps 'executorch>=1.5'` is enough"
    )
    with pytest.raises(ProgramFileError, match=re.escape(told)):
        loaded(FOLDER / "open.pte", batch(2))


def test_a_package_that_does_not_fit_torch_is_not_blamed_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its library is linked with one version of torch: under another one it lacks a symbol."""
    package = tmp_path / "executorch" / "extension" / "pybindings"
    package.mkdir(parents=True)
    (package / "_C.py").write_text("raise ImportError('_C.so: undefined symbol: _ZN5torch')", encoding="utf-8")
    forget_executorch(monkeypatch)
    monkeypatch.syspath_prepend(tmp_path)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    told = "open.pte needs ExecuTorch, which is installed and cannot be imported: .*undefined symbol: _ZN5torch; instal"
    with pytest.raises(ProgramFileError, match=told):
        loaded(FOLDER / "open.pte", batch(2))
    forget_executorch(monkeypatch)
