"""Addresses on the web: the repository, the documentation, and the explanation of each message that has a code."""

from __future__ import annotations

from typing import Literal

REPOSITORY = "https://github.com/pytest-modelopt/pytest-modelopt"
"""Of the project, until it has another. pyproject.toml and README.md repeat it, as tests hold."""
DOCUMENTATION = "https://pytest-modelopt.readthedocs.io/en/latest/"
TROUBLESHOOTING = f"{DOCUMENTATION}troubleshooting/"
"""A page with a heading for each code: of verdicts (`Reason.code`), of findings (`Finding.rule`), of cases in error
(`error-` and the stage) and of usage errors."""

UsageCode = Literal[
    "usage-budgets",
    "usage-recipe",
    "usage-option",
    "usage-base",
    "usage-record",
    "usage-output",
    "usage-fleet",
    "usage-case",
    "usage-nothing",
    "usage-command",
    "usage-file",
]
"""By what is wrong: a budgets file or marker, a recipe, an option, the base, a record, a file that is to be written,
the name of a case; or there is nothing to measure, a command cannot do what it is asked for, or a file that it is given
cannot be read."""


def with_address(text: str, code: UsageCode) -> str:
    """The text of a usage error, and on a line of its own where it is explained."""
    return f"{text}\n{see(code)}"


def see(code: str) -> str:
    """Where the message with that code is explained."""
    return f"see {TROUBLESHOOTING}#{code}"
