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

from pytest_modelopt.record import json as record_json
from tests.github.jobs import COMMENT, ROOT, Job, steps_of
from tests.report.records_by_hand import realistic

# --- the comment, written to an API of our own -----------------------------------------------------------------------


class Api(ThreadingHTTPServer):
    """Answers as GitHub's API does, from what the test gives it, and remembers what it was asked."""

    answers: dict[str, Any]
    asked: list[tuple[str, str, dict[str, list[str]], Any, str | None]]


class _Handler(BaseHTTPRequestHandler):
    server: Api

    def _answer(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        query = parse_qs(url.query)
        self.server.asked.append((self.command, url.path, query, body, self.headers.get("Authorization")))
        answer = self.server.answers.get(url.path, {}) if self.command == "GET" else {}
        if isinstance(answer, str):  # elsewhere
            self.send_response(302)
            self.send_header("Location", answer)
            self.end_headers()
            return
        if isinstance(answer, list):  # in pages of two, whatever was asked for
            page = int(query["page"][0])
            answer = answer[2 * page - 2 : 2 * page]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    do_GET = do_POST = do_PATCH = _answer

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api(("127.0.0.1", 0), _Handler)
    server.answers, server.asked = {}, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def script(job: Job, api: Api, name: str, **env: str) -> subprocess.CompletedProcess[str]:
    step = next(step for step in steps_of(COMMENT) if step.get("name") == name)
    url = f"http://127.0.0.1:{api.server_port}"
    return job.run(step, {"GITHUB_API_URL": url, "GITHUB_REPOSITORY": "us/shop", "TOKEN": "secret", **env})


PULLS, COMMENTS = "/repos/us/shop/pulls", "/repos/us/shop/issues/7/comments"
HEAD = {"HEAD_SHA": "abc", "HEAD_OWNER": "stranger", "HEAD_BRANCH": "fix&state=closed/ü"}
BODY = "<!-- pytest-modelopt -->\n**Model budgets**: größer\n"


def pull(number: int, sha: str) -> dict[str, Any]:
    return {"number": number, "head": {"sha": sha}}


def remark(number: int, login: str, body: str) -> dict[str, Any]:
    return {"id": number, "user": {"login": login}, "body": body}


def write(job: Job, api: Api, body: str = BODY) -> list[tuple[str, str, Any]]:
    """What was written, after our comment was made of `body`."""
    (job.workspace / "comment.md").write_text(body, encoding="utf-8")
    done = script(job, api, "edit our comment, or add it", **HEAD)
    assert done.returncode == 0, done.stderr
    assert all(token == "Bearer secret" for *_, token in api.asked)
    return [(method, path, said) for method, path, _, said, _ in api.asked if method != "GET"]


def test_the_first_comment_is_added(job: Job, api: Api) -> None:
    others = [remark(1, "someone", BODY), remark(2, "github-actions[bot]", "coverage"), remark(3, "x", "hello")]
    api.answers = {PULLS: [pull(5, "old"), pull(6, "other"), pull(7, "abc")], COMMENTS: others}
    assert write(job, api) == [("POST", COMMENTS, {"body": BODY})]
    asked = [query for _, path, query, _, _ in api.asked if path == PULLS]
    assert all(query["head"] == ["stranger:fix&state=closed/ü"] for query in asked)
    assert all(query["state"] == ["open"] for query in asked)


def test_the_next_one_edits_it(job: Job, api: Api) -> None:
    others = [remark(1, "someone", BODY), remark(2, "x", ""), remark(3, "github-actions[bot]", BODY + "old")]
    api.answers = {PULLS: [pull(7, "abc")], COMMENTS: others}
    assert write(job, api) == [("PATCH", "/repos/us/shop/issues/comments/3", {"body": BODY})]


@pytest.mark.parametrize("pulls", [[], [pull(7, "newer")], [pull(7, "abc"), pull(8, "abc")]])
def test_without_the_one_pull_request_of_that_commit_nothing_is_written(
    job: Job, api: Api, pulls: list[dict[str, Any]]
) -> None:
    api.answers = {PULLS: pulls, COMMENTS: []}
    assert write(job, api) == []


def test_another_text_is_not_written(job: Job, api: Api) -> None:
    api.answers = {PULLS: [pull(7, "abc")], COMMENTS: []}
    (job.workspace / "comment.md").write_text("hello")
    done = script(job, api, "edit our comment, or add it", **HEAD)
    assert (done.returncode, done.stderr) == (1, "::error::comment.md is not a comment of pytest-modelopt\n")
    assert all(method == "GET" for method, *_ in api.asked)


# --- the record of a stranger ----------------------------------------------------------------------------------------

ARTIFACTS = "/repos/us/shop/actions/runs/99/artifacts"


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


def fetch(job: Job, api: Api, content: bytes) -> subprocess.CompletedProcess[str]:
    api.answers = {
        ARTIFACTS: {"artifacts": [{"id": 12}]},
        "/repos/us/shop/actions/artifacts/12/zip": f"http://localhost:{api.server_port}/storage",
        "/storage": content,
    }
    return script(job, api, "fetch the record", RUN_ID="99")


def test_the_record_is_taken_and_nothing_else(job: Job, api: Api) -> None:
    done = fetch(job, api, archive({"record.json": b"{}", "../hurt": b"", "/tmp/hurt": b"", "comment.md": b""}))
    assert done.returncode == 0, done.stderr
    assert [file.name for file in job.workspace.iterdir()] == ["record.json"]
    assert (job.workspace / "record.json").read_bytes() == b"{}"
    assert job.outputs == {"found": "true"}
    assert api.asked[0][2] == {"name": ["model-budgets"]}
    assert [token for *_, token in api.asked] == ["Bearer secret", "Bearer secret", None]  # not to the storage


def test_a_run_without_a_record_is_no_fault(job: Job, api: Api) -> None:
    api.answers = {ARTIFACTS: {"artifacts": []}}
    done = script(job, api, "fetch the record", RUN_ID="99")
    assert (done.returncode, job.outputs) == (0, {"found": "false"})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (archive({"summary.md": b""}), "it has no record.json that can be read (KeyError)"),
        (b"no archive", "it has no record.json that can be read (BadZipFile)"),
        (b"x" * (10 * 2**20 + 1), "it is larger than 10 MiB"),
        (archive({"record.json": b" " * (10 * 2**20 + 1)}), "its record.json is larger than 10 MiB"),
        (damaged(), "it has no record.json that can be read (error)"),
        (archive({"record.json": b"{}"}, zipfile.ZIP_LZMA), "it is compressed in a way that GitHub does not use"),
    ],
)
def test_what_is_no_record_is_refused(job: Job, api: Api, content: bytes, why: str) -> None:
    done = fetch(job, api, content)
    assert (done.returncode, done.stderr) == (1, f"::error::the artifact model-budgets is refused: {why}\n")
    assert list(job.workspace.iterdir()) == []
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
    before, after = "python -m pip install --constraint constraints.txt ", "python -m pip install --no-deps .\n"
    assert install.startswith(after + before)
    there = installed_with(install.removeprefix(after + before).split())
    assert not there & {"torch", "pytest"}
    distributions = importlib.metadata.packages_distributions()
    hidden = [name for name, owners in distributions.items() if not there & {normal(owner) for owner in owners}]
    hidden = [name for name in hidden if name != "pytest_modelopt" and name.isidentifier()]
    record_json.write(realistic(), tmp_path / "record.json")
    code = f"import sys; sys.modules.update(dict.fromkeys({hidden!r}))\n"
    code += "from pytest_modelopt.cli import main; sys.exit(main(['report', '--markdown', 'record.json']))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "digits-vit" in done.stdout
