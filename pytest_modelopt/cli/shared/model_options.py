"""A model that no budgets file has yet, as the command line gives it: to `init` and to `explore`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.cli.shared.arguments import metric, reference

if TYPE_CHECKING:
    from pytest_modelopt.config.loader import BudgetsFile

REFERENCE = "PACKAGE.MODULE:FUNCTION"
_SAYS_NOTHING = ("load", "make", "build", "create", "get", "model", "factory")
"""Words of a factory's name that name no model."""


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The keys of a model in a budgets file, without its factory."""
    functions = {
        "--data": "returns the examples to score on",
        "--calibration": "returns examples for recipes to learn from",
        "--example-inputs": "returns the inputs of the timed call",
    }
    for option, meaning in functions.items():
        parser.add_argument(option, type=reference, metavar=REFERENCE, help=f"the function that {meaning}")
    parser.add_argument(
        "--call", type=reference, metavar=REFERENCE, help="the function (model, inputs) -> outputs that is called"
    )
    parser.add_argument("--optimize", metavar="PATH", help="the module below the model that recipes change")
    parser.add_argument(
        "--metric",
        type=metric,
        default="accuracy",
        help="what scores the answers (accuracy): a name, or a mapping as in budgets.yaml, such as "
        "'{name: shop.scoring:iou, per_example: true, higher_is_better: true}'",
    )
    parser.add_argument("--name", help="the name of the model (default: from the factory's name)")
    parser.add_argument(
        "--recipe",
        action="append",
        default=[],
        metavar="EXPR",
        help="a recipe to try, such as 'prune-structured(ratio=0.5) + int8-dynamic'; may be repeated "
        "(default: those that run "
        "here and fit the model)",
    )


def model_keys(options: argparse.Namespace, factory: str) -> tuple[tuple[str, object], ...]:
    """`key: value` of the model, as a budgets file has them."""
    keys = {
        "factory": factory,
        "data": options.data,
        "calibration": options.calibration,
        "example_inputs": options.example_inputs,
        "call": options.call,
        "optimize": options.optimize,
        "metric": options.metric,
    }
    return tuple((key, value) for key, value in keys.items() if value)


def name_of(factory: str) -> str:
    """'digits-vit' of `shop:load_digits_vit`, 'vision' of `shop.vision:load_model`."""
    module, _, function = factory.partition(":")
    words = [word for word in function.split(".")[-1].lower().split("_") if word and word not in _SAYS_NOTHING]
    return "-".join(words) or module.split(".")[-1].replace("_", "-")


def loaded(text: str, output: Path, root: Path) -> BudgetsFile:
    """A budgets file with this text, as if it stood at `output`.

    Raises:
        ValueError: with what is wrong with the name, the metric or the recipes.
    """
    import tempfile

    from pytest_modelopt.config.loader import load_budgets
    from pytest_modelopt.config.problems import BudgetsError

    with tempfile.TemporaryDirectory(prefix="modelopt-") as folder:
        file = Path(folder) / output.name
        file.write_text(text, encoding="utf-8", newline="\n")
        try:
            return load_budgets(file, relative_to=output.parent, root=root, at=output)
        except BudgetsError as error:
            raise ValueError("\n".join(problem.message for problem in error.problems)) from None
