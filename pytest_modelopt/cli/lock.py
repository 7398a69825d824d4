"""`pytest-modelopt lock`: another job of this machine takes part in the lock that keeps timings undisturbed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from pytest_modelopt.cli.shared.printing import tell

if TYPE_CHECKING:
    import argparse

    from pytest_modelopt.cli.shared.arguments import Commands

_DESCRIPTION = """
Run a command while it holds the lock of this machine under which models are timed. --shared is for what may run beside
other work, such as a build: it waits while something is timed, and a timing waits for it. --exclusive is for a
measurement of your own: nothing of pytest-modelopt runs beside it. The exit status is the command's.
"""


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "lock",
        help="run another command so that it and timings do not disturb each other; exit status of the command",
        description=_DESCRIPTION,
        usage="pytest-modelopt lock (--shared | --exclusive) [--wait TIME] -- COMMAND ...",
    )
    from pytest_modelopt.cli.shared.arguments import seconds

    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--shared", action="store_true", help="beside others that share it, and never beside a timing")
    kind.add_argument("--exclusive", action="store_true", help="beside nobody")
    parser.add_argument("--wait", type=seconds, metavar="TIME", help="wait at most so long (default: an hour)")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="behind --, with its arguments")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and give its exit status; 128 and the signal's number where a signal ended it.

    Raises:
        ValueError: where the lock is not to be had within the time.
    """
    from pytest_modelopt.measuring.controller.timing import host_lock

    path, limit_s = host_lock.lock_file(), options.wait or host_lock.WAIT_LIMIT_S
    told: list[float] = []

    def waiting(seconds: float) -> None:
        if not told:
            tell(f"waiting for others on this machine, which hold {path}", sys.stderr)
        told.append(seconds)

    try:
        with (host_lock.shared if options.shared else host_lock.alone)(path, limit_s, waiting):
            status = subprocess.run(options.command, check=False).returncode
    except host_lock.LockUnavailable as error:
        raise ValueError(str(error)) from None
    return status if status >= 0 else 128 - status
