"""Which commit is the base, which files it has, and what differs from head."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from pytest_modelopt.baseline import git as git_calls
from pytest_modelopt.baseline.base_tree import BaseTree, TreeError, check_out
from pytest_modelopt.baseline.git import ask
from tests.baseline.repositories import Repository, files_of

# --- which commit ----------------------------------------------------------------------------------------------------


def test_the_base_has_the_files_of_its_commit(repository: Repository, temporary: Path) -> None:
    tree = check_out("first", repository.folder)
    assert files_of(tree) == {"model.py", "weights/best.pt", "gone.py", "README.md"}
    assert (tree.folder / "model.py").read_text() == "width = 1\n"
    assert (tree.asked, tree.commit) == ("first", repository.git("rev-parse", "first"))
    assert (tree.repository, tree.head) == (repository.folder, repository.git("rev-parse", "second"))
    assert tree.folder.is_relative_to(temporary)
    assert tree.folder.name == "pro jekt ü"  # as head's
    assert temporary.joinpath(tree.folder.relative_to(temporary).parts[0]).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("revision", ["first", "HEAD~1", "main^", "annotated", "HASH", "SHORT", ":/begin", "base/é"])
def test_a_revision_is_whatever_git_knows(tmp_path: Path, revision: str) -> None:
    made = Repository(tmp_path / "r")
    first = made.commit({}, "begin")
    for tag in (["first"], ["-m", "x", "annotated"]):
        made.git("tag", *tag)
    made.git("branch", "base/é")
    made.commit({"a": "1"}, "second")
    asked = {"HASH": first, "SHORT": first[:10]}.get(revision, revision)
    assert check_out(asked, made.folder).commit == first


def test_the_merge_base_is_where_head_left_the_branch_and_not_where_the_branch_is_now(repository: Repository) -> None:
    repository.git("switch", "--quiet", "-c", "topic", "first")
    repository.commit({"model.py": "width = 3\n"})
    tree = check_out("merge-base:main", repository.folder)
    assert tree.commit == repository.git("rev-parse", "first")
    assert tree.asked == "merge-base:main"
    assert tree.changed == ("model.py",)  # and nothing of what main did meanwhile
    assert check_out("main", repository.folder).commit == repository.git("rev-parse", "second")


@pytest.mark.parametrize(
    ("revision", "sentence"),
    [
        ("mian", "git knows no revision 'mian' here: fetch it, `git fetch --all --tags`; did you mean 'main'?"),
        ("origin/first", "fetch it, `git fetch --all --tags`; did you mean 'first'"),
        ("merge-base:mian", "git knows no revision 'mian' here"),
        ("", "the base '' is no revision: name a branch, a tag or a commit, such as 'origin/main'"),
        ("merge-base:", "the base '' is no revision"),
        ("a\0b", r"the base 'a\x00b' is no revision"),
        ("a\nb", r"git knows no revision 'a\nb' here"),
        ("--all", "git knows no revision '--all' here"),
        ("--branches", "git knows no revision '--branches' here"),  # there is but one
        ("-h", "git knows no revision '-h' here"),
        ("merge-base:--all", "git knows no revision '--all' here"),
        ("^main", "git knows no revision '^main' here"),
        ("first..second", "git knows no revision 'first..second' here"),
        ("0" * 40, f"git knows no revision '{'0' * 40}' here"),
        ("x" * 400, f"git knows no revision '{'x' * 100}...' here"),
        ("HEAD:README.md", "'HEAD:README.md' names a blob, not a commit: name a branch, a tag or a commit"),
        ("HEAD^{tree}", "'HEAD^{tree}' names a tree, not a commit"),
    ],
)
def test_a_wrong_revision_is_named_with_what_to_do(
    repository: Repository, temporary: Path, revision: str, sentence: str
) -> None:
    with pytest.raises(TreeError) as raised:
        check_out(revision, repository.folder)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(temporary.iterdir()) == []


def test_a_branch_of_a_remote_that_was_not_fetched_is_named_with_the_command_that_fetches_it(
    repository: Repository, tmp_path: Path
) -> None:
    repository.git("clone", "--quiet", "--single-branch", str(repository.folder), str(tmp_path / "clone"))
    repository.git("branch", "release/2.0", "first")
    clone = Repository(tmp_path / "clone", new=False)
    with pytest.raises(TreeError) as raised:
        check_out("origin/release/2.0", clone.folder)
    command = "git fetch origin +refs/heads/release/2.0:refs/remotes/origin/release/2.0"
    assert f"`{command}`" in str(raised.value)
    clone.git(*command.split()[1:])
    assert check_out("origin/release/2.0", clone.folder).commit == repository.git("rev-parse", "first")


@pytest.mark.parametrize("revision", ["HEAD~1", "origin/topic", "merge-base:origin/other"])
def test_a_shallow_clone_is_told_to_fetch_its_history(repository: Repository, tmp_path: Path, revision: str) -> None:
    repository.git("branch", "topic")
    repository.git("switch", "--quiet", "-c", "other", "first")
    repository.commit({"other.py": ""})
    repository.git("switch", "--quiet", "main")
    source = f"file://{repository.folder}"
    repository.git("clone", "--quiet", "--depth", "1", source, str(tmp_path / "clone"))
    clone = Repository(tmp_path / "clone", new=False)
    clone.git("fetch", "--quiet", "--depth", "1", "origin", "other:refs/remotes/origin/other")
    with pytest.raises(TreeError, match=r"shallow clone: fetch the history .*`fetch-depth: 0`") as raised:
        check_out(revision, clone.folder)
    command = str(raised.value).split("`")[3]
    assert command == "git fetch --unshallow origin '+refs/heads/*:refs/remotes/origin/*'"
    clone.git(*command.replace("'", "").split()[1:])
    assert check_out(revision, clone.folder).commit in repository.git("rev-list", "--all")


def test_branches_without_a_common_ancestor_are_told(repository: Repository) -> None:
    repository.git("switch", "--quiet", "--orphan", "island")
    repository.commit({"a": "1"})
    with pytest.raises(TreeError, match="HEAD and 'main' have no common ancestor: name another branch"):
        check_out("merge-base:main", repository.folder)
    assert check_out("main", repository.folder).commit == repository.git("rev-parse", "main")


def test_outside_of_a_repository_there_is_no_base(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="is in no git repository, so there is no base: run pytest in a clone"):
        check_out("main", tmp_path)


def test_a_bare_repository_has_no_head_to_compare(tmp_path: Path) -> None:
    made = Repository(tmp_path / "r")
    made.commit({})
    with pytest.raises(TreeError, match=r"git finds no working tree at .*run pytest in a clone"):
        check_out("main", made.folder / ".git")


def test_a_repository_without_a_commit_has_no_base(tmp_path: Path) -> None:
    made = Repository(tmp_path / "r")
    with pytest.raises(TreeError, match="has no commit yet, so there is no base: commit first"):
        check_out("HEAD", made.folder)


def test_without_git_there_is_no_base(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository.folder))
    with pytest.raises(TreeError, match=r"git is not installed .*install it"):
        check_out("first", repository.folder)


def test_a_repository_of_another_user_is_told_with_gits_own_command(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(TreeError, match=r"belongs to another user.*`git config --global --add safe\.directory .*jekt"):
        check_out("first", repository.folder)
    # as containers allow it, without a file
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "*")
    assert check_out("first", repository.folder).asked == "first"


# --- what differs from head ------------------------------------------------------------------------------------------


def test_a_clean_head_differs_by_its_commits_alone(repository: Repository) -> None:
    repository.write({"run.log": "ignored"})
    tree = check_out("first", repository.folder)
    assert tree.changed == (".gitignore", "gone.py", "model.py", "pkg/new.py")
    assert not tree.has_uncommitted
    same = check_out("HEAD", repository.folder)
    assert (same.changed, same.has_uncommitted) == ((), False)


def test_what_is_not_committed_is_heads_too(repository: Repository) -> None:
    repository.write(
        {"weights/best.pt": "2", "un tracked.py": "", "größe\nneu.py": "", "staged.py": "", "new/a.py": ""}
    )
    repository.git("add", "staged.py")
    (repository.folder / "README.md").unlink()
    (repository.folder / os.fsdecode(b"l\xe4tin.py")).touch()
    tree = check_out("second", repository.folder)
    assert tree.changed == (
        "README.md",
        "größe\nneu.py",
        "l\\xe4tin.py",
        "new/a.py",
        "staged.py",
        "un tracked.py",
        "weights/best.pt",
    )
    assert tree.has_uncommitted
    assert (tree.folder / "weights/best.pt").read_text() == "1"
    assert "staged.py" not in files_of(tree)


@pytest.mark.parametrize("change", ["tracked", "untracked"])
def test_one_change_alone_is_seen(repository: Repository, change: str) -> None:
    name = "model.py" if change == "tracked" else "new.py"
    repository.write({name: "changed"})
    tree = check_out("HEAD", repository.folder)
    assert (tree.has_uncommitted, tree.changed) == (True, (name,))


def test_a_change_in_the_instant_of_the_last_commit_is_seen(repository: Repository) -> None:
    """git compares times, and contents only where a file is no older than the index: the copy must be as old."""
    repository.git("config", "core.trustctime", "false")
    model, index = repository.folder / "model.py", repository.folder / ".git" / "index"
    os.utime(model, (1000, 1000))
    repository.git("update-index", "--refresh")
    os.utime(index, (1000, 1000))
    repository.write({"model.py": "width = 3\n"})
    os.utime(model, (1000, 1000))
    assert check_out("HEAD", repository.folder).changed == ("model.py",)


def test_the_users_settings_hide_no_change(repository: Repository) -> None:
    for name, value in {
        "status.showUntrackedFiles": "no",
        "status.renames": "true",
        "diff.renames": "true",
        "status.branch": "true",
    }.items():
        repository.git("config", name, value)
    repository.git("mv", "model.py", "moved.py")
    repository.write({"new.py": ""})
    assert check_out("HEAD", repository.folder).changed == ("model.py", "moved.py", "new.py")


def test_plain_data_makes_the_same_tree_again(repository: Repository) -> None:
    tree = check_out("first", repository.folder)
    assert BaseTree(**asdict(tree)) == tree


# --- where head is ---------------------------------------------------------------------------------------------------


def test_head_may_be_a_linked_worktree_and_the_start_a_folder_or_file_in_it(
    repository: Repository, tmp_path: Path
) -> None:
    linked = Repository(tmp_path / "linked", new=False)
    repository.git("worktree", "add", "--quiet", "--detach", str(linked.folder), "second")
    linked.commit({"pkg/new.py": "x = 1\n"})
    for start in (linked.folder / "pkg", linked.folder / "pkg" / "new.py"):
        tree = check_out("second", start)
        assert (tree.repository, tree.head) == (linked.folder, linked.git("rev-parse", "HEAD"))
        assert tree.changed == ("pkg/new.py",)
        tree.remove()
    assert linked.worktrees() == [str(repository.folder), str(linked.folder)]


def test_the_variables_of_a_hook_do_not_lead_git_astray(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Repository(tmp_path / "other")
    other.commit({"other.py": ""})
    monkeypatch.setenv("GIT_DIR", str(other.folder / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.folder))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.folder / ".git" / "index"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other.folder / ".git" / "objects"))
    tree = check_out("first", repository.folder)
    assert tree.repository == repository.folder
    assert tree.changed == (".gitignore", "gone.py", "model.py", "pkg/new.py")


def test_a_path_of_head_is_mapped_to_the_base(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = check_out("first", repository.folder)
    assert tree.mapped(repository.folder) == tree.folder
    assert tree.mapped(repository.folder / "pkg" / ".." / "not" / "there") == tree.folder / "not" / "there"
    assert tree.mapped(tmp_path / "elsewhere") == tmp_path / "elsewhere"
    assert tree.mapped(tmp_path / "pro jekt ü2") == tmp_path / "pro jekt ü2"
    monkeypatch.chdir(repository.folder / "pkg")
    assert tree.mapped(Path("new.py")) == tree.folder / "pkg" / "new.py"


def test_links_to_the_repository_are_followed_and_links_in_it_are_not(repository: Repository, tmp_path: Path) -> None:
    tree = check_out("first", repository.folder)
    (tmp_path / "link").symlink_to(repository.folder)
    (tmp_path / "weights").symlink_to(repository.folder / "weights")
    (repository.folder / "data").symlink_to(tmp_path)
    assert tree.mapped(tmp_path / "link" / "model.py") == tree.folder / "model.py"
    assert tree.mapped(tmp_path / "weights" / "best.pt") == tree.folder / "weights" / "best.pt"
    assert tree.mapped(tmp_path / "link" / "data" / "x.pt") == tree.folder / "data" / "x.pt"


# --- git itself ------------------------------------------------------------------------------------------------------


def test_a_call_that_hangs_is_ended_with_what_it_started(repository: Repository, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    slow = f"alias.slow=!echo $$ > '{note}'; exec sleep 60"
    answer = ask(repository.folder, "slow", settings=(slow,), limit_s=1.0)
    assert (answer.is_ok, answer.why) == (False, "git did not finish within 1 s")
    stat = Path("/proc") / note.read_text().strip() / "stat"
    ends = time.monotonic() + 10
    while time.monotonic() < ends and stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)  # the signal takes its time on a busy machine
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_what_git_complains_of_is_one_short_line() -> None:
    answer = git_calls.Answer(1, b"", "first\nsecond\n  third \x1b[31m\nfatal: " + "x" * 1000 + "\n")
    assert answer.why == "x" * 300
    assert git_calls.Answer(1, b"", "first\nsecond\n  third \x1b[31m\nfatal\n").why == "second; third \\x1b[31m; fatal"
