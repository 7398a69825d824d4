"""Memory that no tensor shows: what only the process knows of, and what other processes hold."""

from __future__ import annotations

import importlib.util
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from pytest_modelopt import Applied, Context, Recipe
from pytest_modelopt.measuring.controller.runner import Runner, StepLimits
from pytest_modelopt.measuring.variant import Variant, environment_now
from pytest_modelopt.optimizing.expression import Expression, parse
from pytest_modelopt.plugin.progress import Silent
from pytest_modelopt.results.case import MeasuredCase, PlannedCase
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.metric import MetricSpec

USERS = """
import concurrent.futures, ctypes, mmap, os, socket, subprocess, sys, threading
from pathlib import Path
import torch
from torch import nn

HERE = Path(__file__).parent
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def body():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4))

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = body()
        self.start()
    def start(self): pass
    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "engine"}
    def __setstate__(self, state):
        self.__dict__.update(state); self.start()
    def forward(self, x): return self.body(x)

class Engine:
    '''Of another library, which shows a number only.'''
    def __init__(self, size):
        self.address, self.size = libc.malloc(ctypes.c_size_t(size)), size
        ctypes.memset(self.address, 1, size)
    def __del__(self): libc.free(ctypes.c_void_p(self.address))

class Mallocs(Plain):
    def start(self): self.engine = Engine(300 * 1024)

ENGINES = []
class KeptByTheLibrary(Plain):
    def start(self): setattr(ctypes, "_kept_" + str(id(self)), Engine(8 * 2**20))

class AnonymousPages(Plain):
    '''Of an allocator of its own, as other libraries bring along.'''
    def start(self):
        libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, *4 * [ctypes.c_int]]
        size, private_anonymous = 6 * 2**20, 0x22
        ctypes.memset(libc.mmap(None, size, 3, private_anonymous, -1, 0), 1, size)

class SmallObjects(Plain):
    '''Python keeps room for those itself, apart from malloc, and each is smaller than what that would show.'''
    COUNT = 100_000
    def start(self):
        # A tuple of two (56 bytes), and a number and a text in it (24 and 49 to 64): 16 bytes at a time.
        setattr(ctypes, "_kept_" + str(id(self)), [[(n + 0.5, "a" * (n % 15)) for n in range(1000 * m, 1000 * m + 1000)]
                                                   for m in range(self.COUNT // 1000)])

class FewerSmallObjects(SmallObjects):
    COUNT = 42_000

class MapsAFile(Plain):
    '''Behind the back of Python: the walk finds no map.'''
    def start(self):
        file = HERE / "mapped.bin"
        if not file.exists():
            file.write_bytes(bytes(300 * 1024))
        libc.mmap.restype = ctypes.c_void_p
        descriptor = os.open(file, os.O_RDONLY)
        address = libc.mmap(None, ctypes.c_size_t(300 * 1024), 1, 2, descriptor, ctypes.c_long(0))
        os.close(descriptor)
        ctypes.string_at(address, 300 * 1024)

class Threads(Plain):
    def forward(self, x):
        both = threading.Barrier(2)
        def nothing(k):
            ones = torch.ones(2 * 2**20)
            product = ones * k
            both.wait()
            return product.sum()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return self.body(x) + sum(pool.map(nothing, (0., 0.)))

class Temporary(Plain):
    def forward(self, x):
        return self.body(x) + torch.frombuffer(bytearray(16 * 2**20), dtype=torch.float32)[0]

class SharedPages(Plain):
    def start(self):
        pages = mmap.mmap(-1, 300 * 1024)
        pages[:] = bytes(range(1, 256)) * 1204 + bytes(180)
        setattr(ctypes, "_kept_" + str(id(self)), pages)

class MemoryFile(Plain):
    '''Written, and never mapped.'''
    def start(self):
        self.engine = os.memfd_create("of_ours")
        for _ in range(64):
            os.write(self.engine, bytes(2**16))

class Answers(Plain):
    '''Asks somebody else in each call.'''
    def forward(self, x):
        if self not in ASKED: ASKED[self] = self.ask()
        ASKED[self](); return self.body(x)
ASKED = {}

class Child(Answers):
    def ask(self):
        code = "import sys\\nfor line in sys.stdin: print(line, flush=True)"
        child = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1)
        return lambda: (child.stdin.write(b"a\\n"), child.stdin.flush(), child.stdout.readline())

class ChildOfEachCall(Answers):
    def ask(self): return lambda: subprocess.run([sys.executable, "-c", ""], check=True)

class Server(Answers):
    '''One connection for all calls.'''
    def ask(self):
        connection = socket.create_connection(("127.0.0.1", int(os.environ["PORT_OF_OURS"])))
        return lambda: (connection.sendall(b"a"), connection.recv(1))

class ServerOfEachCall(Answers):
    def ask(self):
        def asked():
            with socket.create_connection(("127.0.0.1", int(os.environ["PORT_OF_OURS"]))) as connection:
                connection.sendall(b"a"); connection.recv(1)
        return asked

class Daemon(Answers):
    # With another parent, as every server that puts itself into the background.
    def ask(self):
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                ours.close()
                while content := theirs.recv(1):
                    theirs.sendall(content)
            os._exit(0)
        theirs.close()
        os.wait()
        return lambda: (ours.sendall(b"a"), ours.recv(1))

class LocalServer(Answers):
    def ask(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(os.environ["PATH_OF_OURS"])
        return lambda: (connection.sendall(b"a"), connection.recv(1))

class AsksOnce(Answers):
    '''A program and a download that the first call needs: no work of a call.'''
    def ask(self):
        subprocess.run([sys.executable, "-c", ""], check=True)
        connection = Server.ask(self)
        connection()
        return lambda: connection and None

class Wide(Plain):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(32, 8192), nn.ReLU(), nn.Linear(8192, 4))

def wide(): return Wide().eval()
def memory_file(): return MemoryFile().eval()
def shared_pages(): return SharedPages().eval()
def child(): return Child().eval()
def child_of_each_call(): return ChildOfEachCall().eval()
def server(): return Server().eval()
def daemon(): return Daemon().eval()
def local_server(): return LocalServer().eval()
def server_of_each_call(): return ServerOfEachCall().eval()
def asks_once(): return AsksOnce().eval()
def plain(): return Plain().eval()

def flat(): return b"".join(p.detach().numpy().tobytes() for p in body().parameters())
def run(raw, x):
    raw, at = torch.frombuffer(bytearray(raw), dtype=torch.float32), 0
    for rows, columns in ((256, 32), (256, 256), (4, 256)):
        weight, at = raw[at : at + rows * columns].reshape(rows, columns), at + rows * columns
        bias, at = raw[at : at + rows], at + rows
        x = nn.functional.linear(x, weight, bias)
        x = x.relu() if rows > 4 else x
    return x

class ReadInEachCall(nn.Module):
    def forward(self, x): return run((HERE / "weights.bin").read_bytes(), x)

class Imported(nn.Module):
    def forward(self, x):
        import numbers_of_theirs
        return run(numbers_of_theirs.HELD, x)

class Bytes(nn.Module):
    def __init__(self):
        super().__init__()
        self.raw = flat()
    def forward(self, x): return run(self.raw, x)

def read_in_each_call():
    (HERE / "weights.bin").write_bytes(flat())
    return ReadInEachCall().eval()
def imported():
    (HERE / "numbers_of_theirs.py").write_text("import users\\nHELD = users.flat()\\n")
    return Imported().eval()
def as_bytes(): return Bytes().eval()
def anonymous_pages(): return AnonymousPages().eval()
def mallocs(): return Mallocs().eval()
def small_objects(): return SmallObjects().eval()
def fewer_small_objects(): return FewerSmallObjects().eval()
def kept(): return KeptByTheLibrary().eval()
def maps(): return MapsAFile().eval()
def threads(): return Threads().eval()
def temporary(): return Temporary().eval()

class Environment(Plain):
    def __setstate__(self, state):
        assert os.environ["BACKEND_OF_OURS"] == "torch"
        self.__dict__.update(state)
def sets_environment():
    os.environ["BACKEND_OF_OURS"] = "torch"
    return Environment().eval()

def data():
    return torch.zeros(8, 32), torch.zeros(8, dtype=torch.long)
"""
KIB, MIB = 1024, 1024**2
BODY = 4 * (32 * 256 + 256 + 256 * 256 + 256 + 256 * 4 + 4)
RECIPE = parse("prune-unstructured(ratio=0.5)")


@pytest.fixture
def runner() -> Iterator[Runner]:
    made = Runner(StepLimits(time_limit_s=0.1, step_limit_s=60), Silent())
    yield made
    made.close()


def sides(
    runner: Runner, folder: Path, model: str, recipe: Expression = RECIPE
) -> tuple[MeasuredCase, Measurement, Measurement]:
    (folder / "users.py").write_text(USERS, encoding="utf-8")
    of = Variant(
        model=f"users:{model}",
        recipe=recipe,
        data="users:data",
        calibration=None,
        example_inputs=None,
        metric=MetricSpec(),
        import_paths=(str(folder),),
        working_directory=str(folder),
        environment=environment_now(),
    )
    case = runner.measure(
        PlannedCase(id="id", model="m", recipe=recipe.text, limits=(), batch_size=1), of, lambda *_: True
    )
    assert case.error is None, case.error
    assert case.reference is not None
    assert case.variant is not None
    return case, case.reference, case.variant


@pytest.mark.parametrize(
    ("model", "hidden"),
    [
        ("mallocs", 300 * KIB),
        ("kept", 8 * MIB),
        ("small_objects", 100_000 * (64 + 32 + 64)),
        ("fewer_small_objects", 42_000 * (64 + 32 + 64)),
        ("maps", 300 * KIB),
        ("shared_pages", 300 * KIB),
        ("memory_file", 4 * MIB),
        ("anonymous_pages", 6 * MIB),
        ("threads", 32 * MIB),
        ("temporary", 16 * MIB),
    ],
)
def test_what_only_the_process_knows_of_is_read_by_the_process_meter(
    runner: Runner, tmp_path: Path, model: str, hidden: int
) -> None:
    """Threads: each of two holds two arrays of 8 MiB until the other does."""
    case, *both = sides(runner, tmp_path, model)
    assert case.foreign_runtimes == ("memory that torch's allocator does not see",)
    for side in both:
        assert side.hidden_bytes is not None
        assert 0.6 * hidden < side.hidden_bytes < 1.5 * hidden
        assert side.memory_bytes is not None
        assert side.memory_bytes < BODY + 64 * KIB, "the tensor meter sees nothing of it"
        assert (case.memory_bytes(side) or 0) > BODY + 0.9 * hidden


def replacing(made: str) -> Expression:
    """A recipe in whose place the module stands that a function of the user's makes."""

    class Replacing(Recipe):
        recipe_name: ClassVar[str] = "replacing"
        summary: ClassVar[str] = "another module"

        def apply(self, model: torch.nn.Module, context: Context) -> Applied:
            return Applied(getattr(importlib.import_module("users"), made)())

    return Expression.of([Replacing()])


def test_weights_smaller_than_the_tolerances_that_nobody_finds_are_read_by_the_process_meter(
    runner: Runner, tmp_path: Path
) -> None:
    case, original, variant = sides(runner, tmp_path, "plain", replacing("read_in_each_call"))
    assert case.foreign_runtimes == ("memory that nobody could check",)
    assert variant.weights_bytes == 0, "the tensor meter sees nothing of it"
    for side in (original, variant):
        assert (case.memory_bytes(side) or 0) > 0.9 * BODY
        assert "process_memory" not in side.unmeasured


@pytest.mark.parametrize("made", ["imported", "as_bytes"])
def test_weights_in_other_memory_that_is_found_keep_their_exact_figure(
    runner: Runner, tmp_path: Path, made: str
) -> None:
    case, _, variant = sides(runner, tmp_path, "plain", replacing(made))
    assert case.foreign_runtimes == ()
    assert variant.weights_bytes == BODY
    assert "the rest cannot be compared" in variant.unmeasured["coverage"]


def test_an_ordinary_model_keeps_its_exact_figure(runner: Runner, tmp_path: Path) -> None:
    case, *both = sides(runner, tmp_path, "plain")
    assert case.foreign_runtimes == ()
    for side in both:
        assert side.hidden_bytes == 0
        assert side.weights_bytes == BODY
        assert side.unmeasured == {}


def test_what_the_factory_sets_in_the_environment_holds_in_fresh_processes(runner: Runner, tmp_path: Path) -> None:
    case, original, _ = sides(runner, tmp_path, "sets_environment")
    assert case.foreign_runtimes == ()
    assert original.unmeasured == {}


@pytest.mark.skipif(not {"fbgemm", "x86"} & set(torch.backends.quantized.supported_engines), reason="it pads rows")
def test_what_kernels_keep_beside_packed_weights_is_told(runner: Runner, tmp_path: Path) -> None:
    """fbgemm fills 32 columns up to a block of 512 and more."""
    case, original, variant = sides(runner, tmp_path, "wide", parse("int8-dynamic"))
    assert case.foreign_runtimes == ()
    assert original.notes == ()
    (note,) = variant.notes
    assert note.startswith("its memory counts the numbers in its packed weights; torch's kernels keep ")
    size, unit = note.partition(" keep ")[2].split()[:2]
    assert unit == "MiB"
    assert float(size) * MIB > 8192 * (512 - 32) / 2
    assert (variant.weights_bytes or 0) < 8192 * (32 + 4) * 1.6 + 4 * 8192, "numbers, scales and biases"


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that sends back what it gets."""

    class Echo(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while content := self.request.recv(16):
                self.request.sendall(content)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, block_on_close = True, False

    class LocalServer(socketserver.ThreadingUnixStreamServer):
        daemon_threads, block_on_close = True, False

    with (
        tempfile.TemporaryDirectory() as short,
        Server(("127.0.0.1", 0), Echo) as server,
        LocalServer(f"{short}/s", Echo) as local,
    ):
        port = server.server_address[1]
        monkeypatch.setenv("PORT_OF_OURS", str(port))
        monkeypatch.setenv("PATH_OF_OURS", f"{short}/s")
        threads = [threading.Thread(target=each.serve_forever) for each in (server, local)]
        for thread in threads:
            thread.start()
        yield f"127.0.0.1:{port}"
        for each in (server, local):
            each.shutdown()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("child", "-c import sys"),
        ("child_of_each_call", "processes that each call starts"),
        ("daemon", "`a fork of the worker`"),
        ("server", "a server at {echo}"),
        ("local_server", "/s"),
        ("server_of_each_call", "a server at {echo}"),
    ],
)
def test_what_other_processes_hold_is_not_known(
    runner: Runner, tmp_path: Path, echo: str, model: str, words: str
) -> None:
    case, *both = sides(runner, tmp_path, model)
    for side in both:
        assert case.memory_bytes(side) is None
        assert side.size_bytes is None
        for figure in ("process_memory", "size"):
            assert "leaves work to other processes" in side.unmeasured[figure]
            assert words.format(echo=echo) in side.unmeasured[figure]


def test_what_is_asked_of_others_once_is_no_work_of_a_call(runner: Runner, tmp_path: Path, echo: str) -> None:
    """The connection stays open, as those of HTTP libraries do."""
    assert echo
    case, *both = sides(runner, tmp_path, "asks_once")
    assert case.foreign_runtimes == ()
    for side in both:
        assert side.weights_bytes == BODY
        assert side.size_bytes is not None
        assert side.unmeasured == {}
