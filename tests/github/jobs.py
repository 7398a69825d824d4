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
ACTION = GITHUB / "actions" / "model-budgets" / "action.yml"
WORKFLOWS = sorted((GITHUB / "workflows").iterdir())
COMMENT = GITHUB / "workflows" / "model-budgets-comment.yml"
FILES = [*WORKFLOWS, ACTION]


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
