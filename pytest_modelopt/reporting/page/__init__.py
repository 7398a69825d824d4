"""The report as one HTML page that needs no other file, and the page of figures over several records."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_modelopt.reporting.base_summary import format_compared, format_loosened, format_removed
from pytest_modelopt.reporting.layer_costs_text import LEGEND
from pytest_modelopt.reporting.names import machine_title, machines
from pytest_modelopt.reporting.notes import notes
from pytest_modelopt.reporting.page.case_view import case_view
from pytest_modelopt.reporting.page.front_chart import fronts
from pytest_modelopt.reporting.page.layers import layer_tables
from pytest_modelopt.reporting.page.rows import table
from pytest_modelopt.reporting.page.series import series_by_model
from pytest_modelopt.reporting.page.templates import filled
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.reporting.samples import Labels, Sample, samples
from pytest_modelopt.reporting.sentences import items_by_case
from pytest_modelopt.reporting.summary import counted, timed_limits
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.run_outcome import run_outcome

TITLE = "Model budgets"


def render(record: Record) -> str:
    """The page of a record that was judged.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    run, told = run_outcome(record), notes(record)
    anchors = {id(case): f"case-{number}" for number, case in enumerate(record.cases, 1)}
    figures, originals = _figures(record)
    by_case = zip(record.cases, items_by_case(record, record.cases), strict=True)
    views = [case_view(record, case, anchors[id(case)], items, figures[id(case)]) for case, items in by_case]
    alone = [view for view in views if view.case.base is None]
    against = [view for view in views if view.case.base is not None]
    tables = [
        table("Variants against their original", alone, figures, originals),
        table("Head against its base", against, figures, [] if alone else originals),
    ]
    return filled(
        "report.html",
        title=f"{TITLE}: {run.headline}",
        headline=run.headline,
        tone="bad" if run.is_red else "good" if run.headline == "passed" else "unsure",
        counted=counted(record),
        base=_base(record),
        of_run=[item for item in told if item.severity != "info"],
        notes=[item.text for item in told if item.severity == "info"],
        tables=[each for each in tables if each is not None],
        views=sorted(views, key=lambda view: ("bad", "unsure", "good", "plain").index(view.tone)),
        fronts=fronts(record, anchors),
        sensitivity=layer_tables(record.sensitivity),
        layers_legend=LEGEND,
        machines=[(machine_title(record, number), each) for number, each in enumerate(machines(record))],
        record=record,
        timed_limits=timed_limits(record),
    )


def render_history(records: Sequence[Record]) -> str:
    """The page of each figure over records, which are put into the order in which they were started.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    ordered = sorted(records, key=lambda record: record.started)
    return filled("history.html", title=f"{TITLE}: history", records=ordered, models=series_by_model(ordered))


def _figures(record: Record) -> tuple[dict[int, dict[str, Sample]], list[list[Sample]]]:
    """The samples of each case by its id, and those of originals that no case is about."""
    figures: dict[int, dict[str, Sample]] = {id(case): {} for case in record.cases}
    originals: dict[Labels, list[Sample]] = {}
    found = samples(record)
    for sample in found:
        if sample.is_of_variant:
            figures[id(sample.case)][sample.family.name] = sample
        else:
            originals.setdefault(sample.labels, []).append(sample)
    of_cases = {sample.labels for sample in found if sample.is_of_variant}
    return figures, [of for labels, of in originals.items() if labels not in of_cases]


def _base(record: Record) -> dict[str, object] | None:
    """What head was compared with, and what became less strict since."""
    against = record.against
    if against is None:
        return None
    return {
        "compared": format_compared(against),
        "loosened": [format_loosened(each) for each in against.loosened],
        "removed": format_removed(against) if against.removed else "",
        "unknown": plain_line(against.unknown),
        "is_forbidden": record.no_loosening,
    }
