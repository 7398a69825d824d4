"""Files that `explore` writes: a record of the finalists, a picture of the front, and the chosen variant."""

from __future__ import annotations

from pathlib import Path

from pytest_modelopt.cli.exploration.explore_gauge import GateGauge
from pytest_modelopt.cli.export import add_to_record, file_name, write_variant
from pytest_modelopt.cli.shared.printing import tell
from pytest_modelopt.exploring import front_svg
from pytest_modelopt.exploring.answer_text import Answer
from pytest_modelopt.exploring.front_points import points
from pytest_modelopt.exploring.front_text import plot_lines
from pytest_modelopt.results.json import write


def keep_record(path: Path, gauge: GateGauge) -> None:
    write(gauge.record(), path)
    tell(f"{path}: the finalists as they were measured anew (`pytest-modelopt report {path}`)")


def plot(record: Path, answer: Answer, model: str) -> None:
    """The front in characters, and as a picture beside the record."""
    found = points(answer.search.trials, answer.confirmed)
    for line in plot_lines(found):
        tell(line)
    if not found:
        return
    if not front_svg.is_installed():
        tell(front_svg.MISSING)
        return
    path = record.with_suffix(".svg")
    try:
        front_svg.draw(found, f"{model}: what explore measured", path)
    except OSError as error:
        tell(f"{path}: {error.strerror}: no picture was written")
        return
    tell(f"{path}: the front over memory, drop and speed")


def export_choice(folder: Path, record: Path, answer: Answer, gauge: GateGauge) -> None:
    """Write the chosen variant as it is shipped, and its sums into the record.

    Raises:
        ValueError: it cannot be written, or is another one now than when it was measured anew.
    """
    won = answer.winner
    if won is None:
        tell("--export: nothing is written, since nothing was chosen and confirmed")
        return
    measured = gauge.record()
    variant, name = gauge.shipped(won.trial.recipe), file_name(gauge.model.name, won.case.recipe)
    sums = write_variant(gauge.session.runner, variant, folder, name, won.case.name, won.case.variant)
    add_to_record(record, measured, won.case.variant, won.case.name, sums)
