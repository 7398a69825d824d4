"""Jobs on a Slurm cluster, submitted by submitit (extra `slurm`).

A folder that all machines share holds the project, the jobs and what they tell; it is gone when the run has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_modelopt.fleet.engine import EngineError, Machine, Told
from pytest_modelopt.fleet.job import Event, Job, run_job
from pytest_modelopt.fleet.project import MANIFEST, Project, place
from pytest_modelopt.results.target import Fingerprint

if TYPE_CHECKING:
    import submitit

_PROJECT, _LARGE = "project", "large"
_TIME_MIN = 60
"""Of a job, unless the user says SBATCH_TIMELIMIT. One that is ended runs again without the tests that it has told."""
_USABLE = ("idle", "mix", "alloc", "comp", "resv", "plnd")
"""Beginnings of the states in which a node runs jobs, now or later."""
_OUTAGE = re.compile("does not answer|contact|connection|connect failure|timed out", re.IGNORECASE)
"""What Slurm says while its controller is away."""
_OUTAGE_S = 90.0
_NOT_OURS = ("SLURM_ARRAY_", "SBATCH_ARRAY_", "SBATCH_WAIT")
"""Variables of the job in which pytest may be running, by how they begin, that would change what a job of ours is."""
_KIND = "%N|%P|%t|%c|%X|%Y|%Z|%m|%f|%G"
"""Of sinfo: name, partition, state, and all that Slurm knows of the kind of a node."""
_ANSWER_S = 600.0
_POLL_S = 0.2
_QUEUE_S = 5.0
_ARRIVAL_S = 5.0
"""A shared file system may show what a job has written seconds after the job has ended."""
_COMMAND_S = 60.0
_END_S = 10.0
_LINE = 300
"""Characters of the line that says why a job failed."""


@dataclass
class _Running:
    """A job of ours that Slurm has, and how far what it tells was read."""

    job: Job
    submitted: submitit.Job[Any]
    events: Path
    read: int = 0
    machine: Machine | None = None
    over_since: float | None = None
    """By the monotonic clock, since when Slurm no longer runs it."""

    def news(self) -> list[Event]:
        """The lines that were written whole since the last call."""
        try:
            with self.events.open("rb") as file:
                file.seek(self.read)
                data = file.read()
        except FileNotFoundError:
            return []
        found = []
        for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
            try:
                found.append(json.loads(line))
            except ValueError:  # a file system may show a line before all of it has come
                break
            self.read += len(line)
        return found


@dataclass
class SlurmEngine:
    """One run's jobs. Each has a machine for itself (`--exclusive`)."""

    folder: Path
    """That all machines of the cluster share."""
    project: Project
    _running: list[_Running] = field(default_factory=list)
    _submitted: list[submitit.Job[Any]] = field(default_factory=list)
    _asked_at: float = float("-inf")

    def __post_init__(self) -> None:
        """Raises EngineError where Slurm does not answer, or the folder cannot be written."""
        if strange := re.search(r"[%\\\n]", str(self.folder)):
            raise EngineError(f"the folder's path has {strange[0]!r}, which Slurm replaces: name another")
        self._require_answer()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._own = Path(tempfile.mkdtemp(prefix="pytest-modelopt-", dir=self.folder))
            try:
                self._stage()
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise EngineError(f"{self.folder} cannot be written: {error.strerror or error}; name another") from None

    def _stage(self) -> None:
        for name in (_LARGE, _PROJECT):
            (self._own / name).mkdir()
        self.project.stage(self._own / _PROJECT)
        for path, digest in self.project.large.items():
            _provide((self.project.root / path).resolve(), self._own / _LARGE / digest)

    def machines(self, ask: Callable[[], Fingerprint]) -> list[tuple[Machine, Fingerprint]]:
        """One machine is asked of all that Slurm knows to be of one kind."""
        kinds: dict[tuple[str, ...], list[str]] = {}
        for name, state, *kind in sorted(self._nodes(), key=lambda node: not node[1].startswith("idle")):
            if _runs_jobs(state):
                kinds.setdefault(tuple(kind), []).append(name)
        asked = [(names, self._submit(ask, nodelist=names[0], time=10, mem="500M")) for names in kinds.values()]
        until, found = time.monotonic() + _ANSWER_S, []
        for names, submitted in asked:
            self._await([submitted], until)
            try:
                fingerprint = submitted.result() if submitted.paths.result_pickle.exists() else None
            except Exception as error:
                raise EngineError(f"{names[0]} cannot say what it is: {_first_line(error)}") from None
            if fingerprint is None:
                why = f"{names[0]} did not answer within {_ANSWER_S:.0f} s"
                raise EngineError(
                    f"{why}, {_last_word(submitted)}: take it out of the partition, or wait until it is free"
                )
            found += [(Machine(name, name), fingerprint) for name in names]
        return found

    def submit(self, job: Job, avoid: Machine | None = None) -> None:
        nodes = _patiently(self._nodes)
        wanted = [name for name, state, *_ in nodes if _runs_jobs(state) and (not job.machines or name in job.machines)]
        wanted = [name for name in wanted if avoid is None or name != avoid.id] or wanted or list(job.machines)
        events = self._own / f"events-{len(self._submitted)}.jsonl"
        submitted = self._submit(
            _run,
            job,
            self._own,
            events,
            exclude=",".join(name for name, *_ in nodes if wanted and name not in wanted) or None,
            exclusive=True,
            gpus_per_node=1 if job.on_gpu else None,
            additional_parameters={"mem": 0},
        )
        self._running.append(_Running(job, submitted, events))

    def told(self, wait_s: float) -> Iterator[Told]:
        until = time.monotonic() + wait_s
        while True:
            found = [told for each in self._running.copy() for told in self._news_of(each)]
            yield from found
            if found or time.monotonic() >= until:
                return
            time.sleep(min(_POLL_S, wait_s))

    def close(self) -> None:
        """Slurm ends the jobs, each of which ends its pytest."""
        self._running = []
        try:
            self._cancel(self._submitted)
            self._await(self._submitted, time.monotonic() + _END_S)  # they write into the folder
        finally:
            shutil.rmtree(self._own, ignore_errors=True)

    def _news_of(self, running: _Running) -> Iterator[Told]:
        self._look_at_queue()
        for event in running.news():
            running.machine = Machine(*event.pop("machine"))
            if "end" in event:
                self._running.remove(running)
            yield Told(running.job, event, running.machine)
        is_over = running.over_since is not None and time.monotonic() > running.over_since + _ARRIVAL_S
        if is_over and running in self._running:
            self._running.remove(running)
            self._cancel([running.submitted])  # its second copy must not run beside it, whatever squeue has told
            yield Told(running.job, {}, running.machine, lost=_last_word(running.submitted))

    def _look_at_queue(self) -> None:
        """Note which jobs are over."""
        now = time.monotonic()
        if now < self._asked_at + _QUEUE_S:
            return
        active = self._active([each.submitted for each in self._running])
        self._asked_at = now
        for each in self._running:
            each.over_since = None if each.submitted.job_id in active else each.over_since or now

    def _cancel(self, submitted: list[submitit.Job[Any]]) -> None:
        if submitted:
            with contextlib.suppress(EngineError):  # of jobs that are over, which it may no longer know
                _told_by("scancel", *(each.job_id for each in submitted))

    def _await(self, submitted: list[submitit.Job[Any]], until: float) -> None:
        """The end of these jobs, or that time by the monotonic clock."""
        while self._active(submitted) and time.monotonic() < until:
            time.sleep(_POLL_S)

    # --- Slurm -------------------------------------------------------------------------------------------------------

    def _submit(self, function: Callable[..., Any], *arguments: Any, **parameters: Any) -> submitit.Job[Any]:
        """Raises EngineError where Slurm refuses the job."""
        import submitit

        defaults = {"job_name": "modelopt", "time": _TIME_MIN, "nodes": 1, "ntasks_per_node": 1, "use_srun": False}
        more = {"no-requeue": True, "chdir": self._own}  # a job that is lost runs again without what it has told
        more |= parameters.pop("additional_parameters", {})

        def submit() -> submitit.Job[Any]:
            try:
                with warnings.catch_warnings(), _without(_NOT_OURS):  # a run may make errors of warnings
                    warnings.simplefilter("ignore")
                    executor = submitit.SlurmExecutor(self._own / "jobs")
                    executor.update_parameters(**defaults | parameters, additional_parameters=more)
                    return executor.submit(function, *arguments)
            except (RuntimeError, OSError) as error:
                raise EngineError(f"Slurm refuses a job: {_first_line(error)}") from None

        self._submitted.append(_patiently(submit))
        return self._submitted[-1]

    def _require_answer(self) -> None:
        if not any(_runs_jobs(state) for _, state, *_ in self._nodes()):
            raise EngineError(
                "no node of the Slurm partition is up: look at `sinfo`, or name another by SBATCH_PARTITION"
            )

    def _nodes(self) -> list[tuple[str, ...]]:
        """Those of the partition: name, state, and what there is of it. Raises EngineError."""
        named = [name.strip() for name in os.environ.get("SBATCH_PARTITION", "").split(",")]
        rows = [line.strip().split("|") for line in _told_by("sinfo", "-N", "-h", "-o", _KIND).splitlines()]
        found = {
            name: (name, state, *kind)
            for name, partition, state, *kind in rows
            if (partition.rstrip("*") in named if any(named) else partition.endswith("*"))
        }
        return list(found.values())

    def _active(self, submitted: list[submitit.Job[Any]]) -> set[str]:
        """Ids of the jobs that wait or run; all of them where Slurm's controller does not answer just now."""
        ids = {each.job_id for each in submitted}
        if not ids:
            return ids
        try:
            return ids.intersection(_told_by("squeue", "--me", "-h", "-o", "%i").split())
        except EngineError:
            return ids


def _runs_jobs(state: str) -> bool:
    return state.startswith(_USABLE) and not state.endswith("*")  # which does not answer


_T = TypeVar("_T")


def _patiently(ask: Callable[[], _T]) -> _T:
    """The answer, once the controller gives one. Raises EngineError."""
    until = time.monotonic() + _OUTAGE_S
    while True:
        try:
            return ask()
        except EngineError as error:
            if time.monotonic() > until or not _OUTAGE.search(str(error)):
                raise
        time.sleep(1)


@contextlib.contextmanager
def _without(beginnings: tuple[str, ...]) -> Iterator[None]:
    """This process's environment without variables whose names begin so."""
    gone = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(beginnings)}
    try:
        yield
    finally:
        os.environ.update(gone)


def _told_by(*command: str) -> str:
    """The output, whatever the user's own settings leave out (`SQUEUE_STATES`). Raises EngineError."""
    filters = ("SINFO_", "SQUEUE_", "SCONTROL_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(filters)}
    try:
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=_COMMAND_S)
    except FileNotFoundError:
        raise EngineError(
            f"there is no Slurm here: `{command[0]}` was not found; call this where jobs are submitted"
        ) from None
    except subprocess.TimeoutExpired:
        raise EngineError(f"Slurm does not answer: `{command[0]}` took more than {_COMMAND_S:.0f} s") from None
    if told.returncode:
        raise EngineError(f"`{command[0]}` failed: {told.stderr.strip() or f'status {told.returncode}'}")
    return told.stdout


def _provide(file: Path, target: Path) -> None:
    """A link where that is one file system: weights may be large."""
    if target.exists():
        return
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _last_word(submitted: submitit.Job[Any]) -> str:
    """Say what became of a job: its state and Slurm's reason, or the last line that a failed one printed."""
    try:
        told = _told_by("scontrol", "show", "job", "-o", submitted.job_id)
    except EngineError:
        return f"job {submitted.job_id} of Slurm is gone"
    fields = dict(each.partition("=")[::2] for each in told.split())
    state = fields.get("JobState", "?")
    printed = (submitted.stderr() or "").split("\n") if state == "FAILED" else []
    last = next((line for line in reversed(printed) if line.strip()), fields.get("Reason", "?"))
    return f"job {submitted.job_id} of Slurm: {state}, {''.join(filter(str.isprintable, last))[:_LINE]}"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "without a reason")


# --- on the machine of a job -----------------------------------------------------------------------------------------


def _run(job: Job, shared: Path, events: Path) -> None:
    """In submitit's process: the job, in a copy of the project. Each event is a line of the file `events`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # submitit's own handler goes on
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    with tempfile.TemporaryDirectory(prefix="pytest-modelopt-project-") as copy, events.open("a") as told:
        root = Path(copy)
        shutil.copytree(shared / _PROJECT, root, dirs_exist_ok=True)
        if (root / MANIFEST).exists():
            place(root, lambda digest: (shared / _LARGE / digest).read_bytes())
        with contextlib.closing(run_job(job, root)) as running:
            for event in running:
                told.write(json.dumps({**event, "machine": (name, name)}) + "\n")
                told.flush()
                os.fsync(told.fileno())  # else other machines may see it half a minute later
