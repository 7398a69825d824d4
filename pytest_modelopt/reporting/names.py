"""What reports call a case, its two sides and its machine, where the names of the record alone would be ambiguous."""

from __future__ import annotations

from collections.abc import Collection

from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.results.case import Case, MeasuredCase
from pytest_modelopt.results.figures import format_first
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.record import Environment, Record
from pytest_modelopt.results.target import targets_of

_HASH_SHOWN = 12
_NAME_LENGTH = 200
_NAMES_SHOWN = 10


def case_name(case: Case) -> str:
    """'digits-vit/int8-dynamic', and 'digits-vit/int8-dynamic against 1a2b3c4d5e6f' where it is held against a base."""
    return plain_line(f"{case.name}{against(case)}")


def against(case: Case) -> str:
    """' against 1a2b3c4d5e6f', '' for a comparison with the original."""
    return "" if case.base is None else f" against {plain_line(case.base.name)}"


def first_names(names: Collection[str]) -> str:
    """'a, b and 3 more': the first ten, of a record that may hold any number of any texts."""
    return format_first(names, _NAMES_SHOWN, plain_line)


def sides(case: MeasuredCase) -> tuple[str, str]:
    """What the two variants of a case are called: the one that is compared with, and the one that is compared."""
    return ("original", "variant") if case.base is None else ("base", "head")


def variant_name(case: Case, side: Measurement) -> str:
    """The recipe of one of the two variants, or 'original'; 'int8-dynamic at 1a2b3c4d5e6f' for the base's."""
    name = plain_line(side.recipe or "original")
    at_base = case.base is not None and side is case.reference
    return f"{name} at {plain_line(case.base.name)}" if case.base is not None and at_base else name


def shortened(text: str, longest: int = _NAME_LENGTH) -> str:
    """The text on one line, cut to `longest` characters; by default as long as a name may be within a sentence."""
    line = plain_line(text)
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def short_revision(revision: str) -> str:
    """The beginning of a commit hash; any other text as it is, shortened where it is long."""
    text = shortened(revision)
    is_hash = len(text) >= _HASH_SHOWN and all(character in "0123456789abcdef" for character in text)
    return text[:_HASH_SHOWN] if is_hash else text


def machines(record: Record) -> tuple[Environment | None, ...]:
    """The machines of the record, in the order of `Case.machine`."""
    return (record.environment, *record.other_machines)


def machine_title(record: Record, machine: int) -> str:
    """'machine 2 (Example CPU, AVX512)'; '' where the record has only one."""
    if not record.other_machines:
        return ""
    environment = machines(record)[machine]
    if environment is None:
        return f"machine {machine + 1} (unknown: nothing was measured there)"
    gpu = (environment.gpu,) if environment.gpu is not None else ()
    facts = ", ".join(map(plain_line, (*gpu, environment.cpu, environment.cpu_capability)))
    return f"machine {machine + 1}{on_its_targets(record, machine, ', ')} ({facts})"


def on_its_targets(record: Record, machine: int, before: str) -> str:
    """'target server' or 'targets server and vnni' behind `before`; '' where the machine is none."""
    found = targets_of(record, machine)
    word = "target" if len(found) == 1 else "targets"
    return f"{before}{word} {' and '.join(map(plain_line, found))}" if found else ""


def on_machine(record: Record, case: Case) -> str:
    """' on target board', ' on machine 2'; '' where the record has only one."""
    if not record.other_machines:
        return ""
    number = f"machine {case.machine + 1}"
    own = targets_of(record, case.machine)
    alike = sum(targets_of(record, machine) == own for machine in range(1 + len(record.other_machines)))
    named = on_its_targets(record, case.machine, " on ")
    return f"{named} ({number})" if named and alike > 1 else named or f" on {number}"
