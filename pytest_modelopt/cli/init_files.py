"""Files of optimized models that a project has already, which `init` tries as candidates."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from pytest_modelopt.config.candidate_checks import wrong_name
from pytest_modelopt.config.candidate_schema import SUFFIXES, parse_file
from pytest_modelopt.limits.spelling import plain

FOLDER = "dist"
_MOST = 12
"""Each is measured as a recipe is; so many were hardly made for one model."""


@dataclass(frozen=True)
class Found:
    """(name, path from the folder of the budgets file) of the files to try, and (path, why) of the others."""

    files: tuple[tuple[str, str], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


def find(root: Path) -> Found:
    """The files below `dist` with a suffix that can be measured. None is loaded: a worker does that, and never what is
    a pickle and no program, or native code that nobody has named."""
    files: list[tuple[str, str]] = []
    left_out: list[tuple[str, str]] = []
    root = root.absolute()
    below = sorted((root / FOLDER).rglob("*"))
    for file in (each for each in below if each.suffix in SUFFIXES and each.is_file()):
        path = file.relative_to(root).as_posix()
        name = file.relative_to(root / FOLDER).as_posix().replace("/", "-")
        why = _unfit(path) or wrong_name(name)
        if not file.resolve().is_relative_to(root.resolve()):
            why = "it is a link to a file outside of the project"
        elif not why and name in dict(files):
            why = f"another file is called {name}, too; name it below `candidates:` yourself"
        elif not why and _is_native_code(file):
            why = "it holds native code, which is run only where a budgets file names it"
        elif not why and len(files) == _MOST:
            why = f"there are more than {_MOST} files; name it below `candidates:` yourself"
        if why:
            left_out.append((plain(path), why))
        else:
            files.append((name, path))
    return Found(tuple(files), tuple(left_out))


def _is_native_code(file: Path) -> bool:
    """A package of AOTInductor, by the names in its archive."""
    if file.suffix != ".pt2" or not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any("data/aotinductor/" in name for name in archive.namelist())


def _unfit(path: str) -> str:
    try:
        parse_file(path)
    except ValueError as error:
        return str(error)
    return ""
