"""Ways in which a run can end: exit status, record, `report`, summary and terminal say the same of each."""

from __future__ import annotations

import pytest

from pytest_modelopt.cli import main

BUDGET = "import os\nimport pytest\n\n@pytest.mark.model_budget(max_size='1 B')\n"
ENDS = {
    "error": ("def test_it(modelopt): open('no-such-file')", (), 1, "FAILED.** 1 case: 0 passed, 0 failed, 1 in error"),
    "setup": ("def test_it(modelopt, no_such): pass", (), 1, "FAILED.** 1 case: 0 passed, 0 failed, 1 in error"),
    "crash": ("def test_it(modelopt): os._exit(3)", ("-n1",), 1, "FAILED.** 1 case: 0 passed, 0 failed, 1 in error"),
    "skip": ("def test_it(modelopt): pytest.skip()", (), 0, "NOTHING MEASURED.** 1 case: 0 passed, 0 failed, 1 skip"),
    "whole": ("def test_it(modelopt): pytest.skip()", ("--modelopt-whole",), 1, "NOTHING MEASURED.** 1 case"),
    "xfail": (
        "@pytest.mark.xfail\ndef test_it(modelopt): open('no')",
        (),
        0,
        "passed.** 1 case: 0 passed, 0 failed, 1 x",
    ),
    "strict xfail": (
        "@pytest.mark.xfail(strict=True)\ndef test_it(optimize): pass",
        (),
        0,
        "passed.** 1 case: 0 passed, 0 failed, 1 xfailed",
    ),
    "ctrl-c": ("def test_it(modelopt): raise KeyboardInterrupt", (), 2, "INTERRUPTED, PARTIAL: 0 of 1 case ran.**"),
    "exit": ("def test_it(modelopt): pytest.exit('x', returncode=0)", (), 1, "FAILED, PARTIAL: 0 of 1 case ran.**"),
    "deselected": ("def test_it(modelopt): pass", ("-k", "nothing"), 5, "PARTIAL: 0 of 1 case ran.**"),
}


@pytest.mark.parametrize(("test", "arguments", "status", "told"), ENDS.values(), ids=ENDS)
def test_all_readers_agree(
    pytester: pytest.Pytester,
    capsys: pytest.CaptureFixture[str],
    test: str,
    arguments: tuple[str, ...],
    status: int,
    told: str,
) -> None:
    pytester.makepyfile(test_it=BUDGET + test)
    result = pytester.runpytest_subprocess("--modelopt", "--modelopt-report=r", "-p", "no:cacheprovider", *arguments)
    assert result.ret == status
    summary = (pytester.path / "r" / "summary.md").read_text(encoding="utf-8")
    assert summary.startswith(f"**Model budgets: {told}"), summary
    capsys.readouterr()
    assert main(["report", str(pytester.path / "r" / "record.json")]) == int(status != 0)
    assert main(["merge", str(pytester.path / "r" / "record.json")]) == int(status != 0 or "NOTHING" in told)
    assert main(["comment", str(pytester.path / "r" / "record.json")]) == 0
    assert told.partition(".**")[0] in capsys.readouterr().out
