"""The cache of earlier explorations, on disk: one file for each recipe, model, data, versions and machine.

The folder is the user's alone. What stands in it is read as any record is: as data that somebody else may have written.
Figures from it choose candidates; what is reported is measured anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelopt import system
from pytest_modelopt.optimizing.expression import Expression
from pytest_modelopt.optimizing.registry import BUILT_IN
from pytest_modelopt.results import json as record_json
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.consistency.contradictions import disagreement
from pytest_modelopt.results.files.atomic_files import write_text
from pytest_modelopt.results.files.locked_folders import release, take
from pytest_modelopt.results.record import Environment, Record

if TYPE_CHECKING:
    from filelock import BaseFileLock

_FORMAT = 1
_NO_DAY = "1970-01-01T00:00:00+00:00"
"""When a case was measured says nothing of it: all that does is in the key."""
_KEYS = ("tool", "model", "data", "work", "machine")


class InUse(ValueError):
    """Another exploration of the model runs."""


def folder_of(project: Path, model: str) -> Path:
    """The folder of a model of a project, in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(f"{project.resolve()}\n{model}".encode()).hexdigest()[:16]
    return cache / "pytest-modelopt" / "explore" / name


@dataclass
class Cache:
    """The measurements of one model. `open` locks it, `close` unlocks it; until `use` nothing is known."""

    folder: Path
    model: str
    """Its name, for messages."""
    key: dict[str, str] = field(default_factory=dict)
    environment: Environment | None = None
    _lock: BaseFileLock | None = None

    def open(self) -> None:
        """Make the folder, which nobody else can read, and lock it.

        Raises:
            InUse: another process explores the model.
            OSError: the folder cannot be made, or belongs to somebody else.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = self.folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != system.user():
            raise PermissionError(13, "this is no folder of this user, so no measurements are kept in it", self.folder)
        self.folder.chmod(0o700)
        self._lock = take(self.folder)
        if self._lock is None:
            raise InUse(
                f"another exploration of {self.model} runs on this machine (it holds {self.folder}.lock): wait until "
                "it has ended, or end it; what it has measured is kept"
            )

    def close(self) -> None:
        if self._lock is not None:
            release(self.folder, self._lock)
            self._lock = None

    def forget(self) -> None:
        """Remove all that was measured of the model. A folder is nothing of ours, and is never read."""
        for file in self._files():
            if file.is_symlink() or not file.is_dir():
                file.unlink(missing_ok=True)

    def use(self, key: dict[str, str], environment: Environment) -> None:
        """Take what belongs to the key (`key_of`) of what is explored now."""
        self.key, self.environment = key, environment

    def get(self, recipe: Expression) -> Case | None:
        """The case as it was measured, without verdicts; None where there is none that can be used."""
        if not self._is_kept(recipe):
            return None
        found = _read(self._file(recipe))
        if found is None or found[0] != self.key:
            return None
        case = found[1]
        return case if case.recipe == recipe.text and self._is_of_the_model(case) else None

    def put(self, recipe: Expression, case: Case) -> None:
        """Keep a case. One that cannot be kept is measured again the next time."""
        if not self._is_kept(recipe):
            return
        try:
            text = packed(case, self.key["tool"], self.environment)
            write_text(json.dumps({"format": _FORMAT, "key": self.key, "record": text}), self._file(recipe))
        except (OSError, record_json.RecordError):
            return

    def beside(self, recipe: Expression, kind: str) -> Path | None:
        """The file for something else that is known of a recipe; None where nothing of it may be kept."""
        if not self._is_kept(recipe):
            return None
        return self.folder / f"{_digest(json.dumps([self.key, recipe.text, kind], sort_keys=True))}.json"

    def write(self, recipe: Expression, kind: str, data: dict[str, Any]) -> None:
        """Keep that. What cannot be kept is measured again the next time."""
        file = self.beside(recipe, kind)
        if file is not None:
            with contextlib.suppress(OSError):
                write_text(json.dumps({"format": kind, "key": self.key, **data}), file)

    @property
    def of_others(self) -> int:
        """The number of measurements in the folder of another model, other data, other versions or another machine."""
        found = (_read(file) for file in self._files())
        return sum(each is not None and each[0] != self.key for each in found)

    def _is_kept(self, recipe: Expression) -> bool:
        """Not where nobody can tell whether the model or the recipe is still the same, or what trains it."""
        is_ours = all(type(step) in BUILT_IN for step in recipe.steps)
        return (
            is_ours
            and not recipe.training
            and bool(self.key.get("model"))
            and self.environment is not None
            and self._lock is not None
        )

    def _is_of_the_model(self, case: Case) -> bool:
        side = case.reference
        seen = side.observations if side is not None else None
        return side is not None and seen is not None and seen.digest == self.key["model"] and case.error is None

    def _file(self, recipe: Expression) -> Path:
        return self.folder / f"{_digest(json.dumps([self.key, recipe.text], sort_keys=True))}.json"

    def _files(self) -> Iterator[Path]:
        yield from sorted(self.folder.glob("*.json"))


def key_of(model: str | None, data: str | None, work: str, tool: str, environment: Environment) -> dict[str, str]:
    """Of a model (by the digest of its bytes), data, way of working, versions and machine: all on which figures depend
    but the recipe."""
    machine = json.dumps(record_json.environment_to_data(environment), sort_keys=True)
    hashed = {"work": _digest(work), "machine": _digest(machine)}
    return {"tool": tool, "model": model or "", "data": data or "", **hashed}


def packed(case: Case, tool: str, environment: Environment | None) -> str:
    """A case as text, without its verdicts: it is judged anew, by the limits of then. Raises RecordError."""
    plain = replace(case, limits=(), verdicts=(), findings=())
    return record_json.dumps(Record(tool, _NO_DAY, 0, False, 0, (case.id,), True, (plain,), environment))


def unpacked(text: str) -> Case | None:
    """The case of such a text; None for one that nobody of us has written."""
    try:
        record = record_json.loads(text)
        agrees = not disagreement(record)
    except (ValueError, ArithmeticError, LookupError, RecursionError):  # figures of no run, too
        return None
    return record.cases[0] if agrees and len(record.cases) == 1 else None


def _read(file: Path) -> tuple[dict[str, str], Case] | None:
    """The key and the case of a file; None for one that nobody of us has written, or of which half is missing."""
    try:
        found = file.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > record_json.MAX_BYTES:
            return None
        data: Any = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("format") != _FORMAT or not isinstance(data.get("record"), str):
            return None
        key = data.get("key")
        if not isinstance(key, dict) or set(key) != set(_KEYS) or not all(type(each) is str for each in key.values()):
            return None
    except (OSError, ValueError, RecursionError):
        return None
    case = unpacked(data["record"])
    return None if case is None else (key, case)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
