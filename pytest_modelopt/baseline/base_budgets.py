"""The base's own budgets file: where its configuration has it, whatever head calls its own."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pytest_modelopt.baseline.base_tree import BaseTree
from pytest_modelopt.config.loader import load_budgets
from pytest_modelopt.config.problems import BudgetsError

_MOVED_LOOKED_AT, _NAMES_SHOWN, _HASH_SHOWN = 50, 5, 12
_CONFIGURATIONS = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
"""The files that pytest reads, the first that configures it counts."""
_STATED = re.compile(
    r"""^\s*modelopt_budgets\s*=\s*["']?(?P<key>[^"'\n]+?)["']?\s*$"""
    r"""|^[^#\n]*--modelopt-budgets["',=\s]+(?P<option>[^\s"',]+)""",
    re.MULTILINE,
)
_DEFAULT = "budgets.yaml"


@dataclass(frozen=True)
class Found:
    """The base's budgets file, if any, and what should be known about the choice."""

    file: Path | None
    note: str = ""
    unknown: str = ""
    """Why nobody can say which file it was; '' where there is one, or none at all."""


def find_budgets(tree: BaseTree, budgets: Path, root: Path | None) -> Found:
    """What `budgets`, head's file, was at the base.

    `root`: head's root folder, where the file is a matter of configuration, which a change may edit; None where it was
    named on the command line, and so is the same path on both sides.
    """
    same = tree.mapped(budgets)
    configured = None if root is None else _configured(tree.mapped(root))
    if configured is not None and configured.resolve() != same.resolve():
        return Found(configured, _format_moved(tree, configured, budgets))
    if same.is_file():
        return Found(same)
    moved = _moved(tree)
    if len(moved) == 1:
        return Found(moved[0], _format_moved(tree, moved[0], budgets))
    names = ", ".join(file.relative_to(tree.folder).as_posix() for file in moved[:_NAMES_SHOWN])
    why = (
        f"{len(moved)} budgets files of {_base(tree)} are not in head ({names}), and it is not known which one this was"
    )
    return Found(None, unknown=why if moved else "")


def _configured(root: Path) -> Path | None:
    """The budgets file by the configuration in the base's root folder; None where there is no such file."""
    for name in _CONFIGURATIONS:
        try:
            stated = _STATED.search((root / name).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if stated is not None:
            file = root / (stated["key"] or stated["option"]).strip()
            return file if file.is_file() else None
    file = root / _DEFAULT
    return file if file.is_file() else None


def _moved(tree: BaseTree) -> list[Path]:
    """Budgets files that the base has and head has not."""
    gone = [
        tree.folder / path
        for path in tree.changed
        if path.endswith((".yaml", ".yml")) and not (tree.repository / path).exists()
    ]
    return [file for file in gone[:_MOVED_LOOKED_AT] if file.is_file() and _is_budgets(file, tree)]


def _is_budgets(file: Path, tree: BaseTree) -> bool:
    try:
        load_budgets(file, relative_to=tree.folder, expired="keep")
    except (BudgetsError, OSError):
        return False
    return True


def _format_moved(tree: BaseTree, file: Path, budgets: Path) -> str:
    was, now = os.path.relpath(file, tree.folder), os.path.relpath(budgets, tree.repository)
    return f"the budgets file was {was} at {_base(tree)}, and is {now} now"


def _base(tree: BaseTree) -> str:
    return tree.commit[:_HASH_SHOWN]
