"""Our workflows are valid, safe by zizmor's rules, and their scripts do what they say, run as GitHub runs them."""

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
import yaml

from pytest_modelopt.record import json as record_json
from tests.report.records_by_hand import realistic

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
ACTION = GITHUB / "actions" / "model-budgets" / "action.yml"
WORKFLOWS = sorted((GITHUB / "workflows").iterdir())
COMMENT = GITHUB / "workflows" / "model-budgets-comment.yml"
FILES = [*WORKFLOWS, ACTION]
SCRIPTS = Path(sys.executable).parent


def name_of(file: Path) -> str:
    return str(file.relative_to(GITHUB))


def read(file: Path) -> dict[str, Any]:
    content = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 -- `on` stays a word
    assert isinstance(content, dict)
    return content


def steps_of(file: Path) -> list[dict[str, Any]]:
    content = read(file)
    jobs = content["jobs"].values() if "jobs" in content else [content["runs"]]
    return [step for job in jobs for step in job["steps"]]


# --- what can be read off the files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_it_is_what_github_takes(file: Path) -> None:
    kind = "vendor.github-actions" if file == ACTION else "vendor.github-workflows"
    command = [SCRIPTS / "check-jsonschema", "--builtin-schema", kind, file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ok -- validation done\n"), done.stdout


def test_zizmor_finds_nothing() -> None:
    command = [SCRIPTS / "zizmor", "--offline", "--no-progress", "--persona", "auditor", "--format", "json", GITHUB]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)) == (0, []), done.stdout + done.stderr
    assert all(f"completed {file}" in done.stderr for file in FILES)


def test_what_zizmor_is_told_to_ignore_is_the_trigger_alone() -> None:
    ignored = [
        (file.name, line.strip()) for file in FILES for line in file.read_text().splitlines() if "zizmor:" in line
    ]
    trigger = "workflow_run: # zizmor: ignore[dangerous-triggers] the reasons stand above"
    assert ignored == [("model-budgets-comment.yml", trigger)]


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_actions_of_others_are_pinned_with_their_version(file: Path) -> None:
    used = [line.strip().removeprefix("- ") for line in file.read_text().splitlines() if " uses: " in f" {line} "]
    assert len(used) == sum("uses" in step for step in steps_of(file))
    for line in used:
        assert re.fullmatch(r"uses: (\$/\.github/\S+|actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+.*)", line)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_script_holds_an_expression(file: Path) -> None:
    """Inputs come through `env`: what is spliced into a script becomes code."""
    assert all("${{" not in step["run"] for step in steps_of(file) if "run" in step)


def test_the_check_may_read_and_nothing_else() -> None:
    workflow = read(GITHUB / "workflows" / "model-budgets.yml")
    assert list(workflow["on"]) == ["pull_request"]
    assert workflow["permissions"] == {}
    assert [job["permissions"] for job in workflow["jobs"].values()] == [{"contents": "read"}]
    checkout = workflow["jobs"]["measure"]["steps"][0]["with"]
    assert checkout == {"fetch-depth": "0", "persist-credentials": "false"}


def test_what_runs_the_strangers_record_may_write_nothing() -> None:
    workflow = read(COMMENT)
    assert list(workflow["on"]) == ["workflow_run"]
    assert workflow["on"]["workflow_run"]["workflows"] == [read(GITHUB / "workflows" / "model-budgets.yml")["name"]]
    assert workflow["permissions"] == {}
    render, comment = workflow["jobs"]["render"], workflow["jobs"]["comment"]
    assert set(render["permissions"].values()) == {"read"}
    assert comment["permissions"] == {"pull-requests": "write"}
    assert not any("checkout" in step.get("uses", "") for step in comment["steps"])
    checkout = next(step for step in render["steps"] if "checkout" in step.get("uses", ""))
    assert checkout["with"] == {"persist-credentials": "false"}  # no ref: the default branch


# --- the action, run as plain shell ----------------------------------------------------------------------------------


class Job:
    """The variables and files that GitHub gives to a step, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.workspace.mkdir(exist_ok=True)
        self.files = {name: folder / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV")}
        for file in self.files.values():
            file.write_text("")

    def run(self, step: dict[str, Any], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        script = self.folder / "script"
        script.write_text(step["run"], encoding="utf-8")
        how = ["bash", "--noprofile", "--norc", "-eo", "pipefail"] if step["shell"] == "bash" else [sys.executable]
        told = {
            **os.environ,
            **{name: str(file) for name, file in self.files.items()},
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_ACTIONS": "true",
            "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # importing those of other packages takes seconds
            "PYTEST_PLUGINS": "pytest_modelopt.plugin",
            **env,
        }
        command = [*how, str(script)]
        return subprocess.run(
            command, cwd=self.workspace, env=told, capture_output=True, text=True, check=False, timeout=120
        )

    @property
    def outputs(self) -> dict[str, str]:
        """As the runner reads them: the last of a name holds."""
        text = self.files["GITHUB_OUTPUT"].read_text(encoding="utf-8")
        found: dict[str, str] = {}
        lines = iter(text.splitlines())
        for line in lines:
            if match := re.fullmatch(r"([^=]+)<<(.+)", line):
                value = []
                while (inner := next(lines)) != match[2]:
                    value.append(inner)
                found[match[1]] = "\n".join(value)
            else:
                name, _, value_of = line.partition("=")
                found[name] = value_of
        return found


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def gate(job: Job, **inputs: str) -> subprocess.CompletedProcess[str]:
    """The action's one step, with these inputs and the defaults of the others."""
    (step,) = steps_of(ACTION)
    given = {name: each.get("default", "") for name, each in read(ACTION)["inputs"].items()}
    given |= {"python": sys.executable, **{name.replace("_", "-"): value for name, value in inputs.items()}}
    assert set(given) == set(read(ACTION)["inputs"])
    env = {}
    for name, expression in step["env"].items():
        match = re.fullmatch(r"\$\{\{ inputs\.([a-z-]+) \}\}", expression)
        assert match is not None
        env[name] = given[match[1]]
    return job.run(step, env)


BUDGETS = """
version: 1
models:
  m:
    factory: shop:model
    recipes:
      int8-dynamic:
        max_memory: {limit}
"""
SHOP = """
import torch
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4)).eval()
def data():
    return torch.zeros(4, 8), torch.zeros(4, dtype=torch.long)
"""


@pytest.mark.parametrize(("limit", "verdict", "status"), [("1 MB", "passed", 0), ("1 B", "failed", 1)])
def test_a_run_sets_its_outputs_green_or_red(job: Job, limit: str, verdict: str, status: int) -> None:
    text = BUDGETS.format(limit=limit).replace("    recipes:", "    data: shop:data\n    recipes:")
    (job.workspace / "limits.yaml").write_text(text)
    (job.workspace / "shop.py").write_text(SHOP)
    done = gate(job, budgets="limits.yaml", report="out put", pytest_arguments="limits.yaml\n\n-p\nno:cacheprovider\n")
    assert done.returncode == status, done.stdout + done.stderr
    folder = job.workspace / "out put"
    assert job.outputs == {
        "verdict": verdict,
        "record": str(folder / "record.json"),
        "summary": str(folder / "summary.md"),
    }
    assert json.loads((folder / "record.json").read_text())["complete"] is True
    assert "int8-dynamic" in job.files["GITHUB_STEP_SUMMARY"].read_text()
    assert ("::error file=limits.yaml,line=9," in done.stdout) == (status == 1)


def test_a_gate_that_cannot_run_is_an_error_that_is_told(job: Job) -> None:
    """An earlier run's record does not pass for this one's."""
    (job.workspace / "budgets.yaml").write_text("version: 7\n")
    stale = job.workspace / "modelopt-report" / "record.json"
    stale.parent.mkdir()
    stale.write_text("{}")
    done = gate(job)
    assert done.returncode == 4
    assert job.outputs == {"verdict": "error"}
    assert not stale.exists()
    assert "the gate could not run** (exit status 4)" in job.files["GITHUB_STEP_SUMMARY"].read_text()
    assert "::error::model-budgets: the gate could not run (exit status 4)\n" in done.stdout


# --- the action's arguments: what it calls is a program that writes down how it is called ----------------------------

CALLED = """#!/bin/bash
printf '%s\\0' "$@" > "$GITHUB_WORKSPACE/called"
mkdir -p report; echo '{}' > report/record.json
exit ${STATUS:-0}
"""


@pytest.fixture
def python(job: Job) -> str:
    program = job.folder / "py thon"
    program.write_text(CALLED)
    program.chmod(0o755)
    return str(program)


def called(job: Job) -> list[str]:
    return (job.workspace / "called").read_text().split("\0")[:-1]


def test_inputs_that_are_not_given_are_not_passed_on(job: Job, python: str) -> None:
    assert gate(job, python=python).returncode == 0
    assert called(job) == ["-m", "pytest", "--modelopt", "--modelopt-report=modelopt-report"]


def test_every_input_reaches_pytest(job: Job, python: str) -> None:
    done = gate(
        job,
        python=python,
        budgets="ci/budgets.yaml",
        against="merge-base:origin/main",
        strict="true",
        report="report",
        pytest_arguments="tests/a b.py\n-k one or two",
    )
    assert done.returncode == 0
    options = ["--modelopt-report=report", "--modelopt-budgets=ci/budgets.yaml"]
    options += ["--modelopt-against=merge-base:origin/main", "--modelopt-strict"]
    assert called(job) == ["-m", "pytest", "--modelopt", *options, "tests/a b.py", "-k one or two"]
    assert job.outputs == {"verdict": "passed", "record": str(job.workspace / "report" / "record.json")}


def test_a_folder_may_be_named_by_its_whole_path(job: Job, python: str) -> None:
    folder = job.folder / "elsewhere"
    Path(python).write_text(CALLED.replace("report/record.json", f"'{folder}/record.json'"))
    folder.mkdir()
    assert gate(job, python=python, report=str(folder)).returncode == 0
    assert job.outputs == {"verdict": "passed", "record": str(folder / "record.json")}


HOSTILE = [
    "$(touch hurt)",
    "`touch hurt`",
    "; touch hurt #",
    "' ; touch hurt ; '",
    '" ; touch hurt ; "',
    "a\nverdict=passed\nb",
    "x\nend\ntouch hurt",
    "* ? [a] ~ $HOME ${PATH} \\",
    "--co",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("name", ["budgets", "against"])
def test_hostile_inputs_stay_data(job: Job, python: str, name: str, value: str) -> None:
    gate(job, python=python, **{name: value})
    assert called(job)[-1] == f"--modelopt-{name}={value}"
    assert not (job.workspace / "hurt").exists()
    assert job.outputs == {"verdict": "passed"}


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_folder_stays_data(job: Job, python: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATUS", "1")
    folder = job.workspace / value
    (folder).mkdir()
    for name in ("record.json", "summary.md"):
        (folder / name).write_text("stale")
    program = Path(python)
    program.write_text(CALLED.replace("mkdir -p report; echo '{}' >", 'echo x > "${4#*=}"/summary.md #'))
    assert gate(job, python=python, report=value).returncode == 1
    assert called(job) == ["-m", "pytest", "--modelopt", f"--modelopt-report={value}"]
    assert job.outputs == {"verdict": "failed", "summary": str(folder / "summary.md")}
    assert not (folder / "record.json").exists()
    assert not (job.workspace / "hurt").exists()


@pytest.mark.parametrize("value", [each for each in HOSTILE if "\n" not in each])
def test_a_hostile_argument_is_one_argument(job: Job, python: str, value: str) -> None:
    gate(job, python=python, pytest_arguments=f"{value}\n{value}")
    assert called(job)[-2:] == [value, value]
    assert not (job.workspace / "hurt").exists()


@pytest.mark.parametrize("value", ["yes", "True", "$(touch hurt)", "false\ntrue"])
def test_strict_is_true_or_false(job: Job, python: str, value: str) -> None:
    done = gate(job, python=python, strict=value)
    assert (done.returncode, job.outputs) == (4, {"verdict": "error"})
    assert done.stdout == "::error::model-budgets: the input strict is neither 'true' nor 'false'\n"
    assert not (job.workspace / "called").exists()


@pytest.mark.parametrize(
    ("status", "verdict"), [(0, "passed"), (1, "failed"), (2, "error"), (3, "error"), (5, "error")]
)
def test_the_exit_status_of_pytest_is_the_steps(
    job: Job, python: str, monkeypatch: pytest.MonkeyPatch, status: int, verdict: str
) -> None:
    monkeypatch.setenv("STATUS", str(status))
    assert gate(job, python=python, report="report").returncode == status
    assert job.outputs["verdict"] == verdict
    assert (job.files["GITHUB_STEP_SUMMARY"].read_text() == "") == (verdict != "error")


def test_a_step_that_is_ended_from_outside_has_said_error(job: Job, python: str) -> None:
    Path(python).write_text("#!/bin/bash\nkill -9 $PPID\n")
    assert gate(job, python=python).returncode == -9
    assert job.outputs == {"verdict": "error"}


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


def archive(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in files.items():
            made.writestr(name, text)
    return content.getvalue()


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
