"""`pytest-modelopt update`: what changes in a budgets file, and what is tighter, or looser where that was asked."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.config.loader import load_budgets
from pytest_modelopt.judging.judge import judge
from pytest_modelopt.results.case import Case
from tests.cli.update_by_hand import CASE, TIMED, Project, of_bytes, one
from tests.judging.answers_by_hand import answered, sliced
from tests.reporting.records_by_hand import (
    MIB,
    by_second,
    case,
    measurement,
    reference_changed,
    timing,
    variant_changed,
)

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
                   limit: &size 4000000 B, # bytes
                   level: error }
                "max_slice_drop" : 5   pp
                min_size_reduction: .5
             bf16 : ~
...
"""


def everything(lost: int = 2) -> Case:
    made = sliced((225, lost, 0), (225, 0, 0), score=0.94)
    sizes = of_bytes()
    made = variant_changed(made, weights_bytes=MIB, call_peak_bytes=MIB, size_bytes=MIB)
    return replace(
        reference_changed(made, size_bytes=4 * MIB),
        coverage=None,
        timing=TIMED,
        device=sizes.device,
    )


def test_only_the_values_change(project: Project) -> None:
    """2 MiB: 2.1 MiB. 1 MiB is 1,101,005 B, 1.11 MB. 1.278x for certain: 1.217x. 2 of 450 lost: 3 are 0.667%."""
    record = project.measured(
        ODD, {"m/int8-dynamic": everything(), "m/low-rank(ratio=0.5)": everything(), "m/bf16": everything()}
    )
    assert all(each.outcome in ("pass", "not measured") for case in record.cases for each in case.verdicts)
    project.update()
    before, after = ODD.split("\n"), project.text.split("\n")
    assert [line for line in after if line not in before] == [
        "              max_flips:    0.667%      # was 3% before",
        "             int8-dynamic: {max_memory: \"2.1 MiB\",   min_speedup: { level: warn, limit: '+21.7%' } , "
        "max_size: 1.11 MB}",
        "                max_memory: !!str 2.1MiB",
        "                min_speedup: 1.21   # not 1.1",
        "                max_latency: &slow 3.37  ms",
        "                   limit: &size 1101005 B, # bytes",
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
    assert (
        "max_memory 1.5 MiB is broken: 2 MiB (m/int8-dynamic) was measured; with --loosen it would become 2.1 MiB"
        in told
    )
    assert (
        "min_size_reduction 90% is broken: 75% (m/int8-dynamic) was measured; with --loosen it would become 73.7%"
        in told
    )
    assert "0 limits set, 0 tight already, 3 left as they are" in told
    assert project.update("--loosen") == one("{max_memory: 2.1 MiB, min_size_reduction: 73.7%, min_speedup: 1.21x}")


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
    project.measured(
        one("{max_accuracy_drop: 0}", model=metric), {CASE: case(metric="shop:r2", variant=measurement("x"))}
    )
    project.update()
    assert "0 limits set, 1 tight already, 0 left as they are" in project.out


def test_a_ceiling_for_a_metric_that_is_better_when_lower(project: Project) -> None:
    """min_accuracy of an error of 0.2 is a ceiling: 5% more are 0.21."""
    metric = "    metric: shop:error\n"
    text = one("{min_accuracy: 0.5}", model=metric)
    score = measurement("x", score=0.2)
    project.measured(text, {CASE: case(metric="shop:error", higher_is_better=False, reference=score, variant=score)})
    assert project.update() == one("{min_accuracy: 0.21}", model=metric)


def test_the_population_keeps_what_its_bound_keeps(project: Project) -> None:
    """Of 0 flips in 450 up to z2 / (450 + z2) = 0.5976%; with one example more 0.8199%."""
    text = one("{max_flips: 2%}", defaults="defaults: {inference: population}\n")
    project.measured(text, {CASE: answered(450)})
    assert project.update() == text.replace("2%", "0.82%")


@pytest.mark.parametrize(("swing_ns", "least"), [(0, 1.278), (400_000, 1.247)])
def test_timed_limits_start_from_the_certain_end(project: Project, swing_ns: int, least: float) -> None:
    """The more one second differs from the next the further it lies from the estimate, 1.333, and the limit holds.

    4.4 ms in every other second: the logarithm is 0.0477 from its mean in each of ten, so the variance of a second is
    (6 * 0.05^2 + 10 * 0.0477^2) / 15, that of the estimate 0.35 times that, and 2.249 standard errors are 6.67%.
    """
    spread = case(timing=timing(200, by_second(4_000_000, 4_000_000 + swing_ns), 3_000_000))
    project.measured(one("{min_speedup: 1x, max_latency: 1 s}"), {CASE: spread})
    project.update("--headroom", "0%")
    (entry,) = load_budgets(project.budgets, relative_to=project.folder).cases
    assert [each.outcome for each in judge(replace(spread, limits=entry.limits), timed_limits=2).verdicts] == [
        "pass",
        "pass",
    ]
    assert entry.limits[0].name == "min_speedup"
    assert least - 0.01 < entry.limits[0].value <= least


def test_what_was_timed_on_a_disturbed_machine_is_left(project: Project) -> None:
    """There ratios and latencies are those of the neighbours; other limits do not mind."""
    busy = replace(TIMED, conditions=replace(TIMED.conditions, other_cores=1.5))
    text = one("{min_speedup: 1.1x, max_latency: 6 ms, max_memory: 3 MiB}")
    project.measured(text, {CASE: case(timing=busy)})
    assert project.update("--loosen") == text.replace("3 MiB", "2.1 MiB")
    told = (
        "m/int8-dynamic was timed on a disturbed machine (other processes kept 1.5 of 2 cores busy, load average 0.5)"
    )
    assert f"min_speedup 1.1x {told}: run it again on a quiet one" in project.out
    assert f"max_latency 6 ms {told}" in project.out


def test_help_says_what_is_done_with_timed_limits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["update", "--help"])
    assert exit.value.code == 0
    assert "Timed limits start from the end of the printed interval that is certain" in capsys.readouterr().out


def test_figures_that_nothing_can_be_made_of_are_refused(project: Project) -> None:
    text = one("{min_accuracy: 90%}")
    record = project.measured(text, {CASE: everything()})
    (of,) = record.cases
    assert of.variant is not None
    project.write(replace(record, cases=(replace(of, variant=replace(of.variant, score=1e308)),)))
    assert project.update(status=2) == text
    assert (
        "m/int8-dynamic): its figures contradict each other: variant.score is 1e+308, but accuracy lies" in project.err
    )
