"""A real git repository, and the git commands of its user."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pytest_modelopt.baseline.base_tree import BaseTree

_NAMED = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always")


class Repository:
    """A repository, and the git commands of its user."""

    def __init__(self, folder: Path, *, new: bool = True) -> None:
        self.folder = folder
        if new:
            folder.mkdir(parents=True)
            self.git("init", "--quiet", "-b", "main")

    def git(self, *arguments: str) -> str:
        command = ["git", *_NAMED, *arguments]
        done = subprocess.run(command, cwd=self.folder, check=True, capture_output=True)
        return done.stdout.decode().removesuffix("\n")

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text, encoding="utf-8")

    def commit(self, files: dict[str, str], message: str = "change") -> str:
        """Commit the files, with all that is there, and return the hash."""
        self.write(files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def state(self) -> dict[str, object]:
        """Whatever git knows of the repository, and the bytes of what it has written down."""
        common = self.folder / self.git("rev-parse", "--git-common-dir")
        index = self.folder / self.git("rev-parse", "--git-path", "index")
        return {
            "index": index.read_bytes(),  # first: `git status` may write it
            "config": (common / "config").read_bytes(),
            "HEAD": (common / "HEAD").read_bytes(),
            "refs": self.git("for-each-ref"),
            "reflog": (common / "logs" / "HEAD").read_bytes(),
        }

    def worktrees(self) -> list[str]:
        lines = self.git("worktree", "list", "--porcelain").splitlines()
        return [line.removeprefix("worktree ") for line in lines if line.startswith("worktree ")]


def files_of(tree: BaseTree) -> set[str]:
    """What is checked out, relative to the top."""
    found = (path.relative_to(tree.folder) for path in tree.folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if path.name != ".git"}
