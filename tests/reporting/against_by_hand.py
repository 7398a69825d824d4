"""Records of a pull request made by hand: head against base, with figures that can be checked in the head."""

from __future__ import annotations

from dataclasses import replace

from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.results.base import Against, Base, BaseStatus, Loosening
from pytest_modelopt.results.case import ORIGINAL, Case
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.timed_pairs import Timing
from pytest_modelopt.results.verdicts import Limit, Outcome, Verdict, Waiver
from tests.reporting.records_by_hand import MIB, case, limit, measurement, record, timing, verdict

BASE = "0f1e2d3c4b5a" + 28 * "0"
HEAD = "1a2b3c4d5e6f" + 28 * "0"
AGAINST = Against(kind="revision", asked="merge-base:origin/main", base=BASE, head=HEAD, has_uncommitted=False)
NONE_CHANGED = Agreement(360, 0, 0, 0)
SAME = timing(reference_ns=4_000_000, variant_ns=4_000_000)
"""4 ms a call on both sides."""
SLOWER = timing(reference_ns=4_000_000, variant_ns=5_000_000)
"""4 ms at the base, 5 ms at head: 25% slower."""


def against(
    recipe: str = "int8-dynamic",
    model: str = "digits-vit",
    *,
    before: Measurement | None = None,
    after: Measurement | None = None,
    status: BaseStatus = "compared",
    why: str = "",
    notes: tuple[str, ...] = (),
    verdicts: tuple[Verdict, ...] = (),
    limits: tuple[Limit, ...] | None = None,
    timed: Timing | None = SAME,
    agreement: Agreement | None = NONE_CHANGED,
) -> Case:
    """A case that is held against the base; both sides are the same where nothing else is said."""
    own = None if recipe == ORIGINAL else recipe
    is_compared = status == "compared"
    made = case(
        recipe,
        model,
        verdicts=verdicts,
        limits=limits,
        reference=(before or measurement(own)) if is_compared else None,
        variant=after or measurement(own),
        timing=timed if is_compared else None,
        agreement=agreement if is_compared else None,
    )
    return replace(made, id=f"{made.id}#base", base=Base(BASE[:12], status, why, notes))


def pull_request(*cases: Case, told: Against = AGAINST) -> Record:
    return replace(record(*cases), against=told)


GROWTH = limit("max_size_growth", 0.02, "2%", 31)
GREW = against(
    before=measurement("int8-dynamic", size=MIB),
    after=measurement("int8-dynamic", size=MIB + MIB // 8),
    verdicts=(
        verdict(
            GROWTH,
            "fail",
            0.125,
            "12.5% more than at 0f1e2d3c4b5a (1.13 MiB, was 1 MiB), 10.5 percentage points above the limit",
        ),
    ),
)
LOOSENED = Loosening("digits-vit/int8-dynamic", "max_memory", "relaxed", "3 MiB", "4 MiB", "+33%", "budgets.yaml", 12)
WAIVER = Waiver("2027-01-31", "oneDNN 3.12 regression", "budgets.yaml", 40, owner="kai", ceiling_text="4 MiB")


def waived(outcome: Outcome = "waived") -> Case:
    """A case whose max_memory has a waiver, with that outcome of its limit."""
    bound = replace(limit("max_memory", 3 * MIB, "3 MiB"), waiver=WAIVER)
    return case(verdicts=(verdict(bound, outcome, 3.5 * MIB),))
