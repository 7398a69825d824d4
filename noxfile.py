"""Sessions of nox: versions of Python, of what we depend on and of pytest, and other plugins beside ours.

`nox --list` names them, and CI runs them by these names. Torch comes from where pip finds it: set PIP_EXTRA_INDEX_URL
to PyTorch's CPU index, or MODELOPT_SYSTEM_PACKAGES=1 where torch is a package of the system, as Debian's is.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = [version.rpartition(" ")[2] for version in PROJECT["project"]["classifiers"] if ":: 3." in version]
ROOMS = ("config", "diagnosis", "editing", "exploring", "judging", "limits", "reporting", "results", "statistics")
"""Whose tests need no torch."""
NEEDS_TORCH = ("tests/diagnosis/test_wrong_alike.py",)
SAMPLE = (
    "plugin/runs/test_off.py",
    "plugin/test_verdicts.py",
    "measuring/meters/test_memory.py",
    "optimizing/test_recipes.py",
)
"""Tests that need torch and no other runtime: the plugin off, whole gates, the meter and recipes."""
RUNTIMES = (
    *(f"optimizing/runtimes/test_{name}.py" for name in ("onnxruntime", "openvino", "litert")),
    "optimizing/quantization/test_torchao.py",
)
TORCH_FLOOR = "2.6"
VENV = ["--system-site-packages"] if os.environ.get("MODELOPT_SYSTEM_PACKAGES") else []

nox.options.sessions = []
nox.options.error_on_missing_interpreters = True


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


def without_torch() -> list[str]:
    """What we depend on, with the extras that the tests of `ROOMS` need."""
    extras = PROJECT["project"]["optional-dependencies"]
    stated = [*PROJECT["project"]["dependencies"], *extras["report"], *extras["explore"]]
    return [each for each in stated if not each.startswith("torch")]


def run_unit(session: nox.Session) -> None:
    """Tests of all rooms that need no torch, where it is not installed."""
    session.install("--no-deps", "--editable", ".")
    files = [f"tests/{room}" for room in ROOMS]
    session.run(
        "python", "-m", "pytest", "-m", "unit", "-n", "2", *(f"--ignore={file}" for file in NEEDS_TORCH), *files
    )


def run_sample(session: nox.Session, *more: str) -> None:
    session.run("python", "-c", "import pytest, sys, torch; print(sys.version, pytest.__version__, torch.__version__)")
    session.run("python", "-m", "pytest", *(f"tests/{file}" for file in (*SAMPLE, *more)))


def install_lowest(session: nox.Session, stated: list[str]) -> None:
    """The lowest versions of these, and what they ask for: uv resolves them, and pip installs what it names."""
    session.install("uv")
    asked = Path(session.create_tmp(), "stated.txt")
    asked.write_text("\n".join([*stated, *session.posargs]), encoding="utf-8")
    lowest = asked.with_name("lowest.txt")
    session.run_install(
        "uv", "pip", "compile", "--quiet", "--resolution", "lowest-direct", f"{asked}", "-o", f"{lowest}"
    )
    session.install("--requirement", f"{lowest}", *group("tests"))
    session.run("python", "-m", "pip", "freeze")


@nox.session(python=PYTHONS)
def unit(session: nox.Session) -> None:
    """The newest versions of everything but torch, which is not installed."""
    session.install(*without_torch(), *group("tests"))
    run_unit(session)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The lowest versions that pyproject.toml states, but torch, which is not installed."""
    install_lowest(session, without_torch())
    run_unit(session)


@nox.session(python="3.11")
def lowest_extras(session: nox.Session) -> None:
    """The lowest versions of all extras. Requirements behind `--` are added, such as another torch."""
    extras = PROJECT["project"]["optional-dependencies"]
    names = ("pruning", "torchao", "onnxruntime", "openvino", "litert", "memory", "metrics", "report", "explore")
    stated = [*PROJECT["project"]["dependencies"], *(each for name in names for each in extras[name])]
    # uv passes over `Requires-Python: <3.11` of later ones, and pip does not.
    install_lowest(session, [*stated, "backports-strenum<1.3"])
    session.install("--no-deps", "--editable", ".")
    run_sample(session, *RUNTIMES)


@nox.session(python="3.11", venv_params=VENV)
@nox.parametrize("version", ["8.0", "newest", "pre"])
def pytest(session: nox.Session, version: str) -> None:
    """A version of pytest, with torch. `pre`: a release that is to come, which CI lets fail."""
    asked = {"8.0": ["pytest==8.0.*"], "newest": ["pytest"], "pre": ["--pre", "pytest"]}[version]
    session.install("--editable", ".[pruning,metrics,memory]", *group("tests"), *asked)
    run_sample(session)


@nox.session(python=PYTHONS, venv_params=VENV)
@nox.parametrize("version", [TORCH_FLOOR, "newest"])
def torch(session: nox.Session, version: str) -> None:
    """A version of torch, with the newest of all else."""
    asked = "torch" if version == "newest" else f"torch=={version}.*"
    session.install("--editable", ".[pruning,metrics,memory]", *group("tests"), asked)
    run_sample(session)


@nox.session(python="3.11", venv_params=VENV)
def plugins(session: nox.Session) -> None:
    """Beside other plugins of pytest: the same verdicts, and what a start costs while the gate is off."""
    session.install("--editable", ".", *group("plugins"))
    session.run("python", "-m", "benchmarks.other_plugins")
    session.install("pytest<9.2")  # pytest-forked 1.7.5 cannot send a report of 9.2 home
    session.run("python", "-m", "benchmarks.other_plugins", "pytest-forked")
    session.run("python", "-m", "benchmarks.startup")
