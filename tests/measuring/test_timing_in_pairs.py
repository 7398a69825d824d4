"""Timing with real workers: launches, the machine-wide lock, threads, and what is noticed meanwhile."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from pytest_modelopt import system
from pytest_modelopt.judging.judge import judge
from pytest_modelopt.measuring.controller.launches import start_again
from pytest_modelopt.measuring.controller.process import WorkerFailed
from pytest_modelopt.measuring.controller.runner import Runner, StepLimits
from pytest_modelopt.measuring.controller.timing import host_lock
from pytest_modelopt.measuring.controller.timing.paired_timing import Listener
from pytest_modelopt.measuring.controller.worker_context import Measured, WorkerContext
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.plugin.progress import Silent
from pytest_modelopt.reporting.messages.verdicts import format_verdict
from pytest_modelopt.reporting.timing_conditions import disturbances, oddities
from pytest_modelopt.results.case import MeasuredCase, PlannedCase
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.timed_pairs import Timing
from pytest_modelopt.results.verdicts import Limit
from pytest_modelopt.selftest import trial

SOURCE = """
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
import torch
from torch import nn

def note(what):
    with open("made", "a") as file:
        file.write(what + "\\n")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 512), nn.Linear(512, 4)
    def forward(self, x):
        return self.second(torch.relu(self.first(x)))

def model():
    note("model")
    torch.manual_seed(0)
    return Net().eval()

def data():
    note("data")
    return torch.randn(100, 64, generator=torch.Generator().manual_seed(1)), torch.arange(100) % 4

def model_of_its_process():
    import os
    made = model()
    made.second.weight.data *= 1 + int.from_bytes(os.urandom(2), "big")  # numbers of processes are too close
    return made

class Forgetful(Net):
    '''What it was told after it was made is not saved.'''
    scale = 1.0
    def forward(self, x):
        return super().forward(x) * self.scale
    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "scale"}

def forgetful():
    note("model")
    made = Forgetful().eval()
    made.scale = 3.0
    return made

class AtHome(Net):
    '''Loads in the process that made it only.'''
    def __getstate__(self):
        return {**self.__dict__, "home": os.getpid()}
    def __setstate__(self, state):
        if state.pop("home") != os.getpid():
            raise ImportError("no module named shop")
        self.__dict__.update(state)

def at_home():
    note("model")
    return AtHome().eval()

class SetsThreads(Net):
    def forward(self, x):
        torch.set_num_threads(2)
        return super().forward(x)

def sets_threads():
    return SetsThreads().eval()

class TwoThreads(Net):
    '''An engine with a pool of its own, which knows nothing of torch's setting.'''
    def forward(self, x):
        if not hasattr(self, "pool"):
            object.__setattr__(self, "pool", ThreadPoolExecutor(2))
            object.__setattr__(self, "work", torch.randn(400, 400))
        both = threading.Barrier(2)
        def half():
            both.wait()
            for _ in range(3):
                self.work @ self.work
        for future in [self.pool.submit(half) for _ in range(2)]:
            future.result()
        return super().forward(x)

def two_threads():
    return TwoThreads().eval()

class KnowsPlaces(Net):
    def __init__(self):
        super().__init__()
        self.table = {}
    def forward(self, x):
        if x.data_ptr() not in self.table:
            self.table[x.data_ptr()] = super().forward(x)
        return self.table[x.data_ptr()]

def knows_places():
    from pytest_modelopt.measuring.worker.calls import given_inputs
    given_inputs._KEPT_BYTES = 20_000  # in this process
    return KnowsPlaces().eval()

def spin():
    while True:
        hashlib.sha256(bytes(2**20))  # without the interpreter's lock

def spinning():
    for _ in range(6):  # so that they get their share of a busy core, too
        threading.Thread(target=spin, daemon=True).start()
    return Net().eval()
"""


@pytest.fixture
def variant(tmp_path: Path) -> Callable[..., Variant]:
    (tmp_path / "timed_user.py").write_text(SOURCE, encoding="utf-8")

    def make(model: str = "model", recipe: str | None = None) -> Variant:
        return Variant(
            f"timed_user:{model}",
            parse(recipe) if recipe else None,
            "timed_user:data",
            None,
            None,
            MetricSpec(),
            (str(tmp_path),),
            str(tmp_path),
        )

    return make


def timed(variant: Variant, tmp_path: Path, *, slowdown: float = 0.0, min_speedup: float = 0.5) -> Timing:
    return trial(
        variant, slowdown=slowdown, min_speedup=min_speedup, time_limit_s=3, step_limit_s=60, folder=tmp_path
    ).timing


def launches(timing: Timing) -> list[int]:
    """In their order, each once where its pairs follow one another."""
    return [number for number, _ in groupby(pair.launch for pair in timing.pairs)]


# --- launches --------------------------------------------------------------------------------------------------------


def test_a_clear_case_is_decided_in_one_launch(variant: Callable[..., Variant], tmp_path: Path) -> None:
    """Twice as slow, by construction, against a limit of 10% slower."""
    done = trial(variant(), slowdown=1.0, min_speedup=1 / 1.1, time_limit_s=20, folder=tmp_path)
    assert done.outcome(1 / 1.1) == "fail"
    assert launches(done.timing) == [1]


def test_a_comparison_that_stays_open_is_tried_in_three_launches(
    variant: Callable[..., Variant], tmp_path: Path
) -> None:
    timing = trial(variant(), min_speedup=None, time_limit_s=3, folder=tmp_path).timing
    assert launches(timing) == [1, 2, 3]
    assert timing.seconds >= timing.time_limit_s
    starts = [next(pair.at_ms for pair in timing.pairs if pair.launch == number) for number in (1, 2, 3)]
    assert starts[0] == 0
    assert starts[1] >= 1000
    assert starts[2] >= starts[1] + 1000
    moments = [pair.at_ms for pair in timing.pairs]
    assert moments == sorted(moments)


def test_what_is_shown_pair_by_pair_is_what_the_record_says(variant: Callable[..., Variant], tmp_path: Path) -> None:
    seen: list[float] = []

    class Sees(Listener):
        def pairs(self, count: int, seconds: float, speedup: float) -> None:
            seen.append(speedup)

    done = trial(variant(), min_speedup=0.5, time_limit_s=20, folder=tmp_path, listener=Sees(), launches_at_least=3)
    assert launches(done.timing) == [1, 2, 3]
    assert seen == [pair.reference_ns / pair.variant_ns for pair in done.timing.pairs]
    assert done.outcome(0.5) == "pass"


def test_a_block_is_as_long_as_it_has_to_be(variant: Callable[..., Variant], tmp_path: Path) -> None:
    """Ten milliseconds of timed calls, however short a call is, after those that warm up."""
    timing = timed(variant(), tmp_path)
    for pair in timing.pairs:
        assert min(pair.reference_block_ns, pair.variant_block_ns) >= 10_000_000
        assert min(pair.reference_warming_ns, pair.variant_warming_ns) >= 3_000_000
        # Rounded to whole nanoseconds of a call.
        own_ns = pair.reference_block_ns - pair.reference_delayed_ns
        assert abs(pair.reference_ns * pair.reference_calls - own_ns) <= pair.reference_calls
        own_ns = pair.variant_block_ns - pair.variant_delayed_ns
        assert abs(pair.variant_ns * pair.variant_calls - own_ns) <= pair.variant_calls


@pytest.fixture
def runner() -> Iterator[Runner]:
    made = Runner(StepLimits(time_limit_s=3, step_limit_s=60), Silent())
    yield made
    made.close()


def measured_in_three_launches(runner: Runner, variant: Variant) -> MeasuredCase:
    assert variant.recipe is not None
    case = PlannedCase(id="id", model="m", recipe=variant.recipe.text, limits=(), batch_size=1)
    return runner.measure(case, variant, lambda samples, call: True)


def test_further_launches_load_the_saved_variant_and_the_data_no_more(
    variant: Callable[..., Variant], runner: Runner, tmp_path: Path
) -> None:
    case = measured_in_three_launches(runner, variant(recipe="int8-dynamic"))
    assert case.error is None
    assert case.timing is not None
    assert launches(case.timing) == [1, 2, 3]
    made = (tmp_path / "made").read_text().split()
    assert made.count("data") == 2, "read once, and its beginning again"
    assert made.count("model") == 3 + 1, "the original in each launch, the variant only once"
    assert case.variant is not None
    assert case.variant.notes == ()


def test_a_variant_that_does_not_come_back_as_it_was_is_made_anew_and_says_so(
    variant: Callable[..., Variant], runner: Runner, tmp_path: Path
) -> None:
    case = measured_in_three_launches(runner, variant("forgetful", recipe="int8-dynamic"))
    assert case.error is None
    assert case.variant is not None
    (note,) = case.variant.notes
    assert note.startswith("saved and loaded again it is not the same model: its answers differ")
    assert case.variant.observations is not None
    assert (case.variant.observations.reloads, case.variant.observations.reload_error) == (False, None)
    assert (tmp_path / "made").read_text().split().count("model") == 3 + 3


def test_why_a_variant_could_not_be_loaded_again_is_recorded(variant: Callable[..., Variant]) -> None:
    context = WorkerContext(StepLimits(time_limit_s=1, step_limit_s=60), Silent())
    measured = Measured(variant("at_home", recipe="int8-dynamic"))
    try:
        context.start(measured)
        for operation in ("load", "optimize"):
            context.request(measured.worker, operation)
        seen: Observations = context.request(measured.worker, "observe")
        measured.measurement = Measurement("int8-dynamic", 1, 1, 1, None, 0, None, observations=seen)
        start_again(context, measured)
        seen = measured.measurement.observations or Observations()
    finally:
        context.discard(measured)
        context.close()
    assert (seen.reloads, seen.reload_error) == (False, "ImportError: no module named shop")


def test_an_original_that_is_another_model_in_the_next_launch_is_an_error(
    variant: Callable[..., Variant], runner: Runner
) -> None:
    case = measured_in_three_launches(runner, variant("model_of_its_process", recipe="int8-dynamic"))
    assert case.error is not None
    assert case.error.stage == "timing"
    assert case.error.message.startswith("the original was made again for another launch, and answers differently")


def test_no_saved_model_outlives_its_case(variant: Callable[..., Variant], runner: Runner) -> None:
    assert measured_in_three_launches(runner, variant(recipe="int8-dynamic")).error is None
    runner.forget_original()
    assert list(runner.new_file("none").parent.glob("*.pt")) == []


def test_the_next_case_finds_a_whole_original_after_a_launch_that_failed(
    variant: Callable[..., Variant], runner: Runner, tmp_path: Path
) -> None:
    """The factory works once, fails once, and then works again."""
    (tmp_path / "timed_user.py").write_text(
        SOURCE.replace(
            '    note("model")\n    torch.manual_seed(0)\n',
            '    note("model")\n'
            '    if open("made").read().split().count("model") == 3:\n'
            '        raise RuntimeError("the file server is away")\n',
        ),
        encoding="utf-8",
    )
    case = measured_in_three_launches(runner, variant(recipe="int8-dynamic"))
    assert case.error is not None
    assert "the file server is away" in case.error.message
    assert case.error.stage == "timing"
    assert measured_in_three_launches(runner, variant(recipe="low-rank(ratio=0.5)")).error is None


# --- the lock --------------------------------------------------------------------------------------------------------

HOLDS = """
import sys, time
from pathlib import Path
from pytest_modelopt.measuring.controller.timing.host_lock import alone
with alone(Path(sys.argv[1]), 60, lambda seconds: None):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that times something on this machine."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_timing_waits_for_another_and_goes_on_when_that_has_died(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    waits: list[float] = []

    def kill_at_the_second(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            holder.kill()

    with host_lock.alone(tmp_path / "lock", 60, kill_at_the_second) as held:
        assert len(waits) >= 2
        assert held.waited_s >= waits[1]


def test_waiting_too_long_says_for_what_and_what_to_do(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with (
        pytest.raises(host_lock.LockUnavailable, match=r"have been timing for .*they hold .*lock; run fewer jobs"),
        host_lock.alone(tmp_path / "lock", 0.1, lambda seconds: None),
    ):
        pytest.fail("two hold the lock")


def test_a_lock_that_cannot_be_made_is_an_error_of_the_case(tmp_path: Path) -> None:
    with (
        pytest.raises(host_lock.LockUnavailable, match="cannot be used"),
        host_lock.alone(tmp_path, 1, lambda seconds: None),  # a folder
    ):
        pytest.fail("held")


def test_without_the_lock_timed_limits_are_not_measured_and_the_others_stand(
    variant: Callable[..., Variant], runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_lock, "lock_file", lambda: tmp_path)  # a folder
    limits = tuple(
        Limit(name, value, "L", "error", "budgets.yaml", 7) for name, value in (("max_size", 1e9), ("min_speedup", 0.1))
    )
    case = PlannedCase(id="id", model="m", recipe="int8-dynamic", limits=limits, batch_size=1)
    measured = runner.measure(case, variant(recipe="int8-dynamic"), lambda samples, call: False)
    assert measured.error is None
    size, speed = judge(measured, timed_limits=1).verdicts
    assert size.outcome == "pass"
    assert speed.outcome == "not measured"
    assert "the file that keeps timings apart cannot be used" in format_verdict(measured, speed)


LOCK_FILE = host_lock.lock_file  # as it is: the tests have one of their own


def test_the_lock_is_one_for_the_machine_whatever_tmpdir_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = LOCK_FILE()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert LOCK_FILE() == before
    assert stat.S_IMODE(before.parent.stat().st_mode) == 0o777


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act for two users")
@pytest.mark.parametrize("first", ["root", "nobody"])
def test_users_wait_for_each_other(first: str) -> None:
    """In a folder as `lock_file` makes it, one user can lock the file of another; in /tmp itself none may open it."""
    script = (
        "import os, sys, tempfile\n"
        "from filelock import FileLock\n"
        "with FileLock(tempfile.mktemp()):\n    pass\n"  # imports all it needs, while it may read them
        "os.setgid(65534)\nos.setuid(65534)\n"
        "with FileLock(sys.argv[1], mode=0o666).acquire(timeout=30):\n    print('held')\n"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        path = Path(folder) / "timing.lock"
        if first == "root":
            with host_lock.alone(path, 60, lambda seconds: None):
                pass
        done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
        assert done.stdout == "held\n", done.stderr
        with host_lock.alone(path, 60, lambda seconds: None):
            pass


def test_pairs_are_taken_while_the_lock_is_held(
    variant: Callable[..., Variant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder that lets go after the third look: what was waited stands in the record."""
    monkeypatch.setattr(host_lock, "lock_file", lambda: tmp_path / "lock")
    script = HOLDS.replace("time.sleep(60)", "sys.stdin.readline()")
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "lock")], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "held\n"

    class LetsGo(Listener):
        waits = free = 0

        def pairs(self, count: int, seconds: float, speedup: float) -> None:
            """Whether another could take the lock between two pairs."""
            try:
                FileLock(tmp_path / "lock").acquire(timeout=0).lock.release()
            except Timeout:
                return
            self.free += 1

        def waiting(self, seconds: float) -> None:
            self.waits += 1
            if self.waits == 3:
                process.communicate("\n")

    listener = LetsGo()
    done = trial(variant(), slowdown=1.0, min_speedup=0.9, time_limit_s=5, folder=tmp_path, listener=listener)
    assert listener.waits >= 3
    assert listener.free == 0
    assert done.timing.conditions.waited_s > 0.5


def test_a_step_waits_while_another_is_timed(
    holder: subprocess.Popen[str],
    variant: Callable[..., Variant],
    runner: Runner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The wait is shown and is no time of the step; from when to when the case was timed stands in the record."""
    monkeypatch.setattr(host_lock, "lock_file", lambda: tmp_path / "lock")
    shown: list[str] = []

    def beat(detail: str = "") -> None:
        shown.append(detail)
        if len(shown) == 4:
            holder.kill()

    monkeypatch.setattr(runner._progress, "beat", beat)
    planned = PlannedCase(id="id", model="m", recipe="int8-dynamic", limits=(), batch_size=1)
    before = time.time()
    measured = runner.measure(planned, variant(recipe="int8-dynamic"), lambda samples, call: False)
    assert all(re.fullmatch(r"waiting \d+ s for a timing on this machine", text) for text in shown[:4])
    assert measured.timing is not None
    assert measured.timing.conditions.host == system.host()
    [(start, end)] = measured.timing.conditions.held_ms
    assert 1000 * before < start <= end <= 1000 * time.time()


# --- threads, and the machine ----------------------------------------------------------------------------------------


def test_a_model_that_sets_the_threads_itself_is_refused(variant: Callable[..., Variant], tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed, match=r"threads: 1 was set, but 2 were in force after the original was timed"):
        timed(variant("sets_threads"), tmp_path)


def test_a_model_that_has_known_inputs_again_is_not_timed(variant: Callable[..., Variant], tmp_path: Path) -> None:
    with pytest.raises(
        WorkerFailed, match=r"^the original recognizes inputs by their address in memory, for longer than"
    ):
        timed(variant("knows_places"), tmp_path)


def test_an_engine_that_takes_more_threads_than_it_was_given_is_noticed(
    variant: Callable[..., Variant], tmp_path: Path
) -> None:
    timing = timed(variant("two_threads"), tmp_path)
    assert timing.conditions.reference.active_threads is not None
    assert timing.conditions.reference.active_threads >= 2
    assert any("threads though `threads` is 1" in text for text in oddities(timing))


def test_a_runtime_with_threads_of_its_own_is_noticed(tmp_path: Path) -> None:
    """ONNX Runtime with two threads, of which torch's setting knows nothing."""
    folder, models = str(Path(__file__).parents[2]), "tests.measuring.foreign_models"
    of = Variant(
        f"{models}:on_two_threads", None, None, None, f"{models}:many_inputs", MetricSpec(), (folder,), folder,
        batch_size=256,
    )  # fmt: skip
    timing = timed(of, tmp_path)
    assert timing.conditions.reference.active_threads == 2
    assert any("worked with 2 threads though `threads` is 1" in text for text in oddities(timing))


def test_a_thread_that_spins_while_its_worker_waits_is_noticed(variant: Callable[..., Variant], tmp_path: Path) -> None:
    timing = timed(variant("spinning"), tmp_path)
    assert any("cores busy when it was not its turn" in text for text in oddities(timing))


def test_a_well_behaved_model_has_no_oddities(variant: Callable[..., Variant], tmp_path: Path) -> None:
    timing = timed(variant(), tmp_path)
    assert oddities(timing) == []
    assert timing.conditions.reference.active_threads == 1


def test_a_machine_that_others_keep_busy_is_called_disturbed(variant: Callable[..., Variant], tmp_path: Path) -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(-(-system.cores() // 4))]
    try:
        timing = timed(variant(), tmp_path, min_speedup=1.0)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert any(text.startswith("other processes kept") for text in disturbances(timing))
