"""The page in a real Chromium: nothing is fetched or refused, axe-core finds nothing, a keyboard is enough.

Where there is no browser, or the extra `browser` is not installed, these are skipped: `make browser` runs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.page_pictures import LOOKS, Look, browser, chromium, opened
from pytest_modelopt.reporting import page
from pytest_modelopt.reporting.layer_costs_text import table
from pytest_modelopt.reporting.page.layers import render_layers
from pytest_modelopt.results.layer_costs import LayerCost, LayerGroup, RecipeSensitivity
from tests.reporting.against_by_hand import AGAINST, GREW
from tests.reporting.filled_record import filled_record, with_strings
from tests.reporting.hostile_texts import EVERYTHING
from tests.reporting.records_by_hand import realistic

pytestmark = [pytest.mark.e2e, pytest.mark.browser]

LAYERS = RecipeSensitivity(
    "reader",
    "int8-dynamic",
    True,
    (
        LayerCost(
            LayerGroup(("encoder.layers.0.self_attn.out_proj", "tied"), "Linear", 40, 30), 30, 360, 9, 0.02, 0, 1
        ),
        LayerCost(LayerGroup(("head",), "Linear", 40, 90), -2048, 360, 20, 0.1, 0.05, 0.15),
        LayerCost(LayerGroup(("norm",), "LayerNorm", 4, 0), why="it changed nothing"),
        LayerCost(LayerGroup(("last",), "Linear", 4, 0)),
    ),
)
REPORT = replace(realistic(), cases=(*realistic().cases, GREW), against=AGAINST, sensitivity=(LAYERS,))


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    pytest.importorskip("playwright", reason="the extra `browser` is not installed: `make browser` does it")
    pytest.importorskip("axe_playwright_python", reason="the extra `browser` is not installed: `make browser` does it")
    if chromium() is None:
        pytest.skip("there is no Chromium on PATH (Debian: `apt-get install chromium`)")
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    pages = {
        "report": page.render(REPORT),
        "history": page.render_history([realistic(), REPORT]),
        "layers": render_layers("reader", [table(LAYERS)]),
        "hostile": page.render(with_strings(filled_record(), lambda text: f"{text}{EVERYTHING}")),
    }
    for name, html in pages.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


@pytest.mark.parametrize("name", ["report", "history", "layers", "hostile"])
@pytest.mark.parametrize("look", ["light", "dark", "narrow"])
def test_axe_finds_nothing_and_nothing_is_fetched(started: Any, files: dict[str, Path], name: str, look: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with opened(started, files[name], LOOKS[look]) as (shown, wrong):
        shown.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        found = Axe().run(shown)
        assert found.violations_count == 0, found.generate_report()
        assert wrong == []
        assert shown.evaluate("document.documentElement.scrollWidth") <= LOOKS[look].width
        assert shown.evaluate(_CUT) == []


def test_the_filter_works_without_script(started: Any, files: dict[str, Path]) -> None:
    with opened(started, files["report"], LOOKS["no-script"]) as (shown, _):
        rows = shown.locator("#table ~ .scroll tbody tr")
        assert [each.is_visible() for each in rows.all()].count(False) == 0
        shown.get_by_label("what failed", exact=True).check()
        seen = [each.inner_text() for each in rows.all() if each.is_visible()]
        assert len(seen) == 3
        assert all("FAIL" in text or "ERROR" in text for text in seen)


def test_a_keyboard_sorts_searches_and_opens(started: Any, files: dict[str, Path]) -> None:
    with opened(started, files["report"], Look()) as (shown, wrong):
        shown.keyboard.press("Tab")
        assert shown.evaluate("document.activeElement.textContent") == "Skip to the content"
        first = shown.locator("table.sortable").first
        button = first.get_by_role("button", name="memory")
        button.focus()
        shown.keyboard.press("Enter")
        cells = [float(each) for each in first.locator("tbody td:nth-child(3)[data-value]").evaluate_all(_VALUES)]
        assert cells == sorted(cells)
        shown.keyboard.press("Enter")
        cells = [float(each) for each in first.locator("tbody td:nth-child(3)[data-value]").evaluate_all(_VALUES)]
        assert cells == sorted(cells, reverse=True)
        assert first.locator("th[aria-sort=descending]").inner_text() == "memory"
        shown.get_by_label("name contains").focus()
        shown.keyboard.type("int8-static")
        assert first.locator("tbody tr:visible").count() == 1
        link = first.get_by_role("link", name="keyword-cnn/int8-static")
        link.focus()
        shown.keyboard.press("Enter")
        shown.wait_for_function("document.querySelector(location.hash).closest('details').open")
        assert wrong == []


_CUT = """[...document.querySelectorAll("td .verdict")]
  .filter(each => each.scrollWidth > each.clientWidth && each.clientWidth).map(each => each.textContent)"""
"""Verdicts that are wider than their cell, and so stand over the next one."""
_VALUES = "cells => cells.map(each => each.dataset.value)"


def test_in_print_all_that_is_folded_is_open(started: Any, files: dict[str, Path]) -> None:
    with opened(started, files["report"], Look()) as (shown, _):
        assert shown.locator("details:not([open])").count() > 0
        shown.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert shown.locator("details:not([open])").count() == 0
