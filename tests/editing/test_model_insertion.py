"""One more model in a budgets file: where it goes, and that not a character of the rest changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_modelopt.config.document import Document, read_document
from pytest_modelopt.editing.model_insertion import added, opening, require_only_added

MODEL = ["new:", "  factory: a:b"]


def document(folder: Path, text: str) -> Document:
    file = folder / "budgets.yaml"
    file.write_bytes(text.encode())
    return read_document(file, "budgets.yaml")


def with_model(folder: Path, text: str) -> str:
    """The text with `MODEL` in it, which was seen to say nothing else."""
    before = document(folder, text)
    place = opening(before)
    after = added(before.source, place, [place.indent + line for line in MODEL])
    require_only_added(before, document(folder, after), "new")
    return after


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("models:\n  m:\n    a: 1\n  HERE", "\nversion: 1\n"),
        (
            "models: # all\n  m:\n    a: {b: 1,\n      c: 2} # two\n      # of the last one\n\n    # too\n  HERE",
            "\n# top\nx: 1\n",
        ),
        ("models:\n    m:\n        recipes:\n          low-rank:\n    HERE", ""),
        ("models:\n  m: &m\n    a: 1\n  n: *m # the same\n  HERE", "x: 1\n"),
        ("models:\n  m:\n    a: |\n      text # no comment\n  HERE", "\n\nx: 1\n"),
        ("models:\n  m:\n    a: 'models:\n\n      x'\n  HERE", "x: {models: {}}\n"),
        ("x: {models: {}}\nmodels:\n  models:\n    models: 1\n  HERE", "...\n"),
    ],
)
def test_it_goes_behind_the_other_models_and_their_comments(tmp_path: Path, before: str, behind: str) -> None:
    ahead = before.removesuffix("HERE").rstrip(" ")
    indent = before[len(ahead) : before.index("HERE")]
    block = "".join(f"{indent}{line}\n" for line in MODEL)
    assert with_model(tmp_path, ahead + behind) == ahead + block + behind
    windows = (ahead + behind).replace("\n", "\r\n")
    assert with_model(tmp_path, windows) == (ahead + block + behind).replace("\n", "\r\n")


def test_a_last_line_without_an_end_gets_one(tmp_path: Path) -> None:
    assert with_model(tmp_path, "models:\n  m: 1") == "models:\n  m: 1\n  new:\n    factory: a:b\n"


@pytest.mark.parametrize("text", ["{models: {m: 1}}", "models: {m: 1}\n", "x: &m {m: 1}\nmodels: *m\n"])
def test_models_in_braces_take_no_lines(tmp_path: Path, text: str) -> None:
    line = 2 if text.startswith("x") else 1
    with pytest.raises(ValueError, match=f"^budgets.yaml:{line}: `models:` is written in braces or as an alias"):
        opening(document(tmp_path, text))


@pytest.mark.parametrize(
    "after",
    [
        "models:\n  m: 1\n",
        "models:\n  m: 1.0\n  new: 1\n",
        "models:\n  m: 1\n  new: 1\nx: 1\n",
        "models:\n  m: 1\n  new: 1\n  newer: 1\n",
        "models:\n  new: 1\n",
        "models:\n  m: 1\n  m: 1\n  new: 1\n",
    ],
)
def test_a_text_that_says_anything_else_is_refused(tmp_path: Path, after: str) -> None:
    before = document(tmp_path, "models:\n  m: 1\n")
    require_only_added(before, document(tmp_path, "models:\n  m: 1\n  new: {a: 1}\n"), "new")
    with pytest.raises(ValueError, match=r"would state something else, too .*so nothing was written"):
        require_only_added(before, document(tmp_path, after), "new")


RECIPE = ["low-rank(ratio=0.5):", "  max_size: 1 MB"]
BELOW = ("models", "m", "recipes")
OF_ANOTHER = "models:\n  n:\n    recipes:\n      bf16:\n"


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("models:\n  m:\n    recipes:\n      bf16:\n", "    metric: accuracy\n  n:\n    recipes: {bf16: }\n"),
        (OF_ANOTHER + "  m:\n    recipes: # all\n      bf16: {max_size: 1 MB} # a\n", ""),
        (
            "recipes: 1\nmodels:\n  m:\n    m: {recipes: 1}\n    recipes:\n      bf16: &a\n        x: 1\n      y: *a\n",
            "",
        ),
    ],
)
def test_a_recipe_goes_behind_the_others_of_its_model(tmp_path: Path, before: str, behind: str) -> None:
    read = document(tmp_path, before + behind)
    place = opening(read, BELOW)
    after = added(read.source, place, [place.indent + line for line in RECIPE])
    assert after == before + "".join(f"      {line}\n" for line in RECIPE) + behind
    new = ("m", "recipes", "low-rank(ratio=0.5)")
    require_only_added(read, document(tmp_path, after), *new)
    for wrong in (after.replace("bf16", "fp16"), before + behind):
        with pytest.raises(ValueError, match="would state something else, too"):
            require_only_added(read, document(tmp_path, wrong), *new)


@pytest.mark.parametrize("text", ["models:\n  m:\n    factory: a:b\n", "x: &m {recipes: {a: 1}}\nmodels:\n  m: *m\n"])
def test_where_a_model_states_no_recipes_none_is_added(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"there is no `models\.m\.recipes:` in lines of its own, so nothing can be"):
        opening(document(tmp_path, text), BELOW)
