"""Our workflow files, and their steps run in a folder as GitHub runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
TEMPLATES = ROOT / "pytest_modelopt" / "ci"
ACTION = TEMPLATES / "github" / "actions" / "model-budgets" / "action.yml"
CHECK, MATRIX, COMMENT = (
    TEMPLATES / "github" / "workflows" / f"model-budgets{suffix}.yml" for suffix in ("", "-matrix", "-comment")
)
GITLAB = TEMPLATES / "gitlab" / "model-budgets.yml"
OWN = [
    GITHUB / "workflows" / "model-budgets.yml",
    GITHUB / "workflows" / "model-budgets-comment.yml",
    GITHUB / "actions" / "model-budgets" / "action.yml",
    GITHUB / "dependabot.yml",
]
"""Our own copies of templates: what users copy is what runs here, but for how the project is installed."""
WORKFLOWS = [*sorted((GITHUB / "workflows").iterdir()), CHECK, MATRIX, COMMENT]
FILES = [*WORKFLOWS, ACTION, OWN[2]]

_CHANGED = {
    "model-budgets.yml": [
        (
            "--editable . pytest-modelopt # TO ADAPT: how this project is installed",
            "--constraint constraints.txt --editable '.[all,example]'",
        ),
        ('python-version: "3.12"', 'python-version: "3.11"'),
    ],
    "model-budgets-comment.yml": [
        (
            "      actions: read # to download the artifact\n",
            "      contents: read\n      actions: read # to download the artifact\n",
        ),
        (
            "          python -m pip install --no-deps pytest-modelopt\n"
            "          python -m pip install packaging pydantic pyyaml tabulate\n",
            "          python -m pip install --no-deps .\n"
            "          python -m pip install --constraint constraints.txt pydantic pyyaml tabulate\n",
        ),
        (
            "      - name: fetch the record\n",
            "      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1, of the default branch\n"
            "        with:\n"
            "          persist-credentials: false\n"
            "      - name: fetch the record\n",
        ),
        ('python-version: "3.12"', 'python-version: "3.11"'),
    ],
}


def as_own(own: Path) -> str:
    """The template of one of our own files, with the lines that differ here."""
    text = (TEMPLATES / "github" / own.relative_to(GITHUB)).read_text(encoding="utf-8")
    for template, ours in _CHANGED.get(own.name, []):
        assert template in text, template
        text = text.replace(template, ours)
    return text


def read(file: Path) -> dict[str, Any]:
    content = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 -- `on` stays a word
    assert isinstance(content, dict)
    return content


def steps_of(file: Path) -> list[dict[str, Any]]:
    content = read(file)
    jobs = content["jobs"].values() if "jobs" in content else [content["runs"]]
    return [step for job in jobs for step in job["steps"]]


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
        how = (
            ["bash", "--noprofile", "--norc", "-eo", "pipefail"] if step.get("shell") != "python" else [sys.executable]
        )
        told = {
            **os.environ,
            **{name: str(file) for name, file in self.files.items()},
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_ACTIONS": "true",
            "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # importing those of other packages takes seconds
            "PYTEST_PLUGINS": "pytest_modelopt.plugin",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
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


def gate(job: Job, told: dict[str, str] | None = None, **inputs: str) -> subprocess.CompletedProcess[str]:
    """The action's one step, with these inputs and the defaults of the others. `told`: more environment variables."""
    (step,) = steps_of(ACTION)
    given = {name: each.get("default", "") for name, each in read(ACTION)["inputs"].items()}
    given |= {"python": sys.executable, **{name.replace("_", "-"): value for name, value in inputs.items()}}
    assert set(given) == set(read(ACTION)["inputs"])
    env = dict(told or {})
    for name, expression in step["env"].items():
        match = re.fullmatch(r"\$\{\{ inputs\.([a-z-]+) \}\}", expression)
        assert match is not None
        env[name] = given[match[1]]
    return job.run(step, env)
