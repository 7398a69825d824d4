"""Records as commands read them: nothing that one says of its own verdicts is believed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_modelopt.results.record import Record

RECORD = Path("modelopt-report/record.json")
"""Of the last run, where none is named."""


def read_judged(path: Path) -> Record:
    """The record in the file `path`, with its verdicts and findings made anew from its figures.

    Raises:
        RecordError: for a record that is refused: it is none, or its figures or limits contradict each other.
        OSError: if the file cannot be read.
    """
    from pytest_modelopt.results.json import read

    record = read(path)
    with figures_of(str(path)):
        return judged_again(record)


def judged_again(record: Record) -> Record:
    """The record with every verdict and finding made from its figures and limits.

    Raises:
        RecordError: for a limit whose value is not what its text says, and for figures that nothing can be made of.
    """
    from pytest_modelopt.config.text_mismatch import misstated
    from pytest_modelopt.diagnosis.examine import examine
    from pytest_modelopt.judging.judge import judge
    from pytest_modelopt.results.json import RecordError

    cases = []
    for index, case in enumerate(record.cases):
        if told := misstated(case):
            raise RecordError(f"cases[{index}] ({case.name}): {told}")
        judged = judge(case, timed_limits=record.timed_limits)
        cases.append(replace(judged, findings=examine(judged, record.machine_of(case))))
    return replace(record, cases=tuple(cases))


@contextmanager
def figures_of(name: str) -> Iterator[None]:
    """While the figures of the record `name` are judged or told.

    Raises:
        RecordError: with that name, also in place of what arithmetic raises for figures that no run measures, such as a
            size of 1e308.
    """
    from pytest_modelopt.results.json import RecordError

    try:
        yield
    except RecordError as error:
        raise RecordError(f"{name}: {error}") from None
    except (ArithmeticError, LookupError, RecursionError) as error:
        raise RecordError(f"{name}: its figures cannot be judged: {str(error) or type(error).__name__}") from None
