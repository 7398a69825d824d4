"""What the base's tree holds where files are in Git LFS, behind other filters, or in submodules."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pytest_modelopt.baseline import worktrees
from pytest_modelopt.baseline.base_tree import TreeError, check_out
from tests.baseline.repositories import Repository, files_of

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"


# --- filters ---------------------------------------------------------------------------------------------------------

LFS = {".gitattributes": "*.pt filter=lfs -text\n", "a/größe 1.pt": POINTER, "real.pt": "content", "small.txt": "1"}


def test_pointers_of_lfs_are_found_where_there_is_no_lfs(tmp_path: Path) -> None:
    made = Repository(tmp_path / "r")
    long = POINTER + "x" * (1024 - len(POINTER))
    made.commit({**LFS, "long.pt": long, "almost.pt": long[:-1], "about.md": "x" + POINTER})
    assert check_out("HEAD", made.folder).pointers == ("a/größe 1.pt", "almost.pt")


@pytest.mark.parametrize("kind", ["smudge", "process"])
def test_where_lfs_fails_its_pointers_stay(tmp_path: Path, kind: str) -> None:
    made = Repository(tmp_path / "r")
    made.commit(LFS)
    made.git("config", f"filter.lfs.{kind}", "git-lfs-is-not-installed")
    made.git("config", "filter.lfs.required", "true")
    tree = check_out("HEAD", made.folder)
    assert tree.pointers == ("a/größe 1.pt",)
    assert files_of(tree) == set(LFS)
    assert (tree.folder / "real.pt").read_text() == "content"


def test_where_lfs_hangs_its_pointers_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Repository(tmp_path / "r")
    made.commit(LFS)
    made.git("config", "filter.lfs.smudge", "sleep 60")
    monkeypatch.setattr(worktrees, "CHECKOUT_LIMIT_S", 1.0)
    tree = check_out("HEAD", made.folder)
    assert tree.pointers == ("a/größe 1.pt",)
    assert files_of(tree) == set(LFS)


def test_where_lfs_works_its_content_is_there(tmp_path: Path) -> None:
    made = Repository(tmp_path / "r")
    made.commit(LFS)
    made.git("config", "filter.lfs.smudge", "sed s/.*/fetched/")
    tree = check_out("HEAD", made.folder)
    assert tree.pointers == ()
    assert (tree.folder / "a/größe 1.pt").read_text().startswith("fetched")


def test_a_filter_without_which_nothing_can_be_read_ends_it(tmp_path: Path, temporary: Path) -> None:
    made = Repository(tmp_path / "r")
    made.commit({".gitattributes": "*.key filter=crypt\n", "a.key": "1"})
    made.git("config", "filter.crypt.smudge", "false")
    made.git("config", "filter.crypt.required", "true")
    with pytest.raises(TreeError, match=r"git cannot check out .* of .*a\.key: smudge filter crypt failed"):
        check_out("HEAD", made.folder)
    assert list(temporary.iterdir()) == []
    assert made.worktrees() == [str(made.folder)]


# --- submodules ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def submodules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """outer has 'libs/middle part', which has 'inner', both fetched, and a pointer of LFS in the innermost."""
    tmp_path = tmp_path_factory.mktemp("submodules")
    sources: list[Repository] = []
    for name, path in (("inner", ""), ("middle", "inner"), ("outer", "libs/middle part")):
        source = Repository(tmp_path / "sources" / name)
        if path:
            source.git("submodule", "--quiet", "add", str(sources[-1].folder), path)
        source.commit({f"{name}.py": "1", **({"weights.pt": POINTER} if name == "inner" else {})})
        sources.append(source)
    sources[-1].git("clone", "--quiet", "--recurse-submodules", str(sources[-1].folder), str(tmp_path / "outer"))
    (tmp_path / "sources").rename(tmp_path / "gone")  # nothing can be fetched any more
    return tmp_path / "outer"


@pytest.fixture
def with_submodules(submodules: Path, tmp_path: Path) -> Repository:
    shutil.copytree(submodules, tmp_path / "outer", symlinks=True)
    return Repository(tmp_path / "outer", new=False)


def test_submodules_come_from_heads_own(with_submodules: Repository) -> None:
    outer = with_submodules
    middle = Repository(outer.folder / "libs/middle part", new=False)
    inner = Repository(middle.folder / "inner", new=False)
    base = outer.git("rev-parse", "HEAD")
    inner.commit({"inner.py": "2"})
    middle.commit({"middle.py": "2"})
    outer.commit({"outer.py": "2"})
    before = [each.state() for each in (outer, middle, inner)]
    tree = check_out(base, outer.folder)
    for name in ("outer.py", "libs/middle part/middle.py", "libs/middle part/inner/inner.py"):
        assert (tree.folder / name).read_text() == "1"
        assert (outer.folder / name).read_text() == "2"
    assert tree.missing_submodules == ()
    assert tree.pointers == ("libs/middle part/inner/weights.pt",)
    assert tree.changed == ("libs/middle part", "outer.py")
    assert not tree.has_uncommitted
    tree.remove()
    assert [each.state() for each in (outer, middle, inner)] == before
    assert [len(each.worktrees()) for each in (outer, middle, inner)] == [1, 1, 1]


def test_an_empty_folder_of_a_submodule_is_not_taken_for_the_repository_around_it(
    with_submodules: Repository, submodules: Path
) -> None:
    outer = with_submodules
    outer.git("fetch", "--quiet", str(submodules.parent / "gone" / "middle"))  # it has that commit, too
    outer.git("submodule", "--quiet", "deinit", "--force", "libs/middle part")
    assert check_out("HEAD", outer.folder).missing_submodules == ("libs/middle part",)


def test_what_a_killed_run_has_left_of_a_submodule_is_cleared(with_submodules: Repository, tmp_path: Path) -> None:
    middle = Repository(with_submodules.folder / "libs/middle part", new=False)
    left = tmp_path / "pytest-modelopt-base-0123456789ab"
    middle.git("worktree", "add", "--quiet", "--detach", str(left / "tree" / "outer" / "libs" / "middle part"))
    shutil.rmtree(left)  # by whatever cleans the temporary folder: no list says any more what was in it
    check_out("HEAD", with_submodules.folder).remove()
    assert middle.worktrees() == [str(with_submodules.folder / ".git/modules/libs/middle part")]


def test_a_change_in_a_submodule_is_a_change(with_submodules: Repository) -> None:
    with_submodules.git("config", "diff.ignoreSubmodules", "all")
    with_submodules.write({"libs/middle part/inner/inner.py": "changed"})
    tree = check_out("HEAD", with_submodules.folder)
    assert (tree.changed, tree.has_uncommitted) == (("libs/middle part",), True)


def test_a_submodule_that_head_does_not_have_stays_empty_and_is_named(with_submodules: Repository) -> None:
    outer = with_submodules
    base = outer.git("rev-parse", "HEAD")
    middle = Repository(outer.folder / "libs/middle part", new=False)
    middle.git("submodule", "--quiet", "deinit", "--force", "inner")
    tree = check_out(base, outer.folder)
    assert tree.missing_submodules == ("libs/middle part/inner",)
    assert list((tree.folder / "libs/middle part/inner").iterdir()) == []
    outer.git("rm", "--quiet", "libs/middle part")
    outer.commit({})
    assert check_out(base, outer.folder).missing_submodules == ("libs/middle part",)


def test_a_submodule_without_the_bases_commit_is_missing(with_submodules: Repository) -> None:
    outer = with_submodules
    outer.git("update-index", "--cacheinfo", f"160000,{'1' * 40},libs/middle part")
    outer.git("commit", "--quiet", "-m", "a commit that was never pushed")
    assert check_out("HEAD", outer.folder).missing_submodules == ("libs/middle part",)
