"""Command line > ini > budgets.yaml > built-in default, decided in this one place."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_modelopt.plugin.keys import JOB

if TYPE_CHECKING:
    from pytest_modelopt.fleet.engine import Cluster

DEFAULT_BUDGETS = "budgets.yaml"
DEFAULT_BISECT_S = 10.0


@dataclass(frozen=True)
class Options:
    """What the command line and the ini file say. None: not said, so budgets.yaml or the built-in default holds."""

    budgets: Path
    """Absolute path of the budgets file, whether or not it exists."""
    budgets_named: bool
    """The user named the file, so it must exist."""
    report: Path | None
    """Folder for record.json and summary.md."""
    strict: bool
    """Inconclusive counts as broken."""
    time_limit_s: float | None
    step_limit_s: float | None
    against: str | None = None
    """The git revision to compare with."""
    baseline: Path | None = None
    """The saved record to compare with."""
    save: Path | None = None
    """Where to save this run's record, as a baseline for others."""
    whole: bool = False
    """A run that leaves out a case that it knows is red."""
    no_loosening: bool = False
    """A limit that head states less strictly than its base is red."""
    budgets_on_command_line: bool = False
    """Whoever runs pytest named the budgets file: it is the same path at the base, whatever ini files say."""
    html: Path | None = None
    """File for the report as one page."""
    resume: Path | None = None
    """The record of an interrupted run, which this one goes on from."""
    cluster: Cluster | None = None
    """On which tests that measure run; None: they run here."""
    targets: tuple[str, ...] = ()
    """The targets that this run is about; none for all."""
    bisect_s: float | None = None
    """For the layers through which a recipe breaks a limit on answers; 0: they are not looked for."""


_INI_FILES = {
    "pytest.toml": "",
    ".pytest.toml": "",
    "pytest.ini": "",
    ".pytest.ini": "",
    "pyproject.toml": "[tool.pytest",
    "tox.ini": "[pytest]",
    "setup.cfg": "[tool:pytest]",
}
"""Names in the order in which pytest looks for them, each with what makes it one of pytest's."""
SWITCH = "optimize and measure the models of budgets.yaml and of tests that use `modelopt`, and assert their budgets"
"""Help of `--modelopt`."""
SETTINGS = (
    ("budgets", "PATH", f"the budgets file (default: {DEFAULT_BUDGETS} in the root folder)"),
    ("report", "DIR", "write record.json and summary.md into this folder"),
    ("html", "FILE", "write the report as one HTML page to this file"),
    ("strict", "", "a timed limit that stays inconclusive fails, too"),
    ("whole", "", "a run that leaves out a case (by -k, -m, --deselect, paths or a skip), or measures nothing, fails"),
    ("no_loosening", "", "a limit that is less strict than at the base, gone or newly waived, fails"),
    ("time_limit", "TIME", "timing per comparison, such as '20 s' (budgets.yaml: time_limit)"),
    ("step_limit", "TIME", "limit of any other step of a worker, such as '10 min' (budgets.yaml: step_limit)"),
    ("bisect", "TIME", f"look so long for layers that break a limit on answers, or 'off' ({DEFAULT_BISECT_S:.0f} s)"),
    ("against", "REV", "compare with a git revision, measured in the same run: a branch, a tag or 'merge-base:REV'"),
    ("baseline", "FILE", "compare the exact figures with a record that --modelopt-save wrote"),
    ("save", "FILE", "save the record of this run, for --modelopt-baseline"),
    ("resume", "FILE", "take the cases that this record of a run on a fleet has, and measure the others"),
    ("targets", "NAMES", "this run is about these targets of budgets.yaml only, with commas, and fails without them"),
    (
        "ray",
        "ADDRESS",
        "measure on the machines of a Ray cluster: its address, 'auto', or 'local' (this machine)",
    ),
    ("slurm", "DIR", "measure on the machines of a Slurm cluster, all of which share this folder"),
)
"""Name, metavar ('' of a flag) and help of each option. Paths in an ini file start from there."""


def add_options(parser: pytest.Parser) -> None:
    """Declare `--modelopt` and the options below it, each with its ini key."""
    group = parser.getgroup("modelopt", "model budgets (pytest-modelopt)")
    group.addoption("--modelopt", action="store_true", default=False, help=SWITCH)
    for name, metavar, text in SETTINGS:
        option, ini = f"--modelopt-{name.replace('_', '-')}", f"modelopt_{name}"
        described = f"{text} (ini: {ini})"
        if metavar:
            group.addoption(option, metavar=metavar, default=None, help=described)
            start = ", relative to the ini file" if metavar in ("PATH", "DIR", "FILE") else ""
            parser.addini(ini, f"as {option}{start}", default=None)
        else:
            group.addoption(option, action="store_true", default=None, help=described)
            parser.addini(ini, f"as {option}", type="bool", default=False)
    parser.addini(
        "modelopt_fleet_exclude",
        "patterns of paths in the project that do not travel to machines of a fleet",
        "linelist",
    )


def is_enabled(config: pytest.Config) -> bool:
    return bool(config.getoption("--modelopt"))


def read_options(config: pytest.Config) -> Options:
    """The options of this run. Raises pytest.UsageError for a value that cannot be read."""
    _refuse_misleading_paths(config)
    budgets, named = _path(config, "budgets")
    report, _ = _path(config, "report")
    strict = config.getoption("--modelopt-strict")
    whole = config.getoption("--modelopt-whole")
    no_loosening = config.getoption("--modelopt-no-loosening")
    against, baseline = _base(config)
    is_compared = not (against is None and baseline is None)  # the ini file holds for a developer's plain run, too
    return Options(
        budgets=budgets or config.rootpath / DEFAULT_BUDGETS,
        budgets_named=named,
        report=report,
        strict=bool(config.getini("modelopt_strict") if strict is None else strict),
        time_limit_s=_seconds(config, "time_limit"),
        step_limit_s=_seconds(config, "step_limit"),
        bisect_s=_seconds(config, "bisect", off="off"),
        against=against,
        baseline=baseline,
        save=_path(config, "save")[0],
        resume=_path(config, "resume")[0],
        cluster=_cluster(config),
        targets=() if config.stash.get(JOB, False) else _targets(config),
        html=_path(config, "html")[0],
        whole=bool(config.getini("modelopt_whole") if whole is None else whole),
        no_loosening=is_compared and bool(config.getini("modelopt_no_loosening"))
        if no_loosening is None
        else no_loosening,
        budgets_on_command_line=any(
            "--modelopt-budgets" in argument or "modelopt_budgets=" in argument
            for argument in (
                *map(str, config.invocation_params.args),
                *os.environ.get("PYTEST_ADDOPTS", "").split(),
            )
        ),
    )


def _refuse_misleading_paths(config: pytest.Config) -> None:
    """Pytest looks for the root folder and the ini file before it knows our options: a path behind one, without `=`, is
    a path of tests to it, and if that lies elsewhere, so may what it finds.

    Raises:
        pytest.UsageError: where pytest has found others than those of the folder in which it was called.
    """
    here = config.invocation_params.dir
    if config.getoption("inifilename", None):
        return
    named = {f"--modelopt-{name.replace('_', '-')}" for name, metavar, _ in SETTINGS if metavar}
    given = [*shlex.split(os.environ.get("PYTEST_ADDOPTS", "")), *map(str, config.invocation_params.args)]
    for option, value in pairwise(given):
        path = _absolute(here, value)
        is_apart = option in named and path.exists() and not path.is_relative_to(here)
        if is_apart and not _has_root_of(here, config):
            raise _wrong(
                f"{option} {value}: pytest does not know the option when it looks for its root folder, takes this for "
                f"a path of tests and chose {config.rootpath}: write {option}={value}"
            )


def _has_root_of(here: Path, config: pytest.Config) -> bool:
    """Whether pytest has found the ini file, or without one the root folder, that are next above `here`."""
    above = (here, *here.parents)
    for file, section in ((folder / name, section) for folder in above for name, section in _INI_FILES.items()):
        if file.is_file() and section in file.read_text(encoding="utf-8", errors="replace"):
            return config.inipath is not None and file.samefile(config.inipath)
    of_packages = (
        folder for folder in above if any((folder / name).is_file() for name in ("setup.py", "pyproject.toml"))
    )
    return config.getoption("rootdir", None) is not None or config.rootpath in (here, *of_packages)


def _base(config: pytest.Config) -> tuple[str | None, Path | None]:
    """The revision or the record to compare with; the command line's choice goes before the ini file's."""
    revision, record = config.getoption("--modelopt-against"), config.getoption("--modelopt-baseline")
    said = "--modelopt-against and --modelopt-baseline"
    if revision is None and record is None:
        revision, record = config.getini("modelopt_against") or None, config.getini("modelopt_baseline") or None
        said = "modelopt_against and modelopt_baseline"
    if revision is not None and record is not None:
        raise _wrong(f"{said} are two bases; a run compares with one: give one of them")
    if revision is not None:
        return str(revision), None
    return None, None if record is None else _path(config, "baseline")[0]


def _cluster(config: pytest.Config) -> Cluster | None:
    """The machines that measure; the command line's choice goes before the ini file's."""
    from pytest_modelopt.fleet.engine import Cluster

    for asked, ray, slurm in (
        (config.getoption, "--modelopt-ray", "--modelopt-slurm"),
        (config.getini, "modelopt_ray", "modelopt_slurm"),
    ):
        if asked(ray) and asked(slurm):
            raise _wrong(f"{ray} and {slurm} are two clusters; a run is measured on one: give one of them")
        if asked(ray):
            return Cluster("ray", asked(ray))
        if asked(slurm):
            return Cluster("slurm", str(_path(config, "slurm")[0]))
    return None


def _path(config: pytest.Config, key: str) -> tuple[Path | None, bool]:
    """(absolute path, whether it was named): the command line's is relative to where pytest was called."""
    given = config.getoption(f"--modelopt-{key}")
    if given is not None:
        return _absolute(config.invocation_params.dir, given), True
    given = config.getini(f"modelopt_{key}")
    if given:
        folder = config.inipath.parent if config.inipath else config.rootpath
        return _absolute(folder, given), True
    return None, False


def _targets(config: pytest.Config) -> tuple[str, ...]:
    """Of a job of a fleet, whoever placed it has chosen the machine."""
    given = config.getoption("--modelopt-targets") or config.getini("modelopt_targets") or ""
    return tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))


def _absolute(folder: Path, given: str) -> Path:
    """Of a path that starts from the folder. A shell leaves `~` as it is behind `=`."""
    path = folder / os.path.expanduser(given)  # noqa: PTH111 -- which raises where there is no such user
    return Path(os.path.abspath(path))  # noqa: PTH100 -- as pytest does: links stay as the user names them


def _seconds(config: pytest.Config, key: str, off: str | None = None) -> float | None:
    """`off`: the word for no time at all."""
    from pytest_modelopt.limits.units import UnitError, parse_time

    option = f"--modelopt-{key.replace('_', '-')}"
    given, source = config.getoption(option), option
    if given is None:
        given, source = config.getini(f"modelopt_{key}"), f"modelopt_{key}"
    if not given:
        return None
    if off is not None and str(given).strip() == off:
        return 0.0
    try:
        return parse_time(given)
    except UnitError as error:
        otherwise = f"; or '{off}'" if off is not None else ""
        raise _wrong(f"{source}: {error}{otherwise}") from None


def _wrong(text: str) -> pytest.UsageError:
    from pytest_modelopt.plugin.usage_errors import usage_error  # not imported where `--modelopt` is off

    return usage_error(text, "usage-option")
