"""`pytest-modelopt init --ci`: the workflows of a pull-request check, written into the repository."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest_modelopt
from pytest_modelopt.cli.shared.exit_codes import PASSED
from pytest_modelopt.cli.shared.printing import tell

_TEMPLATES = Path(pytest_modelopt.__file__).with_name("ci")
_WRITTEN = {
    "github": {
        "github/workflows/model-budgets.yml": ".github/workflows/model-budgets.yml",
        "github/workflows/model-budgets-comment.yml": ".github/workflows/model-budgets-comment.yml",
        "github/actions/model-budgets/action.yml": ".github/actions/model-budgets/action.yml",
    },
    "gitlab": {"gitlab/model-budgets.yml": ".gitlab/model-budgets.yml"},
}
_SHARED = {
    "github": ("github/dependabot.yml", ".github/dependabot.yml"),
    "gitlab": ("gitlab/gitlab-ci.yml", ".gitlab-ci.yml"),
}
"""Files that a repository may already have for other purposes: init changes none of them, and prints what to add."""
_PLACEHOLDER = "# TO ADAPT"


class _Ci(argparse.Action):
    """`--ci HOST` makes another command of `init`: nothing is measured, and nothing of the project is imported."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        del parser, option
        vars(namespace).update(ci=values, run=run, in_project=False)


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--ci`."""
    parser.add_argument(
        "--ci",
        action=_Ci,
        choices=sorted(_WRITTEN),
        help="write the workflow of a pull-request check into the repository instead; nothing is overwritten",
    )


def run(options: argparse.Namespace) -> int:
    """Write the files; the exit status is 0.

    Raises:
        ValueError: if a file is there already, or this is no git repository: then nothing is written.
        OSError: if a file cannot be written; those written before are removed.
    """
    if options.factory is not None or options.data is not None:
        raise ValueError("init --ci writes workflows only: state the model in another call, without --ci")
    root = _root()
    shared, place = _SHARED[options.ci]
    files = {root / target: _text(source) for source, target in _WRITTEN[options.ci].items()}
    there = [str(file.relative_to(root)) for file in files if _exists(file)]
    if there:
        raise ValueError(
            f"{', '.join(there)}: already there, and init overwrites nothing, so nothing was written: change them "
            "by hand, or move them away"
        )
    is_left = _exists(root / place)
    if not is_left:
        files[root / place] = _text(shared)
    _write(files)
    for file, text in files.items():
        numbers = [number for number, line in enumerate(text.splitlines(), 1) if _PLACEHOLDER in line]
        adapt = "".join(f"; line {number} says how the project is installed: adapt it" for number in numbers)
        tell(f"{file.relative_to(root)}: written{adapt}")
    if is_left:
        tell(f"{place}: left as it is; it needs\n\n{_text(shared)}")
    if not _exists(root / "budgets.yaml"):
        tell("There is no budgets.yaml in the repository's root: name yours in the workflow.")
    return PASSED


def _root() -> Path:
    from pytest_modelopt.baseline.git import ask

    answer = ask(Path.cwd(), "rev-parse", "--show-toplevel")
    if not answer.is_ok:
        raise ValueError(f"{Path.cwd()} is in no git repository that can be read ({answer.why}): call init --ci in one")
    return Path(answer.line)


def _text(template: str) -> str:
    return (_TEMPLATES / template).read_text(encoding="utf-8")


def _exists(file: Path) -> bool:
    return file.exists() or file.is_symlink()


def _write(files: dict[Path, str]) -> None:
    """All of them or none."""
    written: list[Path] = []
    try:
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as opened:
                written.append(file)
                opened.write(text)
    except BaseException:
        _remove(written)
        raise


def _remove(written: Sequence[Path]) -> None:
    for file in written:
        file.unlink(missing_ok=True)
