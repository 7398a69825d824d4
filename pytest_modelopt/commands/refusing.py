"""Records whose figures nothing can be made of: refused in words, by every command that judges them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def figures_of(record: Path) -> Iterator[None]:
    """While the figures of the file `record` are judged or told.

    Raises:
        ValueError: in place of what arithmetic raises for figures that no run measures, such as a score of 1e308.
    """
    from pytest_modelopt.report.plain import plain_line

    try:
        yield
    except (ArithmeticError, LookupError, RecursionError) as error:
        reason = plain_line(str(error)) or type(error).__name__
        raise ValueError(f"{record}: its figures cannot be judged: {reason}") from None
