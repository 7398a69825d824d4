"""Figures that are measured once for all workloads of a model: in the record of one run they are the same at each."""

from __future__ import annotations

from pytest_modelopt.results.case import Case
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.record import Record

_ONCE = ("size_bytes", "score", "examples", "data_fingerprint")


def between_workloads(record: Record) -> str:
    """The first figure of a variant that is another one at another workload, in words; '' where there is none.

    A merged record may hold runs of several days, and tests may measure other data under the name of a workload.
    """
    first: dict[tuple[object, ...], tuple[Case, Measurement]] = {}
    for case in record.cases if record.merged is None else ():
        if not case.workload or case.base is not None or case.error is not None:
            continue
        if not case.id.endswith(f"::{case.model}::{case.row}"):
            continue
        for side in (case.reference, case.variant):
            if side is None or side.repeat is not None:
                continue
            other, before = first.setdefault((case.model, side.recipe, case.device, case.machine), (case, side))
            for name in _ONCE:
                then, now = getattr(before, name), getattr(side, name)
                if then != now:
                    return (
                        f"{case.name}: its figures contradict those of {other.name}: {name} of "
                        f"{side.recipe or 'the original'} is {now}, and {then} there, though it is measured once for "
                        "all workloads"
                    )
    return ""
