"""Whether a variant that is made again, to be shipped, is the one that was measured."""

from __future__ import annotations

from pytest_modelopt.measuring.controller.worker_context import Failed, Measured, WorkerContext
from pytest_modelopt.measuring.protocol import Loaded
from pytest_modelopt.results.case import CaseError
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.observations import Observations


def require_same(context: WorkerContext, made: Measured, recorded: Measurement, name: str) -> None:
    """That `made` holds, and answers, what stands in a record.

    Raises:
        Failed: with what differs, before anything is written.
    """
    assert made.loaded is not None
    why = unlike(recorded, made.loaded)
    before = recorded.observations
    if not why and before is not None and before.answers is not None and before.varies is False:
        seen: Observations = context.ask(made, name, "observe", f"calling the {made.variant.label}", stage="compare")
        if seen.answers != before.answers:
            why = (
                "made again, the variant has the weights that were measured and answers differently: the code of its "
                "model has changed"
            )
    if why:
        remedy = "make it where the record was made (revision, versions, processor), or measure again"
        raise Failed(CaseError("compare", f"{why}; {remedy}"))


def unlike(recorded: Measurement, made: Loaded) -> str:
    """How the variant that was made is another than the one that was measured; '' where it is the same.

    A candidate in a file is known by the sums of its files, what a recipe made for another runtime by those of the
    files that are written, and a model of torch by what it holds.
    """
    before = recorded.observations
    kinds = (
        [dict(each.sums) if each is not None else {} for each in (recorded.provenance, made.provenance)],
        [recorded.shipped, made.shipped],
        [{"": each} if each else {} for each in (before.digest if before is not None else None, made.digest)],
    )
    theirs, ours = next((pair for pair in kinds if pair[1]), kinds[-1])
    if ours and ours == theirs:
        return ""
    if not ours or not theirs:
        why = None if before is None else before.unobserved.get("digest")
        return f"it is not known whether the variant is what was measured: it has no sum ({why or 'not looked at'})"
    told = (" and ".join(f"{suffix} {each}".lstrip() for suffix, each in sums.items()) for sums in (ours, theirs))
    return "made again, the variant is not what was measured: its sum is {}, and that of the record {}".format(*told)
