"""`pytest-modelopt update`: what stays as it is and why, and input that is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.judging.judge import judge
from pytest_modelopt.results.case import Case, CaseError
from pytest_modelopt.results.verdicts import Reason, Verdict, Waiver
from tests.cli.update_by_hand import CASE, Project, of_bytes, one
from tests.reporting.records_by_hand import MIB, case, timing

# --- what is not certain ---------------------------------------------------------------------------------------------


def left(project: Project, text: str, of: Case) -> str:
    """Why the one limit of the case is left as it is."""
    project.measured(text, {CASE: of})
    assert project.update("--loosen") == text
    assert "0 limits set, 0 tight already, 1 left as they are" in project.out
    (line,) = [line for line in project.out.splitlines() if line.startswith("  budgets.yaml:")]
    return line


def test_what_was_not_decided_is_left(project: Project) -> None:
    few = case(timing=timing(3))
    assert left(project, one("{min_speedup: 1x}"), few) == (
        "  budgets.yaml:7: min_speedup 1x is inconclusive for m/int8-dynamic"
    )
    assert left(project, one("{min_speedup: 1x}"), case()).endswith("is not measured for m/int8-dynamic")
    error = case(error=CaseError("load", "no such file"))
    assert left(project, one("{max_memory: 3 MiB}"), error).endswith("m/int8-dynamic ended in an error")


@pytest.mark.parametrize("outcome", ["waived", "pass"])
def test_what_is_waived_is_left(project: Project, outcome: str) -> None:
    text = one("{max_memory: 3 MiB}")
    record = project.measured(text, {CASE: case()})
    (of,) = record.cases
    limit = replace(of.limits[0], waiver=Waiver("2999-01-01", "a bug", "budgets.yaml", 9))
    verdict = Verdict(limit, "waived" if outcome == "waived" else "pass", 2 * MIB, Reason("measured"))
    project.write(replace(record, cases=(replace(of, limits=(limit,), verdicts=(verdict,)),)))
    assert project.update("--loosen") == text
    assert "max_memory 3 MiB is waived for m/int8-dynamic" in project.out


def test_verdicts_of_the_record_are_not_believed(project: Project) -> None:
    """2 MiB were measured, whatever the record makes of it."""
    record = project.measured(one("{max_memory: 3 MiB}"), {CASE: case()})
    (of,) = record.cases
    claimed = [replace(verdict, outcome="fail", measured=1.0) for verdict in of.verdicts]
    for verdicts in ((), tuple(claimed)):
        project.measured(one("{max_memory: 3 MiB}"), {CASE: case()})
        project.write(replace(record, cases=(replace(of, verdicts=verdicts),)))
        assert project.update() == one("{max_memory: 2.1 MiB}")


# --- a record of another file ----------------------------------------------------------------------------------------


def changed_since(project: Project, then: str, now: str, *, of: Case | None = None) -> str:
    """What is said where the record was made of `then` and the file says `now`, of which nothing may be set."""
    project.measured(then, {CASE: of or case()})
    project.budgets.write_text(now)
    assert project.update("--loosen") == now
    assert "0 limits set, 0 tight already, 1 left as they are" in project.out
    return project.out


def test_limits_that_the_file_states_otherwise_now(project: Project) -> None:
    then = one("{max_memory: 3 MiB}")
    told = changed_since(project, then, then.replace("3 MiB", "4 MiB"))
    assert "max_memory 4 MiB the record judged m/int8-dynamic by 3 MiB: the file has changed since" in told
    told = changed_since(project, then, then.replace("max_memory: 3 MiB", "max_size: 3 MiB"))
    assert "max_size 3 MiB the record knows no such limit of m/int8-dynamic: the file has changed since" in told


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("defaults: {batch_size: 8}\n", "batch_size 1"),
        ("defaults: {device: cuda}\n", "device cpu"),
        ("defaults: {inference: population}\n", "inference set"),
    ],
)
def test_cases_that_are_measured_otherwise_now(project: Project, more: str, said: str) -> None:
    told = changed_since(project, one("{max_memory: 3 MiB}"), one("{max_memory: 3 MiB}", defaults=more))
    assert f"m/int8-dynamic was measured with {said}: the file has changed since" in told


def test_a_metric_that_is_another_one_now(project: Project) -> None:
    now = one("{max_memory: 3 MiB}", model="    metric: top-5\n")
    told = changed_since(project, one("{max_memory: 3 MiB}"), now)
    assert "was measured with metric accuracy: the file has changed since" in told


def test_a_moved_limit_is_still_the_same(project: Project) -> None:
    text = one("{max_memory: 3 MiB}")
    project.measured(text, {CASE: case()})
    project.budgets.write_text("# moved by a line\n" + text)
    assert project.update() == "# moved by a line\n" + text.replace("3 MiB", "2.1 MiB")


def test_cases_that_only_one_of_both_has(project: Project) -> None:
    project.measured(one("{max_memory: 3 MiB}"), {CASE: case()})
    now = one("{max_memory: 3 MiB}", recipe="bf16")
    project.budgets.write_text(now)
    assert project.update() == now
    assert "max_memory 3 MiB m/bf16 is not in the record" in project.out
    assert "the record's case m/int8-dynamic is not in budgets.yaml" in project.out


def test_the_record_of_another_file(project: Project) -> None:
    text = one("{max_memory: 3 MiB}")
    project.measured(text, {CASE: case()})
    (project.folder / "other.yaml").write_text(text)
    project.update("--budgets", "other.yaml")
    assert (project.folder / "other.yaml").read_text() == text
    assert "the record judged m/int8-dynamic by a limit that is stated elsewhere" in project.out


def test_the_record_of_a_file_of_the_same_name_in_another_folder(project: Project) -> None:
    """Limits are named from the root of the tests; the file's own folders are known, those above it may differ."""
    text = one("{max_memory: 3 MiB}")
    record = project.measured(text, {CASE: case()})
    (of,) = record.cases
    for file, is_this in (("other/budgets.yaml", False), (f"{project.folder.name}/budgets.yaml", True)):
        bound = replace(of.limits[0], file=file)
        verdict = replace(of.verdicts[0], limit=bound)
        project.write(replace(record, cases=(replace(of, limits=(bound,), verdicts=(verdict,)),)))
        assert (project.update("--dry-run") == text) is True
        assert ("1 limit set" in project.out) is is_this
        assert ("by a limit that is stated elsewhere" in project.out) is not is_this


def test_a_test_with_limits_of_its_own_does_not_count(project: Project) -> None:
    """A test measures the same case, at another batch size, against limits of its marker: 1 MiB, which is broken."""
    text = one("{max_memory: 3 MiB}")
    record = project.measured(text, {CASE: case()})
    (of,) = record.cases
    for name in ("max_memory", "max_size"):
        marked = replace(of.limits[0], name=name, text="1 MiB", value=MIB, file="tests/test_m.py")
        other = judge(replace(of, id="tests/test_m.py::test", limits=(marked,), batch_size=8), timed_limits=0)
        project.write(replace(record, cases=(other, of)))
        assert project.update("--dry-run") == text
        assert "1 limit set, 0 tight already, 0 left as they are" in project.out
        assert "is not in budgets.yaml" not in project.out


def test_one_case_on_two_machines(project: Project) -> None:
    """Of a merged record the worse one counts."""
    text = one("{max_memory: 4 MiB}")
    record = project.measured(text, {CASE: of_bytes(2 * MIB)})
    other = judge(replace(of_bytes(3 * MIB), limits=record.cases[0].limits, model="m", machine=1), timed_limits=0)
    assert record.environment is not None
    project.write(replace(record, cases=(*record.cases, other), other_machines=(record.environment,)))
    assert project.update() == text.replace("4 MiB", "3.15 MiB")


# --- wrong input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no.json",), "no.json: No such file or directory"),
        (("budgets.yaml",), "budgets.yaml: this is not a JSON record"),
        (("--budgets", "no.yaml"), "no.yaml:1: the file cannot be read: No such file or directory"),
        (("--only", "m/int8-dynamc"), "has no case 'm/int8-dynamc'; did you mean 'm/int8-dynamic'?"),
        (("--only", "n/int8-dynamic"), "has no case 'n/int8-dynamic'"),
    ],
)
def test_wrong_input(project: Project, arguments: tuple[str, ...], said: str) -> None:
    text = one("{max_memory: 3 MiB}")
    project.measured(text, {CASE: case()})
    assert project.update(*arguments, status=2) == text
    assert said in project.err


@pytest.mark.parametrize("headroom", ["-5%", "5 MiB", "120%", "nan"])
def test_headroom_that_is_none(project: Project, headroom: str) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["update", f"--headroom={headroom}"])
    assert exit.value.code == 2
    assert "argument --headroom: " in project.capsys.readouterr().err


def test_a_file_with_mistakes_is_not_touched(project: Project) -> None:
    project.measured(one("{max_memory: 3 MiB}"), {CASE: case()})
    wrong = one("{max_memory: 3 MiB, max_size: 3 B}").replace("version: 1", "version: 2")
    project.budgets.write_text(wrong)
    assert project.update(status=2) == wrong
    assert "budgets.yaml:1: version" in project.err


def test_where_the_new_file_would_not_check_nothing_is_kept(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is known makes one, so the text is spoiled on its way."""
    from pytest_modelopt.editing import yaml_positions

    text = one("{max_memory: 3 MiB}")
    project.measured(text, {CASE: case()})
    monkeypatch.setattr(yaml_positions, "replaced", lambda source, texts: source.replace("3 MiB", "2.1 Mib"))
    assert project.update(status=2) == text
    assert "'2.1 Mib'" in project.err
    monkeypatch.setattr(
        yaml_positions, "replaced", lambda source, texts: source.replace("3 MiB", "2.1 MiB, max_size: 1 B")
    )
    assert project.update(status=2) == text
    assert "with the new values the file would state something else, too" in project.err
    assert sorted(file.name for file in project.folder.iterdir()) == ["budgets.yaml", "modelopt-report"]


def test_what_a_record_says_is_printed_on_one_line_without_commands(project: Project) -> None:
    text = one("{max_memory: 3 MiB}")
    record = project.measured(text, {CASE: case()})
    hostile = replace(record.cases[0], id="b.yaml::x::int8-dynamic", model="\x1b[31mm\n::error::x", limits=())
    project.write(replace(record, cases=(*record.cases, hostile)))
    project.update()
    assert "the record's case m ::error::x/int8-dynamic is not in budgets.yaml" in project.out.splitlines()


@pytest.mark.parametrize("here", [".", "deploy"])
def test_files_beside_the_folder_of_the_budgets_are_inside_of_the_project(
    project: Project, monkeypatch: pytest.MonkeyPatch, here: str
) -> None:
    (project.folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    deploy = project.folder / "deploy"
    deploy.mkdir()
    monkeypatch.chdir(project.folder / here)
    inner = Project(deploy, project.capsys)
    inner.measured(one("{max_memory: 3 MiB}"), {CASE: case()})
    with_file = inner.text + "    candidates: {shipped: {file: ../weights/x.onnx}}\n"
    inner.budgets.write_text(with_file, encoding="utf-8")
    paths = (str(deploy / "modelopt-report" / "record.json"), "--budgets", str(inner.budgets))
    assert inner.update(*paths) == with_file.replace("3 MiB", "2.1 MiB")
    inner.budgets.write_text(with_file.replace("../w", "../../w"), encoding="utf-8")
    inner.update(*paths, status=2)
    assert "'../../weights/x.onnx' lies outside of the project" in inner.err
