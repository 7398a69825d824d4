"""budgets.yaml: what a correct file means, and that every mistake is said at once, with its line and the way out."""

from __future__ import annotations

import pickle
import time
from itertools import pairwise
from pathlib import Path

import pytest

from pytest_modelopt.config.loader import BudgetsFile, Defaults, load_budgets
from pytest_modelopt.config.problems import BudgetsError, Problem
from pytest_modelopt.results.metric import MetricSpec

HEAD = """\
version: 1
models:
  m:
    factory: shop.vision:load_model
    data: shop.vision:test_data
    recipes:
"""

FULL = """\
version: 1
defaults:
  threads: 2
  time_limit: 5 s
models:
  digits-vit:
    factory: shop.vision:load_model
    data: shop.vision:test_data
    calibration: shop.vision:train_data
    budget: &shared
      max_accuracy_drop: 1 pp
      max_flips: 2%
    recipes:
      int8-dynamic:
        min_speedup:
          limit: 1.2x
          level: warn
        max_memory: 3 MiB
      prune-structured( ratio = 0.3 ) + int8-dynamic:
        max_flips: 0.05
      int8-static:
  spoken:
    factory: shop.speech:Loader.model
    data: shop.speech:data
    example_inputs: shop.speech:one
    metric: shop.speech:word_errors
    recipes:
      int8-dynamic:
        <<: *shared
        max_accuracy_drop: 1.5
        min_accuracy: -3
"""


def load(folder: Path, text: str | bytes) -> BudgetsFile:
    path = folder / "budgets.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_budgets(path, relative_to=folder)


def problems(folder: Path, text: str | bytes) -> tuple[Problem, ...]:
    with pytest.raises(BudgetsError) as refusal:
        load(folder, text)
    return refusal.value.problems


def test_a_file_says_where_each_model_comes_from(tmp_path: Path) -> None:
    budgets = load(tmp_path, FULL)
    vit, spoken = budgets.models
    assert budgets.path == tmp_path / "budgets.yaml"
    assert (vit.name, vit.origin, vit.data, vit.line) == (
        "digits-vit",
        "shop.vision:load_model",
        "shop.vision:test_data",
        6,
    )
    assert (vit.calibration, vit.example_inputs, vit.metric) == ("shop.vision:train_data", None, MetricSpec())
    assert (spoken.calibration, spoken.example_inputs, spoken.metric) == (
        None,
        "shop.speech:one",
        MetricSpec("shop.speech:word_errors"),
    )


def test_defaults_are_those_of_the_file_and_else_the_documented_ones(tmp_path: Path) -> None:
    assert load(tmp_path, FULL).defaults == Defaults("cpu", 2, 1, 5.0, 600.0)
    assert load(tmp_path, HEAD + "      low-rank:\n").defaults == Defaults("cpu", 1, 1, 20.0, 600.0)


def test_a_case_has_the_models_limits_and_its_own_go_before_them(tmp_path: Path) -> None:
    cases = load(tmp_path, FULL).cases
    stated = {
        case.name: [(limit.name, limit.value, limit.text, limit.level, limit.line) for limit in case.limits]
        for case in cases
    }
    assert stated == {
        "digits-vit/int8-dynamic": [
            ("max_memory", 3145728.0, "3 MiB", "error", 18),
            ("min_speedup", 1.2, "1.2x", "warn", 15),
            ("max_accuracy_drop", 0.01, "1 pp", "error", 11),
            ("max_flips", 0.02, "2%", "error", 12),
        ],
        "digits-vit/prune-structured(ratio=0.3)+int8-dynamic": [
            ("max_accuracy_drop", 0.01, "1 pp", "error", 11),
            ("max_flips", 0.05, "0.05", "error", 20),
        ],
        "digits-vit/int8-static": [
            ("max_accuracy_drop", 0.01, "1 pp", "error", 11),
            ("max_flips", 0.02, "2%", "error", 12),
        ],
        "spoken/int8-dynamic": [
            ("max_accuracy_drop", 1.5, "1.5", "error", 30),
            ("min_accuracy", -3.0, "-3", "error", 31),
            ("max_flips", 0.02, "2%", "error", 12),
        ],
    }
    assert [case.line for case in cases] == [14, 19, 21, 28]
    assert {limit.file for case in cases for limit in case.limits} == {"budgets.yaml"}


def test_files_are_named_relative_to_the_root_and_outside_of_it_in_full(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "budgets.yaml"
    inner.parent.mkdir()
    inner.write_text("version: 2\n")
    with pytest.raises(BudgetsError) as inside:
        load_budgets(inner, relative_to=tmp_path)
    with pytest.raises(BudgetsError) as outside:
        load_budgets(inner, relative_to=tmp_path / "b")
    assert inside.value.problems[0].file == "a/budgets.yaml"
    assert outside.value.problems[0].file == inner.as_posix()


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    text = (HEAD + "      low-rank: {max_memory: 1 MiB}\n").replace("\n", "\r\n")
    assert load(tmp_path, b"\xef\xbb\xbf" + text.encode()).cases[0].limits[0].line == 7


def test_all_mistakes_are_said_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = """\
version: 1
defaults:
  device: gpu
models:
  digits-vit:
    factory: shop/vision.py:load_model
    budget:
      max_accuracy_drop: 1%
    recipes:
      int8-dynamc:
        max_memory: 6 Mb
      low-rank:
        min_speed: 1.2x
        min_speedup: {limit: 30%, level: warning}
    regression:
      max_slowdown: -10%
waivers:
  - {case: digits-vit/low-rank, limit: max_slowdown, until: tomorrow, reason: none}
"""
    expected = [
        (3, "write `cpu`, `cuda` or `cuda:0`"),
        (5, "digits-vit has no `data`"),
        (6, "did you mean 'shop.vision:load_model'?"),
        (8, "max_accuracy_drop of digits-vit: '1%' is ambiguous"),
        (10, "unknown recipe 'int8-dynamc'; did you mean 'int8-dynamic'?"),
        (11, "max_memory of digits-vit/int8-dynamc: '6 Mb'"),
        (13, "unknown limit 'min_speed'; did you mean 'min_speedup'?"),
        (14, "min_speedup of digits-vit/low-rank: '30%' could mean"),
        (14, "there is no level 'warning'; did you mean 'warn'?"),
        (16, "max_slowdown of digits-vit: '-10%' is negative"),
        (18, "until of waiver 1: 'tomorrow' is not a date"),
    ]
    found = problems(tmp_path, text)
    assert [problem.line for problem in found] == [line for line, _ in expected]
    for problem, (_, phrase) in zip(found, expected, strict=True):
        assert phrase in problem.message


def test_the_error_counts_its_problems_and_survives_the_way_between_processes(tmp_path: Path) -> None:
    found = problems(tmp_path, "version: 2\n")
    error = BudgetsError(found)
    lines = str(error).splitlines()
    assert lines[0] == "2 problems in budgets.yaml:"
    assert lines[1].startswith("budgets.yaml:1: version: 2 is not")
    assert pickle.loads(pickle.dumps(error)).problems == found  # noqa: S301 - our own bytes
    assert str(BudgetsError(found[:1])).startswith("1 problem in budgets.yaml:\n")


NOT_A_FILE = [
    ("", 1, "empty"),
    ("# nothing yet\n", 1, "empty"),
    ("~\n", 1, "empty"),
    ("- a\n- b\n", 1, "must be a mapping"),
    ("hello\n", 1, "not 'hello'"),
    ("version: 1\n---\nversion: 1\n", 2, "another document"),
    ("version: 1\nmodels:\n\tm: 1\n", 3, "not with tabs"),
    ("version: 1\nmodels: a: b\n", 2, "check the indentation"),
    ("version: 1\nmodels: {a: [\n", 3, "not valid YAML"),
    ("version: 1\nmodels: *nothing\n", 2, "needs an anchor"),
    ("version: 1\nmodels:\n  a\x00b: 1\n", 3, r"invisible character '\x00'"),
    (b"version: 1\n# caf\xe9\n", 2, "not UTF-8"),
    ("version: 1\n".encode("utf-16"), 1, "not UTF-8"),
    ('version: "\\UFFFFFFFF"\n', 1, "too large"),
    ("version: 1\nmodels: &m\n  x: *m\n", 2, "contains itself"),
    ("version: 1\nmodels: &m\n  <<: *m\n", 2, "contains itself"),
    ("version: &a [*a]\n", 1, "contains itself"),
    ("version: " + "[" * 3000 + "]" * 3000, 1, "levels deep"),
    ("version: " + "[" * 60 + "]" * 60, 1, "levels deep"),
    ("version: 1\n" + "#" * 1_000_000, 1, "larger than"),
]


@pytest.mark.parametrize(("text", "line", "phrase"), NOT_A_FILE, ids=[row[2] for row in NOT_A_FILE])
def test_what_is_not_a_budgets_file_at_all_is_one_problem(
    tmp_path: Path, text: str | bytes, line: int, phrase: str
) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.line == line
    assert phrase in problem.message


def aliases(first: str, pattern: str) -> str:
    """Ten levels, each with ten aliases of the level before."""
    letters = "abcdefghijk"
    rows = [f"{here}: &{here} " + pattern.format(", ".join([f"*{below}"] * 10)) for below, here in pairwise(letters)]
    return "\n".join([f"a: &a {first}", *rows]) + "\n"


@pytest.mark.parametrize("text", [aliases("[x, x]", "[{}]"), aliases("{}", "{{<<: [{}]}}")])
def test_a_small_file_cannot_grow_without_bounds_through_aliases(tmp_path: Path, text: str) -> None:
    started = time.monotonic()
    (problem,) = problems(tmp_path, text)
    assert "more than 10000 values" in problem.message
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", ["missing.yaml", "folder"])
def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BudgetsError, match="cannot be read") as refusal:
        load_budgets(tmp_path / name, relative_to=tmp_path)
    assert str(refusal.value.problems[0]).startswith(f"{name}:1: ")


def in_model(lines: str) -> str:
    return HEAD + "      low-rank:\n" + lines


def in_recipe(lines: str) -> str:
    return HEAD + "      low-rank:\n        " + lines


def with_recipes(lines: str) -> str:
    return HEAD + lines


def with_defaults(line: str) -> str:
    return f"version: 1\ndefaults:\n  {line}\n" + in_model("").removeprefix("version: 1\n")


MISTAKES = [
    # version and models
    (in_model("").replace("version: 1", "version: 2"), 1, ["2 is not a version", "`version: 1`"]),
    (in_model("").replace("version: 1", "version: '1'"), 1, ["'1' is not a version"]),
    (in_model("").replace("version: 1", "version: yes"), 1, ["true is not a version"]),
    (in_model("").removeprefix("version: 1\n"), 1, ["the file has no `version`"]),
    ("version: 1\nmodels: {}\n", 2, ["nothing in it"]),
    ("version: 1\nmodels:\n", 2, ["nothing in it"]),
    ("version: 1\n", 1, ["the file has no `models`"]),
    ("version: 1\nmodels: 3\n", 2, ["a mapping is needed here"]),
    ("version: 1\nmodels:\n  m:\n", 3, ["a mapping is needed here", "nothing"]),
    (in_model("modles: 1\n"), 8, ["unknown key 'modles'", "did you mean 'models'?"]),
    (in_model("regression: {}\n"), 8, ["the file: unknown key 'regression'"]),
    # names of models
    (in_model("").replace("  m:", "  a::b:"), 3, ["'a::b'", "`::`"]),
    (in_model("").replace("  m:", "  a/b:"), 3, ["'a/b'", "`/`"]),
    (in_model("").replace("  m:", '  "a\\x1b":'), 3, [r"'a\x1b'", "invisible"]),
    (in_model("").replace("  m:", '  "":'), 3, ["empty name"]),
    (in_model("").replace("  m:", '  " m":'), 3, ["blank"]),
    (in_model("").replace("  m:", "  on:"), 3, ["'on' as yes or no", 'put quotes around it: "on"']),
    (in_model("").replace("  m:", "  7:"), 3, ["'7' as a number"]),
    # functions by name
    (in_model("").replace("shop.vision:load_model", "shop.vision.load_model"), 4, ["'shop.vision:load_model'?"]),
    (in_model("").replace("shop.vision:load_model", "shop.vision:load_model()"), 4, ["'shop.vision:load_model'?"]),
    (in_model("").replace("shop.vision:load_model", "3"), 4, ["factory of m: 3 is not text"]),
    (in_model("").replace("shop.vision:test_data", ""), 5, ["data of m: there is no value"]),
    (in_model("    calibration: class.x:y\n"), 8, ["calibration of m: 'class.x:y'"]),
    (in_model("    metric: acuracy\n"), 8, ["'acuracy' is not a metric", "did you mean 'accuracy'?"]),
    (in_model("    example_inputs: [a]\n"), 8, ["example_inputs of m: a list is not text"]),
    (in_model("    calibratoin: a:b\n"), 8, ["unknown key 'calibratoin'", "'calibration'"]),
    (in_model("    max_memory: 3 MiB\n"), 8, ["`max_memory` is a limit", "`budget`"]),
    # recipes
    (HEAD, 6, ["recipes of m: there is nothing in it", "`int8-dynamic:`"]),
    (with_recipes("      - low-rank\n"), 6, ["it is a list", "instead of `- int8-dynamic`"]),
    (with_recipes("      low-rnk:\n"), 7, ["unknown recipe 'low-rnk'", "did you mean 'low-rank'?"]),
    (with_recipes("      prune-structured(ratio=1.5):\n"), 7, ["ratio of prune-structured", "1.5"]),
    (with_recipes('      "prune-structured(ratio=0\\eX)":\n'), 7, [r"ratio=0\x1bX of prune-structured"]),
    (with_recipes("      prune-structured(ration=0.5):\n"), 7, ["did you mean 'ratio'?"]),
    (with_recipes("      low-rank: 3 MiB\n"), 7, ["m/low-rank: a mapping is needed here", "'3 MiB'"]),
    (with_recipes("      low-rank: [3]\n"), 7, ["a mapping is needed here", "a list"]),
    (with_recipes("      low-rank:\n      low-rank():\n"), 8, ["same as 'low-rank' in line 7"]),
    (in_model("").replace("    recipes:\n      low-rank:\n", "    recipe:\n"), 6, ["did you mean 'recipes'?"]),
    # keys
    (in_recipe("max_size: 1 B\n        max_size: 2 B\n"), 9, ["'max_size' is written twice, first in line 8"]),
    (in_model("  m:\n    factory: a:b\n"), 8, ["'m' is written twice, first in line 3"]),
    (in_recipe("? [a]\n        : 1\n"), 8, ["a key must be text"]),
    (in_recipe("<<: 3\n"), 8, ["`<<` takes a mapping"]),
    # limits
    (in_recipe("max_memroy: 3 MiB\n"), 8, ["unknown limit 'max_memroy'", "did you mean 'max_memory'?"]),
    (in_recipe("max_memory:\n"), 8, ["there is no value"]),
    (in_recipe("max_memory: 6 Mb\n"), 8, ["max_memory of m/low-rank: '6 Mb'", "`6 MB`"]),
    (in_recipe("max_memory: .nan\n"), 8, ["nan is not a finite number"]),
    (in_recipe("max_memory: -1\n"), 8, ["less than nothing"]),
    (in_recipe("max_memory: 0x10\n"), 8, ["'0x10'", "hexadecimal"]),
    (in_recipe("max_memory: 1" + "0" * 5000 + "\n"), 8, ["too large"]),
    (in_recipe("max_memory: 2027-01-31\n"), 8, ["'2027-01-31'"]),
    (in_recipe("max_memory: !bytes 6\n"), 8, ["'!bytes'", "remove it"]),
    (in_recipe("max_memory: !!python/object/apply:os.getcwd []\n"), 8, ["'!!python/object/apply:os.getcwd'"]),
    (in_recipe("max_latency: 1:30\n"), 8, ["'1:30'", "base 60"]),
    (in_recipe("max_latency: 5\n"), 8, ["give a unit"]),
    (in_recipe("min_speedup: 30%\n"), 8, ["30% as fast or 30% faster"]),
    (in_recipe("min_speedup: .inf\n"), 8, ["inf is not a finite number"]),
    (in_recipe("min_speedup: yes\n"), 8, ["true is yes or no"]),
    (in_recipe("max_accuracy_drop: 1%\n"), 8, ["ambiguous", "`1 pp`"]),
    (in_recipe("max_accuracy_drop: 1\n"), 8, ["write 1 pp"]),
    (in_recipe("min_accuracy: 97\n"), 8, ["write 97%"]),
    (in_recipe("max_flips: 2\n"), 8, ["write 2%"]),
    (in_recipe("min_coverage: 1.0e+999\n"), 8, ["too large"]),
    (in_recipe("max_flips: [1]\n"), 8, ["a list is not a number or text"]),
    (in_recipe("max_flips: {level: warn}\n"), 8, ["max_flips of m/low-rank has no `limit`"]),
    (in_recipe("max_flips: {limit: 2%, levle: warn}\n"), 8, ["unknown key 'levle'", "did you mean 'level'?"]),
    (in_recipe("max_flips:\n          limit: 2%\n          level: off\n"), 10, ["there is no level false"]),
    (in_recipe("max_flips:\n          limit: 2 pp\n"), 9, ["max_flips of m/low-rank: '2 pp'"]),
    (in_model("    budget: {min_speed: 1x}\n"), 8, ["m: unknown limit 'min_speed'"]),
    (in_model("    budget: 3 MiB\n"), 8, ["budget of m: a mapping is needed here"]),
    # defaults
    *(
        (in_recipe(f"{name}: 1"), 8, [f"{name} of m/low-rank: 1 could mean 1% or 100%; write `1%` or `100%`"])
        for name in ("max_flips", "min_coverage", "min_memory_reduction", "min_size_reduction", "min_accuracy")
    ),
    *(
        (in_recipe(f"regression: {{{name}: 1}}"), 8, [f"{name} of", "1 could mean 1% or 100%; write `1%` or `100%`"])
        for name in ("max_memory_growth", "max_size_growth", "max_slowdown")
    ),
    (in_recipe("regression: {max_slowdown: 2000%}"), 8, ["'2000%' would allow more than 11 times as much"]),
    (with_defaults("device: gpu"), 3, ["'gpu'", "write `cpu`, `cuda` or `cuda:0`"]),
    (with_defaults("device: 0"), 3, ["write `cpu`, `cuda` or `cuda:0`"]),
    (with_defaults("threads: 0"), 3, ["0 is not a whole number of at least 1"]),
    (with_defaults("threads: true"), 3, ["true is not a whole number"]),
    (with_defaults("batch_size: 1.5"), 3, ["1.5 is not a whole number"]),
    (with_defaults("batch_size: '8'"), 3, ["'8' is not a whole number"]),
    (with_defaults("time_limit: 20"), 3, ["`20 s`"]),
    (with_defaults("step_limit: -1 s"), 3, ["not above 0"]),
    (with_defaults("step_limit: 1e300 s"), 3, ["'1e300 s' is longer than 30 days"]),
    (with_defaults("time-limit: 20 s"), 3, ["did you mean 'time_limit'?"]),
]


@pytest.mark.parametrize(("text", "line", "phrases"), MISTAKES, ids=[row[2][0] for row in MISTAKES])
def test_each_mistake_is_named_with_its_line_and_the_way_out(
    tmp_path: Path, text: str, line: int, phrases: list[str]
) -> None:
    found = problems(tmp_path, text)
    fitting = [problem for problem in found if all(phrase in problem.message for phrase in phrases)]
    assert [problem.line for problem in fitting] == [line], [str(problem) for problem in found]


@pytest.mark.parametrize(
    "text", [row[0] for row in MISTAKES + NOT_A_FILE], ids=[row[2][0] for row in MISTAKES + NOT_A_FILE]
)
def test_no_message_speaks_in_the_words_of_a_library(tmp_path: Path, text: str | bytes) -> None:
    for problem in problems(tmp_path, text):
        assert problem.message.isprintable()
        assert len(problem.message) < 500
        for jargon in ("Input should", "pydantic", "dictionary", "Traceback", "tag:yaml", "NoneType", "Python int"):
            assert jargon not in problem.message


def test_a_mistake_in_an_anchor_is_said_once_for_each_case_that_uses_it(tmp_path: Path) -> None:
    text = with_recipes("      low-rank: &a\n        max_size: 6 Mb\n      int8-dynamic:\n        <<: *a\n")
    assert [(problem.line, problem.message.split(":")[0]) for problem in problems(tmp_path, text)] == [
        (8, "max_size of m/low-rank"),
        (8, "max_size of m/int8-dynamic"),
    ]


def test_merged_mappings_do_not_replace_what_is_stated_and_the_first_of_them_wins(tmp_path: Path) -> None:
    text = with_recipes(
        "      low-rank: &a {max_size: 1 B, max_memory: 1 B}\n"
        "      int8-dynamic: &b {max_size: 2 B, max_memory: 2 B, max_flips: 2%}\n"
        "      low-rank + int8-dynamic:\n        <<: [*a, *b]\n        max_size: 3 B\n"
    )
    limits = {limit.name: (limit.value, limit.line) for limit in load(tmp_path, text).cases[2].limits}
    assert limits == {"max_size": (3.0, 11), "max_memory": (1.0, 7), "max_flips": (0.02, 8)}
