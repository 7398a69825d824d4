"""Our workflows are what GitHub takes, safe by zizmor's rules, and no more permitted than they need."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.github.jobs import ACTION, COMMENT, FILES, GITHUB, read, steps_of

SCRIPTS = Path(sys.executable).parent


def name_of(file: Path) -> str:
    return str(file.relative_to(GITHUB))


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
