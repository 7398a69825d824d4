"""What Slurm makes of jobs, on a real cluster of two nodes; test_real_clusters.py measures on one."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.slurm_cluster import Controller, SlurmNode, is_installed, slurm_cluster
from pytest_modelopt.fleet import on_slurm
from pytest_modelopt.fleet.engine import Cluster, EngineError, Machine, Told
from pytest_modelopt.fleet.job import Job
from pytest_modelopt.fleet.on_slurm import SlurmEngine
from pytest_modelopt.fleet.project import read_project
from pytest_modelopt.optimizing.this_machine import fingerprint

pytestmark = pytest.mark.e2e
NODES = tuple(SlurmNode(f"machine{number}", "127.0.0.1") for number in (1, 2))
WORK = """
import pathlib, sys, time
assert len((pathlib.Path(__file__).parent / "weights.bin").read_bytes()) == 5_000_000
print("begun", flush=True)
time.sleep(float(sys.argv[1]))
sys.exit(3)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Path, Controller]]:
    """A folder that all nodes of a cluster see, while that is up."""
    pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
    if not is_installed():
        pytest.skip("Slurm is not installed (Debian's package `slurm-wlm`)")
    short = tempfile.TemporaryDirectory(prefix="sl", ignore_cleanup_errors=True)
    with short as name, slurm_cluster(Path(name, "slurm"), NODES) as controller:
        yield Path(name, "shared"), controller


@pytest.fixture
def shared(cluster: tuple[Path, Controller]) -> Path:
    return cluster[0]


@pytest.fixture
def controller(cluster: tuple[Path, Controller]) -> Controller:
    return cluster[1]


@pytest.fixture
def engine(shared: Path, tmp_path: Path) -> Iterator[SlurmEngine]:
    (tmp_path / "work.py").write_text(WORK, encoding="utf-8")
    (tmp_path / "weights.bin").write_bytes(bytes(5_000_000))
    made = SlurmEngine(shared, read_project(tmp_path))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is on one disk here, and the cluster small."""
    monkeypatch.setattr(on_slurm, "_QUEUE_S", 0.2)
    monkeypatch.setattr(on_slurm, "_ARRIVAL_S", 1.0)


def job(seconds: float, machines: tuple[str, ...] = ()) -> Job:
    return Job("work", ("item",), ("work", str(seconds)), ".", {}, machines=machines)


def told(engine: SlurmEngine, until: str, jobs: int = 1) -> list[Told]:
    """Of so many jobs, the event that has this, or their loss."""
    end, found = time.monotonic() + 60, list[Told]()
    while time.monotonic() < end and len(found) < jobs:
        found += [each for each in engine.told(0.5) if each.lost or until in each.event]
    assert len(found) == jobs
    return found


def test_a_job_runs_in_a_copy_of_the_project_on_the_machine_that_it_asks_for(engine: SlurmEngine, shared: Path) -> None:
    for node in ("machine2", "machine1"):
        engine.submit(job(0, (node,)))
        [ended] = told(engine, "end")
        assert ended.machine == Machine(node, node)
        assert (ended.event["end"], ended.event["output"]) == (3, "begun\n")
    engine.submit(job(0), avoid=Machine("machine1", "machine1"))
    [began] = told(engine, "hello")
    assert began.machine == Machine("machine2", "machine2")
    engine.close()
    assert list(shared.iterdir()) == [], "nothing is left behind"
    assert not subprocess.run(["squeue", "-h"], capture_output=True, check=True).stdout


def test_two_jobs_are_never_on_one_machine(engine: SlurmEngine) -> None:
    """A node has one core here, so --exclusive is seen where a job asks for none of them."""
    for _ in range(3):
        engine.submit(job(30))
    assert {each.machine for each in told(engine, "hello", jobs=2)} == {Machine(node.name, node.name) for node in NODES}
    states = subprocess.run(["squeue", "-h", "-o", "%t %h"], capture_output=True, text=True, check=True).stdout
    assert sorted(states.splitlines()) == ["PD NO", "R NO", "R NO"], "and nothing else may use their machines"


def test_a_job_that_slurm_ends_is_lost_and_those_that_are_closed_leave_no_process(engine: SlurmEngine) -> None:
    engine.submit(job(600))
    [began] = told(engine, "hello")
    process = psutil.Process(began.event["hello"]["process"])
    [number] = subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, text=True, check=True).stdout.split()
    subprocess.run(["scancel", number], check=True)
    [lost] = told(engine, "end")
    assert (lost.lost, lost.machine) == (f"job {number} of Slurm: CANCELLED, None", began.machine)
    assert not process.is_running()
    engine.submit(job(600))
    [began] = told(engine, "hello")
    process = psutil.Process(began.event["hello"]["process"])
    engine.close()
    assert not process.is_running()


def test_a_job_that_is_suspended_or_that_the_users_settings_hide_is_not_lost(
    engine: SlurmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_STATES", "FAILED")
    monkeypatch.setenv("SINFO_PARTITION", "none")
    engine.submit(job(3))
    [began] = told(engine, "hello")
    number = engine._submitted[-1].job_id
    subprocess.run(["scontrol", "suspend", number], check=True)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert not list(engine.told(0.2))
    subprocess.run(["scontrol", "resume", number], check=True)
    [ended] = told(engine, "end")
    assert (ended.lost, ended.event["end"], ended.machine) == ("", 3, began.machine)


def test_why_a_job_could_not_begin_is_told(engine: SlurmEngine) -> None:
    [weights] = (engine._own / "large").iterdir()
    weights.unlink()
    weights.write_bytes(b"damaged")
    engine.submit(job(0))
    [lost] = told(engine, "end")
    number = engine._submitted[-1].job_id
    why = "weights.bin has arrived damaged: run again"
    assert lost.lost == f"job {number} of Slurm: FAILED, pytest_modelopt.fleet.project.ProjectError: {why}"


def test_what_squeue_says_wrong_for_a_moment_loses_no_job_and_a_lost_job_runs_no_more(
    engine: SlurmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system may show a line before all of it has come, too."""
    monkeypatch.setenv("LOGNAME", "daemon")
    engine.submit(job(600))
    [began] = told(engine, "hello")
    process = psutil.Process(began.event["hello"]["process"])
    active, whole = SlurmEngine._active, engine._running[0].events.read_bytes()
    monkeypatch.setattr(SlurmEngine, "_active", lambda self, submitted: set())
    engine._running[0].events.write_bytes(whole + bytes(20) + b"\n")
    assert not list(engine.told(0.5))
    monkeypatch.setattr(SlurmEngine, "_active", active)
    engine._running[0].events.write_bytes(whole + b'{"later": 1, "machine": ["a", "b"]}\n')
    end = time.monotonic() + 2
    found = []
    while time.monotonic() < end:
        found += list(engine.told(0.2))
    assert [each.event for each in found] == [{"later": 1}]
    monkeypatch.setattr(SlurmEngine, "_active", lambda self, submitted: set())
    [lost] = told(engine, "end")
    assert lost.lost
    process.wait(30)


def test_a_job_waits_for_its_machine_that_was_down_when_it_was_submitted(engine: SlurmEngine) -> None:
    down, other = (node.name for node in NODES)
    subprocess.run(["scontrol", "update", f"nodename={other}", "state=drain", "reason=test"], check=True)
    engine.submit(job(5, (down,)))
    engine.submit(job(0, (down,)))
    subprocess.run(["scontrol", "update", f"nodename={other}", "state=resume"], check=True)
    assert {each.machine for each in told(engine, "end", jobs=2)} == {Machine(down, down)}


def test_a_job_begins_where_pytest_is_a_task_of_an_array(engine: SlurmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SBATCH_ARRAY_INX", "SBATCH_WAIT"):
        monkeypatch.setenv(name, "1")
    engine.submit(job(0))
    assert [each.lost for each in told(engine, "end")] == [""]
    assert os.environ["SLURM_ARRAY_JOB_ID"] == "1"


def test_a_controller_that_is_away_is_waited_for(engine: SlurmEngine, controller: Controller) -> None:
    controller.end()
    again = threading.Timer(3, controller.restart)
    again.start()
    engine.submit(job(0))
    again.join()
    assert [each.lost for each in told(engine, "end")] == [""]


def test_an_outage_is_waited_out_and_a_refusal_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    away = "`sinfo` failed: slurm_load_partitions: Unable to contact slurm controller (connect failure)"
    for why, waits in ((away, [1, 1]), ("Slurm refuses a job: sbatch: error: Requested more than there is", [])):
        slept.clear()
        answers = iter([why, why, ""])

        def ask(answers: Iterator[str] = answers) -> str:
            if answer := next(answers):
                raise EngineError(answer)
            return "nodes"

        with contextlib.nullcontext() if waits else pytest.raises(EngineError, match=re.escape(why)):
            assert on_slurm._patiently(ask) == "nodes"
        assert slept == waits

    def never() -> str:
        raise EngineError(away)

    monkeypatch.setattr(on_slurm, "_OUTAGE_S", -1.0)
    with pytest.raises(EngineError, match="connect failure"):
        on_slurm._patiently(never)


def test_machines_of_a_kind_are_asked_once(engine: SlurmEngine) -> None:
    here = fingerprint()
    assert sorted(engine.machines(fingerprint), key=str) == [(Machine(each.name, each.name), here) for each in NODES]
    assert len(engine._submitted) == 1


def test_what_slurm_refuses_is_told(engine: SlurmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_CONSTRAINT", "arm")
    with pytest.raises(EngineError, match=r"^Slurm refuses a job: sbatch: error: .*Invalid feature specification"):
        engine.submit(job(0))
    monkeypatch.setenv("SBATCH_PARTITION", "gpu,large")
    with pytest.raises(EngineError, match=r"^no node of the Slurm partition is up: .* SBATCH_PARTITION$"):
        SlurmEngine(engine.folder, engine.project)


@pytest.mark.parametrize("name", ["100%", "a\\b"])
def test_a_folder_whose_name_slurm_would_replace_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EngineError, match=r"which Slurm replaces: name another$"):
        SlurmEngine(tmp_path / name, read_project(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_folder_within_the_project_is_refused(tmp_path: Path) -> None:
    """Pytest would collect the copies of the project that a killed run has left there."""
    why = rf"^{tmp_path}/run lies in the project at {tmp_path}: .* name a folder outside of it$"
    with pytest.raises(EngineError, match=why):
        Cluster("slurm", f"{tmp_path}/run").connect(read_project(tmp_path))


def test_a_folder_that_cannot_be_written_is_named(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        EngineError, match=rf"^{tmp_path}/file/folder cannot be written: Not a directory; name another$"
    ):
        SlurmEngine(tmp_path / "file" / "folder", read_project(tmp_path))


def test_without_slurm_this_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineError, match=r"^there is no Slurm here: `sinfo` was not found; call this where jobs are "):
        SlurmEngine(tmp_path / "shared", read_project(tmp_path))
    assert not list(tmp_path.iterdir())
