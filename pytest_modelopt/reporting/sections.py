"""Parts of a Markdown report, each kept or left out as a whole, and how many of them fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from pytest_modelopt.reporting.addresses import TROUBLESHOOTING
from pytest_modelopt.reporting.changed_answers import Columns, changed_examples, counts, worst_slices
from pytest_modelopt.reporting.columns import Column, drawn, side_by_side
from pytest_modelopt.reporting.detail_columns import detail_columns, legend
from pytest_modelopt.reporting.figure_columns import columns_of
from pytest_modelopt.reporting.item import Item, Severity, each_once, headings
from pytest_modelopt.reporting.markdown_escaping import escape, fenced
from pytest_modelopt.reporting.names import case_name, machine_title, machines, on_machine
from pytest_modelopt.reporting.plain_text import no_command, plain_lines
from pytest_modelopt.reporting.sentences import items_by_case
from pytest_modelopt.reporting.summary import counted, timed_limits
from pytest_modelopt.reporting.table import Block, Row
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.outcome import is_red
from pytest_modelopt.results.record import Environment, Record
from pytest_modelopt.results.run_outcome import run_outcome

LIMIT_BYTES = 900 * 1024
"""GitHub drops a step summary above 1 MiB as a whole."""
TITLE = "Model budgets"
_NOTE_BYTES = 16 * 1024
_OUTPUT_LINES = 60
_NAMES_SHOWN = 10
_NAME_LENGTH = 100
_WIDTH_PX = 830
"""Of a comment on GitHub."""
_CHARACTER_PX = 7.3
_PADDING_PX = 27
"""Of a cell, with its border."""
_WORDS = ("slice", "what it means")
"""Columns of words; all others are figures."""
_RANKS: dict[Severity, int] = {"error": 1, "warning": 2, "info": 3}


@dataclass(frozen=True)
class Section:
    """A part of the report that is kept or left out as a whole. `rank` 0 is kept longest."""

    title: str
    """In plain text, for the sentence that says what was left out."""
    text: str
    rank: int


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


def _joined(parts: Sequence[Section]) -> str:
    return "\n\n".join(part.text for part in parts) + "\n"


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 3] + "..."


def folded(summary: str, *texts: str) -> str:
    """Blocks of Markdown behind a line that opens them; `summary` is Markdown, too."""
    return "\n\n".join([f"<details><summary>{summary}</summary>", *texts, "</details>"])


def bullets(lines: Sequence[str]) -> str:
    """A list of plain texts."""
    return "\n".join(f"- {escape(line)}" for line in lines)


def grid(headers: Sequence[str], rows: Sequence[Sequence[str]], alignments: Sequence[str]) -> str:
    """A table of cells that are Markdown already."""
    return tabulate(rows, headers=headers, tablefmt="pipe", colalign=alignments, disable_numparse=True)


# --- the verdict -----------------------------------------------------------------------------------------------------


def verdict_line(record: Record, title: str) -> str:
    """'**Model budgets: FAILED.** 3 cases: 2 passed, 1 failed.'; `title` is a plain text."""
    return f"**{escape(title)}: {run_outcome(record).headline}.** {counted(record)}."


# --- tables ----------------------------------------------------------------------------------------------------------


def block_text(block: Block, rows: Sequence[Row]) -> str:
    """Some rows of a model's table, below its title."""
    title = f"### {escape(block.title)}\n\n{escape(block.conditions)}"
    return f"{title}\n\n{table_text(columns_of(block, rows))}"


def table_text(columns: Sequence[Column]) -> str:
    """One table where that fits into a comment, else several with all columns in one of them."""
    tables = side_by_side(columns, _fits)
    return "\n\n".join(drawn(list(map(_in_markdown, table)), "pipe") for table in tables)


def _fits(columns: Sequence[Column]) -> bool:
    longest = [max(map(len, (column.name, *column.cells))) for column in columns]
    return sum(_CHARACTER_PX * length + _PADDING_PX for length in longest) <= _WIDTH_PX


def _in_markdown(column: Column) -> Column:
    """The strings of a record are escaped: recipes, providers, a metric as a header. What is broken is bold, too."""
    cells = [escape(cell) if column.name in ("recipe", "runs on") else cell for cell in column.cells]
    bold = [cell.startswith("✗") for cell in cells]
    made = tuple(f"**{cell}**" if is_bold else cell for cell, is_bold in zip(cells, bold, strict=True))
    return Column(escape(column.name), made, column.alignment)


def details_section(block: Block) -> Iterator[Section]:
    """Coverage, intervals, bounds and flips of one model's variants, folded away."""
    columns = detail_columns(block)
    if columns:
        text = folded(escape(f"{block.title}: intervals, coverage, flips"), escape(legend(block)), table_text(columns))
        yield Section(f"the details of {block.title}", text, 4)


# --- cases -----------------------------------------------------------------------------------------------------------


def case_sections(record: Record, cases: Iterable[Case], *severities: Severity) -> list[Section]:
    """One section for each case with something of these severities to say; those that failed come first, and what
    leads to the explanation of each comes last."""
    found = [[item for item in told if item.severity in severities] for told in items_by_case(record, cases)]
    told = sorted((case_section(told) for told in found if told), key=lambda section: section.rank)
    links = [f"[{each}]({TROUBLESHOOTING}#{each})" for each in headings(item for of in found for item in of)]
    return [*told, *([Section("where it is explained", f"Explained: {', '.join(links)}", 1)] if links else [])]


def case_section(told: Sequence[Item]) -> Section:
    """All that is to say about one case."""
    return Section(told[0].title, "\n\n".join(_case(told)), min(_RANKS[item.severity] for item in told))


def _case(told: Sequence[Item]) -> Iterator[str]:
    """Each sentence with what explains it and what to do; what else is known of the case is folded away."""
    said: set[str] = set()
    for item, leading in each_once(told, lambda each: (*each.found[:1], *each.next_line)):
        yield f"**{item.label}** {escape(item.text)}"
        if leading:
            yield bullets(leading)
        said.update(leading)
    rest = dict.fromkeys(line for item in told for line in (*item.found, *item.why) if line not in said)
    output = [_worker_output(item.output) for item in told if item.output]
    more = [*([bullets(list(rest))] if rest else []), *output]
    if more:
        and_output = ", with the worker's last output" if output else ""
        yield folded(escape(f"more about {told[0].title.partition(':')[0]}{and_output}"), *more)


def _worker_output(output: Sequence[str]) -> str:
    hidden = max(0, len(output) - _OUTPUT_LINES)
    more = f" ({hidden} more lines in the record)" if hidden else ""
    tail = [no_command(line) for text in output[hidden:] for line in plain_lines(text)]
    return f"the worker's last output{more}:\n\n{fenced(tail)}"


def answers_section(record: Record, case: Case) -> Iterator[Section]:
    """The first changed examples and the worst slices of one case, folded away."""
    changed, slices = changed_examples(case), worst_slices(case)
    if case.error is not None or (changed is None and slices is None):
        return
    name = f"{case_name(case)}{on_machine(record, case)}"
    grids = [_columns(columns) for columns in (changed, slices) if columns is not None]
    text = folded(escape(f"{name}: {counts(case) or 'the worst slices'}"), *grids)
    yield Section(f"the changed answers of {name}", text, 2 if is_red(case, record.strict) else 4)


def _columns(columns: Columns) -> str:
    """Names of slices are strings of the record, all other cells are figures or words of ours."""
    table = grid(
        columns.headers,
        [
            [escape(cell) if name == "slice" else cell for name, cell in zip(columns.headers, row, strict=True)]
            for row in columns.rows
        ],
        ["left" if name in _WORDS else "right" for name in columns.headers],
    )
    return f"{table}\n\nand {columns.more:,} more in the record" if columns.more else table


# --- the run ---------------------------------------------------------------------------------------------------------


def run_sections(told: Sequence[Item]) -> Iterator[Section]:
    """What holds for the whole run and is not only a note, one section each."""
    for item in told:
        if item.severity != "info":
            yield Section(item.title, f"**{item.label}** {escape(item.text)}", _RANKS[item.severity])


def notes_section(told: Sequence[str], title: str = "Notes") -> Iterator[Section]:
    """Remarks that stand in the open."""
    if told:
        yield Section(title.lower(), f"#### {title}\n\n{bullets(told)}", 2)


def folded_notes(told: Sequence[str]) -> Iterator[Section]:
    if told:
        yield Section("notes about models", folded("Notes about models", bullets(told)), 3)


def environment_section(record: Record) -> Iterator[Section]:
    """The machines and the versions that the figures belong to, folded away."""
    known = [environment for environment in machines(record) if environment is not None]
    if not known:
        return
    run = (
        f"pytest-modelopt {record.tool_version}, started {record.started}, seed {record.seed}, "
        f"{timed_limits(record)}{', strict' if record.strict else ''}"
    )
    texts: list[str] = []
    for machine, environment in enumerate(machines(record)):
        title = machine_title(record, machine)
        facts = [] if environment is None else _facts(environment)
        texts += [*([escape(title)] if title else []), *([bullets(facts)] if facts else [])]
    if len(texts) == 1:
        texts = [f"{texts[0]}\n{bullets([f'run: {run}'])}"]
    else:
        texts.append(bullets([f"run: {run}"]))
    yield Section("the environment", folded("Environment", *texts), 4)


def _facts(environment: Environment) -> list[str]:
    packages = [f"{name} {version}" for name, version in sorted(environment.packages.items())]
    return [
        f"machine: {environment.cpu}, {environment.cpu_count} CPUs, {environment.platform}",
        *([f"GPU: {environment.gpu}"] if environment.gpu is not None else []),
        f"kernels: {environment.cpu_capability} ({' '.join(environment.cpu_flags) or 'no flags known'}), "
        f"quantized engine {environment.quantized_engine}",
        f"versions: {', '.join([f'Python {environment.python}', f'torch {environment.torch}', *packages])}",
    ]
