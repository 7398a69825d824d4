"""`pytest-modelopt update`: what changes in a budgets file, what does not, and what is said about it."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pytest_modelopt.budgets.file import load_budgets
from pytest_modelopt.budgets.judge import judge
from pytest_modelopt.budgets.limits import LIMITS
from pytest_modelopt.cli import main
from pytest_modelopt.record.model import Case, CaseError
from pytest_modelopt.record.verdicts import Verdict, Waiver
from tests.budgets.answers_by_hand import answered, sliced
from tests.commands.update_by_hand import Project, one
from tests.report.records_by_hand import MIB, case, measurement, timing

CASE = "m/int8-dynamic"
TIMED = timing(201, 8_000_000, 3_000_000)
"""4 ms against 3 ms in every pair, in three launches."""


def of_bytes(memory: float = 2 * MIB, size: int = MIB) -> Case:
    """Against an original of 8 MiB of memory and 4 MiB of size."""
    return case(variant=measurement("x", weights=int(memory), peak=0, size=size))


# --- the file --------------------------------------------------------------------------------------------------------

ODD = """# Budgets.   With a comment that is longer than the 80 characters at which libraries break lines,   and 1.2x
version:   1

models:
      "m":    # the model
          factory:   shop:net
          data: 'shop:data'
          budget: &shared
              # no more than this
              max_flips:    2%      # was 3% before

              min_coverage: {limit: 1%,level: warn}
          recipes:
             int8-dynamic: {max_memory: "3 MiB",   min_speedup: { level: warn, limit: '+10%' } , max_size: 4 MB}


             low-rank( ratio = 0.5 ):
                <<: *shared
                max_memory: !!str 3MiB
                min_speedup: 1.10   # not 1.1
                max_latency: &slow 6  ms
                max_size: {
                   limit: &size 4000000, # bytes
                   level: error }
                "max_slice_drop" : 5   pp
                min_size_reduction: .5
             bf16 : ~
...
"""


def everything(lost: int = 2) -> Case:
    made = sliced((225, lost, 0), (225, 0, 0), score=0.95)
    sizes = of_bytes()
    return replace(
        made,
        original=replace(made.original, size_bytes=4 * MIB) if made.original else None,
        variant=replace(made.variant, weights_bytes=2 * MIB, call_peak_bytes=0, size_bytes=MIB),
        coverage=None,
        timing=TIMED,
        device=sizes.device,
    )


def test_only_the_values_change(project: Project) -> None:
    """2 MiB of memory: 2.1 MiB. 1 MiB saved is 1,101,005 B, 1.11 MB. 1.333x: 1.269x. 2 of 450 lost: 3 are 0.667%."""
    record = project.measured(
        ODD, {"m/int8-dynamic": everything(), "m/low-rank(ratio=0.5)": everything(), "m/bf16": everything()}
    )
    assert all(each.outcome in ("pass", "not measured") for case in record.cases for each in case.verdicts)
    project.update()
    before, after = ODD.split("\n"), project.text.split("\n")
    assert [line for line in after if line not in before] == [
        "              max_flips:    0.667%      # was 3% before",
        "             int8-dynamic: {max_memory: \"2.1 MiB\",   min_speedup: { level: warn, limit: '+26.9%' } , "
        "max_size: 1.11 MB}",
        "                max_memory: !!str 2.1MiB",
        "                min_speedup: 1.26   # not 1.1",
        "                max_latency: &slow 3.15  ms",
        "                   limit: &size 1101005, # bytes",
        '                "max_slice_drop" : 1.34   pp',
        "                min_size_reduction: 0.737",
    ]
    assert len(before) == len(after)
    assert "min_coverage 1% is not measured for m/bf16" in project.out
    once = project.text
    assert project.update("--budgets", "budgets.yaml", "modelopt-report/record.json") == once, "another file by now"


def test_a_second_run_changes_nothing(project: Project) -> None:
    project.measured(one("{max_memory: 3 MiB, min_speedup: 1.1x}"), {CASE: case(timing=TIMED)})
    project.update()
    once = project.text
    project.measured(once, {CASE: case(timing=TIMED)})
    assert project.update() == once
    assert "0 limits set, 2 tight already, 0 left as they are" in project.out
    assert "---" not in project.out


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_a_byte_order_mark_stay(project: Project, mark: str) -> None:
    text = mark + one("{max_memory: 3 MiB}").replace("\n", "\r\n")
    project.measured(text, {CASE: case()})
    assert project.update() == text.replace("3 MiB", "2.1 MiB")
    assert "\r" not in project.out


def test_letters_beyond_ascii_move_nothing(project: Project) -> None:
    text = "# Größe \N{GRINNING FACE} \u4e2d\n" + one("{max_memory: 3 MiB}")
    project.measured(text, {CASE: case()})
    assert project.update() == text.replace("3 MiB", "2.1 MiB")


def test_links_and_permissions_stay(project: Project) -> None:
    project.measured(one("{max_memory: 3 MiB}"), {CASE: case()})
    real = project.folder / "elsewhere" / "limits.yaml"
    real.parent.mkdir()
    project.budgets.rename(real)
    real.chmod(0o640)
    project.budgets.symlink_to(real)
    project.update()
    assert project.budgets.is_symlink()
    assert "2.1 MiB" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in real.parent.iterdir()] == ["limits.yaml"]


def test_the_difference_and_what_decided_are_shown(project: Project) -> None:
    project.measured(one("{max_memory: 3 MiB}"), {CASE: case()})
    project.update()
    assert project.out.splitlines() == [
        "--- budgets.yaml",
        "+++ budgets.yaml",
        "@@ -4,4 +4,4 @@",
        "     factory: shop:net",
        "     data: shop:data",
        "     recipes:",
        "-      int8-dynamic: {max_memory: 3 MiB}",
        "+      int8-dynamic: {max_memory: 2.1 MiB}",
        "",
        "budgets.yaml:7: max_memory 3 MiB -> 2.1 MiB, measured 2 MiB (m/int8-dynamic)",
        "",
        "budgets.yaml: 1 limit set, 0 tight already, 0 left as they are",
    ]


def test_a_dry_run_writes_nothing(project: Project) -> None:
    text = one("{max_memory: 3 MiB}")
    project.measured(text, {CASE: case()})
    project.budgets.chmod(0o444)
    os.utime(project.budgets, (1, 1))
    assert project.update("--dry-run") == text
    assert project.budgets.stat().st_mtime == 1
    assert "+      int8-dynamic: {max_memory: 2.1 MiB}" in project.out
    assert project.out.endswith("--dry-run: nothing was written\n")


@pytest.mark.parametrize(("headroom", "expected"), [("0%", "2 MiB"), ("10%", "2.2 MiB"), ("0.25", "2.5 MiB")])
def test_headroom(project: Project, headroom: str, expected: str) -> None:
    text = one("{max_memory: 3 MiB}")
    project.measured(text, {CASE: case()})
    assert project.update("--headroom", headroom) == text.replace("3 MiB", expected)


# --- tighter, and looser only when asked -----------------------------------------------------------------------------


def test_a_limit_that_holds_by_less_than_the_headroom_stays_with_and_without_loosen(project: Project) -> None:
    text = one("{max_memory: 2.05 MiB, min_size_reduction: 74%}")
    project.measured(text, {CASE: case()})
    for arguments in ((), ("--loosen",)):
        assert project.update(*arguments) == text
        assert "0 limits set, 2 tight already, 0 left as they are" in project.out


def test_a_broken_limit_is_told_and_left_unless_loosen_moves_it(project: Project) -> None:
    text = one("{max_memory: 1.5 MiB, min_size_reduction: 90%, min_speedup: 2x}")
    project.measured(text, {CASE: case(timing=TIMED)})
    assert project.update() == text
    told = project.out
    assert "max_memory 1.5 MiB is broken by 2 MiB (m/int8-dynamic); with --loosen it would become 2.1 MiB" in told
    assert "min_size_reduction 90% is broken by 75% (m/int8-dynamic); with --loosen it would become 73.7%" in told
    assert "0 limits set, 0 tight already, 3 left as they are" in told
    assert project.update("--loosen") == one("{max_memory: 2.1 MiB, min_size_reduction: 73.7%, min_speedup: 1.26x}")


def test_what_no_value_would_keep_is_left(project: Project) -> None:
    """A variant of 5 MiB instead of 4 MiB is no reduction at all."""
    text = one("{min_size_reduction: 10%}")
    project.measured(text, {CASE: of_bytes(size=5 * MIB)})
    assert project.update("--loosen") == text
    assert "m/int8-dynamic keeps no value of it for certain" in project.out


def test_limits_at_nothing_and_figures_below_it(project: Project) -> None:
    """At 0 pp there is nothing tighter; a gain makes 0 pp of any limit; one example is the least of rooms."""
    zero = one("{max_accuracy_drop: 0 pp, max_flips: 0}")
    project.measured(zero, {CASE: answered(400)})
    assert project.update() == zero
    assert "0 limits set, 2 tight already, 0 left as they are" in project.out
    project.measured(zero, {CASE: answered(400, lost=1)})
    assert project.update() == zero
    assert project.update("--loosen") == one("{max_accuracy_drop: 0.5 pp, max_flips: 0.005}")
    project.measured(one("{max_accuracy_drop: 2 pp}"), {CASE: answered(400, won=3)})
    assert project.update() == one("{max_accuracy_drop: 0 pp}")
    project.measured(one("{max_accuracy_drop: 2 pp}"), {CASE: answered(400)})
    assert project.update() == one("{max_accuracy_drop: 0.25 pp}")
    assert project.update("--headroom", "0%") == one("{max_accuracy_drop: 0.25 pp}"), "the file has changed since"


def test_a_share_of_a_drop_of_nothing_is_no_headroom(project: Project) -> None:
    """Of a metric that counts no examples; with none asked for 0 it is."""
    metric = "    metric: shop:r2\n"
    text = one("{max_accuracy_drop: 0.1}", model=metric)
    project.measured(text, {CASE: case(metric="shop:r2", variant=measurement("x"))})
    assert project.update() == text
    assert "0 was measured of m/int8-dynamic, and a share of 0 is no headroom: state it by hand" in project.out
    assert project.update("--headroom", "0") == one("{max_accuracy_drop: 0}", model=metric)


def test_a_ceiling_for_a_metric_that_is_better_when_lower(project: Project) -> None:
    """min_accuracy of an error of 0.2 is a ceiling: 5% more are 0.21."""
    metric = "    metric: shop:error\n"
    text = one("{min_accuracy: 0.5}", model=metric)
    score = measurement("x", score=0.2)
    project.measured(text, {CASE: case(metric="shop:error", higher_is_better=False, original=score, variant=score)})
    assert project.update() == one("{min_accuracy: 0.21}", model=metric)


def test_the_population_keeps_what_its_bound_keeps(project: Project) -> None:
    """Of 0 flips in 450 up to z2 / (450 + z2) = 0.5976%; with one example more 0.8199%."""
    text = one("{max_flips: 2%}", defaults="defaults: {inference: population}\n")
    project.measured(text, {CASE: answered(450)})
    assert project.update() == text.replace("2%", "0.82%")


def test_timed_limits_start_from_the_certain_end(project: Project) -> None:
    """Where all pairs are alike it is the estimate; where they spread it is not, and the new limit holds."""
    spread = case(timing=timing(201, 8_000_000, 3_000_000, 4_000))
    project.measured(one("{min_speedup: 1x, max_latency: 1 s}"), {CASE: spread})
    project.update("--headroom", "0%")
    (entry,) = load_budgets(project.budgets, relative_to=project.folder).cases
    assert [each.outcome for each in judge(replace(spread, limits=entry.limits), timed_limits=2).verdicts] == [
        "pass",
        "pass",
    ]
    assert entry.limits[0].name == "min_speedup"
    assert 1.27 < entry.limits[0].value < 1.33, "beside the estimate, 1.333"


# --- values that several cases share ---------------------------------------------------------------------------------

SHARED = """version: 1
models:
  m:
    factory: shop:net
    data: shop:data
    budget:
      max_memory: 4 MiB
    recipes:
      int8-dynamic: {}
      bf16: {max_size: &size 4 MiB}
      low-rank(ratio=0.5): {max_memory: 5 MiB, max_size: *size}
"""


def three(*memory: float, sizes: tuple[int, int] = (MIB, MIB)) -> dict[str, Case]:
    first, second, third = (int(each * MIB) for each in memory)
    return {
        "m/int8-dynamic": of_bytes(first),
        "m/bf16": of_bytes(second, sizes[0]),
        "m/low-rank(ratio=0.5)": of_bytes(third, sizes[1]),
    }


def test_the_worst_of_the_cases_decides(project: Project) -> None:
    """2 and 3 MiB share a limit, the third case has one of its own; sizes of 1 and 2 MiB share an anchor."""
    project.measured(SHARED, three(2, 3, 1, sizes=(MIB, 2 * MIB)))
    expected = SHARED.replace("max_memory: 4 MiB", "max_memory: 3.15 MiB").replace(" 5 MiB", " 1.05 MiB")
    assert project.update() == expected.replace("&size 4 MiB", "&size 2.1 MiB")
    assert "max_memory 4 MiB -> 3.15 MiB, measured 3 MiB (m/bf16)" in project.out


def test_a_broken_case_among_those_that_share_is_what_counts(project: Project) -> None:
    project.measured(SHARED, three(2, 4.5, 4.9))
    assert "max_memory: 4 MiB" in project.update()
    assert "is broken by 4.5 MiB (m/bf16); with --loosen it would become 4.73 MiB" in project.out
    project.measured(SHARED, three(2, 4.5, 4.9))
    assert "max_memory: 4.73 MiB" in project.update("--loosen")


def test_all_that_share_must_be_in_the_record(project: Project) -> None:
    cases = three(2, 3, 1)
    del cases["m/bf16"]
    project.measured(SHARED, cases)
    assert project.update() == SHARED.replace("5 MiB", "1.05 MiB")
    assert "max_memory 4 MiB m/bf16 is not in the record" in project.out
    assert "max_size 4 MiB m/bf16 is not in the record" in project.out


def test_all_that_share_must_be_certain(project: Project) -> None:
    cases = three(2, 3, 1)
    cases["m/bf16"] = replace(cases["m/bf16"], error=CaseError("optimize", "no"))
    project.measured(SHARED, cases)
    assert project.update() == SHARED.replace("5 MiB", "1.05 MiB")
    assert "max_memory 4 MiB m/bf16 ended in an error" in project.out


def test_only_some_cases(project: Project) -> None:
    """A value that they share with others still is what all of them need."""
    project.measured(SHARED, three(2, 3, 1, sizes=(MIB, 2 * MIB)))
    assert project.update("--only", "m/low-rank( ratio=0.5 )", "--dry-run") == SHARED
    assert "2 limits set" in project.out
    assert project.update("--only", "m/bf16", "m/int8-dynamic") == SHARED.replace(
        "max_memory: 4 MiB", "max_memory: 3.15 MiB"
    ).replace("&size 4 MiB", "&size 2.1 MiB")


def test_merged_mappings(project: Project) -> None:
    text = """version: 1
models:
  a:
    factory: shop:net
    data: shop:data
    recipes:
      int8-dynamic: &small
        max_memory: 4 MiB
        max_size: 4 MiB
  b:
    factory: shop:net
    data: shop:data
    recipes:
      int8-dynamic:
        <<: *small
        max_size: 8 MiB
"""
    project.measured(text, {"a/int8-dynamic": of_bytes(2 * MIB), "b/int8-dynamic": of_bytes(3 * MIB, 2 * MIB)})
    assert project.update() == text.replace("memory: 4 MiB", "memory: 3.15 MiB").replace(
        "size: 4 MiB", "size: 1.05 MiB"
    ).replace("8 MiB", "2.1 MiB")


def test_an_alias_between_limits_of_two_kinds_is_left(project: Project) -> None:
    text = one("{min_memory_reduction: &third 30%, min_size_reduction: *third, max_size: 4 MiB}")
    project.measured(text, {CASE: case()})
    assert project.update() == text.replace("4 MiB", "1.05 MiB")
    assert "shares its value with min_size_reduction: write it out for each" in project.out


def test_an_alias_of_something_that_is_no_limit_is_left(project: Project) -> None:
    text = one("{max_latency: *time}", defaults="defaults: {time_limit: &time 20 s}\n")
    project.measured(text, {CASE: case(timing=TIMED)})
    assert project.update() == text
    assert "is written in a way that is not replaced here" in project.out


@pytest.mark.parametrize("value", ['"3\\x20MiB"', ">-\n          3 MiB", "|-\n          3 MiB", "3\n          MiB"])
def test_escapes_and_blocks_are_left_or_right(project: Project, value: str) -> None:
    text = one(f"\n        max_memory: {value}")
    project.measured(text, {CASE: case()})
    assert project.update() in (text, text.replace("3 MiB", "2.1 MiB"))


# --- what is not certain ---------------------------------------------------------------------------------------------


def left(project: Project, text: str, of: Case) -> str:
    """Why the one limit of the case is left as it is."""
    project.measured(text, {CASE: of})
    assert project.update("--loosen") == text
    assert "0 limits set, 0 tight already, 1 left as they are" in project.out
    (line,) = [line for line in project.out.splitlines() if line.startswith("  budgets.yaml:")]
    return line


def test_what_was_not_decided_is_left(project: Project) -> None:
    few = case(timing=timing(5))
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
    verdict = Verdict(limit, "waived" if outcome == "waived" else "pass", 2 * MIB, "s")
    project.write(replace(record, cases=(replace(of, limits=(limit,), verdicts=(verdict,)),)))
    assert project.update("--loosen") == text
    assert "max_memory 3 MiB is waived for m/int8-dynamic" in project.out


def test_what_was_not_judged_is_left(project: Project) -> None:
    text = one("{max_memory: 3 MiB}")
    record = project.measured(text, {CASE: case()})
    project.write(replace(record, cases=(replace(record.cases[0], verdicts=()),)))
    assert project.update() == text
    assert "max_memory 3 MiB was not judged for m/int8-dynamic" in project.out


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


def test_figures_that_nothing_can_be_made_of_are_refused(project: Project) -> None:
    text = one("{min_accuracy: 90%}")
    record = project.measured(text, {CASE: everything()})
    (of,) = record.cases
    assert of.variant is not None
    project.write(replace(record, cases=(replace(of, variant=replace(of.variant, score=1e308)),)))
    assert project.update(status=2) == text
    assert "record.json: its figures cannot be judged: " in project.err


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
    wrong = one("{max_memory: 3 MiB, max_size: 3}").replace("version: 1", "version: 2")
    project.budgets.write_text(wrong)
    assert project.update(status=2) == wrong
    assert "budgets.yaml:1: version" in project.err


def test_where_the_new_file_would_not_check_nothing_is_kept(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is known makes one, so the text is spoiled on its way."""
    from pytest_modelopt.budgets import places

    text = one("{max_memory: 3 MiB}")
    project.measured(text, {CASE: case()})
    monkeypatch.setattr(places, "replaced", lambda source, texts: source.replace("3 MiB", "2.1 Mib"))
    assert project.update(status=2) == text
    assert "'2.1 Mib'" in project.err
    monkeypatch.setattr(places, "replaced", lambda source, texts: source.replace("3 MiB", "2.1 MiB, max_size: 1 B"))
    assert project.update(status=2) == text
    assert "the updated text would say something else, too, so nothing was written" in project.err
    assert sorted(file.name for file in project.folder.iterdir()) == ["budgets.yaml", "modelopt-report"]


def test_what_a_record_says_is_printed_on_one_line_without_commands(project: Project) -> None:
    text = one("{max_memory: 3 MiB}")
    record = project.measured(text, {CASE: case()})
    hostile = replace(record.cases[0], model="\x1b[31mm\n::error::x", limits=())
    project.write(replace(record, cases=(*record.cases, hostile)))
    project.update()
    assert "the record's case m ::error::x/int8-dynamic is not in budgets.yaml" in project.out.splitlines()


# --- for all files and figures ---------------------------------------------------------------------------------------

_BYTES = st.integers(1, 16 * MIB)
_STATED = {
    "max_memory": st.sampled_from(["1 MiB", "7MB", "12345678", "0.01 GiB", "'3 MiB'", "900 kB"]),
    "max_size": st.sampled_from(["1 MiB", '"7 MB"', "12345678", "{limit: 5 MB, level: warn}"]),
    "min_memory_reduction": st.sampled_from(["10%", "0.9", "0", "{level: warn, limit: 33.3%}"]),
    "min_size_reduction": st.sampled_from(["75%", ".25", "1"]),
    "max_flips": st.sampled_from(["1%", "0", "0.05", "100%"]),
    "max_accuracy_drop": st.sampled_from(["1 pp", "0.02", "0 pp", "0"]),
    "min_accuracy": st.sampled_from(["80%", "0.9", "95 %"]),
}
_LIMITS = st.fixed_dictionaries({}, optional=_STATED)


@st.composite
def measured_cases(draw: st.DrawFn) -> Case:
    lost, won = draw(st.integers(0, 30)), draw(st.integers(0, 30))
    of = answered(10 * draw(st.integers(6, 50)), lost=lost, won=won, score=0.9)
    assert of.variant is not None
    return replace(
        of, variant=replace(of.variant, weights_bytes=draw(_BYTES), call_peak_bytes=0, size_bytes=draw(_BYTES))
    )


@settings(
    max_examples=30,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # to shrink an example takes minutes, since each one writes files
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    budget=_LIMITS,
    first=_LIMITS,
    second=_LIMITS,
    cases=st.tuples(measured_cases(), measured_cases()),
    headroom=st.sampled_from(["0%", "1%", "5%", "40%"]),
    loosen=st.booleans(),
)
def test_for_all_files_and_figures(
    project: Project,
    budget: dict[str, str],
    first: dict[str, str],
    second: dict[str, str],
    cases: tuple[Case, Case],
    headroom: str,
    loosen: bool,
) -> None:
    """Certain limits hold afterwards; only broken ones are looser, if asked; another run changes nothing."""

    def flow(limits: dict[str, str]) -> str:
        return "{" + ", ".join(f"{name}: {value}" for name, value in limits.items()) + "}"

    text = one(flow(first), model=f"    budget: {flow(budget)}\n") + f"      bf16: {flow(second)}\n"
    by_name = {CASE: cases[0], "m/bf16": cases[1]}
    before = project.measured(text, by_name)
    arguments = ("--headroom", headroom, *(["--loosen"] if loosen else []))
    new = project.update(*arguments)
    after = project.measured(new, by_name)
    sharing: dict[tuple[int, str], list[tuple[Verdict, Verdict]]] = {}
    for then, now in zip(before.cases, after.cases, strict=True):
        for old, judged in zip(then.verdicts, now.verdicts, strict=True):
            sharing.setdefault((old.limit.line, old.limit.name), []).append((old, judged))
    for (_, name), verdicts in sharing.items():
        stated, stands = verdicts[0][0].limit, verdicts[0][1].limit
        looser = (stands.value - stated.value) * (1 if LIMITS[name].direction == "max" else -1)
        outcomes = {old.outcome for old, _ in verdicts}
        if not outcomes <= {"pass", "fail"} or ("fail" in outcomes and not loosen):
            assert stands.text == stated.text
        elif "fail" not in outcomes or "keeps no value of it for certain" not in project.out:
            assert {judged.outcome for _, judged in verdicts} == {"pass"}
            assert looser <= 0 or "fail" in outcomes
    # A drop that no floor makes meaningless any more is judged from the second run on.
    assert project.update(*arguments) == new or loosen
    assert len(new.splitlines()) == len(text.splitlines())


def test_help_says_what_is_done_with_timed_limits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["update", "--help"])
    assert exit.value.code == 0
    assert "Timed limits start from the end of the printed interval that is certain" in capsys.readouterr().out
