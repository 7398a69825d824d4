"""The project as it travels: which files, in which way, and what arrives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_modelopt.fleet.project import MANIFEST, ProjectError, place, read_project

LARGE = bytes(range(256)) * 2**14  # 4 MiB


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    for path, content in {
        "shop/models.py": b"# models",
        "budgets.yaml": b"version: 1",
        "weights/reader.bin": LARGE,
        "data/small.csv": b"1,2",
        ".gitignore": b"weights/",
        ".git/HEAD": b"ref",
        "shop/__pycache__/models.pyc": b"code",
        ".mypy_cache/x": b"",
        "environment/pyvenv.cfg": b"",
        "environment/lib/torch.py": b"",
    }.items():
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_bytes(content)
    return made


def arrived(root: Path, content: Callable[[str], bytes] | None = None) -> dict[str, bytes]:
    place(root, content or (lambda digest: LARGE))
    files = (each for each in root.rglob("*") if each.is_file() and not each.name.startswith(MANIFEST))
    return {each.relative_to(root).as_posix(): each.read_bytes() for each in files}


def test_all_that_is_the_projects_own_arrives_whole(root: Path, tmp_path: Path) -> None:
    project = read_project(root)
    assert dict(project.large) == {"weights/reader.bin": hashlib.sha256(LARGE).hexdigest()}
    copy = tmp_path / "copy"
    copy.mkdir()
    project.stage(copy)
    assert not (copy / "weights").exists()
    assert arrived(copy) == {
        "shop/models.py": b"# models",
        "budgets.yaml": b"version: 1",
        "weights/reader.bin": LARGE,
        "data/small.csv": b"1,2",
        ".gitignore": b"weights/",
    }


def test_what_has_arrived_is_not_asked_for_again(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    read_project(root).stage(copy)
    asked: list[str] = []

    def content(digest: str) -> bytes:
        asked.append(digest)
        return LARGE

    assert arrived(copy, content) == arrived(copy, content)
    assert len(asked) == 1


def test_what_arrives_damaged_is_refused_and_nothing_is_left(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    read_project(root).stage(copy)
    with pytest.raises(ProjectError, match=r"weights/reader\.bin has arrived damaged"):
        place(copy, lambda digest: LARGE[:-1])
    assert not (copy / "weights").exists()


@pytest.mark.parametrize("pattern", ["data", "data/", "data/*", "*.csv", "data/small.csv"])
def test_what_a_pattern_names_stays(root: Path, pattern: str) -> None:
    assert "data/small.csv" not in read_project(root, [pattern]).small


@pytest.mark.parametrize("path", ["shop/models.py", "weights/reader.bin"])
def test_the_digest_is_that_of_all_files(root: Path, path: str) -> None:
    before = read_project(root).digest
    assert read_project(root).digest == before
    with (root / path).open("ab") as file:
        file.write(b"!")
    changed = read_project(root).digest
    assert changed != before
    (root / path).rename(root / f"{path}.moved")
    assert read_project(root).digest not in (before, changed)


def test_a_link_within_the_project_travels_as_what_it_leads_to(root: Path) -> None:
    (root / "latest").symlink_to("data")
    (root / "data" / "up").symlink_to(root)  # would be followed for ever
    (root / "alias.csv").symlink_to("data/small.csv")
    project = read_project(root)
    assert {"latest/small.csv", "data/small.csv", "alias.csv"} <= set(project.small)
    assert not any("up" in path for path in project.small)


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_link_out_of_the_project_is_named(root: Path, tmp_path: Path, is_folder: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir() if is_folder else elsewhere.write_bytes(b"")
    (root / "data" / "more").symlink_to(elsewhere)
    with pytest.raises(ProjectError, match=r"^data/more is a link out of .*elsewhere.*modelopt_fleet_exclude"):
        read_project(root)
    assert "data/small.csv" in read_project(root, ["data/more"]).small


def test_a_link_that_leads_nowhere_is_named(root: Path) -> None:
    (root / "broken").symlink_to("nothing")
    with pytest.raises(ProjectError, match=r"^broken leads nowhere"):
        read_project(root)
