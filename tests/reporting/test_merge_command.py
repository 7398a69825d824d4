"""`pytest-modelopt merge`: what it prints, what it writes, and its exit status."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.reporting.markdown import render
from pytest_modelopt.reporting.terminal import lines
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.json import dumps, read
from pytest_modelopt.results.merging import merge
from pytest_modelopt.results.record import Record
from tests.reporting.against_by_hand import AGAINST, against, pull_request
from tests.reporting.records_by_hand import ENVIRONMENT, MIB, broken, case, limit, measurement, record, timing, verdict

LARGE = measurement("y", weights=3 * MIB, peak=MIB)
"""Breaks max_memory 3 MiB."""
OTHER = replace(ENVIRONMENT, cpu="Other CPU", cpu_capability="AVX2")


def kept(recipe: str) -> Case:
    return case(recipe, verdicts=(verdict(limit("max_size", 2 * MIB, "2 MiB"), "pass"),))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def _write(**records: Record) -> list[str]:
    for name, told in records.items():
        Path(f"{name}.json").write_text(dumps(told), encoding="utf-8")
    return [f"{name}.json" for name in records]


def test_green_shards_are_green_and_written_as_one_record(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = _write(a=record(kept("x")), b=record(kept("y")))
    assert main(["merge", *names, "--expect", "2", "--output", "out/merged.json"]) == 0
    out = capsys.readouterr().out
    assert "NOTE put together from the records of 2 jobs\n" in out
    assert out.startswith("modelopt: passed. 2 cases: 2 passed, 0 failed\n")
    assert out.endswith("modelopt: 1 timed limit; Example CPU (AVX512), torch 2.13.0\n")
    merged = read(folder / "out" / "merged.json")
    assert [each.recipe for each in merged.cases] == ["x", "y"]
    assert main(["report", "out/merged.json"]) == 0
    assert main(["merge", "out/merged.json"]) == 0


def test_one_red_shard_is_red_and_markdown_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = _write(a=record(kept("x")), b=record(replace(broken("y"), variant=LARGE)))
    assert main(["merge", *names, "--markdown"]) == 1
    assert capsys.readouterr().out.startswith("**Model budgets: FAILED.** 2 cases: 1 passed, 1 failed.\n")


def test_verdicts_of_the_records_are_not_believed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A gigabyte stays no passed megabyte because a record says so, and what it says has failed may hold."""
    huge = replace(kept("x"), variant=measurement("x", size=1024 * MIB))
    names = _write(a=record(huge), b=record(broken("y")))  # 2 MiB, under a limit of 3
    assert main(["merge", *names, "--output", "m.json"]) == 1
    out = capsys.readouterr().out
    assert "FAIL digits-vit/x: max_size 2 MiB is broken: 1 GiB measured" in out
    assert out.startswith("modelopt: FAILED. 2 cases: 1 passed, 1 failed\n")
    outcomes = [each.verdicts[0].outcome for each in read(folder / "m.json").cases]
    assert outcomes == ["fail", "pass"]
    assert [main([command, "a.json"]) for command in ("report", "comment")] == [1, 0]
    assert "**Model budgets: FAILED.**" in capsys.readouterr().out


def test_a_missing_shard_is_named_and_red(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = tuple(kept(name).id for name in ("x", "y", "z"))
    names = _write(a=replace(record(kept("x")), collected=everything))
    assert main(["merge", *names, "--output", "m.json"]) == 1
    out = capsys.readouterr().out
    assert "FAIL 2 planned cases were measured by no job: budgets.yaml::digits-vit/y, budgets.yaml::digits-vit/z" in out
    assert out.startswith("modelopt: FAILED, PARTIAL: 1 of 3 cases ran. 3 cases: 1 passed, 0 failed, 2 not run\n")
    assert main(["report", "m.json"]) == 1
    assert main(["report", "a.json"]) == 0


def test_an_interrupted_job_is_named_and_red(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = _write(a=record(kept("x")), b=replace(record(kept("y")), complete=False))
    assert main(["merge", *names]) == 1
    out = capsys.readouterr().out
    assert "FAIL a job was interrupted before its end, so cases may be missing here: run that job again\n" in out
    assert "NOTE b.json is of a run that was interrupted: leave it out where another job took its place\n" in out


def test_strict_holds_for_all_jobs(folder: Path) -> None:
    undecided = case("x", timing=timing(2), limits=(limit("min_speedup", 1.5, "1.5x"),))  # too few pairs
    names = _write(a=record(undecided), b=record(kept("y")))
    assert main(["merge", *names]) == 0
    assert main(["merge", *names, "--strict"]) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a.json", "--expect", "2"], "--expect 2: 1 was given: a.json; name the records of all jobs\n"),
        (["a.json", "b.json", "c.json", "--expect", "2"], "--expect 2: 3 were given: a.json, b.json, c.json; name "),
        (["a.json", "a.json"], "a.json and a.json are the same record: give each job's once\n"),
        (["a.json", "c.json"], "a.json compares nothing with a base, c.json compares "),
        (["a.json", "bad.json"], "bad.json: the record must be a JSON object (see https://"),
        (["a.json", "missing.json"], "missing.json: No such file or directory\n"),
        (["a.json", "--output", "."], ".: Is a directory\n"),
    ],
)
def test_wrong_input_is_told_in_a_line_with_its_address(
    arguments: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(a=record(kept("x")), b=record(kept("y")), c=pull_request(kept("z")))
    Path("bad.json").write_text("[]")
    assert main(["merge", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    line, *address = err.splitlines()
    assert told.rstrip("\n") in line
    assert ("troubleshooting/#usage-" in line) or [each[:12] for each in address] == ["see https://"]


# --- several machines, told ------------------------------------------------------------------------------------------


def _two_machines() -> Record:
    slow = replace(broken("x"), reference=measurement(None, notes=("a note",), unmeasured={"timing": "no clock"}))
    return merge([("a", record(kept("x"))), ("b", replace(record(slow), environment=OTHER))])


def test_each_sentence_names_its_machine(folder: Path) -> None:
    with pytest.raises(ValueError, match="different limits"):
        merge([("a", record(kept("x"))), ("b", record(broken("x")))])
    texts = [text for text, _ in lines(_two_machines(), 300, verbose=True)]
    assert "FAIL digits-vit/x: max_memory 3 MiB is broken: 3.75 MiB measured, 25% more than the limit." in " ".join(
        texts
    )
    assert [text for text in texts if text.startswith("FAIL")] == [
        "FAIL digits-vit/x: max_memory 3 MiB is broken: 3.75 MiB measured, 25% more than the limit. (budgets.yaml:23) "
        "(measured on machine 2)"
    ]
    assert "NOTE digits-vit (original on machine 2): timing was not measured: no clock" in texts
    assert "NOTE digits-vit (original): a note" in texts
    assert (texts[0], texts[-1]) == (
        "modelopt: FAILED. 2 cases: 1 passed, 1 failed",
        "modelopt: 1 timed limit; 2 machines",
    )


def test_markdown_lists_all_machines(folder: Path) -> None:
    markdown = render(_two_machines())
    assert "### digits-vit on machine 2 (Other CPU, AVX2)" in markdown
    assert markdown.index("digits-vit on machine 2") < markdown.index(
        "digits-vit on machine 1"
    )  # what failed comes first
    environment = markdown[markdown.index("<summary>Environment") :]
    assert "machine 1 (Example CPU, AVX512)\n\n- machine: Example CPU, 2 CPUs" in environment
    assert "machine 2 (Other CPU, AVX2)\n\n- machine: Other CPU, 2 CPUs" in environment
    assert environment.count("- run: pytest-modelopt 0.1.0") == 1


def test_a_shard_that_only_one_of_the_platforms_lacks_is_said() -> None:
    shards = [("a", record(kept("x"))), ("b", record(kept("y")))]
    on_other = [(f"{name} too", replace(told, environment=OTHER)) for name, told in shards]
    said = (
        "1 case was measured on fewer than the 2 machines of others: budgets.yaml::digits-vit/y; where each machine "
        "runs every case, a job is missing"
    )
    three = merge([*shards, on_other[0]])
    assert f"NOTE {said}" in [text for text, _ in lines(three, 300)]
    for complete in (
        [("three", three), on_other[1]],
        [shards[0], on_other[1]],
    ):  # shards on two machines are no platforms
        assert "fewer than" not in render(merge(complete))


def test_a_merged_pull_request_keeps_its_report(folder: Path) -> None:
    told = merge([("a", pull_request(kept("x"), against("x"))), ("b", pull_request(kept("y"), against("y")))])
    markdown = render(told)
    assert "Head 1a2b3c4d5e6f against base 0f1e2d3c4b5a" in markdown
    assert "Nothing changed: 2 variants were compared with the base" in markdown
    assert "- put together from the records of 2 jobs" in markdown
    assert told.against == AGAINST
