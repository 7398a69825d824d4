"""Runs of MLflow on a real server of its own, as its client and its REST interface give them back.

Where MLflow's server is not installed these are skipped: `make mlflow` runs them, in an environment of its own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.reporting import mlflow_runs
from pytest_modelopt.results.json import read
from tests.reporting.filled_record import filled_record, with_strings
from tests.reporting.hostile_texts import EVERYTHING

pytestmark = [pytest.mark.e2e, pytest.mark.mlflow]

RECORD = Path(__file__).parents[2] / "benchmarks/records/flips.json"
_START_S = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a data base and a folder of files of its own."""
    for package in ("mlflow", "flask", "sqlalchemy"):
        pytest.importorskip(package, reason="MLflow's server is not installed: `make mlflow` does it")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder / "files")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    try:
        for _ in range(_START_S):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(1)
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def posted(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the server answers to a request of its REST interface, which knows nothing of the client."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)

    def ask(path: str, **body: object) -> Any:
        request = urllib.request.Request(
            f"{server}/api/2.0/mlflow/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    return ask


def runs_of(posted: Any, server: str, experiment: str) -> dict[str, dict[str, Any]]:
    """name -> run of the experiment."""
    with urllib.request.urlopen(
        f"{server}/api/2.0/mlflow/experiments/get-by-name?experiment_name={experiment}", timeout=30
    ) as answer:
        number = json.load(answer)["experiment"]["experiment_id"]
    found = posted("runs/search", experiment_ids=[number], max_results=100)["runs"]
    return {run["info"]["run_name"]: run for run in found}


def tags_of(run: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


def test_a_record_is_a_run_with_its_page_and_each_variant_one_below_it(
    server: str, posted: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(RECORD), "--mlflow", "budgets"]) == 1
    told = capsys.readouterr()
    assert "in the experiment budgets" in told.err
    assert told.out.startswith("modelopt: FAILED"), "the client prints nothing between"
    assert "View run" not in told.out
    runs, record = runs_of(posted, server, "budgets"), read(RECORD)
    (whole,) = (run for name, run in runs.items() if name.startswith("pytest-modelopt "))
    assert tags_of(whole)["modelopt.outcome"] == "FAILED"
    assert tags_of(whole)["modelopt.counts"] == "2 cases: 1 passed, 1 failed"
    assert len(runs) == 1 + 3, "the original and two recipes"
    for case in record.cases:
        run = runs[case.name]
        figures = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
        assert case.variant is not None
        assert figures["size_bytes"] == case.variant.size_bytes
        assert figures["memory_bytes"] == (case.variant.weights_bytes or 0) + (case.variant.call_peak_bytes or 0)
        assert figures["speedup_ratio_low"] < figures["speedup_ratio"] < figures["speedup_ratio_high"]
        tags = tags_of(run)
        assert tags["mlflow.parentRunId"] == whole["info"]["run_id"]
        assert (tags["modelopt.model"], tags["modelopt.recipe"]) == (case.model, case.recipe)
    assert tags_of(runs["digits-vit/int8-dynamic"])["modelopt.outcome"] == "pass"
    assert tags_of(runs["digits-vit/prune-unstructured(ratio=0.5)"])["modelopt.outcome"] == "fail"
    listed = f"{server}/api/2.0/mlflow/artifacts/list?run_id={whole['info']['run_id']}"
    with urllib.request.urlopen(listed, timeout=30) as answer:
        files = {file["path"]: int(file["file_size"]) for file in json.load(answer)["files"]}
    assert set(files) == {"report.html", "record.json"}
    page = tmp_path / "page.html"
    assert main(["report", str(RECORD), "--html", str(page)]) == 1
    assert files["report.html"] == page.stat().st_size


def test_a_strangers_names_stay_data(server: str, posted: Any) -> None:
    """Also those that no file of a record may hold."""
    mlflow_runs.log(with_strings(filled_record(), lambda text: f"{text}{EVERYTHING}"), "hostile")
    runs = runs_of(posted, server, "hostile")
    assert len(runs) > 1
    for name, run in runs.items():
        assert name.isprintable()
        assert len(name) <= 500
        ours = [key for key in tags_of(run) if not key.startswith("mlflow.")]
        assert all(key.startswith("modelopt.") and key.isprintable() for key in ours)
        assert all(metric["key"].isidentifier() for metric in run["data"].get("metrics", ()))


def test_no_server_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed: `make mlflow` does it")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["report", str(RECORD), "--mlflow"]) == 2
    told = capsys.readouterr().err
    assert "--mlflow: nothing, or not all, was written to http://127.0.0.1:9: " in told
    assert "set MLFLOW_TRACKING_URI to the address of a server that runs" in told
