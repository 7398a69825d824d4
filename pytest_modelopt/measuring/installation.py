"""What belongs to the Python installation and the system, and not to a user's project."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from pathlib import Path

INSTALLED = ("site-packages", "dist-packages")
LIBRARY = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
OUR_FOLDER = Path(__file__).parents[1]
_USERS = Path("/usr/src")
"""Where the images of Docker have the user's project."""
_SYSTEM = tuple(map(Path, ("/usr", "/lib", "/lib64", "/bin", "/etc", "/opt/intel", "/proc", "/sys", "/dev")))


def _with_separator(places: tuple[Path, ...]) -> tuple[str, ...]:
    return tuple(os.path.normcase(f"{place}{os.sep}") for place in places)


_OF_USERS = _with_separator((_USERS,))
_PLACES = _with_separator((*LIBRARY, OUR_FOLDER, *_SYSTEM))
_LIBRARY_FILE = "/".join(str(sysconfig.get_config_var(name)) for name in ("LIBDIR", "INSTSONAME"))
_INTERPRETER = {os.path.normcase(os.path.realpath(name)) for name in (_LIBRARY_FILE, sys.executable or os.devnull)}
"""The program, and the library that it is where Python was built so."""


@functools.cache
def is_installed(file: str) -> bool:
    """Whether the file belongs to an installed package, to the interpreter, to the system or to this plugin."""
    if file.startswith("<frozen") or ("/" not in file and os.sep not in file):
        return True
    # Texts, and not pathlib, which takes ten times as long: each worker asks this of thousands of files.
    path = os.path.abspath(file)  # noqa: PTH100 -- links stay as they are named
    parts = path.split(os.sep)  # noqa: PTH206
    if any(name in parts for name in INSTALLED):
        return True
    whole = os.path.normcase(path)
    folder = f"{whole}{os.sep}"
    return whole in _INTERPRETER or (folder.startswith(_PLACES) and not folder.startswith(_OF_USERS))


def is_of_project(module: str) -> bool:
    """Whether the module named so is the user's: what is neither built in nor installed. One that is not there, such as
    that of a class which travelled as code, is the user's, too."""
    if module in sys.builtin_module_names or module.partition(".")[0] in sys.stdlib_module_names:
        return module == "__main__"
    found = sys.modules.get(module)
    file = getattr(found, "__file__", None)
    return found is None or (isinstance(file, str) and not is_installed(file))
