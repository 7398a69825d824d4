"""`pytest-modelopt selftest`: identical copies pass, slowed ones fail, and wrong input is said in words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_modelopt.cli.main import main
from tests.plugin.small_project import one_case

Project = Callable[..., pytest.Pytester]
QUICK = ["--repeats", "1", "--limit", "30%", "--slowdown", "100%"]


@pytest.mark.slow
def test_it_tells_false_failures_misses_spreads_and_the_smallest_limit(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project(one_case()).path)
    assert main(["selftest", *QUICK, "--time-limit", "8 s"]) == 0
    everything = capsys.readouterr().out.splitlines()
    assert everything[0] == "m (budgets.yaml): can the gate pass, and can it fail?"
    told = everything[everything.index("Against a limit of 30% slower, in 3 launches each:") - 1 :]
    assert told[0].startswith("m (budgets.yaml): batch 1, 1 thread, ")
    rows = {line.split("  ")[1]: line.split() for line in told if line.startswith(("  identical", "  100% slower"))}
    assert rows["identical"][1:4] == ["0", "1", "0"]
    assert rows["100% slower"][2:5] == ["1", "0", "0"]
    assert any(line.startswith("An estimate of one second spreads by ") for line in told)
    assert any(line.startswith("The recipes of this model, 3 comparisons of up to 5 s each. ") for line in told)
    assert next(line for line in told if line.startswith("  int8-dynamic ")).endswith(" of 3")
    assert any(line.startswith("The smallest limit that can be used here is ") for line in told)
    assert told[-1] == ("ok: this machine can judge a limit of 30%, and on this model the gate can pass and can fail.")


@pytest.mark.slow
def test_without_a_budgets_file_it_takes_a_model_of_our_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether this machine can judge 30% in so little time is another question: a busy one cannot."""
    monkeypatch.chdir(tmp_path)
    status = main(["selftest", *QUICK, "--time-limit", "3 s"])
    told = capsys.readouterr().out.splitlines()
    assert told[-1].startswith("ok: " if status == 0 else "NOT ok: this machine cannot judge a limit of 30%: ")
    assert told[0].startswith("a small network of our own (there is no budgets.yaml here): ")
    assert [line.split()[-1] for line in told if line.startswith(("  identity", "  lossless", "  sabotaged"))] == 3 * [
        "ok"
    ]


def test_a_machine_that_gets_no_time_cannot_judge(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pair is no evidence, so every copy stays inconclusive: that is red, and says what is missing."""
    monkeypatch.chdir(project(one_case()).path)
    assert main(["selftest", *QUICK, "--repeats", "2", "--time-limit", "1 ms"]) == 1
    # What one pair reads is chance, so the control of the same name may be wrong beside it.
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .startswith(
            "NOT ok: this machine cannot judge a limit of 30%: 2 of 2 identical copies stayed inconclusive, "
            "2 of 2 slowed copies did not fail"
        )
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--limit", "20%", "--slowdown", "15%"], "--slowdown must be larger than --limit"),
        (["mm"], "has no model 'mm'; did you mean 'm'?"),
        (["--budgets", "none.yaml"], "none.yaml"),
    ],
)
def test_wrong_input_is_said_in_words(
    project: Project,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(project(one_case()).path)
    assert main(["selftest", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_model_that_does_not_load_is_an_error_with_its_words(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project(one_case(factory="shop:raises")).path)
    assert main(["selftest", *QUICK]) == 2
    assert "FileNotFoundError: weights/best.pt" in capsys.readouterr().err


@pytest.mark.parametrize("argument", [["--repeats", "0"], ["--limit", "0%"], ["--limit", "ten"], ["--time-limit", "x"]])
def test_arguments_that_cannot_be_read_are_refused(argument: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["selftest", *argument])
    assert argument[0] in capsys.readouterr().err


def test_sigterm_ends_it_as_ctrl_c_does_and_nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> None:
    temporary = tmp_path_factory.mktemp("t")  # a short name: sockets in there may have 107 characters
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest_modelopt.cli", "selftest", "--repeats", "2", "--time-limit", "60 s"],
        cwd=tmp_path_factory.mktemp("p"),
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(temporary.glob("pytest-modelopt-run-*/*.log")):
        assert process.poll() is None
        assert time.monotonic() < deadline, "no worker was started"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.rstrip().endswith("interrupted")
    assert list(temporary.glob("pytest-modelopt-*")) == []
