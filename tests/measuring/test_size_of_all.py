"""Size: every byte that must be shipped, wherever it lies."""

from __future__ import annotations

import builtins
import hashlib
import io
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.controller.runner import Runner, StepLimits
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.files.program_files import load_file
from pytest_modelopt.measuring.worker.memory.tensor_meter import weights_bytes
from pytest_modelopt.measuring.worker.watches import opened_files
from pytest_modelopt.measuring.worker.watches.kernel_watches import FoldersOfProject
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.plugin.progress import Silent
from pytest_modelopt.results.case import PlannedCase
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.source import ProgramSource
from tests.plugin import plain_memory

USERS = """
import contextlib, ctypes, json, mmap, os, sqlite3, sys, tempfile
from pathlib import Path
import numpy, torch
from torch import nn

HERE = Path(__file__).parent
FILE = HERE / "weights.bin"

class Reads(nn.Module):
    '''Pickles as the name of the file.'''
    def __init__(self, file=None):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.file = str(file or FILE)
        self.read()
    def read(self):
        self.table = torch.from_numpy(numpy.fromfile(self.file, dtype=numpy.float32))
    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "table"}
    def __setstate__(self, state):
        self.__dict__.update(state); self.read()
    def forward(self, x):
        return self.head(x) + self.table[:2]

class ReadsInCall(Reads):
    def read(self): pass
    def forward(self, x):
        return self.head(x) + torch.load(self.file + ".pt")[:2]

class Maps(Reads):
    def read(self):
        self.table = torch.from_file(self.file, size=20_000, dtype=torch.float32)

class InC(Reads):
    '''By the C library, of which Python knows nothing.'''
    def read(self):
        libc = ctypes.CDLL(None)
        descriptor = libc.open(os.fsencode(self.file), 0)
        block = (ctypes.c_float * 20_000)()
        assert libc.read(descriptor, block, 80_000) == 80_000
        libc.close(descriptor)
        self.table = torch.tensor(list(block[:2]))

class Computed(InC):
    '''Of a file whose name stands nowhere in what is saved.'''
    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k not in ("table", "file")}
    def __setstate__(self, state):
        self.__dict__.update(state, file=str(HERE / "".join(["weights", ".bin"]))); self.read()

class MapsComputed(Computed):
    '''No read, no map that is left, no name: the C library has shown it all for a moment.'''
    def read(self):
        libc = ctypes.CDLL(None)
        libc.mmap.restype, libc.munmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
        descriptor = libc.open(os.fsencode(self.file), 0)
        address = libc.mmap(None, ctypes.c_size_t(80_000), 1, 2, descriptor, ctypes.c_long(0))
        libc.close(descriptor)
        self.table = torch.tensor(list((ctypes.c_float * 20_000).from_address(address))[:2])
        libc.munmap(address, 80_000)

class Elsewhere(Computed):
    def __setstate__(self, state):
        self.__dict__.update(state, file=str(HERE.parent / "".join(["weights", ".bin"]))); self.read()

class Imports(Computed):
    '''An installed package reads much while it is imported.'''
    def read(self):
        self.table = torch.zeros(2)
        folder = HERE / "site-packages"
        folder.mkdir(exist_ok=True)
        (folder / "of_others.py").write_text(OF_OTHERS)
        sys.path.insert(0, str(folder))
        import of_others
OF_OTHERS = '''
import ctypes, os
libc, file = ctypes.CDLL(None), os.path.dirname(os.path.dirname(__file__)) + "/weights.bin"
descriptor, block = libc.open(os.fsencode(file), 0), ctypes.create_string_buffer(80_000)
for _ in range(3):
    libc.lseek(descriptor, ctypes.c_long(0), 0)
    assert libc.read(descriptor, block, 80_000) == 80_000
libc.close(descriptor)
'''

class KeptOpen(Computed):
    def read(self):
        libc = ctypes.CDLL(None)
        self.table, descriptor = torch.zeros(2), libc.open(os.fsencode(self.file), 0)

class Renamed(Computed):
    '''By another name, for as long as it takes.'''
    def read(self):
        other = self.file + ".tmp"
        os.rename(self.file, other)
        self.table = torch.from_numpy(numpy.fromfile(other, dtype=numpy.float32))
        os.rename(other, self.file)

class Database(Computed):
    def read(self):
        with contextlib.closing(sqlite3.connect(f"file:{self.file}.db?mode=rwc", uri=True)) as table:
            if not table.execute("SELECT * FROM sqlite_master").fetchall():
                table.execute("CREATE TABLE weights (block BLOB)")
                table.execute("INSERT INTO weights VALUES (?)", (bytes(80_000),))
                table.commit()
            (block,), = table.execute("SELECT block FROM weights")
        self.table = torch.frombuffer(bytearray(block), dtype=torch.float32)

class Ahead(Reads):
    '''Compiled ahead of time: a package that holds the weights, read by a class of torch's in C++.'''
    def read(self):
        self.table = torch._inductor.aoti_load_package(self.file)
    def forward(self, x):
        return self.head(x) + self.table(x)

class NamesOnly(Reads):
    '''Keeps where it once came from, and does not look there.'''
    def read(self): self.table = torch.zeros(2)

class OfItsOwn(Reads):
    '''What it writes itself is no file that must be shipped.'''
    def read(self):
        folder = tempfile.mkdtemp()
        Path(folder, "own.bin").write_bytes(bytes(80_000))
        self.table = torch.from_numpy(numpy.fromfile(Path(folder, "own.bin"), dtype=numpy.float32))
        json.loads(Path(json.__file__).read_text()[:0] or "{}")

def ready(kind):
    FILE.write_bytes(numpy.zeros(20_000, dtype=numpy.float32).tobytes())
    torch.save(torch.zeros(20_000), str(FILE) + ".pt")
    return kind().eval()

def reads(): return ready(Reads)
def reads_in_call(): return ready(ReadsInCall)
def maps(): return ready(Maps)
def in_c(): return ready(InC)
def maps_computed(): return ready(MapsComputed)
def elsewhere():
    (HERE.parent / "weights.bin").write_bytes(bytes(80_000))
    return ready(Elsewhere)
def imports(): return ready(Imports)
def kept_open(): return ready(KeptOpen)
def renamed(): return ready(Renamed)
def database(): return ready(Database)
def ahead():
    file = str(HERE / "ahead.pt2")
    if not os.path.exists(file):
        made = nn.Sequential(nn.Linear(4, 300_000), nn.Linear(300_000, 2)).eval()
        examples = torch.export.Dim("examples", min=1, max=64)
        program = torch.export.export(made, (torch.zeros(8, 4),), dynamic_shapes=[{0: examples}])
        torch._inductor.aoti_compile_and_package(program, package_path=file)
    torch.manual_seed(0)  # whether or not this process has made the file
    return Ahead(file).eval()
def names_only(): return ready(NamesOnly)
def of_its_own(): return ready(OfItsOwn)

class Gone(Reads):
    def __setstate__(self, state): raise FileNotFoundError("weights.bin")
def gone(): return ready(Gone)

def data():
    return torch.zeros(8, 4), torch.zeros(8, dtype=torch.long)
"""
RECIPE = "prune-unstructured(ratio=0.5)"
IN_PROJECT = pytest.param(
    "maps_computed",
    marks=pytest.mark.skipif(
        not FoldersOfProject([str(Path(__file__).parent)]).is_watching, reason="the kernel tells of no own opens here"
    ),
)


@pytest.fixture
def runner() -> Iterator[Runner]:
    made = Runner(StepLimits(time_limit_s=0.1, step_limit_s=300), Silent())  # a compiler may be among the steps
    yield made
    made.close()


def sides(runner: Runner, folder: Path, model: str) -> tuple[Measurement, Measurement]:
    (folder / "users.py").write_text(USERS, encoding="utf-8")
    of = Variant(
        model=f"users:{model}",
        recipe=parse(RECIPE),
        data="users:data",
        calibration=None,
        example_inputs=None,
        metric=MetricSpec(),
        import_paths=(str(folder),),
        working_directory=str(folder),
    )
    case = runner.measure(PlannedCase(id="id", model="m", recipe=RECIPE, limits=(), batch_size=1), of, lambda *_: True)
    assert case.error is None, case.error
    assert case.reference is not None
    assert case.variant is not None
    return case.reference, case.variant


@pytest.mark.parametrize("model", ["reads", "reads_in_call", "maps", "in_c", "renamed", IN_PROJECT])
def test_a_file_that_is_read_belongs_to_the_size(runner: Runner, tmp_path: Path, model: str) -> None:
    for side in sides(runner, tmp_path, model):
        read = (tmp_path / ("weights.bin.pt" if model == "reads_in_call" else "weights.bin")).stat().st_size
        assert read >= 80_000
        assert side.size_bytes is not None
        assert 0 < side.size_bytes - read < 8_000, "its own file: a layer of 40 bytes, and names"
        assert any("its size includes what it reads" in note for note in side.notes)


def test_a_file_that_is_kept_open_is_known_by_whatever_name(runner: Runner, tmp_path: Path) -> None:
    for side in sides(runner, tmp_path, "kept_open"):
        assert side.size_bytes is not None
        assert 80_000 < side.size_bytes < 90_000
        assert "weights.bin (80,000 bytes)" in " ".join(side.notes)


def test_a_database_is_known_by_its_address(runner: Runner, tmp_path: Path) -> None:
    for side in sides(runner, tmp_path, "database"):
        file = tmp_path / "weights.bin.db"
        assert f"weights.bin.db ({file.stat().st_size:,} bytes)" in " ".join(side.notes)


def test_the_size_of_what_is_read_from_a_file_that_nobody_can_name_is_not_known(runner: Runner, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for side in sides(runner, project, "elsewhere"):
        assert side.size_bytes is None
        assert "KiB from files whose paths are not known" in side.unmeasured["size"]
        assert side.memory_bytes is not None
        assert side.hidden_bytes == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling ahead of time needs a compiler")
def test_a_package_that_was_compiled_ahead_of_time_belongs_to_size_and_memory(runner: Runner, tmp_path: Path) -> None:
    weights = 4 * (4 * 300_000 + 300_000 + 300_000 * 2 + 2)
    for side in sides(runner, tmp_path, "ahead"):
        package = (tmp_path / "ahead.pt2").stat().st_size
        assert package > weights
        assert side.size_bytes is not None
        assert package < side.size_bytes < package + 8_000
        assert side.weights_bytes == 40, "the tensor meter sees the layer beside it only"
        assert side.hidden_bytes is not None
        assert side.hidden_bytes > weights
        assert side.process_memory is not None
        plain = plain_memory.read(tmp_path / "ahead.pt2", 4)
        # The weights lie in the library that the package holds, and once more where its kernels read them.
        assert plain > 2 * weights
        assert abs(side.process_memory.peaks_bytes[0] - plain) < 5 * 1024**2

    made = torch._inductor.aoti_load_package(str(tmp_path / "ahead.pt2"))
    _require_the_package_as_a_file(tmp_path / "ahead.pt2", made(torch.ones(8, 4)))


def _require_the_package_as_a_file(package: Path, answer: torch.Tensor) -> None:
    """Named by `file:` it is what torch's own loader runs, with the bytes and the sum of the file."""
    program, notes, provenance = load_file(
        ProgramSource(str(package)), package.parent, torch.ones(8, 4), lambda: answer
    )
    assert torch.equal(program(torch.ones(8, 4)), answer)
    assert vars(program)["at_a_time"] == 0, "it was compiled for up to 64 examples"
    assert provenance is not None
    assert provenance.files == {"ahead.pt2": package.stat().st_size}
    assert provenance.sums == {"ahead.pt2": hashlib.sha256(package.read_bytes()).hexdigest()}
    assert "AOTInductor, native code that is trusted like the project's own" in notes[0]


@pytest.mark.parametrize("model", ["names_only", "of_its_own", "imports"])
def test_a_file_that_need_not_be_shipped_does_not(runner: Runner, tmp_path: Path, model: str) -> None:
    for side in sides(runner, tmp_path, model):
        assert side.size_bytes is not None
        assert side.size_bytes < 8_000
        packed = [note for note in side.notes if note.startswith(f"it is saved in {side.size_bytes:,} bytes, which is")]
        assert len(packed) == len(side.notes) == (model == "of_its_own"), "that one makes its weights when it is loaded"


@pytest.mark.parametrize("variable", ["MPLCONFIGDIR", "NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"])
def test_what_a_library_keeps_for_its_next_process_is_not_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """As matplotlib its list of fonts: where it is missing, it is made anew."""
    kept, weights = tmp_path / "kept" / "fonts.json", tmp_path / "weights.json"
    for file in (kept, weights):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(80_000))
        os.utime(file, (0, 0))  # an earlier process has written it
    monkeypatch.setattr(opened_files, "_opened", dict.fromkeys(map(str, (kept, weights))))
    monkeypatch.setattr(opened_files, "_since", [1])
    monkeypatch.setenv(variable, str(kept.parent))
    assert opened_files.shipped_with(set(), set(opened_files.mapped())) == {str(weights): 80_000}


def test_the_size_of_what_cannot_be_loaded_again_is_not_known(runner: Runner, tmp_path: Path) -> None:
    for side in sides(runner, tmp_path, "gone"):
        assert side.size_bytes is None
        assert side.unmeasured["size"].endswith("cannot be loaded in a fresh process: FileNotFoundError: weights.bin")


class Wrapper(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.layer(x)
        return answer


def test_torchscript_is_saved_in_its_own_format_and_what_two_modules_share_once(tmp_path: Path) -> None:
    layer = nn.Linear(1000, 1000)
    weights = 4 * (1000 * 1000 + 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = (torch.jit.script(Wrapper(layer)) for _ in range(2))
    for model in (one, nn.Sequential(one, other)):
        assert weights_bytes(model) == weights
        assert weights < size.saved_bytes(model) < weights + 20_000
        size.save(model, tmp_path / "model.pt")
        inputs = torch.randn(2, 1000)
        assert torch.equal(size.load(tmp_path / "model.pt")(inputs), model(inputs))
        assert (tmp_path / "model.pt").stat().st_size == size.saved_bytes(model)


def test_a_frozen_torchscript_module_beside_others_is_saved(tmp_path: Path) -> None:
    """torch does not take it as a part of another module."""
    layers = [nn.Linear(1000, 1000).eval() for _ in range(2)]
    weights = 4 * (1000 * 1000 + 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shared = [torch.jit.script(Wrapper(layers[0])) for _ in range(2)]
        frozen = torch.jit.freeze(torch.jit.script(layers[1]))
    model = nn.Sequential(*shared, frozen)
    assert 2 * weights < size.saved_bytes(model) < 2 * weights + 20_000
    size.save(model, tmp_path / "model.pt")
    loaded, inputs = size.load(tmp_path / "model.pt"), torch.randn(2, 1000)
    assert torch.equal(loaded(inputs), model(inputs))
    assert size.saved_bytes(loaded) == pytest.approx(size.saved_bytes(model), abs=2_000)


def test_a_model_that_was_loaded_is_as_large_as_before(tmp_path: Path) -> None:
    """str(0) is a new string each time, and pickle writes each string once: loaded names are one."""
    blocks = (nn.Sequential(nn.Linear(3, 3), nn.ParameterDict({str(0): nn.Parameter(torch.ones(2))})) for _ in range(9))
    model = nn.Sequential(*blocks)
    size.save(model, tmp_path / "model.pt")
    assert size.saved_bytes(size.load(tmp_path / "model.pt")) == size.saved_bytes(model)


def test_a_reader_that_seeks_reads_little_more_than_it_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python's own buffer has 128 KiB, as from 3.14 on."""
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(300_000))
    large, opened = 2**17, io.open

    def open_as_later(file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
        return opened(file, mode, large if buffering == -1 else buffering, *more, **named)

    monkeypatch.setattr(io, "DEFAULT_BUFFER_SIZE", large)
    for module in (io, builtins):
        monkeypatch.setattr(module, "open", open_as_later)
    opened_files._read_in_small_parts()
    for opening in (Path.open, open):
        with opening(path, "rb") as file:
            file.read(1)
            assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 8192
    with path.open("rb", buffering=2**16) as asked:
        asked.read(1)
        assert os.lseek(asked.fileno(), 0, os.SEEK_CUR) == 2**16
