"""Where a model, its data or a function comes from: a name to import, a live object, or, of a model, a file."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Carried:
    """A live object of the pytest process, under `key` in the file that `carry` wrote for the worker."""

    key: str


@dataclass(frozen=True)
class ProgramSource:
    """A model as a file, in the format of its runtime."""

    file: str
    """In a budgets file as it is written, relative to its folder; absolute in a variant."""
    sha256: tuple[tuple[str, str], ...] = ()
    """What each of its files must have, by its path from the folder of the named one, in hexadecimal; the name '' is
    the named file, where nothing else was said. Empty where nothing was."""
    inputs: tuple[tuple[str, int | str], ...] = ()
    """Inputs of the file, each with the argument of the model's call that it gets: a position or a keyword."""

    def within(self, folder: Path) -> ProgramSource:
        """The same with an absolute path, where this one starts from `folder`."""
        return replace(self, file=os.path.normpath(folder / self.file))


Source = str | Carried
"""`package.module:function`, called without arguments in the worker, or a live object that was carried there."""
