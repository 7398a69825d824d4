"""`--modelopt-no-loosening`: a change cannot make its own gate milder, by whatever way it edits the budgets file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.results.run_outcome import run_outcome
from tests.plugin.repositories import Repository

START = "version: 1\ndefaults: {time_limit: 1 ms}\nmodels:\n"
MODEL = "  {name}:\n    factory: shop:wide\n    data: shop:data\n    recipes: {{bf16: {{{limits}}}}}\n"
STRICT = MODEL.format(name="reader", limits="max_size: 9 MiB")
OTHER = MODEL.format(name="other", limits="min_accuracy: 0%")

WAYS = {
    "relaxed": (STRICT.replace("9", "10") + OTHER, "less strict than at the base: max_size of reader/bf16"),
    "removed": (OTHER, "no longer there: reader/bf16"),
}


@pytest.fixture
def repository(pytester: pytest.Pytester) -> Repository:
    made = Repository(pytester)
    made.write("budgets.yaml", START + STRICT + OTHER)
    made.commit()
    return made


@pytest.mark.parametrize("way", WAYS)
def test_what_a_change_loosened_is_red_for_every_reader_only_where_that_is_demanded(
    repository: Repository, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    text, told = WAYS[way]
    repository.write("budgets.yaml", START + text)
    assert repository.against("HEAD", "-k", "other").ret == 0
    assert run_outcome(repository.record).causes == ()
    result = repository.against("HEAD", "-k", "other", "--modelopt-no-loosening")
    assert result.ret == 1
    assert run_outcome(repository.record).causes == ("loosened",)
    saved = str(repository.path / "report" / "record.json")
    assert main(["report", saved]) == 1
    capsys.readouterr()
    assert main(["comment", saved]) == 0
    comment = capsys.readouterr().out.replace("\\", "")
    summary = (repository.path / "report" / "summary.md").read_text(encoding="utf-8").replace("\\", "")
    for report in (comment, summary):
        assert "**Model budgets: FAILED" in report
        assert told in report
        assert "--modelopt-no-loosening allows no such change" in report


def test_the_same_budgets_are_green_and_so_are_stricter_and_new_ones(repository: Repository) -> None:
    new = MODEL.format(name="new-other", limits="max_size: 90 MiB")
    repository.write("budgets.yaml", START + STRICT.replace("9 MiB", "8 MiB") + OTHER + new)
    repository.write("pytest.ini", "[pytest]\nmodelopt_no_loosening = true\nmodelopt_against = HEAD\n")
    assert repository.run("-k", "other").ret == 0
    assert repository.record.no_loosening
    for recipe in ("original", "bf16"):
        case = repository.cases[f"new-other/{recipe}"]
        assert case.base is not None
        assert (case.base.status, case.verdicts) == ("new", ())


def test_another_file_in_the_ini_is_held_against_the_bases_own(repository: Repository) -> None:
    repository.write("loose.yaml", START + STRICT.replace("9 MiB", "90 MiB") + OTHER)
    repository.commit()  # it was there before, and nobody used it
    repository.write("pytest.ini", "[pytest]\nmodelopt_budgets = loose.yaml\n")
    repository.settings(WIDTH=255)
    result = repository.against("HEAD", "-k", "other", "--modelopt-no-loosening")
    assert result.ret == 1
    against = repository.record.against
    assert against is not None
    assert [(each.case, each.old, each.new) for each in against.loosened] == [("reader/bf16", "9 MiB", "90 MiB")]


def test_not_to_know_what_was_loosened_is_red(repository: Repository) -> None:
    repository.write("budgets.yaml", "version: 1\nmodels: {reader: {factory: 7}}\n")
    repository.commit()
    repository.write("budgets.yaml", START + OTHER)
    assert repository.against("HEAD", "-k", "bf16").ret == 0
    result = repository.against("HEAD", "-k", "bf16", "--modelopt-no-loosening")
    assert result.ret == 1
    told = " ".join(result.stdout.str().split())
    assert "whether a limit is less strict than at the base is not known: the budgets file at" in told


def test_without_a_base_it_is_a_usage_error(repository: Repository) -> None:
    result = repository.run("--modelopt-no-loosening")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--modelopt-no-loosening has nothing to compare with: name the base by*"])


def test_the_ini_file_demands_it_wherever_there_is_a_base(repository: Repository) -> None:
    repository.write("pytest.ini", "[pytest]\nmodelopt_no_loosening = true\n")
    assert repository.run("--modelopt-save", "saved.json").ret == 0
    repository.write("budgets.yaml", START + STRICT.replace("9 MiB", "10 MiB") + OTHER)
    assert repository.run("-k", "other").ret == 0
    assert repository.run("-k", "other", "--modelopt-baseline", "saved.json").ret == 1


def test_a_saved_record_is_a_base_too_also_where_the_budgets_file_is_gone(repository: Repository) -> None:
    assert repository.run("--modelopt-save", "saved.json").ret == 0
    demanded = ("--modelopt-baseline", "saved.json", "--modelopt-no-loosening")
    assert repository.run("-k", "other", *demanded).ret == 0
    repository.write("budgets.yaml", START + STRICT.replace("9 MiB", "10 MiB") + OTHER)
    assert repository.run("-k", "other", *demanded).ret == 1
    Path(repository.path / "budgets.yaml").unlink()
    repository.write("test_it.py", "def test_it(modelopt): pass\n")
    result = repository.run(*demanded)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*REMOVED 2 cases that the base has: other/bf16, reader/bf16*"])


def test_a_marker_of_a_test_is_no_way_around(repository: Repository) -> None:
    test = "import pytest\n@pytest.mark.model_budget(max_size='9 MiB')\ndef test_it(modelopt): pass\n"
    repository.write("tests/test_it.py", test)
    repository.commit()
    repository.write("tests/test_it.py", test.replace("9 MiB", "90 MiB"))
    assert repository.against("HEAD", "-k", "other", "--modelopt-no-loosening").ret == 1
    assert run_outcome(repository.record).causes == ("loosened",)
    assert repository.record.against is not None
    (told,) = repository.record.against.loosened
    assert (told.case, told.file, told.line) == ("tests/test_it.py::test_it", "tests/test_it.py", 2)
