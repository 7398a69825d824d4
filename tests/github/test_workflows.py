"""Our workflows are what GitHub takes, safe by zizmor's rules, and no more permitted than they need."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.github.jobs import (
    CHECK,
    COMMENT,
    FILES,
    GITHUB,
    GITLAB,
    MATRIX,
    OWN,
    ROOT,
    TEMPLATES,
    WORKFLOWS,
    as_own,
    read,
    steps_of,
)

SCRIPTS = Path(sys.executable).parent


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


# --- what can be read off the files ----------------------------------------------------------------------------------


FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").iterdir())


@pytest.mark.parametrize("file", [*FILES, OWN[3], GITLAB, *FORMS, ROOT / "CITATION.cff"], ids=name_of)
def test_it_is_what_its_host_takes(file: Path) -> None:
    kinds = {"action.yml": "github-actions", "dependabot.yml": "dependabot", "CITATION.cff": "citation-file-format"}
    kinds |= {form.name: "github-issue-config" if form.stem == "config" else "github-issue-forms" for form in FORMS}
    kind = "vendor.gitlab-ci" if file == GITLAB else "vendor." + kinds.get(file.name, "github-workflows")
    command: list[str | Path] = [SCRIPTS / "check-jsonschema", "--builtin-schema", kind, file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ok -- validation done\n"), done.stdout


def test_zizmor_finds_nothing() -> None:
    command: list[str | Path] = [
        SCRIPTS / "zizmor",
        "--offline",
        "--no-progress",
        "--persona",
        "auditor",
        "--format",
        "json",
        *FILES,
        OWN[3],
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)) == (0, []), done.stdout + done.stderr
    assert all(f"completed {file}" in done.stderr for file in FILES)


def test_actionlint_finds_nothing() -> None:
    """Types of expressions, names of steps and jobs, what runs on which system."""
    done = subprocess.run([SCRIPTS / "actionlint", *WORKFLOWS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_each_hook_runs_a_program_of_the_environment_and_fetches_none() -> None:
    (local,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    programs = {hook["entry"].split()[0] for hook in local["hooks"]}
    assert [program for program in programs if not (SCRIPTS / Path(program).name).exists()] == []


def test_what_zizmor_is_told_to_ignore_is_the_trigger_and_the_local_action() -> None:
    ignored = [
        (file.name, line.strip()) for file in FILES for line in file.read_text().splitlines() if "zizmor:" in line
    ]
    trigger = "workflow_run: # zizmor: ignore[dangerous-triggers] the reasons stand above"
    # Not every GitHub Enterprise Server knows `$/`.
    action = "- uses: ./.github/actions/model-budgets # zizmor: ignore[self-repository]"
    expected = {"model-budgets.yml": action, "model-budgets-matrix.yml": action, "model-budgets-comment.yml": trigger}
    assert ignored == [(file.name, expected[file.name]) for file in FILES if file.name in expected]


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_actions_of_others_are_pinned_with_their_version(file: Path) -> None:
    used = [line.strip().removeprefix("- ") for line in file.read_text().splitlines() if " uses: " in f" {line} "]
    assert len(used) == sum("uses" in step for step in steps_of(file))
    for line in used:
        assert re.fullmatch(
            r"uses: (\./\.github/actions/model-budgets # zizmor.*"
            r"|(actions/[a-z-]+|pypa/gh-action-pypi-publish)@[0-9a-f]{40} # v\d+\.\d+\.\d+.*)",
            line,
        )


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_script_holds_an_expression(file: Path) -> None:
    """Inputs come through `env`: what is spliced into a script becomes code."""
    assert all("${{" not in step["run"] for step in steps_of(file) if "run" in step)


@pytest.mark.parametrize("own", OWN, ids=name_of)
def test_what_users_copy_is_what_runs_here(own: Path) -> None:
    assert own.read_text(encoding="utf-8") == as_own(own)


def test_only_the_upload_of_a_release_may_say_who_it_is_and_it_builds_nothing() -> None:
    build, publish = (read(GITHUB / "workflows" / "release.yml")["jobs"][name] for name in ("build", "publish"))
    assert build["permissions"] == {"contents": "read"}
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["needs"] == "build"
    assert [step["uses"].partition("@")[0] for step in publish["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]
    given = [step["with"]["path"] for step in (*build["steps"], *publish["steps"]) if "dist" in str(step.get("with"))]
    assert given == ["dist", "dist"], "what was tried is what is uploaded"


def test_there_is_one_placeholder_at_most() -> None:
    templates = [file for file in TEMPLATES.rglob("*.yml") if file.is_file()]
    assert len(templates) == 7
    placeholders = {file.name: file.read_text(encoding="utf-8").count("TO ADAPT") for file in templates}
    assert max(placeholders.values()) == 1
    assert placeholders["model-budgets-comment.yml"] == placeholders["action.yml"] == 0
    assert not any(re.search(r"\b(OWNER|REPOSITORY|COMMIT|VERSION)\b", file.read_text()) for file in templates)


@pytest.mark.parametrize("file", [CHECK, MATRIX], ids=name_of)
def test_the_check_may_read_and_nothing_else(file: Path) -> None:
    workflow = read(file)
    assert workflow["permissions"] == {}
    assert workflow["jobs"]["measure"]["permissions"] == {"contents": "read"}
    checkout = workflow["jobs"]["measure"]["steps"][0]["with"]
    assert checkout == {"fetch-depth": "0", "persist-credentials": "false"}


@pytest.mark.parametrize("file", [CHECK, MATRIX], ids=name_of)
def test_the_check_runs_for_a_changed_base_and_a_merge_queue_and_never_skips_itself_green(file: Path) -> None:
    workflow = read(file)
    assert set(workflow["on"]) == {"pull_request", "merge_group"}
    assert workflow["on"]["pull_request"] == {"types": ["opened", "synchronize", "reopened", "edited"]}
    jobs = workflow["jobs"]
    assert [(name, job["if"]) for name, job in jobs.items() if "if" in job] == (
        [("merge", "${{ !cancelled() }}")] if file == MATRIX else []
    )


def test_the_matrix_measures_as_the_single_job_does() -> None:
    (one,), measure = read(CHECK)["jobs"].values(), read(MATRIX)["jobs"]["measure"]
    assert measure["env"] == one["env"]
    steps, single = measure["steps"], one["steps"]
    kept = [each[4]["with"] for each in (steps, single)]
    assert kept[0]["path"] == kept[1]["path"]
    assert kept[0]["key"].startswith("model-timings-${{ matrix.name }}-"), "each kind of machine has its own"
    assert single[5]["with"].pop("pytest-arguments") == "budgets.yaml\n"
    assert steps[5]["with"].pop("pytest-arguments") == "${{ matrix.paths }}\n"
    assert [*steps[:4], steps[5]] == [*single[:4], single[5]]
    assert single[6]["with"]["name"] == "model-budgets"
    assert steps[6]["with"]["name"] == "model-budgets-${{ matrix.name }}"
    names = [each["name"] for each in measure["strategy"]["matrix"]["include"]]
    assert len(set(names)) == len(names) > 1


def test_the_comment_finds_the_step_that_keeps_the_record() -> None:
    for file in (CHECK, MATRIX):
        (step,) = [step for step in steps_of(file) if step.get("with", {}).get("name") == "model-budgets"]
        fetch = next(step["run"] for step in steps_of(COMMENT) if step.get("id") == "fetch")
        assert f'NAME, UPLOAD = "model-budgets", "{step["name"]}"' in fetch


@pytest.mark.parametrize("file", WORKFLOWS, ids=name_of)
def test_only_the_check_of_pull_requests_shares_a_cache(file: Path) -> None:
    """The comment's workflow runs beside a stranger's record, with the cache of the default branch in reach."""
    cached = [step["with"].get("cache") for step in steps_of(file) if "setup-python" in step.get("uses", "")]
    is_check = file.name in ("model-budgets.yml", "model-budgets-matrix.yml")
    assert ("pip" in cached) == is_check
    assert any("actions/cache" in step.get("uses", "") for step in steps_of(file)) == is_check


def test_what_runs_the_strangers_record_may_write_nothing() -> None:
    workflow = read(GITHUB / "workflows" / COMMENT.name)
    assert list(workflow["on"]) == ["workflow_run"]
    assert workflow["on"]["workflow_run"]["workflows"] == [read(CHECK)["name"]]
    assert workflow["permissions"] == {}
    render, comment = workflow["jobs"]["render"], workflow["jobs"]["comment"]
    assert set(render["permissions"].values()) == {"read"}
    assert comment["permissions"] == {"pull-requests": "write"}
    assert not any("checkout" in step.get("uses", "") for step in comment["steps"])
    checkout = next(step for step in render["steps"] if "checkout" in step.get("uses", ""))
    assert checkout["with"] == {"persist-credentials": "false"}  # no ref: the default branch
    assert not any("checkout" in step.get("uses", "") for step in steps_of(COMMENT))


def test_each_session_of_nox_runs_and_none_is_missing() -> None:
    """nox itself is installed in an environment of its own."""
    matrix = read(GITHUB / "workflows/versions.yml")["jobs"]["sessions"]["strategy"]["matrix"]
    named = [*matrix["session"], *(entry["session"] for entry in matrix["include"])]
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    sessions = set(re.findall(r"^@nox\.session.*\n(?:@.*\n)*def (\w+)", text, re.MULTILINE))
    assert {re.split(r"[-(]", name)[0] for name in named} == sessions
    pythons = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert [name for name in named if name.startswith("unit-")] == [f"unit-{version}" for version in pythons]
