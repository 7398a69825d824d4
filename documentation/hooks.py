"""Hooks of mkdocs: README.md as the first page, pages of reference, and links of files on GitHub for the site."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path

from documentation.reference import PAGES, page  # noqa: E402
from pytest_modelopt.reporting.addresses import DOCUMENTATION, REPOSITORY  # noqa: E402

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

BLOB = f"{REPOSITORY}/blob/main/"
"""Before the path of a file of the repository, in links that work from anywhere."""
RAW = f"{REPOSITORY}/raw/main/"
"""The same of a picture."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The one place with addresses is a module of the package."""
    config.site_url, config.repo_url = DOCUMENTATION, REPOSITORY
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is no file of docs/."""
    from mkdocs.structure.files import File

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=readme))
    for name in PAGES:
        files.append(File.generated(config, f"reference/{name}.md", content=page(name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links out of docs/ lead to the repository, and links to the repository's docs/ stay on the site."""
    del config, files
    if page.file.src_uri.startswith("reference/"):
        return markdown
    out = re.sub(r"\]\(\.\./([^)\s]+)\)", rf"]({BLOB}\1)", markdown)
    return out.replace(f"]({BLOB}docs/", "](").replace(f"]({RAW}docs/", "](")
