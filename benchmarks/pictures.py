"""Pictures of the reports, to be looked at: a comment as GitHub shows it, and a terminal of 80 columns.

    python -m benchmarks.pictures FOLDER [RECORD...] [--only comment]

draws every record of benchmarks/records, or those that are named, with Chromium (Debian: `apt-get install chromium`),
and says of each comment whether its tables fit. Needs the extra `dev`. Each picture holds the digest of what it shows:
that in docs/pictures, which README.md shows, is held against its record by a test.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from markdown_it import MarkdownIt
from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngInfo

from pytest_modelopt.cli.comment import comment
from pytest_modelopt.cli.shared.judged_records import read_judged
from pytest_modelopt.reporting import terminal
from pytest_modelopt.results.record import Record

RECORDS = Path(__file__).parent / "records"
COMMENT_PX = 830
"""Of the text of a comment in a pull request's conversation."""
COLUMNS = 80
DIGEST = "digest of the page"
"""The name of the text in a picture."""
_HEIGHT_PX = 4000
_MARGIN_PX = 16
_FONTS = '-apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif'
_STYLE = f"""
body {{ margin: {_MARGIN_PX}px; width: {COMMENT_PX}px; font: 14px/1.5 {_FONTS}; color: #1f2328; }}
table {{ display: block; width: max-content; max-width: 100%; overflow: auto; border-collapse: collapse;
  margin-bottom: 16px; font-variant: tabular-nums; }}
th, td {{ padding: 6px 13px; border: 1px solid #d1d9e0; }}
tr:nth-child(2n) {{ background: #f6f8fa; }}
h3 {{ font-size: 1.25em; margin: 24px 0 16px; }} h4 {{ font-size: 1em; margin: 24px 0 16px; }}
p, ul, details {{ margin: 0 0 16px; }} ul {{ padding-left: 2em; }}
pre {{ background: #f6f8fa; padding: 16px; overflow: auto; font-size: 85%; }}
"""
_SCRIPT = """<script>document.title = [...document.querySelectorAll("table")].filter(
  each => each.getClientRects().length && each.scrollWidth > each.clientWidth).length</script>"""
"""How many tables that can be seen are wider than their place: GitHub gives these a scrollbar."""
_TERMINAL = """body { margin: 8px; background: #fff; }
pre { font: 13px/1.3 "DejaVu Sans Mono", monospace; width: 80ch; }
.red { color: #b00; } .yellow { color: #960; } .green { color: #070; } .bold { font-weight: bold; }"""


def comment_page(record: Record) -> str:
    """HTML of the comment on a pull request."""
    text = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(comment(record))
    return f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style>{text}{_SCRIPT}"


def digest(page: str) -> str:
    """Of what a picture shows."""
    return hashlib.sha256(page.encode()).hexdigest()


def terminal_page(record: Record) -> str:
    """HTML of what a terminal shows."""
    shown = [
        f'<span class="{" ".join(name for name, is_on in markup.items() if is_on)}">{html.escape(line)}</span>'
        for line, markup in terminal.lines(record, COLUMNS)
    ]
    return f"<!doctype html><meta charset=utf-8><style>{_TERMINAL}</style><pre>{chr(10).join(shown)}</pre>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("records", nargs="*", type=Path, default=sorted(RECORDS.glob("*.json")))
    parser.add_argument("--only", choices=("comment", "terminal"))
    options = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("there is no Chromium here: apt-get install chromium")
    options.folder.mkdir(parents=True, exist_ok=True)
    for path in options.records:
        record = read_judged(path)
        for name, page in (("comment", comment_page(record)), ("terminal", terminal_page(record))):
            if options.only not in (None, name):
                continue
            picture = options.folder / f"{path.stem}-{name}.png"
            title = _draw(browser, page, picture)
            print(f"{picture}" + (f": {title} tables are too wide" if name == "comment" else ""))


def _draw(browser: str, page: str, picture: Path) -> str:
    """Write the page as a picture; its title, once its script ran."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "page.html"
        source.write_text(page, encoding="utf-8")
        size = f"--window-size={COMMENT_PX + 2 * _MARGIN_PX},{_HEIGHT_PX}"
        common = [browser, "--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={folder}/profile", size]
        subprocess.run([*common, f"--screenshot={picture.resolve()}", str(source)], check=True, capture_output=True)
        dumped = subprocess.run([*common, "--dump-dom", str(source)], check=True, capture_output=True, text=True).stdout
    with Image.open(picture) as drawn:
        whole = drawn.convert("RGB")
    box = ImageChops.difference(whole, Image.new("RGB", whole.size, "white")).getbbox()
    if box is not None:
        whole = whole.crop((0, 0, whole.width, min(whole.height, box[3] + _MARGIN_PX)))
    told = PngInfo()
    told.add_text(DIGEST, digest(page))
    whole.quantize(64).save(picture, optimize=True, pnginfo=told)
    title = re.search("<title>(.*?)</title>", dumped)
    return title[1] if title is not None else ""


if __name__ == "__main__":
    main()
