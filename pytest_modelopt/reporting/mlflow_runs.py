"""Runs of MLflow from a record: one for the record, with its page, and below it one for each variant's figures."""

from __future__ import annotations

import datetime
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelopt.reporting import page
from pytest_modelopt.reporting.names import shortened
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.reporting.samples import Sample, samples
from pytest_modelopt.reporting.summary import counted
from pytest_modelopt.results import json
from pytest_modelopt.results.outcome import case_outcome
from pytest_modelopt.results.run_outcome import run_outcome

if TYPE_CHECKING:
    from pytest_modelopt.results.record import Record

_LONGEST = 500
"""Of a name or a tag: servers keep 5,000 characters at most, and some cut less without a word."""
_PREFIX = "modelopt."


def log(record: Record, experiment: str) -> str:
    """Write the runs to the server that MLFLOW_TRACKING_URI names; the id of the record's own.

    Raises:
        ValueError: the package is not installed, or the server refuses or does not answer.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # this command speaks to the user's own server only
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # where the report goes
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--mlflow needs the package mlflow-skinny ({error.name} is missing): pip install 'pytest-modelopt[mlflow]'"
        ) from None
    try:
        return _logged(MlflowClient(), record, experiment)
    except (MlflowException, OSError) as error:
        where = os.environ.get("MLFLOW_TRACKING_URI", "the folder or file of MLflow's own choice")
        raise ValueError(
            f"--mlflow: nothing, or not all, was written to {plain_line(where)}: {plain_line(str(error))[:_LONGEST]}; "
            "set MLFLOW_TRACKING_URI to the address of a server that runs, and look at its log"
        ) from None


def _logged(client: Any, record: Record, experiment: str) -> str:
    known = client.get_experiment_by_name(experiment)
    under = client.create_experiment(experiment) if known is None else known.experiment_id
    start = _milliseconds(record.started)
    title = f"pytest-modelopt {shortened(record.started, _LONGEST)}"
    whole = client.create_run(under, start, _tags_of_record(record), title)
    run: str = whole.info.run_id
    for name, found in _by_variant(record).items():
        tags = {"mlflow.parentRunId": run, **_tags_of_variant(record, found)}
        child = client.create_run(under, start, tags, shortened(name, _LONGEST)).info.run_id
        client.log_batch(child, metrics=_metrics(found, start))
        client.set_terminated(child, "FINISHED")
    with tempfile.TemporaryDirectory() as folder:
        files = {"report.html": page.render(record), "record.json": json.dumps(record)}
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
            client.log_artifact(run, str(Path(folder) / name))
    client.set_terminated(run, "FINISHED")
    return run


def _by_variant(record: Record) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples(record):
        found.setdefault(sample.name, []).append(sample)
    return found


def _metrics(found: list[Sample], time: int) -> list[Any]:
    """Each figure, and the ends of its interval, by names that are ours alone."""
    from mlflow.entities import Metric

    made = []
    for sample in found:
        parts = {"": sample.value, "_low": sample.low, "_high": sample.high}
        made += [Metric(sample.family.name + end, float(at), time, 0) for end, at in parts.items() if at is not None]
    return made


def _tags_of_record(record: Record) -> dict[str, str]:
    machine = record.environment
    told = {
        "outcome": run_outcome(record).headline,
        "counts": counted(record),
        "version": record.tool_version,
        "head": record.against.head if record.against is not None else None,
        "base": record.against.base if record.against is not None else None,
        "cpu": machine.cpu if machine is not None else None,
        "torch": machine.torch if machine is not None else None,
    }
    return {_PREFIX + name: shortened(text, _LONGEST) for name, text in told.items() if text}


def _tags_of_variant(record: Record, found: list[Sample]) -> dict[str, str]:
    """Its labels, and what became of its case; an original without limits of its own has no outcome."""
    told = dict(found[0].labels)
    if found[0].is_of_variant:
        told["outcome"] = case_outcome(found[0].case, record.strict) or ""
    return {_PREFIX + name: shortened(text, _LONGEST) for name, text in told.items() if text}


def _milliseconds(started: str) -> int:
    """Of the time in the record; of now where it holds none."""
    try:
        found = datetime.datetime.fromisoformat(started.replace("Z", "+00:00"))
    except ValueError:
        found = datetime.datetime.now(datetime.timezone.utc)
    return int(1000 * found.timestamp())
