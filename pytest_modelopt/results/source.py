"""Where a model, its data or a function comes from: a name to import, a live object, or, of a model, a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Carried:
    """A live object of the pytest process, under `key` in the file that `carry` wrote for the worker."""

    key: str


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Called:
    """A function that is called with arguments by name."""

    name: str
    """`package.module:function`."""
    arguments: str
    """A JSON object, so that equal calls are equal texts."""

    @classmethod
    def of(cls, name: str, arguments: Mapping[str, object]) -> Called:
        """With plain values."""
        return cls(name, json.dumps(dict(arguments), sort_keys=True, ensure_ascii=False))

    @property
    def values(self) -> dict[str, Any]:
        """The arguments."""
        found: dict[str, Any] = json.loads(self.arguments)
        return found

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.values.items())})"


Named = str | Called
"""`package.module:function`, called without arguments in the worker, or with some."""
Source = Named | Carried
"""What is named, or a live object that was carried to the worker."""
