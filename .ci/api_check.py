"""Which public names of this version break those of the last release: `python .ci/api_check.py [REVISION]`.

Public is what `__all__` of the package and of `pytest_modelopt.testing` names, with its parameters and attributes.
Without REVISION it is the newest tag `v*`, or where there is none yet, the first parent of HEAD. The exit status is 1
where something breaks.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "pytest_modelopt"
MODULES = (PACKAGE, f"{PACKAGE}.testing")


def main() -> int:
    revision = sys.argv[1] if len(sys.argv) > 1 else _last_release() or "HEAD^"
    before = _package(griffe.load_git(PACKAGE, ref=revision, repo=ROOT, resolve_aliases=True))
    now = _package(griffe.load(PACKAGE, search_paths=[ROOT], resolve_aliases=True))
    broken = [f"{module}.{name} is gone" for module, name in _public(before) - _public(now)]
    paths = {_path(before, module, name) for module, name in _public(before) & _public(now)}
    for change in griffe.find_breaking_changes(before, now):
        path = change.obj.path
        if any(path == each or path.startswith((f"{each}.", f"{each}(")) for each in paths):
            broken.append(change.explain(griffe.ExplanationStyle.ONE_LINE))
    print("\n".join(sorted(set(broken))))
    print(f"{len(set(broken))} changes since {revision} break its {len(_public(before))} public names")
    return 1 if broken else 0


def _last_release() -> str:
    command = ["git", "describe", "--tags", "--abbrev=0", "--match", "v*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def _package(found: griffe.Object | griffe.Alias) -> griffe.Module:
    assert isinstance(found, griffe.Module)
    return found


def _public(package: griffe.Module) -> set[tuple[str, str]]:
    """(module, name) of each."""
    modules = [package if name == PACKAGE else package[name.removeprefix(f"{PACKAGE}.")] for name in MODULES]
    return {(module.path, str(name)) for module in modules for name in module.exports or ()}


def _path(package: griffe.Module, module: str, name: str) -> str:
    """Where the object is defined."""
    found = package[f"{module}.{name}".removeprefix(f"{PACKAGE}.")]
    return str(found.canonical_path)


if __name__ == "__main__":
    sys.exit(main())
