"""Whole reports of records made by hand. `python -m tests.reporting.whole_reports` writes them anew, to be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pytest_modelopt.reporting.markdown import render
from pytest_modelopt.reporting.terminal import lines
from pytest_modelopt.results.case import ORIGINAL
from pytest_modelopt.results.record import Record
from tests.reporting.against_by_hand import AGAINST, GREW, LOOSENED, SLOWER, against, pull_request
from tests.reporting.records_by_hand import MIB, case, limit, realistic, record, timing, verdict

FOLDER = Path(__file__).parent / "report_texts"


def green() -> Record:
    bounds = (limit("max_memory", 4 * MIB, "4 MiB"), limit("min_speedup", 1.2, "1.2x"))
    kept = (verdict(bounds[0], "pass", 2 * MIB), verdict(bounds[1], "pass", 1.5))
    return record(case("int8-dynamic", verdicts=kept, timing=timing(400, 3_000_000, 2_000_000)))


def changed() -> Record:
    told = replace(AGAINST, loosened=(LOOSENED,), removed=("digits-vit/bf16",))
    return pull_request(case(), against(ORIGINAL), GREW, against("low-rank(ratio=0.5)", timed=SLOWER), told=told)


def _in_terminal(told: Record) -> str:
    return "".join(f"{text}\n" for text, _ in lines(told, 80))


REPORTS: dict[str, Callable[[], str]] = {
    "run.txt": lambda: _in_terminal(realistic()),
    "run.md": lambda: render(realistic()),
    "green.txt": lambda: _in_terminal(green()),
    "green.md": lambda: render(green()),
    "pull-request.txt": lambda: _in_terminal(changed()),
    "pull-request.md": lambda: render(changed()),
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, made in REPORTS.items():
        (FOLDER / name).write_text(made(), encoding="utf-8")
