"""The documentation site: it is built without a warning, and its pages of reference have all that the program knows."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import get_args

import pytest

import pytest_modelopt
from pytest_modelopt.cli.main import parser
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.optimizing.registry import BUILT_IN
from pytest_modelopt.plugin import options
from pytest_modelopt.reporting.addresses import UsageCode
from pytest_modelopt.reporting.sentences import EXPLAINED
from tests.example_blocks import ROOT

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` builds it: strict, with links and anchors checked by mkdocs."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    return folder


def anchors(site: Path, page: str) -> set[str]:
    text = (site / page / "index.html").read_text(encoding="utf-8")
    return {unescape(name) for name in re.findall(r'<h[1-6] id="([^"]+)"', text)}


def codes(site: Path, page: str) -> set[str]:
    """What stands there between backticks."""
    text = (site / page / "index.html").read_text(encoding="utf-8")
    return {unescape(code) for code in re.findall(r"<code>(.*?)</code>", text)}


def test_each_limit_recipe_option_and_command_has_its_reference(site: Path) -> None:
    (choice,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert codes(site, "reference/limits") >= LIMITS.keys()
    assert codes(site, "reference/recipes") >= {recipe.recipe_name for recipe in BUILT_IN}
    assert codes(site, "reference/commands") >= choice.choices.keys()
    assert codes(site, "reference/options") >= {f"modelopt_{name}" for name, _, _ in options.SETTINGS}
    for name, command in choice.choices.items():
        written = " ".join(codes(site, "reference/commands"))
        longs = [option for action in command._actions for option in action.option_strings if option.startswith("--")]
        assert [option for option in longs if option != "--help" and option not in written] == [], name


def test_each_public_name_has_its_reference(site: Path) -> None:
    found = {anchor.rpartition(".")[2] for anchor in anchors(site, "reference/api")}
    assert found >= {name for name in pytest_modelopt.__all__ if name != "__version__"}
    assert "check_recipe" in found


def test_the_address_of_each_message_is_a_heading_of_the_site(site: Path) -> None:
    assert anchors(site, "troubleshooting") >= {*EXPLAINED, *get_args(UsageCode)}


def test_no_page_asks_another_server_for_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:link[^>]+stylesheet[^>]+href|script[^>]+src|img[^>]+src)="(https?:[^"]+)"', page.read_text("utf-8")
        )
        assert loaded == [], page
