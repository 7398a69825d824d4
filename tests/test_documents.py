"""The documents that users read: their length, their links, and their examples as they are written."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_modelopt.cli.main import parser
from pytest_modelopt.config.loader import load_budgets

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
DOCUMENTS = [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks/README.md"]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """(page and number, text) of each block in that language."""
    for page in PAGES:
        found = [text for name, text in _BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]
        yield from ((f"{page.name} {number}", text) for number, text in enumerate(found, start=1))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def whole_file(text: str) -> str:
    """A budgets file of what the document shows of one: models of it, or keys of a model."""
    if not text.startswith(" "):
        return text if "version:" in text else f"version: 1\n{text}"
    body = textwrap.dedent(text)
    if re.match(r"[\w-]+:\n", body):
        return f"version: 1\nmodels:\n{textwrap.indent(body, '  ')}"
    has = {line.split(":")[0] for line in body.splitlines() if not line.startswith(" ")}
    rest = {"factory": "a:b", "data": "a:c", "recipes": "{int8-dynamic: {max_memory: 1 MiB}}"}
    body += "".join(f"{key}: {value}\n" for key, value in rest.items() if key not in has)
    return f"version: 1\nmodels:\n  reader:\n{textwrap.indent(body, '    ')}"


def alternatives(text: str) -> Iterator[str]:
    """The keys of a model that a document states several times, one after the other, each by itself."""
    parts = re.split(r"^(?=    metric:)", text, flags=re.MULTILINE)
    yield from (parts if len(parts) > 2 else [text])


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link in _LINK.findall(re.sub(r"`[^`]*`", "", text)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_leads_to_each_page() -> None:
    links = set(_LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {f"docs/{page.name}" for page in PAGES if page.parent == ROOT / "docs"} <= links


@pytest.mark.parametrize(("where", "text"), list(blocks("yaml")), ids=lambda value: value if len(value) < 40 else "")
def test_every_budgets_file_is_read_as_it_is_written(where: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "budgets.yaml"
    for part in alternatives(text):
        if not part.strip():
            continue
        path.write_text(whole_file(part).replace("3f0c...", "'" + "3f" * 32 + "'"), encoding="utf-8")
        load_budgets(path, relative_to=tmp_path, expired="keep")


def commands() -> Iterator[str]:
    """Lines of documents that call our command: in blocks of any form."""
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            if match := re.match(r"(?:    |\$ )?(pytest-modelopt [a-z].*)", line):
                yield match[1]


@pytest.mark.parametrize("line", list(commands()))
def test_every_command_line_is_understood(line: str) -> None:
    """argparse ends the process where it does not understand a line."""
    assert parser().parse_args(shlex.split(line, comments=True)[1:]).run


@pytest.mark.parametrize(("where", "text"), list(blocks("python")), ids=lambda value: value if len(value) < 40 else "")
def test_every_python_example_compiles(where: str, text: str) -> None:
    compile(text, where, "exec")
