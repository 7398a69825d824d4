"""The tree of the base: checked out into a git worktree outside of the repository, and what differs from head's."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_modelopt.baseline import worktrees
from pytest_modelopt.baseline.git import Answer, TreeError, ask, ask_with_filters

__all__ = ["BaseTree", "TreeError", "check_out"]

MERGE_BASE = "merge-base:"
_HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_LFS, _LFS_BYTES = b"version https://git-lfs.github.com/spec/v1", 1024
_FILES, _SUBMODULE = (b"100644", b"100755"), b"160000"
_UNSHALLOW = (
    "fetch the history (actions/checkout: `fetch-depth: 0`; elsewhere `git fetch --unshallow origin "
    "'+refs/heads/*:refs/remotes/origin/*'`)"
)
_NEAR_SHOWN, _REFS_READ, _CHARACTERS_SHOWN = 3, 5000, 100


@dataclass(frozen=True)
class BaseTree:
    """The base's files, and how they differ from head's. Plain data: only the process that made it can remove it.

    Paths in tuples are relative to the top, with '/', and sorted; bytes that are no UTF-8 are written as '\\xff'.
    """

    repository: Path
    """The top of head's working tree, absolute, without links."""
    folder: Path
    """The top of the base's, in the system's temporary folder."""
    commit: str
    """The base's, as a full hash."""
    asked: str
    """What the user wrote."""
    head: str
    """The full hash of HEAD."""
    has_uncommitted: bool
    """Whether head has tracked changes, or untracked files that git does not ignore."""
    pointers: tuple[str, ...]
    """Files of the base that are Git LFS pointers instead of their content."""
    changed: tuple[str, ...]
    """What differs between the base and head's working tree, untracked files included; a submodule is one path."""
    missing_submodules: tuple[str, ...] = ()
    """Submodules of the base whose commit is not in head's checkout of them: their folders are empty."""

    def mapped(self, path: Path) -> Path:
        """A path inside the repository, whether it exists or not, as the same inside `folder`; any other as it is."""
        whole = Path(os.path.abspath(path))  # noqa: PTH100 -- a link below the top is the project's own
        for place in (whole, *whole.parents):
            if place.resolve() == self.repository:
                return self.folder / whole.relative_to(place)
        real = path.resolve()
        return self.folder / real.relative_to(self.repository) if real.is_relative_to(self.repository) else path

    def remove(self) -> None:
        """Remove the worktree. May be called twice, does nothing in other processes, never raises."""
        worktrees.remove(self.folder)


def check_out(revision: str, start: Path) -> BaseTree:
    """Check `revision` of the repository that holds the folder `start` out into a worktree.

    `revision` is anything that git knows, or 'merge-base:REV': the best common ancestor of HEAD and REV. The working
    tree, index, branches and configuration of the repository stay as they are. The worktree is removed by `remove`, at
    the latest when this process ends; where that is killed, by the next call.

    Raises:
        TreeError: there is no such tree, or it cannot be checked out.
    """
    repository = _top(start)
    head = ask(repository, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if not head.is_ok:
        raise TreeError(f"{repository} has no commit yet, so there is no base: commit first")
    commit = _base(repository, revision)
    worktrees.clear_stale(repository)
    container = worktrees.open_container(repository)
    try:
        folder = container.folder / "tree" / (repository.name or "base")  # that name: the top may be a package itself
        pointers: list[bytes] = []
        missing: list[bytes] = []
        _fill(container, repository, folder, commit, b"", pointers, missing)
        uncommitted, changed = _differences(container.folder, repository, commit)
    except BaseException:
        container.remove()
        raise
    return BaseTree(
        repository=repository,
        folder=folder,
        commit=commit,
        asked=revision,
        head=head.line,
        has_uncommitted=uncommitted,
        pointers=_decoded(pointers),
        changed=_decoded(changed),
        missing_submodules=_decoded(missing),
    )


def with_what_is_there(tree: BaseTree) -> BaseTree:
    """The tree, without the pointers and submodules whose content somebody has fetched into it since."""
    return replace(
        tree,
        pointers=tuple(path for path in tree.pointers if _is_pointer(tree.folder / path)),
        missing_submodules=tuple(path for path in tree.missing_submodules if not _has_files(tree.folder / path)),
    )


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def require_another(tree: BaseTree) -> None:
    """Refuse a base that is HEAD itself, where nothing is changed.

    Raises:
        TreeError: with what may be a base instead.
    """
    if tree.commit != tree.head or _is_changed(tree):
        return
    told = (
        f"{_quoted(tree.asked)} is HEAD itself ({tree.commit[:12]}), and nothing is changed, so head would be compared "
        "with itself: "
    )
    if ask(tree.repository, "rev-parse", "--verify", "--quiet", "HEAD~1").is_ok:
        told += "after a push to the branch itself, name what was there before: `--modelopt-against HEAD~1`"
    elif _is_shallow(tree.repository):
        told += f"after a push to the branch itself, name its parent, `--modelopt-against HEAD~1`; {_UNSHALLOW}"
    else:
        told += "this is the first commit, which has no base; run without --modelopt-against"
    raise TreeError(told)


def _is_changed(tree: BaseTree) -> bool:
    """Whether a file that git tracks is another one, or there is a new source or budgets file: reports, and whatever
    else a job leaves behind, would make a comparison of head with itself look like one."""
    if any(name.endswith((".py", ".yaml", ".yml")) for name in tree.changed):
        return True
    listings = (("ls-files", "-z"), ("ls-tree", "-r", "-z", "--name-only", "--full-tree", tree.commit))
    tracked = {name for listing in listings for name in _decoded(_checked(ask(tree.repository, *listing)).items)}
    return not tracked.isdisjoint(tree.changed)


# --- which commit ----------------------------------------------------------------------------------------------------


def _top(start: Path) -> Path:
    """The top of the working tree that holds `start`."""
    folder = start if start.is_dir() else start.parent
    answer = ask(folder, "rev-parse", "--show-toplevel")
    if answer.is_ok:
        return Path(answer.line)
    if "dubious ownership" in answer.error or "unsafe repository" in answer.error:
        lines = [line.strip() for line in answer.error.splitlines() if "safe.directory" in line]
        allow = lines[-1] if lines else "git config --global --add safe.directory FOLDER"
        raise TreeError(
            f"the repository of {folder} belongs to another user, so git does not open it: if you trust it, `{allow}`"
        )
    if "not a git repository" in answer.error:
        raise TreeError(
            f"{folder} is in no git repository, so there is no base: run pytest in a clone, or compare with a saved "
            "record"
        )
    raise TreeError(f"git finds no working tree at {folder}: {answer.why}; run pytest in a clone")


def _base(repository: Path, revision: str) -> str:
    """The full hash of the base's commit."""
    if not revision.startswith(MERGE_BASE):
        return _commit(repository, revision)
    name = revision.removeprefix(MERGE_BASE)
    commit = _commit(repository, name)
    answer = ask(repository, "merge-base", "HEAD", commit)
    if answer.is_ok:
        return answer.line
    if _is_shallow(repository):
        raise TreeError(f"the common ancestor of HEAD and {_quoted(name)} is not in this shallow clone: {_UNSHALLOW}")
    raise TreeError(
        f"HEAD and {_quoted(name)} have no common ancestor: name another branch, or the base itself without "
        f"{MERGE_BASE!r}"
    )


def _commit(repository: Path, revision: str) -> str:
    """The full hash of the commit that `revision` names. First what it names, then its commit: ':/text^{commit}' would
    search for that text."""
    if not revision or "\0" in revision:
        raise TreeError(
            f"the base {_quoted(revision)} is no revision: name a branch, a tag or a commit, such as 'origin/main'"
        )
    named = ask(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", revision)
    if not named.is_ok or not _HASH.fullmatch(named.line):
        raise _unknown(repository, revision)
    commit = ask(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{named.line}^{{commit}}")
    if commit.is_ok:
        return commit.line
    kind = ask(repository, "cat-file", "-t", named.line)
    if kind.is_ok:
        raise TreeError(f"{_quoted(revision)} names a {kind.line}, not a commit: name a branch, a tag or a commit")
    raise _unknown(repository, revision)


def _unknown(repository: Path, revision: str) -> TreeError:
    near = _near(repository, revision)
    meant = f"; did you mean {' or '.join(_quoted(name) for name in near)}?" if near else ""
    if _is_shallow(repository):
        return TreeError(f"{_quoted(revision)} is not in this shallow clone: {_UNSHALLOW}{meant}")
    return TreeError(f"git knows no revision {_quoted(revision)} here: fetch it, {_fetch(repository, revision)}{meant}")


def _fetch(repository: Path, revision: str) -> str:
    remote, _, branch = revision.partition("/")
    remotes = os.fsdecode(ask(repository, "remote").output).splitlines()
    if remote in remotes and re.fullmatch(r"[\w./-]+", branch):
        return f"`git fetch {remote} +refs/heads/{branch}:refs/remotes/{remote}/{branch}`"
    return "`git fetch --all --tags`"


def _near(repository: Path, revision: str) -> list[str]:
    """Branches and tags that the user may have meant: those of the same name elsewhere, then the most alike."""
    fields = ("--format=%(refname:short)", f"--count={_REFS_READ}", "--sort=-creatordate")
    names = os.fsdecode(ask(repository, "for-each-ref", *fields).output).splitlines()
    last = revision.rpartition("/")[2]
    same = [name for name in names if name.rpartition("/")[2] == last]
    alike = difflib.get_close_matches(revision[:_CHARACTERS_SHOWN], names, n=_NEAR_SHOWN)
    return list(dict.fromkeys([*same, *alike]))[:_NEAR_SHOWN]


def _is_shallow(repository: Path) -> bool:
    return ask(repository, "rev-parse", "--is-shallow-repository").line == "true"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _CHARACTERS_SHOWN else f"{text[:_CHARACTERS_SHOWN]}...")


# --- its files -------------------------------------------------------------------------------------------------------


def _fill(
    container: worktrees.Container,
    repository: Path,
    folder: Path,
    commit: str,
    prefix: bytes,
    pointers: list[bytes],
    missing: list[bytes],
) -> None:
    """Check out `commit` into `folder`, then its submodules. `prefix` is the path of `folder` in the whole tree.

    A submodule comes from head's own checkout of it, as a worktree of that; nothing is fetched.
    """
    container.add(repository, folder, commit)
    answer = ask(folder, "ls-tree", "-r", "-z", commit)
    if not answer.is_ok:
        raise TreeError(f"git cannot list the files of {commit[:12]} of {repository}: {answer.why}")
    for item in answer.items:
        details, _, name = item.partition(b"\t")
        mode, _, object_name = details.split(b" ")
        path = os.fsdecode(name)
        if mode in _FILES and _is_pointer(folder / path):
            pointers.append(prefix + name)
        elif mode == _SUBMODULE and _has(repository / path, object_name.decode()):
            worktrees.clear_stale(repository / path)
            inner = (object_name.decode(), prefix + name + b"/")
            _fill(container, repository / path, folder / path, *inner, pointers, missing)
        elif mode == _SUBMODULE:
            missing.append(prefix + name)


def _is_pointer(file: Path) -> bool:
    """Whether a checked out file is a Git LFS pointer: its specification bounds the size and fixes the first line."""
    try:
        if file.lstat().st_size >= _LFS_BYTES:
            return False
        return file.read_bytes().startswith(_LFS)
    except OSError:  # not there, in a sparse checkout
        return False


def _has(submodule: Path, commit: str) -> bool:
    """Whether `submodule` is checked out, with a repository of its own that has `commit`."""
    top = ask(submodule, "rev-parse", "--show-toplevel")
    if not top.is_ok or Path(top.line) != submodule:  # an empty folder belongs to the repository around it
        return False
    return ask(submodule, "cat-file", "-e", f"{commit}^{{commit}}").is_ok


# --- what differs from head ------------------------------------------------------------------------------------------


def _differences(scratch: Path, repository: Path, commit: str) -> tuple[bool, list[bytes]]:
    """(whether head has what no commit has, the paths that differ between `commit` and head's working tree).

    Asked with a copy of the index: git writes down there which files it found unchanged.
    """
    index = scratch / "index"
    original = repository / _checked(ask(repository, "rev-parse", "--git-path", "index")).line
    if original.is_file():
        shutil.copy2(original, index)  # with its time: files that changed since are known by it
    told = {"GIT_INDEX_FILE": str(index)}
    whole = ("--no-renames", "--ignore-submodules=none")
    status = ("status", "--porcelain=v1", "-z", "--untracked-files=all", *whole)
    states = _checked(ask_with_filters(repository, *status, environment=told)).items
    diff = ("diff", "--name-only", "-z", *whole, commit, "--")
    changed = _checked(ask_with_filters(repository, *diff, environment=told)).items
    untracked = [state.removeprefix(b"?? ") for state in states if state.startswith(b"?? ")]
    return bool(states), [*changed, *untracked]


def _checked(answer: Answer) -> Answer:
    if not answer.is_ok:
        raise TreeError(f"git cannot say what differs from the base: {answer.why}")
    return answer


def _decoded(names: list[bytes]) -> tuple[str, ...]:
    return tuple(sorted({name.decode(errors="backslashreplace") for name in names}))
