"""Rewrite constraints.txt with the newest versions that go together: `python .ci/newest_constraints.py`.

pip resolves all extras anew. The comments at the head of the file stay, and each `# hold: REQUIREMENT` there is kept.
Packages that only other systems install keep their line.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "constraints.txt"
EXTRAS = "dev,browser,executorch"
_HOLD = re.compile(r"^# hold: (\S+)", re.MULTILINE)


def main() -> None:
    text = FILE.read_text(encoding="utf-8")
    head = [line for line in text.splitlines() if line.startswith("#")]
    pins = dict(line.split("==") for line in text.splitlines() if "==" in line and not line.startswith("#"))
    pins = newer(pins, resolved(_HOLD.findall(text)))
    lines = [f"{name}=={version}" for name, version in sorted(pins.items(), key=lambda pin: pin[0].lower())]
    FILE.write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")


def resolved(holds: list[str]) -> dict[str, str]:
    """Name and version of all that pip would install."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        subprocess.run([*command, "--report", report, f"{ROOT}[{EXTRAS}]", *holds], check=True)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    versions = {each["metadata"]["name"]: each["metadata"]["version"].partition("+")[0] for each in found}
    return {name: version for name, version in versions.items() if name != "pytest-modelopt"}


def newer(pins: dict[str, str], found: dict[str, str]) -> dict[str, str]:
    """The pins with the versions found; a name keeps its spelling."""
    spelled = {_plain(name): name for name in pins}
    return pins | {spelled.get(_plain(name), name): version for name, version in found.items()}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
