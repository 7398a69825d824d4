"""`pytest-modelopt init --ci`: the templates themselves, all of them or none, and nothing that was there is lost."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_modelopt.cli import init_ci
from pytest_modelopt.cli.main import main

TEMPLATES = Path(init_ci.__file__).parents[1] / "ci"
WRITTEN = {
    "github": {
        ".github/workflows/model-budgets.yml": "github/workflows/model-budgets.yml",
        ".github/workflows/model-budgets-comment.yml": "github/workflows/model-budgets-comment.yml",
        ".github/actions/model-budgets/action.yml": "github/actions/model-budgets/action.yml",
        ".github/dependabot.yml": "github/dependabot.yml",
    },
    "gitlab": {".gitlab/model-budgets.yml": "gitlab/model-budgets.yml", ".gitlab-ci.yml": "gitlab/gitlab-ci.yml"},
}
SHARED = {"github": ".github/dependabot.yml", "gitlab": ".gitlab-ci.yml"}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    found = (file for file in folder.rglob("*") if file.is_file() and ".git" not in file.relative_to(folder).parts)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in found}


@pytest.mark.parametrize("host", WRITTEN)
def test_the_templates_are_written_at_the_top_of_the_repository(
    repository: Path, host: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "conftest.py").write_text("raise SystemExit('nothing of the project is imported')")
    (repository / "below").mkdir()
    monkeypatch.chdir(repository / "below")
    assert main(["init", "--ci", host]) == 0
    there = files(repository)
    assert there.pop("conftest.py")
    assert there == {place: (TEMPLATES / source).read_bytes() for place, source in WRITTEN[host].items()}
    told = capsys.readouterr().out
    assert told.count(" says how the project is installed: adapt it") == 1
    assert "There is no budgets.yaml in the repository's root" in told


@pytest.mark.parametrize("host", WRITTEN)
def test_what_is_there_is_never_overwritten_and_nothing_is_half_written(
    repository: Path, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in WRITTEN[host].keys() - {SHARED[host]}:
        (repository / place).parent.mkdir(parents=True, exist_ok=True)
        (repository / place).symlink_to("nowhere")
        assert main(["init", "--ci", host]) == 2
        assert f"{place}: already there, and init overwrites nothing, so nothing was" in capsys.readouterr().err
        assert files(repository) == {}
        (repository / place).unlink()


@pytest.mark.parametrize("host", WRITTEN)
def test_a_file_that_serves_other_things_too_is_left_and_what_it_needs_is_told(
    repository: Path, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = repository / SHARED[host]
    place.parent.mkdir(exist_ok=True)
    place.write_text("ours")
    assert main(["init", "--ci", host]) == 0
    assert place.read_text() == "ours"
    assert set(files(repository)) == set(WRITTEN[host])
    needed = (TEMPLATES / WRITTEN[host][SHARED[host]]).read_text()
    assert f"{SHARED[host]}: left as it is; it needs\n\n{needed}" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_takes_the_others_back(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / ".github").mkdir()
    (repository / ".github" / "actions").write_text("a file where a folder is needed")
    assert main(["init", "--ci", "github"]) == 2
    assert files(repository) == {".github/actions": b"a file where a folder is needed"}
    assert ".github/actions" in capsys.readouterr().err


def test_outside_of_a_repository_there_is_no_place_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert main(["init", "--ci", "github"]) == 2
    assert "is in no git repository" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_model_and_workflows_are_two_calls(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "shop:load", "--data", "shop:data", "--ci", "github"]) == 2
    assert "state the model in another call, without --ci" in capsys.readouterr().err
    assert main(["init"]) == 2
    assert "init needs PACKAGE.MODULE:FUNCTION of the model and --data" in capsys.readouterr().err
    assert files(repository) == {}
