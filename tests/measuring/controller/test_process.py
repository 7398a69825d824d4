"""One worker process per variant: a crash, a hang or an exception stays in it, and says what happened."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pytest_modelopt.measuring.controller import process
from pytest_modelopt.measuring.controller.process import Worker, WorkerFailed
from pytest_modelopt.measuring.variant import Variant, environment_now
from pytest_modelopt.results.metric import MetricSpec
from tests.measuring.processes import is_running

Start = Callable[..., Worker]

SOURCE = (Path(__file__).parents[1] / "users" / "users_code.py").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "users_code.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    workers: list[Worker] = []

    def make(model: str = "users_code:model", environment: tuple[tuple[str, str], ...] = ()) -> Worker:
        variant = Variant(
            model=model,
            recipe=None,
            data="users_code:data",
            calibration=None,
            example_inputs=None,
            metric=MetricSpec(),
            import_paths=(str(folder),),
            working_directory=str(folder),
            environment=environment,
        )
        workers.append(Worker(variant, folder, f"worker-{len(workers)}"))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


def failure(worker: Worker, limit_s: float = 60) -> WorkerFailed:
    with pytest.raises(WorkerFailed) as caught:
        worker.request("load", limit_s=limit_s)
    return caught.value


def test_a_worker_answers(start: Start) -> None:
    worker = start()
    assert worker.request("load", limit_s=60).metric_name == "accuracy"
    assert worker.request("score", limit_s=60).examples == 10


def test_where_there_is_no_fork_server_a_worker_is_started_anew_and_ends_by_its_own_fault(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    worker = start("users_code:ends_in_batches")
    assert psutil.Process(worker.pid).ppid() == os.getpid()
    assert worker.request("load", limit_s=60).metric_name == "accuracy"
    with pytest.raises(WorkerFailed, match="died during `score`: exit status 255") as failed:
        worker.request("score", limit_s=60)
    assert "fork server" not in failed.value.message


def test_a_killed_worker_says_by_what_and_its_last_words(start: Start) -> None:
    failed = failure(start("users_code:killed"))
    assert "died during `load`: ended by SIGKILL (often the kernel's out-of-memory killer)" in failed.message
    assert failed.output == "last words"


def test_a_segmentation_fault_is_named(start: Start) -> None:
    failed = failure(start("users_code:segfault"))
    assert "ended by SIGSEGV (native code used memory that is not its own)" in failed.message
    assert re.search(r'users_code.py", line \d+ in segfault$', failed.output)
    assert "site-packages" not in failed.output


def test_a_factory_that_exits_is_an_error_and_not_a_crash(start: Start) -> None:
    failed = failure(start("users_code:exits"))
    assert failed.message.startswith("model `users_code:exits` raised SystemExit: 3")


def test_a_process_that_leaves_is_noticed(start: Start) -> None:
    assert "exit status 7" in failure(start("users_code:leaves")).message


def test_a_hanging_worker_is_ended_at_its_limit(start: Start) -> None:
    worker = start("users_code:hangs")
    failed = failure(worker, limit_s=1)
    assert "did not finish `load` within 1 s (`step_limit`) and was ended" in failed.message
    assert not worker.is_alive
    if sys.platform == "linux":
        assert re.search(r'users_code.py", line \d+ in hangs$', failed.output)


@pytest.mark.parametrize("factory", ["no_streams", "forks"])
def test_a_worker_answers_whatever_became_of_its_streams_and_who_else_came_back(start: Start, factory: str) -> None:
    worker = start(f"users_code:{factory}")
    assert worker.request("load", limit_s=60).metric_name == "accuracy"
    assert worker.request("score", limit_s=60).examples == 10


@pytest.mark.parametrize("factory", ["becomes_another_program", "closes_all"])
def test_a_worker_whose_pipe_is_closed_is_ended_and_it_is_said(start: Start, factory: str) -> None:
    worker = start(f"users_code:{factory}")
    message = failure(worker).message
    assert message.startswith(
        "the worker's pipe to pytest was closed during `load`, and it was ended: the model's code"
    )
    assert not worker.is_alive


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the pipe in /proc")
def test_half_an_answer_is_not_waited_for_without_an_end(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_STALL_S", 2)
    message = failure(start("users_code:writes_half_an_answer")).message
    assert message.startswith("the worker stopped in the middle of a message about `load` and was ended; it left 1")


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the pipe in /proc")
def test_nonsense_in_the_pipe_is_no_answer(start: Start) -> None:
    worker = start("users_code:writes_nonsense")
    assert failure(worker).message.startswith("the worker's answer to `load` cannot be read (UnpicklingError)")
    assert not worker.is_alive


def test_a_worker_that_its_code_has_damaged_says_so(start: Start) -> None:
    failed = failure(start("users_code:takes_built_ins_away"))
    assert failed.message.startswith(
        "the worker cannot go on: TypeError: 'NoneType' object is not callable; the project"
    )
    assert failed.output.endswith("TypeError: 'NoneType' object is not callable")


def test_what_is_printed_does_not_fill_the_disk(start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_LOG_BYTES", 2**20)
    sizes: list[int] = []
    log = folder / "worker-0.log"

    def look_twice() -> None:
        """What was shortened just now has grown again at the second look."""
        sizes.append(log.stat().st_size)
        time.sleep(0.05)
        sizes.append(log.stat().st_size)

    with pytest.raises(WorkerFailed, match="did not finish"):
        start("users_code:prints_without_end").request("load", limit_s=4, heartbeat=look_twice)
    assert any(later < before for before, later in itertools.pairwise(sizes)), sizes


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("untold", "raised Untold: (its message cannot be made: RuntimeError)"),
        ("untold_in_forward", "does not accept the data: Untold: (its message cannot be made: RuntimeError)"),
        ("interrupts", "KeyboardInterrupt"),
        ("stops_to_look", "raised RuntimeError: a worker has no terminal for `breakpoint()`: call the code by itself"),
        ("takes_modules_away", "raised ValueError: after that"),
        ("tells_ten_megabytes", "ValueError: xxx"),
    ],
)
def test_whatever_is_raised_is_told_in_a_line(start: Start, factory: str, message: str) -> None:
    worker = start(f"users_code:{factory}")
    failed = failure(worker)
    assert message in failed.message
    assert len(failed.message) < 5000
    assert len(failed.output) < 20_000
    assert worker.is_alive


def test_the_last_output_is_the_users_and_nobody_elses(start: Start) -> None:
    """After the profiler, whose talk no setting silences."""
    worker = start("users_code:fails_in_batches")
    for step in ("load", "size", "memory"):
        worker.request(step, limit_s=60)
    with pytest.raises(WorkerFailed) as caught:
        worker.request("score", limit_s=60)
    lines = caught.value.output.splitlines()
    assert re.search(r'users_code.py", line \d+, in forward$', lines[0])
    assert lines[1:] == ['    raise ValueError("out of luck")', "ValueError: out of luck"]


def test_closed_streams_keep_no_error_from_the_log(start: Start) -> None:
    assert failure(start("users_code:closed_streams")).output.endswith("RuntimeError: seen all the same")


def test_workers_are_started_after_the_fork_server_or_its_folder_has_gone(start: Start) -> None:
    assert "died during `load`" in failure(start("users_code:kills_the_server")).message
    assert start().request("load", limit_s=60).metric_name == "accuracy"
    kept = start()
    for folder in process._sockets:
        shutil.rmtree(folder, ignore_errors=True)
    assert start().request("load", limit_s=60).metric_name == "accuracy"
    assert kept.request("load", limit_s=60).metric_name == "accuracy", "workers of the old server live on"


@pytest.mark.skipif(sys.platform != "linux", reason="waits for the server in /proc")
def test_a_fork_server_that_does_not_answer_is_replaced(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start().request("load", limit_s=60)
    os.kill(process.forkserver._forkserver._forkserver_pid, signal.SIGSTOP)  # type: ignore[attr-defined]
    seconds, forget = process._START_S, process._forget_fork_server

    def forget_and_wait() -> None:
        monkeypatch.setattr(process, "_START_S", seconds)
        forget()

    monkeypatch.setattr(process, "_START_S", 1)
    monkeypatch.setattr(process, "_forget_fork_server", forget_and_wait)
    assert start().request("load", limit_s=60).metric_name == "accuracy"


def test_a_long_temporary_folder_is_no_path_for_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    long = tmp_path / ("t" * 120)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    for folder in process._sockets:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        assert start().request("load", limit_s=60).metric_name == "accuracy"
    finally:
        tempfile.tempdir = None


def test_an_interrupted_request_never_answers_the_next_one(start: Start) -> None:
    """pytest-timeout and Ctrl-C raise in the middle of a request; its late answer must not be taken for another."""

    class TimeUpError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise TimeUpError

    worker = start("users_code:hangs")
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1)
        with pytest.raises(TimeUpError):
            worker.request("load", limit_s=60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not worker.is_alive
    with pytest.raises(WorkerFailed, match="died"):
        worker.request("score", limit_s=60)


def test_what_a_worker_prints_is_kept_and_cleaned(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    failed = failure(start("users_code:chatters"))
    assert failed.message == "model `users_code:chatters` raised RuntimeError: no weights"
    lines = failed.output.splitlines()
    assert lines[:3] == ["red on stdout", "on stderr", "from C"]
    assert lines[-1] == "RuntimeError: no weights"
    assert capfd.readouterr() == ("", ""), "a worker never writes to the terminal"


def test_workers_do_not_spin_and_start_in_the_given_folder(start: Start, folder: Path) -> None:
    before = dict(os.environ)
    output = failure(start("users_code:environment")).output
    assert output.splitlines()[0] == f"PASSIVE {folder} {folder} 1"
    assert dict(os.environ) == before


def test_plots_of_workers_leave_nothing_at_home(start: Start) -> None:
    """Libraries import matplotlib, which makes a folder in the home of the user, unless the user names one."""
    for environment in ((), environment_now()):
        folder = failure(start("users_code:environment", environment)).output.splitlines()[1]
        assert str(Path(folder).parent) in process._sockets
    users = (*environment_now(), ("MPLCONFIGDIR", "/of/the/user"))
    assert failure(start("users_code:environment", users)).output.splitlines()[1] == "/of/the/user"


def test_closing_is_quick_and_may_come_twice(start: Start) -> None:
    worker = start()
    worker.request("load", limit_s=60)
    worker.close()
    worker.close()
    assert not worker.is_alive


def test_a_script_that_calls_pytest_main_unguarded_does_not_run_again_in_the_workers(folder: Path) -> None:
    (folder / "budgets.yaml").write_text(
        "version: 1\nmodels:\n  m:\n    factory: users_code:model\n    data: users_code:data\n"
        "    recipes:\n      low-rank(ratio=0.5):\n        max_size: 1 GB\n",
        encoding="utf-8",
    )
    marks = folder / "marks"
    (folder / "run_tests.py").write_text(
        f"import sys, pytest\nopen({str(marks)!r}, 'a').write('x')\n"
        "sys.exit(pytest.main(['--modelopt', '-p', 'no:cacheprovider']))\n",
        encoding="utf-8",
    )
    subprocess.run([sys.executable, "run_tests.py"], cwd=folder, timeout=120, capture_output=True, check=False)
    assert marks.read_text() == "x"


def test_a_process_that_imports_no_torch_talks_to_a_worker_which_ends_with_it(folder: Path) -> None:
    """As the pytest process does, and is killed."""
    script = (
        "import os, sys; from pathlib import Path\n"
        "from pytest_modelopt.measuring.controller.process import Worker\n"
        "from pytest_modelopt.measuring.variant import Variant\nfrom pytest_modelopt.results.metric import MetricSpec\n"
        f"f = {str(folder)!r}\n"
        "v = Variant('users_code:model', None, 'users_code:data', None, None, MetricSpec(), (f,), f)\n"
        "w = Worker(v, Path(f), 'w')\n"
        "for step in ('load', 'environment', 'size', 'memory', 'score', 'prepare_timing', 'block'):\n"
        "    w.request(step, limit_s=60)\n"
        "print(w._process.pid, *{'torch', 'numpy'} & set(sys.modules), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    printed = folder / "printed"  # a pipe would stay open as long as its worker
    with printed.open("w", encoding="utf-8") as file:
        done = subprocess.run([sys.executable, "-c", script], stdout=file, stderr=file, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, printed.read_text(encoding="utf-8")
    pid, *imported = printed.read_text(encoding="utf-8").split()
    assert imported == []
    deadline = time.monotonic() + 30
    while is_running(int(pid)):
        assert time.monotonic() < deadline, f"worker {pid} outlived its parent by 30 s"
        time.sleep(0.1)


ORPHAN = """
import os, sys, tempfile
from pathlib import Path
from pytest_modelopt.measuring.controller.process import Worker
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.results.metric import MetricSpec

folder = Path(sys.argv[1])
variant = Variant("orphan:model", None, None, None, "orphan:model", MetricSpec(), (str(folder),), str(folder))
Worker(variant, folder, "worker").request("load", limit_s=60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends them")
def test_a_worker_in_a_long_step_ends_with_a_killed_pytest_process(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    (tmp_path / "orphan.py").write_text(
        f"import os, pathlib, time\ndef model():\n    part = pathlib.Path({str(begun)!r} + '.part')\n"
        f"    part.write_text(str(os.getpid()))\n    part.rename({str(begun)!r})\n    time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", ORPHAN, str(tmp_path)])
    deadline = time.monotonic() + 300
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while is_running(int(begun.read_text())):
        assert time.monotonic() < deadline, "the worker outlived the process that it works for"
        time.sleep(0.05)
