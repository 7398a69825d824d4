"""metrics.txt: what a reader of OpenMetrics finds in it, by the grammar of the specification and not by our own."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_modelopt.reporting.files.metrics import render
from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.results.case import ORIGINAL, CaseError
from pytest_modelopt.results.record import Record
from tests.reporting.against_by_hand import BASE, GREW, SLOWER, against, pull_request
from tests.reporting.records_by_hand import ENVIRONMENT, MIB, case, measurement, realistic, record, timing

_NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
_SAMPLE = re.compile(rf"({_NAME})\{{((?:{_LABEL})(?:,{_LABEL})*)\}} (-?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)")
_META = re.compile(rf"# (TYPE|UNIT|HELP) ({_NAME}) (.+)")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _read(text: str) -> Samples:
    """All samples; an AssertionError where the specification would refuse the text."""
    *body, last, empty = text.split("\n")
    assert (last, empty) == ("# EOF", "")
    samples: Samples = {}
    families: list[str] = []
    for line in body:
        meta = _META.fullmatch(line)
        if meta:
            kind, name, value = meta.groups()
            if kind == "TYPE":
                assert name not in families
                assert value == "gauge"
                families.append(name)
            assert families[-1] == name
            if kind == "UNIT":
                assert name.endswith(f"_{value}")
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample is not None, line
        name, labels, figure = sample.groups()
        assert families[-1] == name
        pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels)
        unescaped = {key: re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), value) for key, value in pairs}
        assert len(unescaped) == len(pairs)
        key = (name, frozenset(unescaped.items()))
        assert key not in samples
        samples[key] = float(figure)
    return samples


def _of(samples: Samples, name: str) -> dict[frozenset[tuple[str, str]], float]:
    return {labels: figure for (found, labels), figure in samples.items() if found == f"modelopt_{name}"}


def _labels(**labels: str) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())


def test_figures_of_a_variant_and_of_its_original() -> None:
    measured = case(
        reference=measurement(None, weights=5 * MIB, peak=3 * MIB, size=4 * MIB, score=0.75),
        variant=measurement("int8-dynamic", weights=MIB, peak=MIB, size=3 * MIB, score=0.5),
        timing=timing(reference_ns=4_000_000, variant_ns=2_000_000),
        agreement=Agreement(360, 2, 1, 3),
    )
    text = render(record(measured))
    assert text.startswith(
        "# TYPE modelopt_memory_bytes gauge\n"
        "# UNIT modelopt_memory_bytes bytes\n"
        "# HELP modelopt_memory_bytes Peak memory of one call, weights included.\n"
        'modelopt_memory_bytes{model="digits-vit",recipe="int8-dynamic"} 2097152\n'
        'modelopt_memory_bytes{model="digits-vit",recipe="original"} 8388608\n'
    )
    samples = _read(text)
    variant, original = (_labels(model="digits-vit", recipe=name) for name in ("int8-dynamic", "original"))
    assert _of(samples, "size_bytes") == {variant: 3 * MIB, original: 4 * MIB}
    assert _of(samples, "score") == {variant: 0.5, original: 0.75}
    assert _of(samples, "latency_seconds") == {variant: pytest.approx(0.002)}
    assert _of(samples, "speedup_ratio") == {variant: pytest.approx(2.0)}
    assert _of(samples, "drop") == {variant: 0.25}
    assert _of(samples, "flips") == {variant: 3}
    assert _of(samples, "memory_growth_ratio") == {}


def test_what_grew_since_the_base() -> None:
    grown = replace(GREW, timing=SLOWER, agreement=Agreement(360, 1, 0, 4))
    alone = against(ORIGINAL, after=measurement(None, size=MIB))
    samples = _read(render(pull_request(case("low-rank"), grown, alone, against("new", status="new"))))
    labels = _labels(model="digits-vit", recipe="int8-dynamic", base=BASE[:12])
    of_original = _labels(model="digits-vit", recipe="original", base=BASE[:12])
    assert _of(samples, "size_growth_ratio") == {labels: 0.125, of_original: -0.75}
    assert _of(samples, "slowdown_ratio") == {labels: pytest.approx(0.25), of_original: 0.0}
    assert _of(samples, "changed_answers") == {labels: 4, of_original: 0}
    assert _of(samples, "loss") == {labels: 0.0, of_original: 0.0}
    # The original's own figure is that of the ordinary comparison, where there is one.
    assert _of(samples, "size_bytes")[_labels(model="digits-vit", recipe="original")] == 4 * MIB
    samples = _read(render(pull_request(alone)))
    assert _of(samples, "size_bytes") == {_labels(model="digits-vit", recipe="original"): MIB}


def test_the_same_variant_twice_and_several_machines_have_labels_of_their_own() -> None:
    twice = record(case(), replace(case(), id="tests/test_a.py::test_b"))
    assert {dict(labels)["case"] for labels in _of(_read(render(twice)), "drop")} == {
        "budgets.yaml::digits-vit/int8-dynamic",
        "tests/test_a.py::test_b",
    }
    machines = replace(record(case(), replace(case(), machine=1)), other_machines=(ENVIRONMENT,))
    assert {dict(labels)["machine"] for labels in _of(_read(render(machines)), "drop")} == {"1", "2"}


def test_a_case_in_error_has_no_figure() -> None:
    assert render(record(case(reference=None, error=CaseError("load", "no")))) == "# EOF\n"
    late = case(variant=measurement("int8-dynamic"), reference=None, error=CaseError("timing", "no"))
    assert render(record(late)) == "# EOF\n"
    assert render(record()) == "# EOF\n"


def test_only_finite_figures() -> None:
    endless = case(variant=measurement("int8-dynamic", score=1e308), reference=measurement(None, score=-1e308))
    samples = _read(render(record(endless)))
    assert _of(samples, "drop") == {}
    assert len(_of(samples, "score")) == 2


@pytest.mark.parametrize("told", [realistic(), pull_request(GREW, case())])
def test_whole_records_can_be_read(told: Record) -> None:
    assert len(_read(render(told))) > 5


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_name_breaks_out_of_its_label(model: str, recipe: str) -> None:
    told = record(case(f"r{recipe}", f"m{model}"))
    samples = _read(render(told))
    assert len(_of(samples, "memory_bytes")) == 2


def test_quotes_and_backslashes_are_escaped() -> None:
    samples = _read(render(record(case('a"b\\c\nd', "m"))))
    assert _labels(model="m", recipe='a"b\\c d') in _of(samples, "size_bytes")
