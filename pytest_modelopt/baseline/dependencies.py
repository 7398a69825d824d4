"""Whether a change of a dependency file is one of dependencies, not of a version, a tool's settings or a comment."""

from __future__ import annotations

import configparser
import fnmatch
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Stated = Callable[[str], Any]
"""What a file's text says of dependencies, for a comparison. Raises ValueError where it cannot be read."""
_NOT_OURS = ("editable", "virtual", "directory")


def _lines(text: str) -> Any:
    """Of requirements.txt: order, blank lines and comments aside."""
    lines = (line.split(" #")[0].strip() for line in text.splitlines())
    return sorted(line for line in lines if line and not line.startswith("#"))


def _pyproject(text: str) -> Any:
    data = tomllib.loads(text)
    project, tool = data.get("project", {}), data.get("tool", {})
    stated = {name: project.get(name) for name in ("dependencies", "optional-dependencies", "requires-python")}
    poetry = tool.get("poetry", {})
    stated["poetry"] = [poetry.get(name) for name in ("dependencies", "dev-dependencies", "group", "extras", "source")]
    others = [tool.get(name) for name in ("uv", "pdm", "hatch", "pixi", "conda-lock")]
    return [stated, data.get("dependency-groups"), data.get("build-system"), others]


def _setup_cfg(text: str) -> Any:
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(text)
    options = dict(parser["options"]) if parser.has_section("options") else {}
    extras = dict(parser["options.extras_require"]) if parser.has_section("options.extras_require") else {}
    return [options.get(name) for name in ("install_requires", "setup_requires", "python_requires")], extras


def _toml_lock(text: str) -> Any:
    """The locked packages but the project itself, whose version is in there, too."""
    data = tomllib.loads(text)
    found = [*data.get("package", []), *data.get("packages", [])]
    return [each for each in found if not any(name in (each.get("source") or {}) for name in _NOT_OURS)]


def _environment(text: str) -> Any:
    data = yaml.safe_load(text)
    return [data.get(name) for name in ("dependencies", "channels")] if isinstance(data, dict) else text


_KINDS: dict[str, Stated] = {
    "requirements*.txt": _lines,
    "requirements*.in": _lines,
    "constraints*.txt": _lines,
    "pyproject.toml": _pyproject,
    "setup.cfg": _setup_cfg,
    "setup.py": str,
    "poetry.lock": _toml_lock,
    "uv.lock": _toml_lock,
    "pdm.lock": _toml_lock,
    "pylock*.toml": _toml_lock,
    "pixi.lock": str,
    "Pipfile.lock": str,
    "Pipfile": tomllib.loads,
    "conda-lock.y*ml": str,
    "environment*.y*ml": _environment,
}


def changed_dependencies(changed: tuple[str, ...], base: Path, head: Path) -> tuple[str, ...]:
    """Those of the `changed` files that state other dependencies in the folder `base` than in `head`."""
    return tuple(path for path in changed if _differs(Path(path).name, base / path, head / path))


def _differs(name: str, was: Path, now: Path) -> bool:
    stated = next((kind for pattern, kind in _KINDS.items() if fnmatch.fnmatch(name, pattern)), None)
    if stated is None:
        return False
    try:
        return bool(_of(stated, was) != _of(stated, now))
    except (ValueError, OSError, AttributeError, TypeError, configparser.Error, yaml.YAMLError):
        return True  # what cannot be read may say anything


def _of(stated: Stated, file: Path) -> Any:
    return stated(file.read_text(encoding="utf-8")) if file.exists() else None
