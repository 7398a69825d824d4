"""One more file of the report, or one more format: a module of its own, and no other file is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest_modelopt
from pytest_modelopt.results import json as record_json
from tests.reporting.records_by_hand import realistic

FILE = '''
"""The outcome of each case, as comma-separated values."""

from pytest_modelopt.results.outcome import case_outcome
from pytest_modelopt.results.record import Record

NAME = "outcomes.csv"


def render(record: Record) -> str:
    return "".join(f"{case.name},{case_outcome(case, record.strict)}\\n" for case in record.cases)
'''
WRITE = """
from pathlib import Path
from pytest_modelopt.reporting.files import write_report
from pytest_modelopt.results.json import read
write_report(read(Path("record.json")), Path("report"))
from pytest_modelopt.reporting import formats
assert "outcomes-csv" in formats.names()
print(formats.render("outcomes-csv", read(Path("record.json"))), end="")
"""


def test_a_module_in_its_folder_is_a_file_of_every_report(tmp_path: Path) -> None:
    copy = tmp_path / "ours" / "pytest_modelopt"
    shutil.copytree(Path(pytest_modelopt.__file__).parent, copy)
    (copy / "reporting" / "files" / "outcomes.py").write_text(FILE, encoding="utf-8")
    shutil.copy(copy / "reporting" / "files" / "outcomes.py", copy / "reporting" / "formats" / "outcomes_csv.py")
    record_json.write(realistic(), tmp_path / "record.json")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(copy.parent), *sys.path])}
    run = subprocess.run([sys.executable, "-c", WRITE], cwd=tmp_path, env=environment, check=True, capture_output=True)
    names = [file.name for file in (tmp_path / "report").iterdir()]
    assert sorted(names) == ["metrics.txt", "outcomes.csv", "record.json", "summary.md"]
    written = (tmp_path / "report" / "outcomes.csv").read_text(encoding="utf-8")
    assert written.splitlines()[0] == "digits-vit/int8-dynamic,fail"
    assert run.stdout.decode() == written
