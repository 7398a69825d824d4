"""Measurements on disk: kept for the same model, data, work, versions and machine, and read as a stranger's data."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from pytest_modelopt.exploring.cache import Cache, InUse, folder_of, key_of
from pytest_modelopt.optimizing.expression import Expression, parse
from pytest_modelopt.optimizing.recipe import Applied, Recipe
from pytest_modelopt.results.record import Environment
from tests.exploring.candidates_by_hand import candidate
from tests.reporting.records_by_hand import ENVIRONMENT

INT8 = parse("int8-dynamic")
CASE = candidate("int8-dynamic", memory=2, lost=1, speedup=1.5)


class Own(Recipe):
    recipe_name: ClassVar[str] = "int8-dynamic"
    summary: ClassVar[str] = "has the name of one of ours"

    def apply(self, model: object, context: object) -> Applied:
        raise NotImplementedError


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path / "explore" / "m", "m")
    made.open()
    used(made)
    yield made
    made.close()


def used(
    cache: Cache, model: str | None = "0a", data: str = "00ff", work: str = "w", environment: Environment = ENVIRONMENT
) -> Cache:
    cache.use(key_of(model, data, work, "0.1.0", environment), environment)
    return cache


def test_what_was_measured_comes_back_without_its_verdicts(cache: Cache) -> None:
    cache.put(INT8, CASE)
    assert cache.get(INT8) == replace(CASE, limits=(), verdicts=())
    assert cache.get(parse("bf16")) is None
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert [file.suffix for file in cache.folder.iterdir()] == [".json"]  # nothing half written is left


@pytest.mark.parametrize(
    "other",
    [
        {"model": "0b"},
        {"data": "11"},
        {"work": "threads=2"},
        {"environment": replace(ENVIRONMENT, torch="2.14.0")},
        {"environment": replace(ENVIRONMENT, cpu="Another CPU")},
    ],
)
def test_nothing_is_taken_of_another_model_data_work_version_or_machine(cache: Cache, other: dict[str, str]) -> None:
    cache.put(INT8, CASE)
    assert cache.of_others == 0
    used(cache, **other)  # type: ignore[arg-type]
    assert cache.get(INT8) is None
    assert cache.of_others == 1
    (file,) = cache.folder.iterdir()
    (file.parent / cache._file(INT8).name).write_bytes(file.read_bytes())
    assert cache.get(INT8) is None  # under its name, too
    cache.put(INT8, CASE)
    assert used(cache).get(INT8) is not None  # neither took the other's place


def test_a_file_of_another_model_under_the_right_name_is_not_taken(cache: Cache) -> None:
    """Its figures say themselves of which model they are."""
    assert CASE.reference is not None
    assert CASE.reference.observations is not None
    other = replace(CASE.reference, observations=replace(CASE.reference.observations, digest="0c"))
    cache.put(INT8, replace(CASE, reference=other))
    assert cache.get(INT8) is None
    cache.put(INT8, replace(CASE, recipe="bf16"))
    assert cache.get(INT8) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "[]",
        '{"format": 2}',
        '{"format": 1, "key": {}, "record": "{}"}',
        '{"format": 1, "key": {"tool": 1, "model": "", "data": "", "work": "", "machine": ""}, "record": "{}"}',
    ],
)
def test_a_strangers_text_is_no_measurement(cache: Cache, text: str) -> None:
    cache.put(INT8, CASE)
    (file,) = cache.folder.iterdir()
    file.write_text(text, encoding="utf-8")
    assert cache.get(INT8) is None
    assert cache.of_others == 0


def test_figures_that_contradict_each_other_are_no_measurement(cache: Cache) -> None:
    cache.put(INT8, CASE)
    (file,) = cache.folder.iterdir()
    data = json.loads(file.read_text(encoding="utf-8"))
    record = json.loads(data["record"])
    record["cases"][0]["variant"]["score"] = 1.5
    file.write_text(json.dumps(data | {"record": json.dumps(record)}), encoding="utf-8")
    assert cache.get(INT8) is None


def test_a_link_is_not_followed(cache: Cache, tmp_path: Path) -> None:
    cache.put(INT8, CASE)
    (file,) = cache.folder.iterdir()
    file.symlink_to(file.rename(tmp_path / "elsewhere.json"))
    assert cache.get(INT8) is None


def test_recipes_of_the_project_are_measured_each_time(cache: Cache) -> None:
    """Their code may be another one by then."""
    cache.put(Expression.of([Own()]), CASE)
    assert list(cache.folder.iterdir()) == []
    used(cache, model=None).put(INT8, CASE)  # a model of which nobody knows whether it is the same
    assert list(cache.folder.iterdir()) == []


def test_two_explorations_of_a_model_do_not_run_at_once(cache: Cache) -> None:
    cache.put(INT8, CASE)
    second = Cache(cache.folder, "m")
    with pytest.raises(InUse, match="another exploration of m runs on this machine"):
        second.open()
    cache.close()
    second.open()
    assert used(second).get(INT8) is not None
    (second.folder / "a folder.json").mkdir()  # nothing of ours
    (second.folder / "dead.json").symlink_to("nowhere")
    second.forget()
    assert [each.name for each in second.folder.iterdir()] == ["a folder.json"]
    assert second.get(INT8) is None
    second.close()


def test_a_folder_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "m").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="no folder of this user"):
        Cache(tmp_path / "m", "m").open()


def test_each_model_of_each_project_has_a_folder_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folders = {folder_of(tmp_path / project, model) for project in ("a", "b") for model in ("m", "n")}
    assert len(folders) == 4
    assert {folder.parent for folder in folders} == {tmp_path / "pytest-modelopt" / "explore"}


def test_what_a_function_of_the_project_has_trained_is_not_kept(cache: Cache) -> None:
    """Its code may be another one the next time."""
    for text, is_kept in (("int8-dynamic", True), ("int8-dynamic(finetune='shop.training:tune')", False)):
        assert (cache.beside(parse(text), "sensitivity 1") is not None) == is_kept
