"""The whole run in one sentence."""

from __future__ import annotations

from collections import Counter

from pytest_modelopt.reporting.names import on_its_targets
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.results.outcome import case_outcome
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.run_outcome import run_outcome


def counted(record: Record) -> str:
    """'5 cases: 3 passed (1 with a warning), 1 failed, 1 inconclusive'; what did not occur is left out."""
    outcomes = Counter(case_outcome(case, record.strict) for case in record.cases)
    run = run_outcome(record)
    passed = outcomes["pass"] + outcomes["warn"]
    warned = outcomes["warn"]
    told = [f"{passed} passed" + (f" ({warned} with a warning)" if warned else ""), f"{outcomes['fail']} failed"]
    if outcomes["error"]:
        told.append(f"{outcomes['error']} in error")
    if outcomes["inconclusive"]:
        told.append(f"{outcomes['inconclusive']} inconclusive")
    if outcomes["no limits"]:
        told.append(f"{outcomes['no limits']} without limits")
    if outcomes["new"]:
        told.append(f"{outcomes['new']} new")
    others = {
        "xfailed": outcomes["xfailed"],
        "xpassed": outcomes["xpassed"],
        "skipped": len(run.skipped),
        "without a measurement": len(run.idle),
        "deselected": len(run.deselected),
        "not run": len(run.never_ran),
    }
    told += [f"{count} {what}" for what, count in others.items() if count]
    return f"{run.known} case{'' if run.known == 1 else 's'}: {', '.join(told)}"


def machine(record: Record) -> str:
    """'3 timed limits; Example CPU (AVX512), torch 2.13.0', or '; 3 machines': what the timed figures belong to."""
    if record.other_machines:
        return f"{timed_limits(record)}; {1 + len(record.other_machines)} machines"
    if record.environment is None:
        return timed_limits(record)
    environment = record.environment
    cpu, kernels, torch = map(plain_line, (environment.cpu, environment.cpu_capability, environment.torch))
    gpu = f"{plain_line(environment.gpu)}, " if environment.gpu is not None else ""
    return f"{timed_limits(record)}; {gpu}{cpu} ({kernels}), torch {torch}{on_its_targets(record, 0, ', ')}"


def timed_limits(record: Record) -> str:
    """How many limits share the risk of a false FAIL: '3 timed limits'."""
    return f"{record.timed_limits} timed limit{'' if record.timed_limits == 1 else 's'}"
