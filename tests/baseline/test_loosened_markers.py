"""What a change loosens in the markers of tests, read from their source."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_modelopt.baseline.loosened_markers import loosened_marks

TEST = "@pytest.mark.model_budget({})\ndef test_it(modelopt): pass\n"
STRICT = TEST.format("max_memory='6 MiB'")


def found(tmp_path: Path, base: dict[str, str], head: dict[str, str], root: str = "head") -> list[tuple[str, ...]]:
    """Case, limit, kind, old, new of each entry."""
    for side, files in (("base", base), ("head", head)):
        for name, text in files.items():
            (tmp_path / side / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / side / name).write_text(text, encoding="utf-8")
    changed = tuple(sorted(name for name in {**base, **head} if base.get(name) != head.get(name)))
    told = loosened_marks(changed, tmp_path / "base", tmp_path / "head", tmp_path / root)
    return [(each.case, each.limit, each.kind, each.old, each.new) for each in told]


@pytest.mark.parametrize(
    ("was", "now", "limit", "kind", "old", "new"),
    [
        ("max_memory='6 MiB'", "max_memory='7 MiB'", "max_memory", "relaxed", "6 MiB", "7 MiB"),
        ("max_memory='6 MiB', max_flips='2%'", "max_memory='6 MiB'", "max_flips", "removed", "2%", "removed"),
        (
            "max_memory='6 MiB'",
            "max_memory={'limit': '6 MiB', 'level': 'warn'}",
            "max_memory",
            "warn",
            "6 MiB",
            "6 MiB (warn)",
        ),
        ("min_accuracy='97%'", "min_accuracy='96%'", "min_accuracy", "relaxed", "97%", "96%"),
        ("'reader/bf16'", "max_size='9 GiB'", "all limits", "removed", "reader/bf16", "removed"),
    ],
)
def test_a_marker_that_allows_more_is_told(
    tmp_path: Path, was: str, now: str, limit: str, kind: str, old: str, new: str
) -> None:
    base, head = ({"test_it.py": TEST.format(each)} for each in (was, now))
    assert found(tmp_path, base, head) == [("test_it.py::test_it", limit, kind, old, new)]


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("max_memory='6 MiB'", "max_memory='5 MiB', max_flips='2%'"),
        ("max_memory='1 MiB'", "max_memory='1024 KiB'"),
        ("min_accuracy='97%'", "min_accuracy='98%'"),
        ("'reader/bf16'", "'reader/bf16', max_flips='2%'"),
    ],
)
def test_a_marker_that_allows_no_more_is_not(tmp_path: Path, was: str, now: str) -> None:
    base, head = ({"test_it.py": TEST.format(each)} for each in (was, now))
    assert found(tmp_path, base, head) == []


def test_a_test_that_went_took_its_limits_along_and_one_that_moved_did_not(tmp_path: Path) -> None:
    assert found(tmp_path, {"t/test_it.py": STRICT}, {}) == [
        ("t/test_it.py::test_it", "max_memory", "removed", "6 MiB", "removed")
    ]
    assert found(tmp_path / "moved", {"test_it.py": STRICT}, {"t/test_other.py": STRICT}) == []
    renamed = STRICT.replace("test_it", "test_reader")
    assert found(tmp_path / "renamed", {"test_it.py": STRICT}, {"test_it.py": renamed}) == []
    decoy = renamed + TEST.format("max_memory='60 MiB'")
    told = found(tmp_path / "decoy", {"test_it.py": STRICT}, {"t/test_it.py": decoy})
    assert told == [("t/test_it.py::test_it", "max_memory", "relaxed", "6 MiB", "60 MiB")]


def test_constants_of_the_file_are_read_and_other_values_compared_by_their_text(tmp_path: Path) -> None:
    constant = "LIMIT = '6 MiB'\n" + TEST.format("max_memory=LIMIT")
    assert found(tmp_path, {"test_it.py": constant}, {"test_it.py": constant.replace("6", "7")}) == [
        ("test_it.py::test_it", "max_memory", "relaxed", "6 MiB", "7 MiB")
    ]
    made = TEST.format("max_memory=limit_of(6)")
    told = found(tmp_path / "made", {"test_it.py": made}, {"test_it.py": made.replace("6", "7")})
    assert [row[1:3] for row in told] == [("all limits", "relaxed")]
    assert found(tmp_path / "same", {"test_it.py": made}, {"test_it.py": made + "# a comment\n"}) == []


def test_markers_of_classes_modules_and_parameters_are_read_too(tmp_path: Path) -> None:
    text = (
        "pytestmark = [pytest.mark.model_budget(max_size='1 MiB')]\n"
        "@pytest.mark.model_budget(max_size='2 MiB')\n"
        "class TestReader:\n"
        "    @pytest.mark.parametrize('r', [pytest.param('bf16', marks=pytest.mark.model_budget(max_size='3 MiB'))])\n"
        "    def test_it(self, r): pass\n"
    )
    loose = text.replace("1 MiB", "11 MiB").replace("2 MiB", "12 MiB").replace("3 MiB", "13 MiB")
    assert [row[0::4] for row in found(tmp_path, {"t/test_it.py": text}, {"t/test_it.py": loose}, "head/t")] == [
        ("test_it.py", "11 MiB"),
        ("test_it.py::TestReader", "12 MiB"),
        ("test_it.py::TestReader::test_it", "13 MiB"),
    ]


def test_of_a_metric_of_the_tests_own_nobody_knows_the_direction_and_a_file_that_cannot_be_read_says_nothing(
    tmp_path: Path,
) -> None:
    own = "METRIC = 'shop:error'  # metric\n" + TEST.format("min_accuracy=3")
    assert [row[2:] for row in found(tmp_path, {"test_it.py": own}, {"test_it.py": own.replace("=3", "=4")})] == [
        ("relaxed", "3", "4")
    ]
    assert found(tmp_path / "broken", {"test_it.py": STRICT + "("}, {"test_it.py": STRICT}) == []


MARKS = {
    "@pytest.mark.xfail": "@pytest.mark.xfail\n",
    "@pytest.mark.skipif": '@pytest.mark.skipif(True, reason="x")\n',
}


@pytest.mark.parametrize("told", MARKS)
def test_a_mark_under_which_a_test_may_fail_waives_its_budget(tmp_path: Path, told: str) -> None:
    (each,) = found(tmp_path, {"test_it.py": STRICT}, {"test_it.py": f"{MARKS[told]}{STRICT}"})
    assert (each[1], each[2], each[4]) == ("all limits", "waived", told)


def test_a_mark_of_the_module_waives_all_its_budgets(tmp_path: Path) -> None:
    marked = f"{STRICT}\npytestmark = [pytest.mark.skip]\n"
    (each,) = found(tmp_path, {"test_it.py": STRICT}, {"test_it.py": marked})
    assert (each[2], each[4]) == ("waived", "@pytest.mark.skip")
    assert found(tmp_path / "both", {"test_it.py": marked}, {"test_it.py": marked}) == []


def test_a_test_that_pytest_does_not_collect_any_more_is_gone(tmp_path: Path) -> None:
    hidden = STRICT.replace("def test_it", "def _test_it")
    (each,) = found(tmp_path, {"test_it.py": STRICT}, {"test_it.py": hidden})
    assert each[2] == "removed"
