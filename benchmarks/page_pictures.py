"""Pictures of a page in a real Chromium: light, dark, narrow, without script and printed, to be looked at.

    python -m benchmarks.page_pictures RECORD FOLDER

Needs the extra `browser` and a Chromium on PATH (Debian: `apt-get install chromium`).
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pytest_modelopt.cli.shared.judged_records import read_judged
from pytest_modelopt.reporting import page

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Look:
    """How a page is looked at; sizes in pixels."""

    scheme: Literal["light", "dark"] = "light"
    width: int = 1280
    has_script: bool = True


LOOKS = {"light": Look(), "dark": Look("dark"), "narrow": Look(width=390), "no-script": Look(has_script=False)}


def chromium() -> str | None:
    """The path of the browser; None where there is none."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium, by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


@contextlib.contextmanager
def opened(started: Any, file: Path, look: Look) -> Iterator[tuple[Any, list[str]]]:
    """The page in `file`, and what went wrong in it or was fetched: it is to stay empty."""
    context = started.new_context(
        viewport={"width": look.width, "height": 900}, color_scheme=look.scheme, java_script_enabled=look.has_script
    )
    wrong: list[str] = []
    shown = context.new_page()
    shown.on("console", lambda message: wrong.append(message.text))
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.on("request", lambda request: None if request.url == file.as_uri() else wrong.append(request.url))
    try:
        shown.goto(file.as_uri())
        yield shown, wrong
    finally:
        context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    told = "one record: the report; several: the history; or a page, as `explore --sensitivity --html` writes it"
    parser.add_argument("record", type=Path, nargs="+", help=told)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    file = (options.folder / "page.html").resolve()
    file.write_text(_page(options.record), encoding="utf-8")
    with browser() as started:
        for name, look in LOOKS.items():
            with opened(started, file, look) as (shown, wrong):
                shown.screenshot(path=options.folder / f"{name}.png", full_page=True)
                print(f"{name}.png: {wrong or 'nothing fetched, no error'}")
        with opened(started, file, Look()) as (shown, _):
            shown.pdf(path=options.folder / "printed.pdf")


def _page(files: list[Path]) -> str:
    if files[0].suffix == ".html":
        return files[0].read_text(encoding="utf-8")
    records = [read_judged(path) for path in files]
    return page.render(records[0]) if len(records) == 1 else page.render_history(records)


if __name__ == "__main__":
    main()
