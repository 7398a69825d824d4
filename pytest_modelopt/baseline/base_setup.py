"""`base_setup:`: a command of head's budgets file that makes in the base's tree what git ignores."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pytest_modelopt.baseline.base_tree import BaseTree
from pytest_modelopt.baseline.git import run

_LINES_SHOWN, _CHARACTERS_SHOWN = 5, 800


def set_up(tree: BaseTree, command: tuple[str, ...], folder: Path, limit_s: float) -> str:
    """Run the command in the base's counterpart of head's `folder`; why it failed, in one sentence, or ''."""
    place = tree.mapped(folder)
    if not place.is_dir():
        place = tree.folder
    told = f"`base_setup` ({shlex.join(command)})"
    try:
        answer = run(list(command), _environment(tree, folder), limit_s, place)
    except OSError as error:
        return f"{told} cannot be run: {error.strerror or error}"
    if answer.is_ok:
        return ""
    lines = [*answer.output.decode(errors="replace").splitlines(), *answer.error.splitlines()]
    last = "; ".join([line.strip() for line in lines if line.strip()][-_LINES_SHOWN:])[-_CHARACTERS_SHOWN:]
    said = "".join(c if c.isprintable() else repr(c)[1:-1] for c in last)
    how = f"failed with exit status {answer.status}" if answer.status >= 0 else "was ended"
    return f"{told} {how} in the base's tree{f': {said}' if said else ''}"


def _environment(tree: BaseTree, folder: Path) -> dict[str, str]:
    """This process's, with the base's folders where it names head's, and the base's modules before any others: head's
    may be installed as editable. `python` is the one that runs pytest."""
    variables = {
        name: value if name == "HOME" else os.pathsep.join(_at_base(tree, part) for part in value.split(os.pathsep))
        for name, value in os.environ.items()
    }
    inside = [str(folder), *(entry for entry in sys.path if entry), *_editable()]
    modules = [there for entry in inside if (there := _at_base(tree, entry)) != entry]
    before = [part for part in variables.get("PYTHONPATH", "").split(os.pathsep) if part]
    variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*modules, *before]))
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), variables.get("PATH", os.defpath)])
    return variables


def _at_base(tree: BaseTree, path: str) -> str:
    """The same folder or file at the base, where it has one; an environment inside of head's folder stays head's."""
    if not os.path.isabs(path):  # noqa: PTH117
        return path
    there = tree.mapped(Path(path))
    return str(there) if there.exists() else path


def _editable() -> Iterator[str]:
    """Folders of projects that are installed as editable, and their `src`."""
    for package in importlib.metadata.distributions():
        with suppress(Exception):  # of a package that is half installed
            source = json.loads(package.read_text("direct_url.json") or "{}")
            if source.get("dir_info", {}).get("editable", False):
                place = Path(unquote(urlsplit(source["url"]).path))
                yield from (str(place), str(place / "src"))
