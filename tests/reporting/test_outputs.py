"""What a run leaves behind: written as often as costs little, and never at the price of the run's results."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.plugin.options import Options
from pytest_modelopt.plugin.outputs import Outputs
from pytest_modelopt.reporting.files import report_files
from pytest_modelopt.results import json as record_json
from pytest_modelopt.results.files.atomic_files import require_writable, write_text
from pytest_modelopt.results.json import read
from pytest_modelopt.results.record import Record
from tests.reporting.records_by_hand import case, record, timing

NAMES = [each.NAME for each in report_files()]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As on a disk that is nearly full: writing more than so many bytes to a file is an error of the system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def outputs(folder: Path, clock: _Clock | None = None, save: Path | None = None) -> Outputs:
    options = Options(folder / "budgets.yaml", False, folder / "report", False, None, None, save=save)
    return Outputs(options, None, clock) if clock else Outputs(options, None)


CASES = tuple(case(f"prune-unstructured(ratio=0.{number:03})", timing=timing(20)) for number in range(200))


def of_cases(count: int, total: int = 200) -> Record:
    return record(*CASES[:count], planned=tuple(each.id for each in CASES[count:total]), complete=count == total)


class _Clock:
    """Seconds of measuring, and those that writing the report took: ten millionths for each byte."""

    def __init__(self, folder: Path) -> None:
        self.measuring = 0.0
        self.bytes = self.writes = 0
        self._files = [folder / "report" / name for name in NAMES]
        self._seen: dict[Path, int] = {}

    def __call__(self) -> float:
        for file in self._files:
            if file.exists() and file.stat().st_mtime_ns != self._seen.get(file):
                self._seen[file] = file.stat().st_mtime_ns
                self.bytes += file.stat().st_size
                self.writes += file.name == "record.json"
        return self.measuring + self.bytes / 1e5

    @property
    def final_bytes(self) -> int:
        return sum(file.stat().st_size for file in self._files)


@pytest.mark.parametrize("cases", [50, 100, 200])
def test_what_is_written_grows_with_the_cases_and_not_with_their_square(tmp_path: Path, cases: int) -> None:
    """A case takes a second, and so does writing sixteen of them."""
    clock = _Clock(tmp_path)
    written = outputs(tmp_path, clock)
    for count in range(cases):
        written.update(partial(of_cases, count, cases))
        clock.measuring += 1
    written.finish(of_cases(cases, cases))
    clock()
    assert clock.bytes < 8 * clock.final_bytes
    assert clock.writes < 25
    assert read(tmp_path / "report" / "record.json") == of_cases(cases, cases)


def test_what_a_killed_run_loses_was_measured_in_twenty_times_what_writing_takes(tmp_path: Path) -> None:
    clock = _Clock(tmp_path)
    written = outputs(tmp_path, clock)
    for count in range(100):
        written.update(partial(of_cases, count))
        clock()
        told = read(tmp_path / "report" / "record.json")
        assert not told.complete
        assert len(told.planned) == 200
        lost_s, writing_s = count - len(told.cases), clock.final_bytes / 1e5
        assert lost_s <= 20 * writing_s
        clock.measuring += 1


def test_where_cases_take_long_each_is_written_at_once(tmp_path: Path) -> None:
    clock = _Clock(tmp_path)
    written = outputs(tmp_path, clock)
    for count in range(30):
        written.update(partial(of_cases, count))
        clock()
        assert len(read(tmp_path / "report" / "record.json").cases) == count
        clock.measuring += 60


def test_the_report_of_an_earlier_run_does_not_pass_for_this_one_s(tmp_path: Path) -> None:
    """Also where this one can write none."""
    outputs(tmp_path).finish(of_cases(200))
    written = outputs(tmp_path)
    written.prepare()
    with no_file_above(1000):
        written.update(lambda: of_cases(3))
    assert list((tmp_path / "report").iterdir()) == []


def test_what_this_run_has_written_before_stays_and_says_that_it_is_not_all(tmp_path: Path) -> None:
    written = outputs(tmp_path, save=tmp_path / "base.json")
    written.update(lambda: of_cases(1))
    with no_file_above(1000):
        written.finish(of_cases(200))
    report = tmp_path / "report"
    assert written.problems == [
        f"the report could not be written: {report}/record.json: File too large",
        f"the baseline (--modelopt-save) could not be written: {tmp_path}/base.json: File too large",
    ]
    assert written.saved == ""
    assert sorted(file.name for file in report.iterdir()) == sorted(NAMES)
    assert [file.name for file in tmp_path.iterdir()] == ["report"]
    assert not read(report / "record.json").complete
    assert main(["report", str(report / "record.json")]) == 1


def test_what_could_not_be_written_on_the_way_is_forgotten_where_it_can_at_the_end(tmp_path: Path) -> None:
    written = outputs(tmp_path)
    with no_file_above(1000):
        written.update(lambda: of_cases(3))
    assert len(written.problems) == 1
    written.finish(of_cases(200))
    assert written.problems == []
    assert read(tmp_path / "report" / "record.json").complete


def test_a_record_that_no_command_reads_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_json, "MAX_BYTES", 600_000)  # a hundred cases take 421,325 bytes
    written = outputs(tmp_path)
    written.finish(of_cases(100, 100))
    assert written.problems == []
    written.finish(of_cases(200))
    file = tmp_path / "report" / "record.json"
    assert written.problems == [f"no command reads {file}, which is larger than 0 MiB: run fewer cases"]
    assert main(["report", str(file)]) == 2


def test_looking_whether_a_file_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b" / "c.txt")
    file = tmp_path / "there.txt"
    file.write_text("as it was", encoding="utf-8")
    require_writable(file)
    with no_file_above(1000), pytest.raises(OSError, match="File too large") as refused:
        require_writable(tmp_path / "d" / "e.txt")
    assert refused.value.filename == str(tmp_path / "d" / "e.txt")
    with pytest.raises(NotADirectoryError) as not_there:
        require_writable(file / "b" / "c.txt")
    assert not_there.value.filename == str(file / "b")
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text(encoding="utf-8") == "as it was"


def test_a_device_is_not_replaced_by_a_file() -> None:
    for device in (Path("/dev/null"), Path("/dev/full")):
        with pytest.raises(OSError, match="this is a device or a pipe"):
            write_text("text", device)
        assert device.is_char_device()
