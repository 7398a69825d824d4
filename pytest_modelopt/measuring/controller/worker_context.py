"""What measuring a variant works with: its worker and figures, a private folder, limits on steps, and progress."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from pytest_modelopt.measuring.controller.process import Worker, WorkerFailed
from pytest_modelopt.measuring.controller.timing import host_lock
from pytest_modelopt.measuring.protocol import Answers, Examples, Loaded, Sample
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.results.answers import Interval
from pytest_modelopt.results.case import CaseError, Stage
from pytest_modelopt.results.files.locked_folders import HeldFolder, clear_abandoned, hold
from pytest_modelopt.results.measurement import Measurement


class Progress(Protocol):
    """Told what is being done, so that it can be shown."""

    def step(self, case: str, text: str) -> None:
        """A step of `case` begins."""

    def beat(self, detail: str = "") -> None:
        """The step goes on; `detail` says how far it is."""


@dataclass(frozen=True)
class StepLimits:
    """`time_limit_s` of timing per comparison; `step_limit_s` for any other single request to a worker; `bisect_s` to
    look for the layers through which a limit on answers breaks, 0 for not at all."""

    time_limit_s: float
    step_limit_s: float
    bisect_s: float = 0.0


@dataclass(frozen=True)
class Saved:
    """Files of a variant: the inputs of the measured call, and the optimized model, where it can be saved."""

    inputs: Path
    model: Path | None
    answer: Sample
    """Of the first launch."""

    def remove(self) -> None:
        for file in (self.inputs, self.model):
            if file is not None:
                file.unlink(missing_ok=True)


@dataclass
class Measured:
    """One variant as far as it got: its worker (None once closed), its figures, or the error that ended it."""

    variant: Variant
    worker: Worker | None = None
    loaded: Loaded | None = None
    measurement: Measurement | None = None
    answers: Answers | None = None
    error: CaseError | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    saved: Saved | None = None
    """What further launches start from, once there was one."""
    examples: Examples | None = None
    """The evaluation data of its model, once it was read."""
    files: list[Path] = field(default_factory=list)
    """Removed with it."""
    inputs: dict[str, Path] = field(default_factory=dict)
    """Inputs of the measured call, by operating point, as another variant or an earlier worker has saved them; those of
    other points are its own."""
    scored_by: Measured | None = None
    """The variant of head whose metric scores it, where that is the project's own code; None: its own."""
    left: tuple[str, ...] = ()
    """Command lines of what its workers left running when they were ended."""
    is_mixed: bool = False
    """It belongs to another revision, but ran modules of head."""
    outputs: Path | None = None
    """Of the original, under an unlabelled metric: what it answered, which variants are compared with."""
    whole: Measurement | None = None
    """All that was found where it was measured first: at another operating point only the call is measured anew."""
    intervals: dict[Variant, Interval | str] = field(default_factory=dict)
    """Of its drop from another variant, or why there is none: the worker that scored it may have ended since."""

    def elsewhere(self, variant: Variant) -> Measured:
        """The same at another operating point, where its call is not measured yet."""
        return replace(
            self, variant=variant, worker=None, measurement=None, error=None, seconds={}, saved=None, left=()
        )

    def needed_files(self) -> list[Path]:
        """What it has written and further steps read. None of one in error."""
        if self.error is not None:
            return []
        read = self.examples
        of_examples = [read.path, read.hashes_path, read.call_path] if read is not None else []
        of_saved = [self.saved.inputs, self.saved.model] if self.saved is not None else []
        found = (*of_examples, *of_saved, self.outputs, *self.inputs.values())
        return [Path(file) for file in found if file]


class Failed(Exception):
    """Ends the measuring of one variant."""

    def __init__(self, error: CaseError) -> None:
        super().__init__(error.message)
        self.error = error


class WorkerContext:
    """Starts workers and puts requests to them; `close` removes the folder."""

    def __init__(self, limits: StepLimits, progress: Progress) -> None:
        self.limits = limits
        self.progress = progress
        self._folder: HeldFolder | None = None
        self._workers_started = self._files_named = 0
        self._waited_s = 0.0

    @property
    def folder(self) -> Path:
        """Private to this user, and made anew where something has removed it."""
        if self._folder is None or not self._folder.path.is_dir():
            tempfile.tempdir = None  # that may have gone, too
            self.close()
            self._folder = hold()
        return self._folder.path

    def has_lost(self, files: Iterable[Path | None]) -> bool:
        """Whether one of these files that were written has gone."""
        return any(file is not None and not file.exists() for file in files)

    def new_file(self, purpose: str) -> Path:
        """A path of its own in a folder that only this user can read and that is gone after `close`."""
        self._files_named += 1
        return self.folder / f"{purpose}-{self._files_named}.pt"

    def new_worker(self, variant: Variant) -> Worker:
        """Raises WorkerFailed where none can be started."""
        self._workers_started += 1
        try:
            folder = self.folder
        except OSError as error:
            raise WorkerFailed(
                f"no temporary folder can be made for a worker: {error}; set `TMPDIR` to a folder that can be written",
                "",
            ) from None
        return Worker(variant, folder, f"worker-{self._workers_started}")

    def start(self, measured: Measured) -> None:
        """Give it a fresh worker, in which nothing is loaded yet."""
        try:
            measured.worker = self.new_worker(measured.variant)
        except WorkerFailed as failed:
            raise Failed(CaseError("start", failed.message, failed.output)) from None

    def end(self, measured: Measured) -> None:
        """End its worker; what that left running is told with its figures, where they are still to come."""
        if measured.worker is not None:
            measured.left += measured.worker.close()
            measured.worker = None

    def discard(self, measured: Measured) -> None:
        """End its worker and remove its files: it is not measured any more."""
        self.end(measured)
        if measured.saved is not None:
            measured.saved.remove()
            measured.saved = None
        for file in measured.files:
            file.unlink(missing_ok=True)
        if measured.outputs is not None:
            measured.outputs.unlink(missing_ok=True)
            measured.outputs = None

    def request(self, worker: Worker | None, operation: str, limit_s: float | None = None, **arguments: Any) -> Any:
        """The worker's answer, by default within the limit of a step, which begins while nothing is timed on this
        machine. Raises WorkerFailed."""
        assert worker is not None
        try:
            with host_lock.shared(host_lock.lock_file(), host_lock.WAIT_LIMIT_S, self._waiting) as waited_s:
                self._waited_s += waited_s
                limit_s = self.limits.step_limit_s if limit_s is None else limit_s
                return worker.request(operation, limit_s=limit_s, heartbeat=lambda: self.progress.beat(), **arguments)
        except host_lock.LockUnavailable as error:
            raise WorkerFailed(str(error), "") from None

    def _waiting(self, seconds: float) -> None:
        self.progress.beat(f"waiting {seconds:.0f} s for a timing on this machine")

    def ask(
        self, measured: Measured, name: str, operation: str, text: str, stage: Stage | None = None, **arguments: Any
    ) -> Any:
        """A step of case `name`: shown as `text`, timed, and the end of the variant where it fails (`Failed`)."""
        self.progress.step(name, text)
        start, waited_before = time.monotonic(), self._waited_s
        try:
            return self.request(measured.worker, operation, **arguments)
        except WorkerFailed as failed:
            where: Any = stage or operation
            raise Failed(CaseError(where, failed.message, failed.output)) from None
        finally:
            spent = time.monotonic() - start - (self._waited_s - waited_before)
            measured.seconds[operation] = measured.seconds.get(operation, 0.0) + spent

    def close(self) -> None:
        """Remove the folder, and what workers that were ended have left. May be called twice."""
        if self._folder is not None:
            self._folder.remove()
        clear_abandoned()
