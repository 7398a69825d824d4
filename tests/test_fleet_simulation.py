"""The simulation of a fleet against what can be worked out by hand."""

from __future__ import annotations

import math

import pytest

from benchmarks.fleet import Steps, simulate

START_S = 2.5


@pytest.mark.parametrize(("jobs", "machines"), [(1, 1), (7, 1), (7, 3), (6, 3), (3, 7)])
def test_jobs_of_one_length_take_as_many_rounds_as_machines_need(jobs: int, machines: int) -> None:
    one = [Steps(10, 3, 1), Steps(10, 5, 2)]
    found = simulate([one] * jobs, machines, slots=1)
    length = START_S + 10 + 3 + 1 + 5 + 2
    assert found.wall_s == pytest.approx(math.ceil(jobs / machines) * length)
    assert found.utilisation == pytest.approx(jobs * length / (found.wall_s * machines))
    assert found.alone == 0


def test_on_one_machine_two_prepare_at_once_and_none_is_timed_beside_another() -> None:
    """Both prepare until 12.5 s; the one is timed until 22.5 s, then the other."""
    found = simulate([[Steps(5, 5, 10)]] * 2, machines=1, slots=2)
    assert found.wall_s == pytest.approx(START_S + 10 + 2 * 10)
    assert found.alone == pytest.approx(10 / (found.wall_s + 10))


def test_a_timing_that_waits_is_not_overtaken() -> None:
    """The first is timed at 4.5 s, once the other has ended the step that began at 2.5; its next step waits."""
    found = simulate([[Steps(0, 2, 10)], [Steps(4, 3, 0)]], machines=1, slots=2)
    # 0 to 2.5: the first starts; to 6.5: the other starts and looks at its original; the first prepares until 4.5 and
    # waits until 6.5; it is timed until 16.5, and then the other prepares for 3 s.
    assert found.wall_s == pytest.approx(16.5 + 3)
