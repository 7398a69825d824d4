"""The report as GitHub Markdown, in which no string of a record can become structure, a mention or a link."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from tabulate import tabulate

from pytest_modelopt.record.model import Case, Environment, Record
from pytest_modelopt.record.outcome import case_outcome, is_red, record_is_red
from pytest_modelopt.report.answers import Columns, changed_examples, counts, worst_slices
from pytest_modelopt.report.item import Item
from pytest_modelopt.report.plain import plain_line, plain_lines
from pytest_modelopt.report.sentences import items
from pytest_modelopt.report.summary import counted, timed_limits
from pytest_modelopt.report.table import ALIGNMENTS, Block, Row, blocks

LIMIT_BYTES = 900 * 1024
"""GitHub drops a step summary above 1 MiB as a whole."""
_NOTE_BYTES = 16 * 1024
_OUTPUT_LINES = 60
_NAMES_SHOWN = 10
_NAME_LENGTH = 100
_WORDS = ("slice", "what it means")
"""Columns of words; all others are figures."""


@dataclass(frozen=True)
class Section:
    """A part of the report that is kept or left out as a whole. `rank` 0 is kept longest."""

    title: str
    """In plain text, for the sentence that says what was left out."""
    text: str
    rank: int


def render(record: Record, limit: int = LIMIT_BYTES) -> str:
    """The whole report: the verdict, then failing models, other models, notes, and the environment.

    Its UTF-8 form has at most `limit` bytes; sections that do not fit are left out, failures last, and named.
    """
    return fit(sections(record), limit)


def sections(record: Record) -> list[Section]:
    """The parts of the report in the order in which they are read."""
    told = items(record)
    parts = [Section("the verdict", _verdict(record), 0)]
    for block in sorted(blocks(record), key=lambda block: not block.is_red):
        parts.append(Section(f"the table of {block.model}", _table(block), 1 if block.is_red else 3))
        of_block = {row.case_id for row in block.rows if row.case_id is not None}
        parts += _cases([item for item in told if item.case_id in of_block])
        parts += [part for case in record.cases if case.id in of_block for part in _answers(case, record.strict)]
    parts += _run([item for item in told if item.case_id is None])
    if record.environment is not None:
        parts.append(Section("the environment", _environment(record, record.environment), 4))
    return parts


def fit(parts: Sequence[Section], limit: int = LIMIT_BYTES) -> str:
    """The sections in their order, in at most `limit` bytes: whole sections, and a sentence about those left out."""
    whole = _joined(parts)
    if len(whole.encode()) <= limit:
        return whole
    room = limit - min(_NOTE_BYTES, limit // 2)
    kept: set[int] = set()
    for index in sorted(range(len(parts)), key=lambda index: (parts[index].rank, index)):
        size = len(parts[index].text.encode()) + 2
        if size <= room:
            kept.add(index)
            room -= size
    left_out = [part.title for index, part in enumerate(parts) if index not in kept]
    fitted = [part for index, part in enumerate(parts) if index in kept]
    names = "; ".join(escape(_shortened(name)) for name in left_out[:_NAMES_SHOWN])
    more = f" and {len(left_out) - _NAMES_SHOWN} more" if len(left_out) > _NAMES_SHOWN else ""
    for note in (f"{names}{more}", f"{len(left_out)} sections"):
        told = f"Left out to keep this report below {limit // 1024} KiB: {note}. The record file holds everything."
        text = _joined([*fitted, Section("", told, 0)])
        if len(text.encode()) <= limit:
            return text
    return _joined(fitted)


def escape(text: str) -> str:
    """`text` on one line, as text and nothing else, wherever in a line of GitHub Markdown it stands."""
    return _SPECIAL.sub(_escaped, plain_line(text))


# As a number, a character is text and never structure. An underscore inside a word is text anyway.
_STRUCTURE = r"[&<>|\\`*~\[\]$]|(?<![^\W_])_|_(?![^\W_])|\A[-+=]"
# GitHub makes links of these in any text, whatever its escapes: mentions, references to issues, addresses. An empty
# comment breaks them up without changing what is read or copied; so it does with a number that would begin a list.
_LINKING = r"[@#]|\A\d+(?=[.)])|\bwww(?=\.)|:(?=//)|\bgh(?=-\d)"
_SPECIAL = re.compile(f"(?P<structure>{_STRUCTURE})|(?P<linking>{_LINKING})", re.IGNORECASE)


def _escaped(match: re.Match[str]) -> str:
    if match["linking"]:
        return f"{match[0]}<!-- -->"
    return f"&#{ord(match[0])};"


def fenced(lines: Sequence[str]) -> str:
    """`lines` as a code block, behind a fence that is longer than any run of backticks in them."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}text", *lines, fence])


def _joined(parts: Sequence[Section]) -> str:
    return "\n\n".join(part.text for part in parts) + "\n"


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 3] + "..."


def _verdict(record: Record) -> str:
    outcomes = {case_outcome(case, record.strict) for case in record.cases}
    if record_is_red(record):
        word = "FAILED"
    elif not record.complete:
        word = "INTERRUPTED"
    elif "inconclusive" in outcomes:
        word = "INCONCLUSIVE"
    else:
        word = "passed with warnings" if "warn" in outcomes else "passed"
    return f"**Model budgets: {word}.** {counted(record)}."


def _table(block: Block) -> str:
    table = tabulate(
        [_cells(row) for row in block.rows],
        headers=[escape(name) for name in block.headers],
        tablefmt="pipe",
        colalign=ALIGNMENTS,
        disable_numparse=True,
    )
    return f"### {escape(block.model)}\n\n{escape(block.conditions)}\n\n{table}"


def _cells(row: Row) -> list[str]:
    """Only the recipe is a string of the record: the other cells are made of figures."""
    verdict = f"**{row.verdict}**" if row.outcome in ("fail", "error") else row.verdict
    return [escape(row.recipe), *row.cells[1:-1], verdict]


def _cases(told: Sequence[Item]) -> Iterator[Section]:
    """One section for each case that there is something to say about; those that failed come first."""
    ranks = {"error": 1, "warning": 2, "info": 3}
    grouped = [list(group) for _, group in groupby(told, key=lambda item: item.case_id)]
    for group in sorted(grouped, key=lambda group: min(ranks[item.severity] for item in group)):
        yield Section(group[0].title, "\n\n".join(_case(group)), min(ranks[item.severity] for item in group))


def _case(told: Sequence[Item]) -> Iterator[str]:
    said: set[str] = set()
    for item in told:
        yield f"**{item.label}** {escape(item.text)}"
        found = [line for line in item.found if line not in said]
        if found:
            yield "\n".join(f"- {escape(line)}" for line in found)
        said.update(found)
    why = dict.fromkeys(line for item in told for line in item.why)
    if why:
        yield "\n".join(f"- {escape(line)}" for line in why)
    for item in told:
        if item.output:
            hidden = max(0, len(item.output) - _OUTPUT_LINES)
            more = f" ({hidden} more lines in the record)" if hidden else ""
            tail = [line for text in item.output[hidden:] for line in plain_lines(text)]
            summary = f"<summary>the worker's last output{more}</summary>"
            yield f"<details>{summary}\n\n{fenced(tail)}\n\n</details>"


def _answers(case: Case, strict: bool) -> Iterator[Section]:
    """The first changed examples and the worst slices of one case, folded away."""
    changed, slices = changed_examples(case), worst_slices(case)
    if case.error is not None or (changed is None and slices is None):
        return
    summary = escape(f"{case.name}: {counts(case) or 'the worst slices'}")
    tables = [_columns(columns) for columns in (changed, slices) if columns is not None]
    text = "\n\n".join([f"<details><summary>{summary}</summary>", *tables, "</details>"])
    yield Section(f"the changed answers of {case.name}", text, 2 if is_red(case, strict) else 4)


def _columns(columns: Columns) -> str:
    """Names of slices are strings of the record, all other cells are figures or words of ours."""
    table = tabulate(
        [
            [escape(cell) if name == "slice" else cell for name, cell in zip(columns.headers, row, strict=True)]
            for row in columns.rows
        ],
        headers=columns.headers,
        tablefmt="pipe",
        colalign=["left" if name in _WORDS else "right" for name in columns.headers],
        disable_numparse=True,
    )
    return f"{table}\n\nand {columns.more:,} more in the record" if columns.more else table


def _run(told: Sequence[Item]) -> Iterator[Section]:
    """What holds for the whole run, and notes about models."""
    for item in told:
        if item.severity != "info":
            yield Section(item.title, f"**{item.label}** {escape(item.text)}", 2)
    notes = [f"- {escape(item.text)}" for item in told if item.severity == "info"]
    if notes:
        yield Section("notes about models", "\n".join(["#### Notes", "", *notes]), 3)


def _environment(record: Record, environment: Environment) -> str:
    packages = [f"{name} {version}" for name, version in sorted(environment.packages.items())]
    facts = {
        "machine": f"{environment.cpu}, {environment.cpu_count} CPUs, {environment.platform}",
        **({"GPU": environment.gpu} if environment.gpu is not None else {}),
        "kernels": f"{environment.cpu_capability} ({' '.join(environment.cpu_flags) or 'no flags known'}), "
        f"quantized engine {environment.quantized_engine}",
        "versions": ", ".join([f"Python {environment.python}", f"torch {environment.torch}", *packages]),
        "run": f"pytest-modelopt {record.tool_version}, started {record.started}, seed {record.seed}, "
        f"{timed_limits(record)}{', strict' if record.strict else ''}",
    }
    listed = "\n".join(f"- {name}: {escape(fact)}" for name, fact in facts.items())
    return f"<details><summary>Environment</summary>\n\n{listed}\n\n</details>"
