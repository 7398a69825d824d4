"""The answer in words: each end of an exploration has its sentence, and the figures in it are those of the cases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_modelopt.exploring.answer_text import Answer, lines
from pytest_modelopt.exploring.choice import Aim
from pytest_modelopt.exploring.confirming import Confirmed
from pytest_modelopt.exploring.funnel import Forgetful, Search, TimeIsUp
from pytest_modelopt.judging.judge import judge
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.measurement import ProcessMemory
from pytest_modelopt.results.verdicts import Limit
from tests.exploring.candidates_by_hand import ByHand, candidate, failed, limits
from tests.reporting.records_by_hand import ENVIRONMENT, MIB

A, B, C = "int8-dynamic", "bf16", "prune-structured(ratio=0.5)+int8-dynamic"
BOUNDS = limits(max_accuracy_drop="1 pp", min_memory_reduction="40%")


def told(
    *cases: Case,
    bounds: tuple[Limit, ...] = BOUNDS,
    aim: Aim = "memory",
    anew: dict[int, Case] | None = None,
    ended: str = "",
    chose: int = 180,
    is_split: bool = True,
) -> str:
    """The answer where these cases were measured, and some of them anew."""

    def ends(recipe: str) -> None:
        if recipe == ended:
            raise TimeIsUp

    gauge = ByHand(bounds, *cases, ends=ends)
    search = Search([parse(name) for name in gauge.cases], bounds, aim, gauge, Forgetful())
    search.run()
    done = [
        Confirmed(
            search.trials[order],
            judged := judge(replace(case, limits=bounds), timed_limits=1),
            all(v.outcome == "pass" for v in judged.verdicts),
        )
        for order, case in (anew or {}).items()
    ]
    answer = Answer(search, len(done), tuple(done), "done", is_split, (chose, 170 if done else 0))
    return "\n".join(lines(answer, ENVIRONMENT))


def test_memory_of_fresh_processes_has_a_mark_of_its_own() -> None:
    plain = candidate(B, memory=4)
    assert plain.reference is not None
    assert plain.variant is not None
    reference = replace(plain.reference, process_memory=ProcessMemory((10 * MIB,), "memray"))
    variant = replace(plain.variant, runtime="LiteRT", process_memory=ProcessMemory((5 * MIB,), "memray"))
    mark = "* memory of fresh processes"
    text = told(candidate(A, memory=2), replace(plain, reference=reference, variant=variant))
    assert "5 MiB (-50%)*" in text
    assert f"\n> nothing is certainly better in memory, size, drop and speed together\n{mark}" in text
    assert mark not in told(candidate(A, memory=2), plain)


def test_where_the_winner_gains_nothing_by_the_aim_the_model_as_it_is_would_do() -> None:
    said = (
        " By memory it gains nothing over the model as it is: leave that as it is, or state what you need as a limit."
    )
    only_drop = limits(max_accuracy_drop="1 pp")
    for memory, is_said in ((8, True), (9, True), (7.9, False)):
        cases = (candidate(A, memory=memory, size=2), candidate(B, memory=10))
        assert (said in told(*cases, bounds=only_drop, anew={0: cases[0]})) is is_said


def test_the_winner_is_told_with_its_confirmed_figures_beside_what_was_promised() -> None:
    text = told(
        candidate(A, memory=2),
        candidate(B, memory=4),
        failed(C, "it cannot be pruned"),
        anew={0: candidate(A, memory=2, lost=3)},
    )
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "> int8-dynamic 2 MiB (-75%) 8 MiB (0%) - 0.833 pp confirmed" in rows
    assert "as it was chosen 2 MiB (-75%) 8 MiB (0%) - 0.000 pp chosen part" in rows
    assert "`int8-dynamic` won: of the 2 that keep all limits it takes the least memory (-75% memory, 0% size" in text
    assert (
        "Chosen on 180 examples; confirmed figures are of 170 others, in fresh processes: of 1 of 1 finalists" in text
    )
    assert (
        "Did not pay: bf16 (no better in anything than int8-dynamic); prune-structured(ratio=0.5) + int8-dynamic"
        in text
    )
    assert "(it cannot be pruned)" in text
    assert (
        "this one (Example CPU, AVX512) speed may differ, int8 most of all, which is fast here by avx512_vnni" in text
    )


def test_a_tie_is_told_as_one() -> None:
    text = told(
        candidate(C, speedup=1.51),
        candidate(A, speedup=1.5),
        bounds=limits(max_accuracy_drop="1 pp"),
        aim="speedup",
        anew={1: candidate(A, speedup=1.5)},
    )
    assert "it ties with `prune-structured(ratio=0.5) + int8-dynamic` within the intervals, and is the simplest" in text


def test_a_finalist_that_was_luck_is_told_before_the_one_that_won() -> None:
    text = told(
        candidate(A, memory=2),
        candidate(B, memory=4),
        anew={0: candidate(A, memory=2, lost=9), 1: candidate(B, memory=4)},
    )
    assert "`bf16` won: " in text
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "> int8-dynamic 2 MiB (-75%) 8 MiB (0%) - 2.5 pp anew: breaks max_accuracy_drop 1 pp" in rows
    assert "`int8-dynamic` were preferred, and did not keep all limits when they were measured anew" in text
    lost = told(candidate(A, memory=2), anew={0: candidate(A, memory=2, lost=9)})
    assert "`int8-dynamic`: chosen, and not confirmed. Measured anew, none of them keeps all limits for certain" in lost


def test_where_nothing_holds_it_is_told_what_moving_the_binding_limit_buys() -> None:
    text = told(candidate(A, memory=2, lost=4), candidate(B, memory=7))
    assert (
        "No candidate keeps all limits. `int8-dynamic` comes nearest, and max_accuracy_drop binds: 1.12 pp instead of "
        "1 pp gives -75% memory, 0% size, 1.11 pp drop, on the examples that chose."
    ) in text
    assert "Did not pay: int8-dynamic (max_accuracy_drop 1 pp); bf16 (min_memory_reduction 40%)." in text
    both = told(candidate(A, memory=4.9, lost=5), candidate(B, memory=4.9, lost=9))
    assert (
        "`int8-dynamic` comes nearest, and max_accuracy_drop binds (it breaks min_memory_reduction 40%, too): " in both
    )


def test_without_limits_the_front_is_told_and_nothing_chosen() -> None:
    text = told(candidate(A, memory=2, lost=5), candidate(B, memory=4), bounds=())
    assert "No limit was stated, so nothing is chosen: `int8-dynamic` and `bf16` are the whole front" in text
    assert "state limits, such as --max-accuracy-drop 1pp" in text


@pytest.mark.parametrize(
    ("speed", "said"),
    [
        ({}, "`int8-dynamic` keeps all limits and takes the least memory, on the part of the examples that chose it."),
        (
            {"min_speedup": "1.3x"},
            "`int8-dynamic` keeps all limits but min_speedup 1.3x, which was not decided, on the part of",
        ),
    ],
)
def test_an_end_before_anything_was_measured_anew_is_told(speed: dict[str, str], said: str) -> None:
    bounds = (*BOUNDS, *limits(**speed))
    text = told(candidate(A, memory=2), candidate(B, memory=4), bounds=bounds, ended=B)
    assert said in text
    assert "It was not measured anew before the end, so these figures may be luck: call explore again" in text
    assert "not tried, since explore ended before: bf16" in text


def test_too_few_examples_and_none_at_all_are_told() -> None:
    few = told(candidate(A, memory=2), anew={0: candidate(A, memory=2)}, is_split=False, chose=40)
    assert (
        "There are 40 examples, too few for two parts: the figures are of the same examples by which the recipe was"
        in few
    )
    none = told(candidate(A, memory=2), bounds=(), chose=0, is_split=False)
    assert "There is no data: whether the answers stay right is unknown. Give --data" in none
