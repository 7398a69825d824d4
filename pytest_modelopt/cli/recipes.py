"""`pytest-modelopt recipes`: list the recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelopt.cli.shared.exit_codes import PASSED
from pytest_modelopt.cli.shared.printing import tell

if TYPE_CHECKING:
    import argparse

    from pytest_modelopt.cli.shared.arguments import Commands


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("recipes", help="list the recipes: what each does and needs, and whether it runs here")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.set_defaults(run=run, in_project=True)


def run(options: argparse.Namespace) -> int:
    from pytest_modelopt.optimizing.expression import recipe_class
    from pytest_modelopt.optimizing.listing import listing
    from pytest_modelopt.optimizing.registry import RECIPES

    for line in listing([recipe_class(name) for name in options.names] or RECIPES.values()):
        tell(line)
    return PASSED
