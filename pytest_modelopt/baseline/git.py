"""Runs of git: by argument lists, without a shell, without hooks, and without what a hook's environment says."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_modelopt import system

_LIMIT_S = 300.0
_ENDS_WITHIN_S = 5.0
_LINES_SHOWN, _CHARACTERS_SHOWN = 3, 300
_OF_THE_USER = frozenset({"GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"})
"""Settings, such as `safe.directory` in a container: git, too, keeps these from repository to repository."""
_SETTINGS = (
    f"core.hooksPath={os.devnull}",
    "core.fsmonitor=false",  # may be a program of the repository
    "worktree.useRelativePaths=false",  # would add an extension to .git/config
)
_WITHOUT_LFS = ("filter.lfs.process=", "filter.lfs.required=false")  # `process` stands above `smudge` and `clean`
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "LANGUAGE": "en",  # not LC_ALL, which the user's filters would inherit
}


class TreeError(ValueError):
    """Why there is no tree of the base: one sentence with what to do."""


@dataclass(frozen=True)
class Answer:
    """What git said."""

    status: int
    output: bytes
    error: str

    @property
    def is_ok(self) -> bool:
        return self.status == 0

    @property
    def line(self) -> str:
        """The output without the newline at its end; a path may hold others."""
        return os.fsdecode(self.output.removesuffix(b"\n"))

    @property
    def items(self) -> list[bytes]:
        """Of output that `-z` has ended item by item."""
        return [item for item in self.output.split(b"\0") if item]

    @property
    def why(self) -> str:
        """The end of what git complained of, on one line."""
        text = "; ".join(line.strip() for line in self.error.splitlines()[-_LINES_SHOWN:])
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)[-_CHARACTERS_SHOWN:]


def ask(
    folder: Path,
    *arguments: str,
    settings: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    limit_s: float = _LIMIT_S,
) -> Answer:
    """Run git in `folder`. `settings` are 'name=value' for this call alone; `environment` is added to the process's.

    A call that takes longer than `limit_s` seconds is ended with all that it started, and its status is not 0.

    Raises:
        TreeError: git is not installed.
    """
    names = [argument for setting in (*_SETTINGS, *settings) for argument in ("-c", setting)]
    told = _without_hooks_variables() | _ENVIRONMENT | dict(environment or {})
    try:
        return run(["git", "-C", str(folder), *names, *arguments], told, limit_s)
    except FileNotFoundError:
        raise TreeError("git is not installed (or not on PATH), and only git knows the base: install it") from None


def ask_with_filters(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, limit_s: float = _LIMIT_S
) -> Answer:
    """As `ask`, for what reads or writes the working tree. Filters run as the user has set them up; where that fails,
    once more without Git LFS, which may be not installed, or have no network: its pointers then stand for themselves.
    """
    answer = ask(folder, *arguments, environment=environment, limit_s=limit_s)
    if answer.is_ok:
        return answer
    return ask(folder, *arguments, settings=_WITHOUT_LFS, environment=environment, limit_s=limit_s)


def _without_hooks_variables() -> dict[str, str]:
    """The environment without GIT_DIR, GIT_INDEX_FILE and the like, which name the repository that a hook runs for."""
    return {name: value for name, value in os.environ.items() if name not in _local_variables()}


@functools.cache
def _local_variables() -> frozenset[str]:
    answer = run(["git", "rev-parse", "--local-env-vars"], dict(os.environ), _LIMIT_S)
    return frozenset(os.fsdecode(answer.output).split()) - _OF_THE_USER


def run(command: list[str], environment: dict[str, str], limit_s: float, folder: Path | None = None) -> Answer:
    """Run a program in `folder`, and end it with all that it started where that takes longer than `limit_s` seconds.

    Raises:
        FileNotFoundError: there is no such program.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that filters, which git starts, end with it; nor can they ask at the terminal
    )
    try:
        output, error = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        _end(process)
        return Answer(-1, b"", f"{command[0]} did not finish within {limit_s:g} s")
    except BaseException:
        _end(process)
        raise
    return Answer(process.returncode, output, error.decode(errors="replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it started. Its pipes are closed unread: whoever left its session may hold them open."""
    for how in (signal.SIGTERM, system.KILL):  # asked to end, it takes its lock files along
        with contextlib.suppress(ProcessLookupError, PermissionError):
            system.end_group(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_ENDS_WITHIN_S)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
