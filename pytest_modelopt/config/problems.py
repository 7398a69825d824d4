"""What is wrong with a budgets file or a marker, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class BudgetsError(ValueError):
    """Everything that is wrong with a budgets file or a marker."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        files = ", ".join(dict.fromkeys(problem.file for problem in self.problems))
        head = f"{count} problem{'' if count == 1 else 's'} in {files}:"
        super().__init__("\n".join([head, *map(str, self.problems)]))

    def __reduce__(self) -> tuple[type[BudgetsError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)
