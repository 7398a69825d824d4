"""`pytest-modelopt`: choose recipes, write, check and update budgets, tell a record, see what a machine can judge."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from pytest_modelopt import __version__
from pytest_modelopt.cli import (
    comment,
    explore,
    export,
    history,
    init,
    lock,
    merge,
    recipes,
    report,
    schema,
    selftest,
    update,
    validate,
)
from pytest_modelopt.cli.shared.exit_codes import INTERRUPTED, PASSED, RED, WRONG_INPUT
from pytest_modelopt.cli.shared.printing import tell
from pytest_modelopt.measuring.controller.termination import sigterm_as_ctrl_c

__all__ = ["PASSED", "RED", "WRONG_INPUT", "main"]

_COMMANDS = (
    init,
    explore,
    validate,
    recipes,
    schema,
    report,
    history,
    selftest,
    update,
    export,
    merge,
    lock,
    comment,
)
"""In the order in which `--help` lists them."""

_LINE_LENGTH = 300


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Its exit status: 0, 1 where the record is red, 2 for wrong input, 130 after Ctrl-C or SIGTERM."""
    options = parser().parse_args(arguments)
    options.arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with sigterm_as_ctrl_c():
            if not options.in_project and getattr(options, "budgets", None) is None:
                return status_of(options)
            from pytest_modelopt.plugin.configured import run_in_project

            status = run_in_project(options, status_of)
            return WRONG_INPUT if status is None else status
    except KeyboardInterrupt:
        tell("interrupted", sys.stderr)
        return INTERRUPTED


def status_of(options: argparse.Namespace) -> int:
    """Run the command that was parsed into `options`; what is wrong is told on standard error."""
    try:
        status: int = options.run(options)
    except ValueError as error:  # already in words
        tell(_error_text(error), sys.stderr)
        return WRONG_INPUT
    except BrokenPipeError:  # who reads the output has seen enough, as `head`; what is left of it goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED
    except OSError as error:
        from pytest_modelopt.reporting.addresses import with_address

        told = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        tell(with_address(told, "usage-file"), sys.stderr)
        return WRONG_INPUT
    return status


def _error_text(error: ValueError) -> str:
    """What is wrong with a record is one line, however long the text is that is wrong, and whatever it holds."""
    from pytest_modelopt.config.problems import BudgetsError
    from pytest_modelopt.optimizing.recipe import RecipeError
    from pytest_modelopt.reporting.addresses import see, with_address
    from pytest_modelopt.reporting.plain_text import plain_line
    from pytest_modelopt.results.json import RecordError

    if isinstance(error, BudgetsError):
        return with_address(str(error), "usage-budgets")
    if isinstance(error, RecipeError):
        return with_address(str(error), "usage-recipe")
    if isinstance(error, RecordError):
        line, address = plain_line(str(error)), f" ({see('usage-record')})"
        if len(line) > _LINE_LENGTH:
            return f"{line[: _LINE_LENGTH - 3]}..."
        # What is wrong goes before where to read of it.
        return line + address if len(line + address) <= _LINE_LENGTH else line
    return with_address(str(error), "usage-command")


class _Parser(argparse.ArgumentParser):
    """Names of files and titles may be a stranger's, too."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        if message:
            tell(message.removesuffix("\n"), sys.stderr)
        sys.exit(status)


def parser() -> argparse.ArgumentParser:
    """Of the whole command line: `parse_args` knows which command's `run` is meant."""
    made = _Parser(prog="pytest-modelopt", description=__doc__)
    made.add_argument("--version", action="version", version=f"pytest-modelopt {__version__}")
    made.set_defaults(in_project=False)  # what a command changes that needs the project's recipes, plugins and paths
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands)
    return made
