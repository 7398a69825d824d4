"""The scripts of the workflows that measure, run as the hosts run them: the base and its Git LFS objects, the merge."""

from __future__ import annotations

import base64
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_modelopt.measuring.controller.timing import earlier_runs
from pytest_modelopt.results import json as record_json
from pytest_modelopt.results.case import Case
from tests.github.jobs import CHECK, GITLAB, MATRIX, Job, read, steps_of
from tests.reporting.records_by_hand import MIB, broken, case, limit, measurement, record, verdict


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *settings, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path, name: str, text: str) -> str:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", name)
    return git(folder, "rev-parse", "HEAD")


LFS = """#!/bin/bash
echo "$@" >> "$GITHUB_WORKSPACE/../lfs"
git config --get-urlmatch http.extraheader https://github.example/us/shop.git >> "$GITHUB_WORKSPACE/../sent" || true
git config --get-urlmatch http.extraheader https://evil.example/us/shop.git >> "$GITHUB_WORKSPACE/../leaked" || true
"""
"""In place of git-lfs, which is not on every machine: writes down how it is called, and what git would send where."""


@pytest.fixture
def programs(job: Job) -> Path:
    folder = job.folder / "programs"
    folder.mkdir()
    for name in ("git-lfs", "pip", "pytest", "pytest-modelopt"):
        (folder / name).write_text(LFS if name == "git-lfs" else f'#!/bin/bash\necho {name} "$@" >> ../called\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def base(job: Job) -> str:
    """A clone whose base uses Git LFS; head, one commit later, does not."""
    git(job.workspace, "init", "--quiet", "--initial-branch", "main")
    base = commit(job.workspace, "weights/.gitattributes", "*.pt filter=lfs diff=lfs merge=lfs -text\n")
    git(job.workspace, "update-ref", "refs/remotes/origin/release;x", "HEAD")
    (job.workspace / "weights" / ".gitattributes").unlink()
    commit(job.workspace, "model.py", "")
    return base


def fetch_lfs(job: Job, programs: Path, against: str, file: Path = CHECK) -> subprocess.CompletedProcess[str]:
    step = next(step for step in steps_of(file) if "Git LFS" in step.get("name", ""))
    path = f"{programs}:/usr/bin:/bin"
    env = {"AGAINST": against, "TOKEN": "secret", "GITHUB_SERVER_URL": "https://github.example", "PATH": path}
    return job.run(step, env)


@pytest.mark.parametrize("against", ["merge-base:origin/release;x", "HEAD^1", "{base}"])
def test_the_bases_lfs_objects_are_fetched_with_the_jobs_token(
    job: Job, programs: Path, base: str, against: str
) -> None:
    done = fetch_lfs(job, programs, against.format(base=base))
    assert done.returncode == 0, done.stderr
    called = (job.folder / "lfs").read_text().splitlines()
    assert called == ["install --local", f"fetch origin HEAD {base}", "checkout"]
    token = base64.b64encode(b"x-access-token:secret").decode()
    assert set((job.folder / "sent").read_text().splitlines()) == {f"Authorization: Basic {token}"}
    assert (job.folder / "leaked").read_text() == ""
    kept = (job.workspace / ".git" / "config").read_text()
    assert "secret" not in kept + done.stdout + done.stderr
    assert token not in kept + done.stdout + done.stderr


def test_without_git_lfs_nothing_is_fetched(job: Job, programs: Path, base: str) -> None:
    commit(job.workspace, "README", "filter=lfs, but not as an attribute")
    assert fetch_lfs(job, programs, "HEAD^1").returncode == 0
    assert not (job.folder / "lfs").exists()


def test_a_base_that_is_not_there_is_left_to_the_gate_to_tell(job: Job, programs: Path, base: str) -> None:
    assert fetch_lfs(job, programs, "merge-base:origin/gone").returncode == 0
    assert not (job.folder / "lfs").exists()


# --- GitLab ----------------------------------------------------------------------------------------------------------


def gitlab(job: Job, programs: Path, **told: str) -> list[str]:
    """What the job of GitLab calls. Its lines are one script, of a shell that ends at the first failure."""
    script = "\n".join(read(GITLAB)["model-budgets"]["script"])
    home = {"HOME": str(job.folder / "home")}
    done = job.run({"run": script, "shell": "bash"}, {"PATH": f"{programs}:/usr/bin:/bin", **home, **told})
    assert done.returncode == 0, done.stderr
    return (job.folder / "called").read_text().splitlines()


@pytest.mark.parametrize("is_merged_result", [True, False])
def test_gitlab_compares_a_merged_result_with_its_target(
    job: Job, programs: Path, base: str, is_merged_result: bool
) -> None:
    """Against the common ancestor, what the target has changed since would count as the merge request's."""
    target = git(job.workspace, "rev-parse", "HEAD")
    commit(job.workspace, "change.py", "")
    told = {"CI_MERGE_REQUEST_DIFF_BASE_SHA": base}
    told["CI_MERGE_REQUEST_TARGET_BRANCH_SHA"] = target if is_merged_result else ""
    called = gitlab(job, programs, **told)
    assert called[0] == "pip install --editable . pytest-modelopt"
    against = target if is_merged_result else base
    assert called[1] == (
        f"pytest --modelopt --modelopt-whole --modelopt-against merge-base:{against} "
        "--modelopt-report modelopt-report --junit-xml junit.xml budgets.yaml"
    )
    assert called[2:] == ["pytest-modelopt report modelopt-report/record.json"]
    fetched = (job.folder / "lfs").read_text() if (job.folder / "lfs").exists() else ""
    assert (f"fetch origin HEAD {base}\n" in fetched) == (not is_merged_result)  # only the older one uses Git LFS


# --- earlier runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [CHECK, MATRIX], ids=["check", "matrix"])
def test_a_workflow_keeps_the_folder_of_earlier_timings(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run saves under a key of its own, since GitHub never writes over one, and takes the last one of its kind."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (step,) = (step for step in steps_of(file) if step.get("uses", "").startswith("actions/cache@"))
    kept = step["with"]
    assert Path(kept["path"]).expanduser() == earlier_runs.folder()
    assert kept["key"] == kept["restore-keys"] + "${{ github.run_id }}-${{ github.run_attempt }}"


def test_gitlab_keeps_the_folder_of_earlier_timings(job: Job, programs: Path, base: str) -> None:
    """Its cache holds folders of the project only. A machine that keeps its home has them there."""
    ours = job.folder / "home" / ".cache" / "pytest-modelopt"
    told = {"CI_MERGE_REQUEST_DIFF_BASE_SHA": base}
    gitlab(job, programs, **told)
    assert ours.readlink() == job.workspace / ".cache" / "pytest-modelopt"
    assert ".cache/pytest-modelopt/timings" in read(GITLAB)["model-budgets"]["cache"]["paths"]
    ours.unlink()
    ours.mkdir()
    gitlab(job, programs, **told)
    assert not ours.is_symlink()
    assert list(ours.iterdir()) == []


# --- the merge -------------------------------------------------------------------------------------------------------


def green(recipe: str) -> Case:
    return case(recipe, verdicts=(verdict(limit("max_size", 100 * MIB, "100 MiB"), "pass", 3 * MIB),))


def merge(job: Job, jobs: str, result: str, *cases: Case) -> subprocess.CompletedProcess[str]:
    for each in cases:
        folder = job.workspace / "records" / f"model-budgets-{each.recipe}"
        folder.mkdir(parents=True)
        record_json.write(record(each), folder / "record.json")
    step = next(step for step in steps_of(MATRIX) if step.get("id") == "merge")
    return job.run(step, {"JOBS": jobs, "RESULT": result})


@pytest.mark.parametrize(
    ("jobs", "result", "second", "status", "told"),
    [
        ("2", "success", green("bf16"), 0, ""),
        ("2", "failure", green("bf16"), 1, "::error::model-budgets: a job that measures ended as failure\n"),
        ("2", "cancelled", green("bf16"), 1, "::error::model-budgets: a job that measures ended as cancelled\n"),
        ("2", "success", replace(broken("bf16"), variant=measurement("bf16", weights=3 * MIB, peak=MIB)), 1, ""),
    ],
)
def test_the_records_of_a_matrix_become_one(
    job: Job, jobs: str, result: str, second: Case, status: int, told: str
) -> None:
    done = merge(job, jobs, result, green("int8-dynamic"), second)
    assert done.returncode == status, done.stdout + done.stderr
    assert "".join(re.findall(r"::error::.*\n", done.stdout)) == told
    assert job.outputs == {"record": "record.json"}
    merged = record_json.read(job.workspace / "record.json")
    assert sorted(each.recipe for each in merged.cases) == ["bf16", "int8-dynamic"]
    assert "bf16" in job.files["GITHUB_STEP_SUMMARY"].read_text()


@pytest.mark.parametrize("jobs", ["3", ""])
def test_a_job_that_left_no_record_makes_the_merge_red(job: Job, jobs: str) -> None:
    assert merge(job, jobs, "success", green("int8-dynamic"), green("bf16")).returncode == 2
    assert job.outputs == {}


def test_no_record_at_all_is_told(job: Job) -> None:
    done = merge(job, "2", "failure")
    assert (done.returncode, done.stdout) == (2, "::error::model-budgets: no job left a record\n")
