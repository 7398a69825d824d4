"""Reports from the first line to the last, as they were read and found good, and those of records that are drawn."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_modelopt.cli.shared.judged_records import read_judged
from pytest_modelopt.reporting import page as html
from pytest_modelopt.reporting.addresses import TROUBLESHOOTING
from pytest_modelopt.reporting.markdown import render
from pytest_modelopt.reporting.sentences import EXPLAINED
from pytest_modelopt.reporting.terminal import lines
from pytest_modelopt.results.run_outcome import record_is_red
from tests.reporting.whole_reports import FOLDER, REPORTS

RECORDS = sorted((Path(__file__).parents[2] / "benchmarks/records").glob("*.json"))


@pytest.mark.parametrize("name", REPORTS)
def test_a_whole_report_reads_as_it_did(name: str) -> None:
    """After a change that is meant: `python -m tests.reporting.whole_reports`, and read what has changed."""
    assert REPORTS[name]() == (FOLDER / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_what_is_broken_by_how_much_and_what_to_do_stand_above_the_tables(path: Path) -> None:
    """Of records of real runs, in 80 columns and as a comment, before anything is opened or scrolled."""
    record = read_judged(path)
    assert record_is_red(record) == (path.stem != "green")
    texts = [text for text, _ in lines(record, 80)]
    assert max(map(len, texts)) <= 80
    table = next(index for index, text in enumerate(texts) if text.startswith("  verdict"))
    above = texts[:table]
    markdown = render(record).partition("\n### ")[0]
    assert above[0].startswith("modelopt: passed. " if path.stem == "green" else "modelopt: FAILED. ")
    red = [index for index, text in enumerate(above) if text.startswith(("FAIL ", "ERROR "))]
    assert len(red) == markdown.count("**FAIL** ") + markdown.count("**ERROR** ")
    assert bool(red) == record_is_red(record)
    for index in red:
        assert any(text.startswith("     ") for text in above[index + 1 :]), "a thing to do"
    links = re.findall(rf"\[([a-z0-9-]+)\]\({re.escape(TROUBLESHOOTING)}#\1\)", markdown)
    assert bool(links) == bool(red)
    assert set(links) <= EXPLAINED
    assert html.render(record).count(f'<a href="{TROUBLESHOOTING}#') == len(red)
