"""The scripts of the comment's workflow, run against an API of our own: what they take, and what they write where."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pytest_modelopt.results import json as record_json
from tests.github.jobs import COMMENT, ROOT, Job, steps_of
from tests.reporting.records_by_hand import realistic

# --- the comment, written to an API of our own -----------------------------------------------------------------------


class Api(ThreadingHTTPServer):
    """Answers as GitHub's API does, from what the test gives it, and remembers what it was asked."""

    answers: dict[str, Any]
    refuses: int
    """The status that whoever writes is answered with; 0 for success."""
    asked: list[tuple[str, str, dict[str, list[str]], Any, str | None]]


class _Handler(BaseHTTPRequestHandler):
    server: Api

    def _answer(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        query = parse_qs(url.query)
        self.server.asked.append((self.command, url.path, query, body, self.headers.get("Authorization")))
        answer = self.server.answers.get(url.path, {}) if self.command == "GET" else self.server.refuses or {}
        if isinstance(answer, int):
            self.send_response(answer)
            self.end_headers()
            return
        if isinstance(answer, str):  # elsewhere
            self.send_response(302)
            self.send_header("Location", answer)
            self.end_headers()
            return
        if isinstance(answer, list):  # in pages of two, whatever was asked for
            page = int(query["page"][0])
            answer = answer[2 * page - 2 : 2 * page]
        if isinstance(answer, dict) and "jobs" in answer:
            page = int(query["page"][0])
            answer = {"jobs": answer["jobs"][2 * page - 2 : 2 * page]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    do_GET = do_POST = do_PATCH = _answer

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api(("127.0.0.1", 0), _Handler)
    server.answers, server.asked, server.refuses = {}, [], 0
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def script(job: Job, api: Api, name: str, **env: str) -> subprocess.CompletedProcess[str]:
    step = next(step for step in steps_of(COMMENT) if step.get("name") == name)
    url = f"http://127.0.0.1:{api.server_port}/api/v3"  # as of a GitHub Enterprise Server
    return job.run(step, {"GITHUB_API_URL": url, "GITHUB_REPOSITORY": "us/shop", "TOKEN": "secret", **env})


REPOSITORY = "/api/v3/repos/us/shop"
PULLS, COMMENTS = f"{REPOSITORY}/pulls", f"{REPOSITORY}/issues/7/comments"
RUN = {
    "HEAD_SHA": "abc",
    "HEAD_OWNER": "stranger",
    "HEAD_BRANCH": "fix&state=closed/ü",
    "WORKFLOW": "model-budgets",
    "CONCLUSION": "success",
    "RUN_URL": "https://github.example/us/shop/actions/runs/99",
    "ATTEMPT": "2",
    "STATE": "record",
    "RED": "0",
}
BODY = "<!-- pytest-modelopt -->\n**Model budgets**: größer\n"
OURS = "<!-- pytest-modelopt model-budgets -->\n"
LINK = "[attempt 2 of the run](https://github.example/us/shop/actions/runs/99)"
WRITTEN = f"{OURS}**Model budgets**: größer\n\n{LINK}\n"


def pull(number: int, sha: str) -> dict[str, Any]:
    return {"number": number, "head": {"sha": sha}}


def remark(number: int, login: str, body: str) -> dict[str, Any]:
    return {"id": number, "user": {"login": login}, "body": body}


def write(job: Job, api: Api, body: str | None = BODY, **told: str) -> list[tuple[str, str, Any]]:
    """What was written, after our comment was made of `body`, or could not be made."""
    if body is not None:
        (job.workspace / "comment.md").write_text(body, encoding="utf-8")
    done = script(job, api, "edit our comment, or add it", **RUN | told)
    assert done.returncode == 0, done.stderr
    assert all(token == "Bearer secret" for *_, token in api.asked)
    return [(method, path, said) for method, path, _, said, _ in api.asked if method != "GET"]


GREEN = remark(3, "github-actions[bot]", OURS + "**Model budgets: passed**")


def test_the_first_comment_is_added(job: Job, api: Api) -> None:
    others = [remark(1, "someone", WRITTEN), remark(2, "github-actions[bot]", "coverage"), remark(3, "x", "hello")]
    api.answers = {PULLS: [pull(5, "old"), pull(6, "other"), pull(7, "abc")], COMMENTS: others}
    assert write(job, api) == [("POST", COMMENTS, {"body": WRITTEN})]
    asked = [query for _, path, query, _, _ in api.asked if path == PULLS]
    assert all(query["head"] == ["stranger:fix&state=closed/ü"] for query in asked)
    assert all(query["state"] == ["open"] for query in asked)


def test_the_next_one_edits_it(job: Job, api: Api) -> None:
    api.answers = {PULLS: [pull(7, "abc")], COMMENTS: [remark(1, "someone", WRITTEN), remark(2, "x", ""), GREEN]}
    assert write(job, api) == [("PATCH", f"{REPOSITORY}/issues/comments/3", {"body": WRITTEN})]


def test_another_workflow_has_a_comment_of_its_own(job: Job, api: Api) -> None:
    """A monorepo's second check: its green does not take the place of the first one's red."""
    api.answers = {PULLS: [pull(7, "abc")], COMMENTS: [GREEN]}
    ((method, _, said),) = write(job, api, WORKFLOW="model-budgets --><b>api")
    assert method == "POST"
    assert said["body"].startswith("<!-- pytest-modelopt model-budgets --__b_api -->\n")


@pytest.mark.parametrize("state", ["none", "expired", "refused", "record", ""])
@pytest.mark.parametrize("conclusion", ["failure", "cancelled", "timed_out", "startup_failure", "success"])
def test_a_run_without_a_comment_takes_the_place_of_the_green_one(
    job: Job, api: Api, state: str, conclusion: str
) -> None:
    api.answers = {PULLS: [pull(7, "abc")], COMMENTS: [GREEN]}
    ((method, path, said),) = write(job, api, None, STATE=state, CONCLUSION=conclusion, RED="")
    assert (method, path) == ("PATCH", f"{REPOSITORY}/issues/comments/3")
    said_first = f"{OURS}**model-budgets: could not run** for abc: {LINK} ended as `{conclusion}`, and it"
    assert said["body"].startswith(said_first)
    words = {"none": "it left no record", "expired": "its record has expired: run it again"}
    assert words.get(state, "the log of the comment's workflow says why") in said["body"]


def test_a_text_that_is_not_ours_is_not_written(job: Job, api: Api) -> None:
    api.answers = {PULLS: [pull(7, "abc")], COMMENTS: []}
    ((method, _, said),) = write(job, api, "hello <b>", CONCLUSION="failure")
    assert method == "POST"
    assert "could not run" in said["body"]
    assert "hello" not in said["body"]


@pytest.mark.parametrize("conclusion", ["skipped", "action_required"])
def test_a_run_that_was_not_made_corrects_a_comment_but_adds_none(job: Job, api: Api, conclusion: str) -> None:
    api.answers = {PULLS: [pull(7, "abc")], COMMENTS: []}
    assert write(job, api, None, STATE="none", CONCLUSION=conclusion) == []
    api.answers[COMMENTS] = [GREEN]
    ((method, _, said),) = write(job, api, None, STATE="none", CONCLUSION=conclusion)
    assert method == "PATCH"
    assert f"`{conclusion}`" in said["body"]


@pytest.mark.parametrize("conclusion", ["failure", "cancelled", "timed_out"])
def test_a_green_record_of_a_check_that_is_not_green_says_so_first(job: Job, api: Api, conclusion: str) -> None:
    api.answers = {PULLS: [pull(7, "abc")], COMMENTS: []}
    ((_, _, said),) = write(job, api, CONCLUSION=conclusion)
    first = f"{OURS}**The check ended as `{conclusion}`, though its record is green**: {LINK} says why.\n\n"
    assert said["body"] == WRITTEN.replace(OURS, first)


def test_a_red_record_of_a_failed_check_needs_no_such_word(job: Job, api: Api) -> None:
    api.answers = {PULLS: [pull(7, "abc")], COMMENTS: []}
    assert write(job, api, CONCLUSION="failure", RED="1") == [("POST", COMMENTS, {"body": WRITTEN})]


@pytest.mark.parametrize("pulls", [[], [pull(7, "newer")], [pull(7, "abc"), pull(8, "abc")]])
def test_without_the_one_pull_request_of_that_commit_nothing_is_written(
    job: Job, api: Api, pulls: list[dict[str, Any]]
) -> None:
    api.answers = {PULLS: pulls, COMMENTS: []}
    assert write(job, api) == []


def test_a_comment_that_is_not_taken_is_red_in_words(job: Job, api: Api) -> None:
    api.answers, api.refuses = {PULLS: [pull(7, "abc")], COMMENTS: []}, 403
    (job.workspace / "comment.md").write_text(BODY, encoding="utf-8")
    done = script(job, api, "edit our comment, or add it", **RUN)
    assert (done.returncode, done.stderr) == (1, "::error::GitHub answers 403 to POST /issues/7/comments\n")


# --- the record of a stranger ----------------------------------------------------------------------------------------

ACTIONS = f"{REPOSITORY}/actions"
ARTIFACTS, JOBS, RUNS = (
    f"{ACTIONS}/runs/99/artifacts",
    f"{ACTIONS}/runs/99/attempts/2/jobs",
    f"{ACTIONS}/workflows/5/runs",
)
FETCHED = {
    "RUN_ID": "99",
    "ATTEMPT": "2",
    "STARTED": "2026-11-02T10:00:00Z",
    "WORKFLOW_ID": "5",
    "HEAD_SHA": "abc",
    "HEAD_BRANCH": "fix&state=closed/ü",
    "HEAD_REPOSITORY": "31",
}
FIRST, SECOND = "2026-11-01T10:20:00Z", "2026-11-02T10:20:00Z"
"""Within the first attempt, and within the second."""


def archive(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as made:
        for name, text in files.items():
            made.writestr(name, text)
    return content.getvalue()


def damaged() -> bytes:
    """An archive of which the directory is whole and the compressed file is not: its first block is of no kind."""
    content = bytearray(archive({"record.json": b"{}" * 50}))
    content[30 + len("record.json")] = 0xFF  # behind the local header, 30 bytes and the name
    return bytes(content)


def artifact(number: int, created: str, *, expired: bool = False) -> dict[str, Any]:
    return {"id": number, "created_at": created, "expired": expired}


def measured(started: str | None, *steps: str) -> dict[str, Any]:
    return {"started_at": started, "steps": [{"name": name} for name in (*steps, "keep the record for the comment")]}


def fetch(
    job: Job,
    api: Api,
    content: object = None,
    artifacts: list[dict[str, Any]] | None = None,
    jobs: list[dict[str, Any]] | None = None,
    runs: list[dict[str, Any]] | None = None,
) -> subprocess.CompletedProcess[str]:
    storage = f"http://localhost:{api.server_port}/storage"
    api.answers = {
        RUNS: {"workflow_runs": runs or []},
        JOBS: {"jobs": jobs or []},
        ARTIFACTS: {"artifacts": [artifact(12, SECOND)] if artifacts is None else artifacts},
        f"{ACTIONS}/artifacts/12/zip": content if isinstance(content, int) else storage,
        "/storage": archive({"record.json": b"{}"}) if content is None else content,
    }
    return script(job, api, "fetch the record", **FETCHED)


def test_the_record_is_taken_and_nothing_else(job: Job, api: Api) -> None:
    done = fetch(job, api, archive({"record.json": b"{}", "../hurt": b"", "/tmp/hurt": b"", "comment.md": b""}))
    assert done.returncode == 0, done.stderr
    assert [file.name for file in job.workspace.iterdir()] == ["record.json"]
    assert (job.workspace / "record.json").read_bytes() == b"{}"
    assert job.outputs == {"state": "record"}
    tokens = [token for *_, token in api.asked]
    assert tokens == ["Bearer secret"] * (len(tokens) - 1) + [None]  # not to the storage


def test_the_newest_artifact_is_taken(job: Job, api: Api) -> None:
    listed = [artifact(11, FIRST), artifact(12, SECOND), artifact(10, FIRST, expired=True)]
    assert fetch(job, api, artifacts=listed).returncode == 0
    assert job.outputs == {"state": "record"}
    assert f"{ACTIONS}/artifacts/12/zip" in [path for _, path, *_ in api.asked]


@pytest.mark.parametrize("jobs", [[], [measured("2026-11-02T10:01:00Z")], [{"started_at": SECOND, "steps": None}]])
def test_an_earlier_attempts_record_does_not_stand_for_this_one(job: Job, api: Api, jobs: list[dict[str, Any]]) -> None:
    """Green once, and run again without a record."""
    assert fetch(job, api, artifacts=[artifact(12, FIRST)], jobs=jobs).returncode == 0
    assert job.outputs == {"state": "none"}
    assert list(job.workspace.iterdir()) == []


def test_the_record_of_a_job_that_was_not_run_again_still_counts(job: Job, api: Api) -> None:
    others = [{"started_at": "2026-11-02T10:01:00Z", "steps": [{"name": "lint"}]}] * 3
    jobs = [*others, measured("2026-11-01T10:01:00Z", "install")]
    assert fetch(job, api, artifacts=[artifact(12, FIRST)], jobs=jobs).returncode == 0
    assert job.outputs == {"state": "record"}


def test_a_run_without_a_record_is_no_fault(job: Job, api: Api) -> None:
    assert fetch(job, api, artifacts=[]).returncode == 0
    assert job.outputs == {"state": "none"}


@pytest.mark.parametrize("content", [None, 410])
def test_an_expired_record_is_told_in_words(job: Job, api: Api, content: int | None) -> None:
    done = fetch(job, api, content, [artifact(12, SECOND, expired=content is None)])
    assert (done.returncode, job.outputs) == (0, {"state": "expired"})
    assert done.stdout == "::warning::the artifact model-budgets has expired: run the workflow again\n"


@pytest.mark.parametrize(
    ("number", "attempt", "branch", "repository", "state"),
    [
        (100, 1, FETCHED["HEAD_BRANCH"], {"id": 31}, "newer"),
        (99, 3, FETCHED["HEAD_BRANCH"], {"id": 31}, "newer"),
        (99, 2, FETCHED["HEAD_BRANCH"], {"id": 31}, "record"),
        (98, 7, FETCHED["HEAD_BRANCH"], {"id": 31}, "record"),
        (100, 1, "another", {"id": 31}, "record"),
        (100, 1, FETCHED["HEAD_BRANCH"], {"id": 32}, "record"),
        (100, 1, FETCHED["HEAD_BRANCH"], None, "record"),
    ],
)
def test_a_newer_run_of_the_same_commit_writes_itself(
    job: Job, api: Api, number: int, attempt: int, branch: str, repository: dict[str, int] | None, state: str
) -> None:
    run = {"id": number, "run_attempt": attempt, "head_branch": branch, "head_repository": repository}
    assert fetch(job, api, runs=[run]).returncode == 0
    assert job.outputs == {"state": state}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (archive({"summary.md": b""}), "it has no record.json that can be read (KeyError)"),
        (b"no archive", "it has no record.json that can be read (BadZipFile)"),
        (damaged(), "it has no record.json that can be read (error)"),
        (archive({"record.json": b"{}"}, zipfile.ZIP_LZMA), "it is compressed in a way that GitHub does not use"),
    ],
)
def test_what_is_no_record_is_refused(job: Job, api: Api, content: bytes, why: str) -> None:
    done = fetch(job, api, content)
    assert (done.returncode, done.stdout) == (1, f"::error::the artifact model-budgets is refused: {why}\n")
    assert list(job.workspace.iterdir()) == []
    assert job.outputs == {"state": "refused"}


def test_it_takes_what_the_command_reads_and_no_more(job: Job, api: Api) -> None:
    largest = record_json.MAX_BYTES
    refused = "::error::the artifact model-budgets is refused: "
    done = fetch(job, api, b"x" * (largest + 1))
    assert (done.returncode, done.stdout) == (1, f"{refused}it is larger than 64 MiB\n")
    done = fetch(job, api, archive({"record.json": b" " * (largest + 1)}))
    assert (done.returncode, done.stdout) == (1, f"{refused}its record.json is larger than 64 MiB\n")
    assert list(job.workspace.iterdir()) == []
    assert fetch(job, api, archive({"record.json": b" " * largest})).returncode == 0
    assert (job.workspace / "record.json").stat().st_size == largest


def test_an_api_that_does_not_answer_is_told_in_words(job: Job, api: Api) -> None:
    done = fetch(job, api, 503)
    assert (done.returncode, job.outputs) == (1, {"state": "refused"})
    assert done.stdout == "::error::GitHub answers 503 to GET /artifacts/12/zip\n"


# --- the renderer ----------------------------------------------------------------------------------------------------


def render(job: Job, **told: str) -> subprocess.CompletedProcess[str]:
    step = next(step for step in steps_of(COMMENT) if step.get("id") == "render")
    return job.run(step, {"WORKFLOW": "model-budgets", **told})


@pytest.mark.parametrize("workflow", ["model-budgets", "--help", "$(touch hurt)", "a\n`touch hurt`"])
def test_the_comment_is_made_and_what_it_says_is_known(job: Job, workflow: str) -> None:
    record_json.write(realistic(), job.workspace / "record.json")
    done = render(job, WORKFLOW=workflow)
    assert done.returncode == 0, done.stderr
    assert job.outputs == {"red": "1"}
    assert (job.workspace / "comment.md").read_text(encoding="utf-8").startswith("<!-- pytest-modelopt -->\n")
    assert not (job.workspace / "hurt").exists()


def test_a_record_that_is_refused_makes_no_comment(job: Job) -> None:
    (job.workspace / "record.json").write_text("{}")
    assert render(job).returncode == 2
    assert job.outputs == {}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_with(packages: list[str]) -> set[str]:
    """The packages, and what they require without an extra, in normal spelling."""
    found: set[str] = set()
    while packages:
        name = normal(packages.pop())
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # for another system or Python
            if name not in found:
                needs = [need for need in importlib.metadata.requires(name) or [] if "extra ==" not in need]
                packages += [re.split(r"[^\w.-]", need)[0] for need in needs]
                found.add(name)
    return found


def test_the_renderer_needs_no_more_than_is_installed_for_it(tmp_path: Path) -> None:
    """torch and pytest are not among it: the job that reads a stranger's record installs little."""
    install = next(step["run"] for step in steps_of(COMMENT) if step.get("name", "").startswith("install"))
    before, after = "python -m pip install ", "python -m pip install --no-deps pytest-modelopt\n"
    assert install.startswith(after + before)
    there = installed_with(install.removeprefix(after + before).split())
    assert not there & {"torch", "pytest"}
    distributions = importlib.metadata.packages_distributions()
    hidden = [name for name, owners in distributions.items() if not there & {normal(owner) for owner in owners}]
    hidden = [name for name in hidden if name != "pytest_modelopt" and name.isidentifier()]
    record_json.write(realistic(), tmp_path / "record.json")
    code = f"import sys; sys.modules.update(dict.fromkeys({hidden!r}))\n"
    code += "from pytest_modelopt.cli.main import main; sys.exit(main(['report', '--markdown', 'record.json']))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "digits-vit" in done.stdout
