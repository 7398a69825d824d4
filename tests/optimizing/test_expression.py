"""Recipe expressions: what is understood, its one spelling, and what each mistake is told."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_modelopt.diagnosis.evidence import Evidence
from pytest_modelopt.optimizing.expression import Expression, RecipeError, canonical_text, parse, step_texts
from pytest_modelopt.optimizing.registry import BUILT_IN, RECIPES
from tests.reporting.records_by_hand import case


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("int8-dynamic", "int8-dynamic"),
        ("  int8-dynamic ( ) ", "int8-dynamic"),
        ("prune-structured", "prune-structured(ratio=0.3)"),
        ("prune-structured(ratio=0.30, round_to=8)", "prune-structured(ratio=0.3)"),
        (
            "prune-structured( round_to = 16 , ratio=.5 )+int8-dynamic",
            "prune-structured(ratio=0.5, round_to=16)+int8-dynamic",
        ),
        (
            "prune-structured(ratio=5e-1,round_to=16) + int8-dynamic",
            "prune-structured(ratio=0.5, round_to=16)+int8-dynamic",
        ),
        ("prune-unstructured(scope='global')", "prune-unstructured(ratio=0.5, scope=global)"),
        ("int8-static(batches=8)", "int8-static(batches=8)"),
        ("low-rank(ratio=2.5e-1)", "low-rank(ratio=0.25)"),
    ],
)
def test_texts_with_the_same_meaning_have_one_spelling(text: str, spelling: str) -> None:
    assert parse(text).text == spelling
    assert parse(spelling) == parse(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("int8-dynamc", "unknown recipe 'int8-dynamc'; did you mean 'int8-dynamic'?"),
        ("squeeze", "unknown recipe 'squeeze'; the recipes are int8-dynamic, "),
        ("int8_static", "did you mean 'int8-static'?"),
        ("low-rank(rato=0.5)", "low-rank has no parameter 'rato'; did you mean 'ratio'?; low-rank takes ratio"),
        ("int8-dynamic(bits=4)", "int8-dynamic has no parameter 'bits'; int8-dynamic takes finetune, keep"),
        (
            "int8-static(finetune='a:b')",
            "int8-static has no parameter 'finetune', which int8-dynamic, int8-weight-only, torchao-int8-dynamic, "
            "torchao-int8-weight-only, prune-structured, low-rank take; int8-static takes batches, keep",
        ),
        ("channels-last(bits=4)", "channels-last takes no parameters"),
        ("prune-unstructured(0.5)", "given by name: write prune-unstructured(ratio=0.5)"),
        ("low-rank(ratio)", "'ratio' of low-rank has no value: write low-rank(ratio=0.5)"),
        ("low-rank(ratio=)", "has no value"),
        ("low-rank(ratio=1)", "ratio of low-rank must be a number between 0 and 1, both excluded, not 1"),
        ("low-rank(ratio=nan)", "must be a number between 0 and 1, both excluded, not 'nan'"),
        ("low-rank(ratio=true)", "must be a number between 0 and 1"),
        ("low-rank(ratio='0.5')", "must be a number between 0 and 1"),
        ("low-rank(ratio=50%)", "write ratio=0.5, not 50%"),
        ("low-rank(ratio=1e999)", "too large"),
        (f"low-rank(ratio={'9' * 5000})", "ratio of low-rank is too large a number: it has 5000 digits"),
        ("int8-static(batches=2.5)", "must be a whole number of at least 1, not 2.5"),
        ("prune-unstructured(scope=glob)", "must be 'layer' or 'global', not 'glob'"),
        ("low-rank(ratio=0.5", "a '(' in 'low-rank(ratio=0.5' is never closed"),
        ("low-rank ratio=0.5)", "has no '(' before it"),
        ("low-rank(ratio='0.5)", "a quote in"),
        ("low-rank(ratio=(0.5))", "inside of parentheses"),
        ("low-rank(ratio=0.5,,)", "an empty part between the commas"),
        ("low-rank(ratio=0.5, ratio=0.6)", "low-rank is given 'ratio' twice"),
        ("low-rank++int8-dynamic", "has nothing before or after it"),
        ("+low-rank", "has nothing before or after it"),
        ("low-rank int8-dynamic", "joined with '+': write low-rank + int8-dynamic"),
        ("low-rank(ratio=0.5) int8-dynamic", "'int8-dynamic' after ')'"),
        ("(low-rank)", "a recipe has no name"),
        ("  ", "the recipe is empty; write one of int8-dynamic"),
        ("low-rank + low-rank(ratio=0.2)", "low-rank is written twice"),
        (
            "int8-dynamic + int8-static",
            "int8-static cannot follow int8-dynamic: int8-dynamic packs the weights in int8, and int8-static needs "
            "them in floating point; keep one of the two",
        ),
        ("int8-static + prune-structured", "write prune-structured + int8-static"),
        ("int8-dynamic + low-rank", "needs them in floating point; write low-rank + int8-dynamic"),
    ],
)
def test_a_mistake_is_told_with_the_way_out(text: str, told: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse(text)
    assert told in str(error.value)
    assert "pydantic" not in str(error.value)


@pytest.mark.parametrize("second", [recipe.recipe_name for recipe in BUILT_IN])
@pytest.mark.parametrize("first", [recipe.recipe_name for recipe in BUILT_IN])
def test_each_pair_is_taken_or_refused_with_an_order_that_is_taken(first: str, second: str) -> None:
    try:
        recipes = parse(f"{first} + {second}")
    except RecipeError as error:
        message = str(error)
    else:
        assert parse(recipes.text).text == recipes.text
        return
    if first == second:
        assert "is written twice" in message
    elif "; write " in message:
        assert message.endswith(f"; write {second} + {first}")
        parse(f"{second} + {first}")
    else:
        assert message.startswith(f"{second} cannot follow {first}: {first} ")
        assert message.endswith("keep one of the two")
        with pytest.raises(RecipeError):
            parse(f"{second} + {first}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("onnxruntime + openvino", "openvino cannot follow onnxruntime: onnxruntime hands the model over to another"),
        ("compile + int8-dynamic", "int8-dynamic cannot follow compile: compile compiles the model, which cannot be"),
        ("onnxruntime + int8-dynamic", "int8-dynamic cannot follow onnxruntime"),
        ("litert-int8 + prune-structured", "write prune-structured + litert-int8"),
        ("bf16 + int8-static", "bf16 casts the weights to 16 bits, and int8-static needs them in floating point"),
        ("torchao-int8-dynamic + int8-dynamic", "keep one of the two"),
    ],
)
def test_what_makes_no_sense_together_is_refused_with_the_reason(text: str, told: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse(text)
    assert told in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "fold-batchnorm + channels-last + compile(freezing=true)",
        "prune-structured + low-rank + int8-dynamic",
        "prune-unstructured(ratio=0.9) + sparse-csr",
        "torchao-int8-weight-only + compile",
        "bf16 + channels-last + compile",
        "prune-structured + onnxruntime-int8-static",
    ],
)
def test_what_makes_sense_together_is_taken(text: str) -> None:
    assert len(parse(text).steps) == text.count("+") + 1


def test_every_recipe_is_found_under_its_own_name_with_its_defaults() -> None:
    for name, recipe_class in RECIPES.items():
        (recipe,) = parse(name).steps
        assert type(recipe) is recipe_class
        assert recipe.canonical() == (f"{name}(ratio={recipe.ratio})" if hasattr(recipe, "ratio") else name)
        assert recipe_class.summary
        assert recipe_class.changes or recipe_class.gives in ("compiled", "runtime")


def test_reading_an_expression_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, importlib, pkgutil, pytest_modelopt.optimizing as room\n"
        "for module in pkgutil.iter_modules(room.__path__): importlib.import_module(f'{room.__name__}.{module.name}')\n"
        "from pytest_modelopt.optimizing.expression import parse; parse('prune-structured+int8-static')\n"
        "print({'torch', 'numpy', 'torch_pruning'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_an_expression_knows_what_was_written_and_is_equal_by_its_meaning() -> None:
    one, other = parse("prune-structured( ratio=.5 )+ bf16"), parse("prune-structured(ratio=0.50)+bf16")
    assert (one.written, one.text) == ("prune-structured( ratio=.5 )+ bf16", "prune-structured(ratio=0.5)+bf16")
    assert str(one) == "prune-structured(ratio=0.5) + bf16"
    assert one == other
    assert len({one, other, parse("bf16")}) == 2
    assert [parse(text).imports_compiler for text in ("bf16 + compile", "bf16")] == [True, False]


def test_a_project_s_recipe_is_unpacked_where_its_module_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is given its variant before its paths."""
    (tmp_path / "halving.py").write_text(
        "from pytest_modelopt import Recipe\n\n\nclass Halve(Recipe):\n"
        "    recipe_name = 'halve'\n    summary = 'halves'\n    times: int = 1\n    def apply(self, *_): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    halve = __import__("halving").Halve
    monkeypatch.setitem(RECIPES, "halve", halve)
    packed = pickle.dumps(parse("halve(times=2) + bf16"))
    del sys.modules["halving"], RECIPES["halve"]
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
        travelled = pickle.loads(packed)  # noqa: S301
        assert travelled.text == "halve(times=2)+bf16"
        again = pickle.loads(pickle.dumps(travelled))  # noqa: S301
        with pytest.raises(ModuleNotFoundError):
            _ = travelled.steps
    assert [step.canonical() for step in again.steps] == ["halve(times=2)", "bf16"]
    assert RECIPES["halve"] is type(again.steps[0])


class Packs(type(parse("bf16").steps[0])):  # type: ignore[misc]
    """A project's own, which starts from what int8-dynamic leaves."""

    recipe_name = "packs"
    takes = ("packed",)


def test_a_recipe_that_starts_from_anothers_weights_cannot_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "packs", Packs)
    with pytest.raises(RecipeError, match="packs cannot come first: it takes weights that another recipe has changed"):
        parse("packs")
    assert parse("int8-dynamic + packs").text == "int8-dynamic+packs"
    of = replace(case(), recipe="int8-dynamic+packs")
    assert [recipe.recipe_name for recipe in Evidence(of, None).recipes] == ["int8-dynamic", "packs"]


def test_a_recipe_of_no_registry_travels_too() -> None:
    class Local(type(parse("bf16").steps[0])):  # type: ignore[misc]
        recipe_name = "local"

    (step,) = pickle.loads(pickle.dumps(Expression.of([Local()]))).steps  # noqa: S301
    assert (step.recipe_name, step.canonical()) == ("local", "local")
    assert "local" not in RECIPES


@pytest.mark.parametrize(
    ("text", "canonical", "steps"),
    [
        ("bf16+compile( freezing=true )", "bf16+compile(freezing=true)", ("bf16", "compile( freezing=true )")),
        ("theirs(text='a+b') + bf16", None, ("theirs(text='a+b')", "bf16")),
        ("theirs(", None, ("theirs(",)),
        ("", None, ("",)),
    ],
)
def test_what_may_be_no_expression(text: str, canonical: str | None, steps: tuple[str, ...]) -> None:
    assert canonical_text(text) == canonical
    assert step_texts(text) == steps
