"""The base's worktree touches nothing of the user's, and is removed whatever becomes of the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.baseline import base_tree as tree_module
from pytest_modelopt.baseline.base_tree import TreeError, check_out
from tests.baseline.repositories import Repository

RUN = """
import os, signal, sys
from pathlib import Path
from pytest_modelopt.baseline.base_tree import BaseTree, check_out
tree = check_out("first", Path(sys.argv[1]))
print(tree.folder, flush=True)
"""


def run(repository: Repository, then: str) -> subprocess.CompletedProcess[str]:
    """A process of its own that checks the base out, prints where, and does `then`."""
    command = [sys.executable, "-c", RUN + then, str(repository.folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_repository_stays_as_it_is(repository: Repository, temporary: Path) -> None:
    repository.write({"weights/best.pt": "2", "new.py": ""})
    os.utime(repository.folder / "README.md", (1, 1))  # the same content: git would like to note that down
    before, status = repository.state(), repository.git("--no-optional-locks", "status", "--porcelain")
    tree = check_out("first", repository.folder)
    assert "README.md" not in tree.changed
    assert repository.state() == before
    assert len(repository.worktrees()) == 2
    (tree.folder / "__pycache__").mkdir()
    tree.remove()
    assert repository.git("--no-optional-locks", "status", "--porcelain") == status
    assert repository.state() == before
    assert repository.worktrees() == [str(repository.folder)]
    assert not (repository.folder / ".git" / "worktrees").exists()
    assert list(temporary.iterdir()) == []


def test_hooks_of_the_repository_do_not_run(repository: Repository, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    hooks = repository.folder / ".git" / "hooks"
    programs = [tmp_path / "fsmonitor", hooks / "post-checkout", hooks / "post-index-change"]
    for program in programs:
        program.write_text(f"#!/bin/sh\necho {program.name} >> '{ran}'\n")
        program.chmod(0o755)
    repository.git("config", "core.fsmonitor", str(programs[0]))
    repository.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "mine"), "first")
    repository.git("update-index", "--fsmonitor")
    repository.git("status")
    assert set(ran.read_text().split()) >= {
        "post-checkout",
        "post-index-change",
        "fsmonitor",
    }  # they do run for the user
    ran.unlink()
    check_out("first", repository.folder).remove()
    assert not ran.exists()


def test_it_is_removed_once_however_often_one_asks(repository: Repository, temporary: Path) -> None:
    tree = check_out("first", repository.folder)
    tree.remove()
    tree.remove()
    assert list(temporary.iterdir()) == []


def test_what_cannot_be_written_to_is_removed(repository: Repository, temporary: Path) -> None:
    tree = check_out("first", repository.folder)
    (tree.folder / "weights").chmod(0o500)
    tree.folder.chmod(0o500)
    tree.remove()
    assert list(temporary.iterdir()) == []
    assert repository.worktrees() == [str(repository.folder)]


def test_a_tree_that_somebody_else_has_removed_is_forgotten(repository: Repository, temporary: Path) -> None:
    tree = check_out("first", repository.folder)
    subprocess.run(["rm", "-rf", *map(str, temporary.iterdir())], check=True)
    tree.remove()
    assert repository.worktrees() == [str(repository.folder)]


def test_removing_never_raises(repository: Repository, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    tree = check_out("first", repository.folder)
    with monkeypatch.context() as without_git:
        without_git.setenv("PATH", "")
        tree.remove()
    tree.remove()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, TreeError("no")])
def test_an_interrupted_checkout_leaves_nothing(
    repository: Repository, temporary: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    def interrupted(*_: object) -> None:
        assert len(repository.worktrees()) == 2
        raise stop

    monkeypatch.setattr(tree_module, "_differences", interrupted)
    with pytest.raises((KeyboardInterrupt, TreeError)):
        check_out("first", repository.folder)
    assert list(temporary.iterdir()) == []
    assert repository.worktrees() == [str(repository.folder)]


def test_two_at_the_same_time_do_not_disturb_each_other(repository: Repository) -> None:
    one = check_out("first", repository.folder)
    two = check_out("second", repository.folder)
    assert one.folder != two.folder
    assert (one.folder / "model.py").read_text() == "width = 1\n"
    one.remove()
    assert not one.folder.exists()
    assert (two.folder / "model.py").read_text() == "width = 2\n"
    two.remove()
    assert repository.worktrees() == [str(repository.folder)]


@pytest.mark.parametrize("then", ["", "sys.exit(3)", "raise RuntimeError", "import signal; raise KeyboardInterrupt"])
def test_a_run_that_ends_takes_its_tree_along(repository: Repository, temporary: Path, then: str) -> None:
    assert run(repository, then).stdout.startswith(str(temporary))
    assert list(temporary.iterdir()) == []
    assert repository.worktrees() == [str(repository.folder)]


OTHERS = """
if os.fork() == 0:
    tree.remove()
    sys.exit()  # with what Python does at its end
os.wait()
assert (tree.folder / "model.py").exists()
import subprocess
again = f"from pathlib import *; from pytest_modelopt.baseline.base_tree import *; BaseTree(**{vars(tree)!r}).remove()"
subprocess.run([sys.executable, "-c", again.replace("PosixPath", "Path")], check=True)
assert (tree.folder / "model.py").exists()
print("still there")
"""


def test_other_processes_do_not_remove_it(repository: Repository, temporary: Path) -> None:
    done = run(repository, OTHERS)
    assert done.stdout.endswith("still there\n"), done.stderr
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_the_next_run_clears_what_a_killed_one_has_left(repository: Repository, temporary: Path, name: str) -> None:
    killed = run(repository, f"os.kill(os.getpid(), signal.{name})")
    assert killed.returncode == -getattr(signal, name)
    left = Path(killed.stdout.removesuffix("\n"))
    assert (left / "model.py").exists()
    check_out("second", repository.folder).remove()
    assert list(temporary.iterdir()) == []
    assert repository.worktrees() == [str(repository.folder)]


def test_a_tree_in_use_is_not_cleared(repository: Repository, temporary: Path) -> None:
    command = [sys.executable, "-c", RUN + "sys.stdin.read()", str(repository.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().removesuffix("\n"))
        check_out("second", repository.folder).remove()
        assert (theirs / "model.py").read_text() == "width = 1\n"
        other.communicate()
    assert other.returncode == 0
    assert list(temporary.iterdir()) == []


# --- what earlier runs have left, made by hand -----------------------------------------------------------------------


def left_by(repository: Repository, folder: Path) -> Path:
    """A worktree of a run that is gone, as git knows it."""
    worktree = folder / "tree" / "r"
    repository.git("worktree", "add", "--quiet", "--detach", str(worktree), "first")
    return worktree


def test_a_tree_left_in_another_temporary_folder_is_cleared(repository: Repository, tmp_path: Path) -> None:
    here = left_by(repository, tmp_path / "job 1" / "pytest-modelopt-base-0123456789ab")
    gone = left_by(repository, tmp_path / "job 2" / "pytest-modelopt-base-0123456789ab")
    for worktree in (here, gone):
        repository.git("worktree", "lock", str(worktree))  # as git does while it adds one
    subprocess.run(["rm", "-rf", str(tmp_path / "job 2")], check=True)
    check_out("first", repository.folder).remove()
    assert not here.exists()
    assert list((tmp_path / "job 1").iterdir()) == []
    assert not gone.parents[2].exists()  # nor made again for a lock
    assert repository.worktrees() == [str(repository.folder)]


def test_git_before_2_36_is_asked_in_its_own_way(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = left_by(repository, tmp_path / "pytest-modelopt-base-0123456789ab")
    old = tmp_path / "bin" / "git"
    old.parent.mkdir()
    real = subprocess.run(["which", "git"], check=True, capture_output=True, text=True).stdout.strip()
    old.write_text(f'#!/bin/sh\ncase "$*" in *"list --porcelain -z") exit 129;; esac\nexec {real} "$@"\n')
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    check_out("first", repository.folder).remove()
    assert not left.exists()


def test_what_was_left_of_another_repository_is_cleared_with_its_submodules(
    repository: Repository, tmp_path: Path, temporary: Path
) -> None:
    source = Repository(tmp_path / "source")
    source.commit({"part.py": ""})
    repository.git("submodule", "--quiet", "add", str(source.folder), "part")
    repository.git("tag", "--force", "first", repository.commit({}))
    part = Repository(repository.folder / "part", new=False)
    other = Repository(tmp_path / "other")
    other.commit({})
    run(repository, "os.kill(os.getpid(), signal.SIGKILL)")
    assert len(part.worktrees()) == 2
    check_out("HEAD", other.folder).remove()
    assert list(temporary.iterdir()) == []
    assert (len(repository.worktrees()), len(part.worktrees())) == (1, 1)


def test_the_users_own_worktrees_and_folders_are_not_touched(
    repository: Repository, tmp_path: Path, temporary: Path
) -> None:
    mine, unmounted = tmp_path / "pytest-modelopt-base-mine" / "tree", tmp_path / "disk" / "tree"
    for worktree in (mine, unmounted):
        repository.git("worktree", "add", "--quiet", "--detach", str(worktree), "first")
    unmounted.parent.rename(tmp_path / "taken away")
    listed = repository.worktrees()
    linked = tmp_path / "important"
    linked.mkdir(mode=0o750)
    (linked / "file").touch()
    (temporary / "pytest-modelopt-base-0123456789ab").symlink_to(linked)
    (temporary / "pytest-modelopt-base-ba9876543210").touch()
    (temporary / "pytest-modelopt-base-mine").mkdir()
    check_out("first", repository.folder).remove()
    assert repository.worktrees() == listed
    assert mine.exists()
    assert (linked / "file").exists()
    assert linked.stat().st_mode & 0o777 == 0o750
    assert len(list(temporary.glob("*[!k]"))) == 3


def test_folders_of_other_users_are_not_cleared(
    repository: Repository, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = left_by(repository, temporary / "pytest-modelopt-base-0123456789ab")
    monkeypatch.setattr(os, "getuid", lambda: left.stat().st_uid + 1)
    check_out("first", repository.folder).remove()
    assert left.exists()


@pytest.mark.parametrize("text", ["{", "[1]", '[["/", "/etc"]]', "null"])
def test_a_list_that_says_something_else_leads_nowhere(repository: Repository, temporary: Path, text: str) -> None:
    folder = temporary / "pytest-modelopt-base-0123456789ab"
    folder.mkdir()
    (folder / "worktrees.json").write_text(text)
    check_out("first", repository.folder).remove()
    assert list(temporary.iterdir()) == []
    assert Path("/etc").exists()


def test_a_list_removes_only_what_is_in_its_folder(repository: Repository, tmp_path: Path, temporary: Path) -> None:
    mine = tmp_path / "mine"
    repository.git("worktree", "add", "--quiet", "--detach", str(mine), "first")
    folder = temporary / "pytest-modelopt-base-0123456789ab"
    folder.mkdir()
    (folder / "worktrees.json").write_text(f'[["{repository.folder}", "{mine}"]]')
    check_out("first", repository.folder).remove()
    assert mine.exists()
    assert str(mine) in repository.worktrees()


def test_a_lock_without_its_folder_belongs_to_a_run_that_is_about_to_make_it(
    repository: Repository, temporary: Path
) -> None:
    lock = temporary / "pytest-modelopt-base-0123456789ab.lock"
    lock.touch()
    check_out("first", repository.folder).remove()
    assert list(temporary.iterdir()) == [lock]


# --- the temporary folder --------------------------------------------------------------------------------------------


def test_a_temporary_folder_inside_the_repository_is_not_used(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = repository.folder / ".tox" / "tmp"
    inside.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(inside))
    tree = check_out("first", repository.folder)
    assert not tree.folder.is_relative_to(repository.folder)
    tree.remove()
    assert not tree.folder.exists()


def test_a_temporary_folder_that_is_full_or_gone_is_told(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    make = Path.mkdir

    def full(path: Path, *arguments: Any, **more: Any) -> None:
        if path.name.startswith("pytest-modelopt-base-"):
            raise OSError(28, "No space left on device")
        make(path, *arguments, **more)

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(TreeError, match=r"cannot be checked out into .*No space left on device; set TMPDIR"):
        check_out("first", repository.folder)
    monkeypatch.undo()
    assert list(temporary.iterdir()) == []
