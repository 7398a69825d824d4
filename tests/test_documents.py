"""The documents that users read: their length, their links, and their examples as they are written."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
from PIL import Image

from benchmarks import pictures
from documentation.outputs import renewed
from pytest_modelopt.cli.main import _COMMANDS, main, parser
from pytest_modelopt.cli.shared.judged_records import read_judged
from pytest_modelopt.config.loader import load_budgets
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.plugin.options import SETTINGS
from pytest_modelopt.reporting.addresses import DOCUMENTATION, REPOSITORY, TROUBLESHOOTING, UsageCode, see
from pytest_modelopt.reporting.sentences import EXPLAINED
from tests.example_blocks import BLOCK, PAGES, ROOT, blocks, calls

pytestmark = pytest.mark.unit

DOCUMENTS = sorted([*PAGES, *ROOT.glob("*.md"), ROOT / "benchmarks/README.md", ROOT / "example_project/README.md"])
BLOB = f"{REPOSITORY}/blob/main/"
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
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
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link in _LINK.findall(re.sub(r"`[^`]*`", "", text)):
        is_ours = link.startswith(BLOB)
        if link.startswith(("http://", "https://")) and not is_ours:
            continue
        path, _, anchor = link.removeprefix(BLOB).partition("#")
        target = (ROOT if is_ours else page.parent) / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_leads_to_each_page_from_wherever_it_is_read() -> None:
    """PyPI shows it without the repository around it."""
    links = set(_LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {f"{BLOB}docs/{page.name}" for page in PAGES if page.parent == ROOT / "docs"} <= links
    assert [link for link in links if not link.startswith("https://")] == []


def test_the_project_has_one_address_for_each_thing() -> None:
    """Wherever one stands in text that can import nothing, it is that of the constant."""
    sources = [ROOT / "pyproject.toml", ROOT / "CITATION.cff", *(ROOT / ".github").rglob("*.yml"), *DOCUMENTS]
    found = {file: re.findall(r"https://[\w./-]*pytest-modelopt[\w./-]*", file.read_text("utf-8")) for file in sources}
    ours = (f"{REPOSITORY}/", DOCUMENTATION)
    assert all(f"{address}/".startswith(ours) for each in found.values() for address in each), found
    assert len(found[ROOT / "pyproject.toml"]) == 4
    assert found[ROOT / "CITATION.cff"] == [REPOSITORY]


def test_each_message_with_a_code_is_explained() -> None:
    """And nothing is explained that no message says any more."""
    codes = {*EXPLAINED, *get_args(UsageCode)}
    page = ROOT / "docs" / f"{TROUBLESHOOTING.removeprefix(DOCUMENTATION).rstrip('/')}.md"
    explained = re.findall(r"^### `([\w-]+)`\n(?=\S)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(explained) == sorted(codes)
    assert codes <= anchors(page), "as GitHub makes them"
    assert see("left-alone").endswith("#left-alone")


def test_each_usage_error_of_pytest_has_an_address() -> None:
    files = (ROOT / "pytest_modelopt").rglob("*.py")
    raising = [file.name for file in files if re.search(r"UsageError\(", file.read_text(encoding="utf-8"))]
    assert raising == ["usage_errors.py"]


def test_the_table_of_limits_names_each_limit() -> None:
    for page in (ROOT / "README.md", ROOT / "docs/limits.md"):
        rows = re.findall(r"^\| (`m.*?) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert sorted(re.findall(r"`(m\w+)`", " ".join(rows))) == sorted(LIMITS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_command_prints_of_a_record_is_shown_as_it_is(page: Path) -> None:
    """`python -m documentation.outputs` writes it again."""
    text = page.read_text(encoding="utf-8")
    assert renewed(text) == text
    assert page.name != "README.md" or "$ pytest-modelopt report documentation/records/" in text


def test_the_page_of_options_and_commands_names_each() -> None:
    text = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(--[\w-]+|pytest-modelopt \w+)", text, re.MULTILINE))
    options = {"--modelopt", *(f"--modelopt-{name.replace('_', '-')}" for name, _, _ in SETTINGS)}
    assert named == options | {f"pytest-modelopt {module.__name__.rpartition('.')[2]}" for module in _COMMANDS}


def test_the_change_log_has_the_headings_of_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE)[0] == "[Unreleased]"
    kinds = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


READ = [(where, text) for where, text in blocks("yaml") if "own-recipe.md" not in where]
"""Where a recipe of the project is used, tests/test_documented_examples.py runs it."""


@pytest.mark.parametrize(("where", "text"), READ, ids=lambda value: value if len(value) < 40 else "")
def test_every_budgets_file_is_read_as_it_is_written(where: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "budgets.yaml"
    for part in alternatives(text):
        if not part.strip():
            continue
        path.write_text(whole_file(part).replace("3f0c...", "'" + "3f" * 32 + "'"), encoding="utf-8")
        load_budgets(path, relative_to=tmp_path, expired="keep")


def commands() -> Iterator[str]:
    """Each line that calls our command."""
    yield from dict.fromkeys(line for page in PAGES for line in calls(page) if line.startswith("pytest-modelopt"))


@pytest.mark.parametrize("line", list(commands()))
def test_every_command_line_is_understood(line: str) -> None:
    """argparse ends the process where it does not understand a line."""
    assert parser().parse_args(shlex.split(line.partition(" | ")[0], comments=True)[1:]).run


@pytest.mark.parametrize("module", _COMMANDS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_command_tells_its_options(module: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """A lone `%` in a help text, as of what a limit means, is a fault of argparse's when `--help` asks for it."""
    with pytest.raises(SystemExit) as ended:
        main([module.__name__.rpartition(".")[2], "--help"])
    told = capsys.readouterr()
    assert (ended.value.code, told.err) == (0, "")
    assert "%%" not in told.out


@pytest.mark.parametrize(("where", "text"), list(blocks("python")), ids=lambda value: value if len(value) < 40 else "")
def test_every_python_example_compiles(where: str, text: str) -> None:
    compile(text, where, "exec")


def test_the_picture_in_the_readme_shows_what_a_comment_says_today() -> None:
    """`python -m benchmarks.pictures docs/pictures benchmarks/records/memory.json --only comment` draws it again."""
    (address,) = re.findall(r"!\[[^\]]+\]\((\S+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    path = address.removeprefix(f"{REPOSITORY}/raw/main/")
    name = Path(path).stem.removesuffix("-comment")
    with Image.open(ROOT / path) as picture:
        shown, width = picture.info[pictures.DIGEST], picture.width
    assert shown == pictures.digest(pictures.comment_page(read_judged(pictures.RECORDS / f"{name}.json")))
    assert width == pictures.COMMENT_PX + 2 * 16
