"""The report as one HTML page: its figures, its charts, and that everybody can read it, whatever the record holds."""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from pytest_modelopt.cli.shared.judged_records import judged_again
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.front import Found
from pytest_modelopt.plugin.options import Options
from pytest_modelopt.plugin.outputs import Outputs
from pytest_modelopt.reporting import page
from pytest_modelopt.reporting.addresses import TROUBLESHOOTING
from pytest_modelopt.reporting.page import templates
from pytest_modelopt.reporting.page.charts import Scale, scale, whisker
from pytest_modelopt.reporting.page.front_chart import fronts
from pytest_modelopt.reporting.page.limit_chart import limit_chart
from pytest_modelopt.reporting.page.pairs_chart import pairs_chart
from pytest_modelopt.results.answers import Agreement, Changed, Slices
from pytest_modelopt.results.base import Loosening
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.layer_costs import LayerCost, LayerGroup, RecipeSensitivity
from pytest_modelopt.results.record import Record
from tests.reporting.against_by_hand import AGAINST, GREW, pull_request
from tests.reporting.filled_record import filled_record, with_strings
from tests.reporting.hostile_texts import EVERYTHING, HOSTILE
from tests.reporting.page_reading import check_for_everybody, named, parsed, structure, text_of
from tests.reporting.records_by_hand import MIB, broken, case, limit, measurement, realistic, record, timing, verdict

LOOSER = Loosening("digits-vit/int8-dynamic", "max_memory", "relaxed", "3 MiB", "4 MiB", "+33%", "budgets.yaml", 12)
COMPARED = pull_request(GREW, case(), told=replace(AGAINST, loosened=(LOOSER,), removed=("a/b",)))
RECORDS = {"realistic": realistic(), "filled": filled_record(), "empty": record(), "compared": COMPARED}
HISTORIES = {"history": [COMPARED, realistic(), filled_record()], "empty history": [record()]}


@cache
def _page(name: str) -> str:
    """Made once, where a test needs it."""
    return page.render_history(HISTORIES[name]) if name in HISTORIES else page.render(RECORDS[name])


def _cells(table: Element) -> list[list[str]]:
    return [[text_of(cell) for cell in row] for row in named(table, "tr")]


# --- for everybody ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*RECORDS, *HISTORIES])
def test_it_is_html_that_everybody_can_read_and_fetches_nothing(name: str) -> None:
    html = _page(name)
    check_for_everybody(parsed(html))
    assert "url(" not in html
    assert "@import" not in html
    assert "://" not in html.replace(f'<a href="{TROUBLESHOOTING}#', "")


def test_nothing_of_an_ordinary_record_is_cut() -> None:
    html = _page("realistic")
    assert "…" not in html
    drawn = [each.get("d", "") for each in named(parsed(html), "path") if "dots" in each.get("class", "")]
    assert [path.count("h0") for path in drawn] == 6 * [400]


def test_the_same_record_gives_the_same_bytes() -> None:
    assert page.render(realistic()) == _page("realistic")
    assert page.render_history([filled_record(), COMPARED, realistic()]) == _page("history")  # in the order of time


def test_a_browser_may_use_our_style_and_our_script_only() -> None:
    root = parsed(_page("filled"))
    policy = next(each.get("content", "") for each in named(root, "meta") if each.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    for name in ("style", "script"):
        text = "".join(named(root, name)[0].itertext())
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


_LEAST = {
    "ink": 4.5,
    "quiet": 4.5,
    "link": 4.5,
    "bad": 4.5,
    "unsure": 4.5,
    "good": 4.5,
    "reference": 3.0,
    "variant": 3.0,
}


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_words_and_marks_stand_out_from_their_ground(theme: int) -> None:
    """WCAG 2.2, 1.4.3 and 1.4.11: 4.5 to 1 for words, 3 to 1 for marks of charts."""
    style = "".join(named(parsed(_page("empty")), "style")[0].itertext())
    colors = dict(re.findall(r"--(\w+): #(\w{6});", re.findall(r":root \{([^}]*)\}", style)[theme]))
    found = {(name, on): _contrast(colors[name], colors[on]) for name in _LEAST for on in ("ground", "panel")}
    assert [pair for pair, ratio in found.items() if ratio < _LEAST[pair[0]]] == []
    on_allowed = [_contrast(colors[name], colors["allowed"]) for name in ("ink", "variant", "bad", "unsure")]
    assert min(on_allowed) >= 3


def _contrast(one: str, other: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    shares = [int(color[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_contrast_is_that_of_the_standard() -> None:
    assert _contrast("000000", "ffffff") == pytest.approx(21)
    assert _contrast("777777", "ffffff") == pytest.approx(4.48, abs=0.005)  # WebAIM's example of grey that just fails


# --- what it says ----------------------------------------------------------------------------------------------------


def test_the_verdict_stands_first_and_what_failed_is_opened() -> None:
    root = parsed(_page("realistic"))
    assert text_of(named(root, "h1")[0]) == "✗ FAILED, PARTIAL: 6 of 7 cases ran"
    assert "7 cases: 3 passed" in text_of(named(root, "header")[0])
    cases = [each for each in named(root, "details") if each.get("class", "").startswith("case")]
    assert [each.get("class") for each in cases] == [
        *(2 * ["case bad"]),
        *(2 * ["case unsure"]),
        *(2 * ["case good"]),
    ]
    assert [each.get("open") is not None for each in cases] == [True, True, *(4 * [False])]
    assert "1 planned case was not run" in text_of(root)


def test_the_table_has_each_figure_with_the_limit_that_bounds_it() -> None:
    bound = limit("max_memory", 3 * MIB, "3 MiB")
    kept = case("bf16", limits=(bound,), timing=timing(reference_ns=4_000_000, variant_ns=2_000_000))
    over = case("fp16", limits=(bound,), variant=measurement("fp16", weights=2 * MIB, peak=2 * MIB, size=2 * MIB))
    root = parsed(page.render(judged_again(record(kept, over))))
    assert _cells(named(root, "table")[0]) == [
        ["verdict", "case", "memory", "size", "latency", "speedup", "score", "drop"],
        ["", "digits-vit/original", "8 MiB", "4 MiB", "-", "-", "97.5%", "-"],
        ["✓ pass", "digits-vit/bf16", "2 of 3 MiB -75%", "1 MiB -75%", "2 ms", "2x", "97.5%", "0 pp"],
        ["✗ FAIL", "digits-vit/fp16", "✗ 4 of 3 MiB broken -50%", "2 MiB -50%", "-", "-", "97.5%", "0 pp"],
    ]
    values = [[cell.get("data-value") for cell in row] for row in named(named(root, "table")[0], "tr")[2:]]
    assert [row[2] for row in values] == [str(2 * MIB), str(4 * MIB)]


def test_a_case_has_its_limits_layers_flips_and_slices() -> None:
    told = replace(
        realistic().cases[0],
        agreement=Agreement(360, 2, 1, 3, Changed((4, 17, 30), (7, 1, 2), (7, 1, 0), (3, 0, 2))),
        slices=Slices(("even", "odd"), False, (180, 180), (0.0, 1 / 180), (1, 2), (1, 1)),
    )
    root = parsed(page.render(record(told)))
    tables = {text_of(each[0]): each for each in named(root, "table")}
    name = "digits-vit/int8-dynamic"
    limits = _cells(tables[f"Limits of {name}"])
    assert limits[1][:4] == ["max_accuracy_drop at most 1 pp", "✓ pass", "0.28 pp", ""]
    assert limits[2] == ["max_memory at most 3 MiB", "✗ fail", "3.41 MiB", "", "limit 3 MiB", "budgets.yaml:23"]
    figures = {row[0]: row[1:] for row in _cells(tables[f"Figures of {name}"])}
    assert figures["latency"] == ["3.7 ms", "2.6 ms", ""]
    assert figures["memory"] == ["8.00 MiB", "3.41 MiB", "-57.4%"]
    slices = _cells(tables[f"Slices of {name}"])
    assert [row[0] for row in slices[1:]] == ["slice odd", "slice even"]
    assert slices[1][1:] == ["180", "2", "1", "0.556 pp"]
    changed = _cells(tables[f"Changed examples of {name}"])
    assert changed == [
        ["example", "target", "before", "after"],
        ["4", "7", "7", "3"],
        ["17", "1", "1", "0"],
        ["30", "2", "0", "2"],
    ]
    layers = _cells(tables[f"Layers of {name}"])
    assert len(layers) == 9
    assert layers[1] == ["blocks.0.mlp", "Linear", "3072 KiB", "100%", "750,000", "100%"]
    assert layers[3][3:] == ["0%", "250,000", "0%"]


def test_long_lists_are_cut_and_say_so() -> None:
    many = tuple(range(300))
    told = case(agreement=Agreement(360, 0, 0, 300, Changed(many, None, many, many)))
    root = parsed(page.render(record(told)))
    rows = next(each for each in named(root, "table") if text_of(each[0]).startswith("Changed"))
    assert len(named(rows, "tr")) == 201
    assert "And 100 more in the record." in text_of(root)


def test_what_became_less_strict_since_the_base_stands_above_the_table() -> None:
    text = text_of(parsed(_page("compared")))
    looser = text.index("digits-vit/int8-dynamic: max_memory 3 MiB -> 4 MiB (relaxed, +33%) (budgets.yaml:12)")
    assert looser < text.index("REMOVED 1 case that the base has: a/b") < text.index("Variants against their original")
    assert "head 1a2b3c4d5e6f against base 0f1e2d3c4b5a" in text


# --- charts ----------------------------------------------------------------------------------------------------------


def test_a_limit_has_its_figure_and_its_interval_on_its_scale() -> None:
    """Of 3 to 3.75 MiB, with 30% of that on each side, on pixels 6 to 234: 190 a MiB."""
    told = broken("int8-dynamic")
    chart = limit_chart(told, replace(told.verdicts[0], low=3.5 * MIB, high=4.0 * MIB), "words")
    assert chart is not None
    assert chart.label == "words"
    low, high = 3 * MIB, 4 * MIB
    pixels = 228 / (1.6 * (high - low))
    shapes = {shape.kind: [float(each) for each in re.findall(r"[\d.]+", shape.path)] for shape in chart.shapes}
    start = 6 + 0.3 * MIB * pixels
    assert shapes["bound"][0] == pytest.approx(start, abs=0.06)
    assert shapes["dot broken"][0] == pytest.approx(start + 0.75 * MIB * pixels, abs=0.06)
    assert shapes["interval"][0] == pytest.approx(start + 0.5 * MIB * pixels, abs=0.06)
    assert shapes["interval"][2] == pytest.approx(start + MIB * pixels, abs=0.06)
    assert shapes["allowed"][0] == 6  # at most: what lies below
    assert shapes["allowed"][2] == pytest.approx(start - 6, abs=0.06)


def test_at_least_allows_what_lies_above_and_an_open_end_reaches_the_edge() -> None:
    bound = limit("min_speedup", 1.5, "1.5x")
    told = replace(verdict(bound, "pass", 2.0, "timed"), low=1.7)
    chart = limit_chart(case(), told, "words")
    assert chart is not None
    shapes = {shape.kind: [float(each) for each in re.findall(r"[\d.]+", shape.path)] for shape in chart.shapes}
    assert shapes["allowed"][0] == shapes["bound"][0]
    assert shapes["allowed"][0] + shapes["allowed"][2] == pytest.approx(234, abs=0.1)
    assert shapes["interval"][2] == 234
    assert limit_chart(case(), verdict(bound, "not measured"), "words") is None
    assert limit_chart(case(), verdict(replace(bound, value=-1e308), "fail", 1e308), "words") is None


def test_pairs_stand_in_their_launch_at_their_time() -> None:
    drawn = pairs_chart(timing(200, 4_000_000, 2_000_000), ("original", "variant"), with_figures=True)
    assert drawn is not None
    chart, told = drawn
    assert told == "200 pairs in 3 launches, 10 s; original 4 ms; variant 2 ms"
    of = {shape.kind: shape.path for shape in chart.shapes}
    for kind in ("reference", "variant"):
        points = re.findall(r"M([\d.]+) ([\d.]+)h0", of[f"dots {kind}"])
        assert len(points) == 200
        assert len({y for _, y in points}) == 1
        assert [float(x) for x, _ in points] == sorted(float(x) for x, _ in points)
        assert f"M76.0 {points[0][1]}L708.0 {points[0][1]}" == of[f"level {kind}"]
    assert [word.text for word in chart.words if word.text.startswith("launch")] == ["launch 1", "launch 2", "launch 3"]
    assert sum(shape.kind == "band" for shape in chart.shapes) == 1


def test_of_many_pairs_some_are_drawn_and_what_lies_far_above_is_counted() -> None:
    figures = [4_000_000] * 2999 + [400_000_000]
    drawn = pairs_chart(timing(3000, 4_000_000, figures[::-1]), ("original", "variant"), with_figures=False)
    assert drawn is not None
    assert drawn[1] == "3,000 pairs in 3 launches, 2.5 min; one pair of 3 is drawn; 1 figure beyond the upper edge"
    assert len(re.findall("h0", next(shape.path for shape in drawn[0].shapes if shape.kind == "dots variant"))) == 1000
    assert pairs_chart(replace(timing(), pairs=()), ("original", "variant"), with_figures=False) is None


def _sized(recipe: str, memory: float, lost: int, variant_ns: int, **fields: Any) -> Case:
    half = int(memory * MIB / 2)
    changed = Agreement(360, lost, 0, lost)
    variant = measurement(recipe, weights=half, peak=half, size=half, score=0.975 - lost / 360)
    return case(recipe, variant=variant, agreement=changed, timing=timing(200, 4_000_000, variant_ns), **fields)


def test_on_the_front_stands_what_nothing_is_certain_to_beat() -> None:
    """Of 8 MiB: b is worse than a in all three; c has less memory, d fewer losses; e has least of all and is red."""
    red = verdict(limit("max_accuracy_drop", 0.01, "1 pp"), "fail", 0.1)
    told = record(
        _sized("a", 4, 3, 2_000_000),
        _sized("b", 6, 6, 3_000_000),
        _sized("c", 2, 6, 3_000_000),
        _sized("d", 7, 0, 3_900_000),
        _sized("e", 1, 36, 1_000_000, verdicts=(red,)),
        case("error", reference=None, variant=measurement("error")),
    )
    found = fronts(told, {id(each): f"case-{number}" for number, each in enumerate(told.cases)})
    assert [(point.case.recipe, point.memory.at, point.is_front) for point in found[0].points] == [
        ("e", 0.125, False),
        ("c", 0.25, True),
        ("a", 0.5, True),
        ("b", 0.75, False),
        ("d", 0.875, True),
    ]
    marks = [shape for shape in found[0].chart.shapes if shape.kind.startswith("dot")]
    assert len(marks) == 10  # in both panels
    assert [point.anchor for point in found[0].points] == ["case-4", "case-2", "case-0", "case-1", "case-3"]
    assert marks[1].title == "c: 25.0% of the memory, 1.333x [" + marks[1].title.split("[")[1]
    assert found[0].points[2].cells[0::2] == ("50.0%", "0.833 pp")
    assert fronts(record(told.cases[0]), {id(told.cases[0]): "case-1"}) == []


def test_of_an_explore_the_layers_stand_below_the_front_the_worst_first() -> None:
    costs = [
        LayerCost(LayerGroup(("<b>", "tied"), "Linear", 40, 30), 30, 100, 5, 0.02, -0.01, 0.05),
        LayerCost(LayerGroup(("head",), "Linear", 40, 90), -2048, 100, 20, 0.1, 0.05, 0.15),
        LayerCost(LayerGroup(("norm",), "LayerNorm", 4, 0), why="it changed nothing"),
        LayerCost(LayerGroup(("last",), "Linear", 4, 0)),
        *(LayerCost(LayerGroup((f"n{index}",), "Linear", 0, 0), 0, 100, 0) for index in range(600)),
    ]
    told = record(case(), sensitivity=(RecipeSensitivity("m", "int8-dynamic", True, tuple(costs)),))
    root = parsed(page.render(told))
    check_for_everybody(root)
    section = next(each for each in named(root, "section") if each.get("aria-labelledby") == "sensitivity")
    assert text_of(named(section, "h3")[0]) == (
        "m/int8-dynamic on each layer alone, all others as they are, on 100 examples"
    )
    assert _cells(section)[:3] == [
        ["layer", "harm", "kind", "flips", "drop", "saves", "work"],
        ["head", "", "Linear", "20", "10 pp (5 pp to 15 pp)", "-2048 B", "75%"],
        ["<b> and 1 more", "", "Linear", "5", "2 pp (-1 pp to 5 pp)", "30 B", "25%"],
    ]
    bars = [each.get("aria-label", "") for each in named(section, "svg")]
    assert bars[:2] == [
        "harm of head: 100% of the worst layer's",
        "harm of <b> and 1 more: 25% of the worst layer's",
    ]
    assert len(bars) == 500
    said = text_of(section)
    for sentence in (
        "And 102 more, which cost less.",
        "not scored alone: norm (it changed nothing)",
        "not reached: last; the same command goes on there",
    ):
        assert sentence in said


@pytest.mark.parametrize(
    ("low", "high", "are_bytes", "ticks"),
    [
        (0.0, 1.0, False, [0.0, 0.5, 1.0]),
        (3.0, 4.0, False, [3.0, 3.5, 4.0]),
        (2.5 * MIB, 6.0 * MIB, True, [3 * MIB, 4 * MIB, 5 * MIB, 6 * MIB]),
        (-0.02, 0.05, False, [-0.02, 0.0, 0.02, 0.04]),
    ],
)
def test_ticks_are_round(low: float, high: float, are_bytes: bool, ticks: list[float]) -> None:
    assert Scale(low, high, 0, 100).ticks(are_bytes=are_bytes) == pytest.approx(ticks)


def test_a_scale_takes_any_finite_figures() -> None:
    assert scale([math.inf, math.nan], 0, 1) is None
    assert scale([-1e308, 1e308], 0, 1) is None
    same = scale([5.0, math.inf], 0, 100)
    assert same is not None
    assert same.at(5.0) == 50
    assert (same.at(1e300), same.at(-1e300)) == (100, 0)
    assert len(Scale(1e300, 1.0000001e300, 0, 1).ticks()) < 14
    assert whisker(same, same, 5.0, Found(1, 1, 1)) == ""


# --- whatever a record holds -----------------------------------------------------------------------------------------


def _filled_with(told: Record, texts: tuple[str, ...]) -> Record:
    """Every text of the record is one of `texts` with a number: equal names stay equal, limits keep theirs."""
    found: dict[str, str] = {}
    numbered = (f"{text} {number}" for number, text in enumerate(itertools.cycle(texts)))

    def changed(text: str) -> str:
        if text in LIMITS:
            return text
        return next(numbered) if text == "x" else found.setdefault(text, next(numbered))

    made: Record = with_strings(told, changed)
    return made


def _of_one_line(told: Record) -> Record:
    """A message of several lines is told as a list of them: that is its structure."""
    errors = [each.error and replace(each.error, message=" ".join(each.error.message.split())) for each in told.cases]
    return replace(told, cases=tuple(replace(each, error=of) for each, of in zip(told.cases, errors, strict=True)))


_MARKUP = (
    "<!--",
    "--> ]]> </title></style></script>",
    "<![CDATA[",
    "{{ 7 * 7 }}{% raw %}",
    "' onload='x",
    '" onload="x',
)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        *((name, (*HOSTILE, EVERYTHING, *_MARKUP)) for name in ("filled", "compared")),
        ("compared", ("y" * 9000,)),
    ],
)
def test_no_text_of_a_record_becomes_structure(name: str, texts: tuple[str, ...]) -> None:
    told, harmless = (_of_one_line(_filled_with(RECORDS[name], each)) for each in (texts, ("x",)))
    for render in (page.render, _history) if name == "filled" else (page.render,):
        root = parsed(render(told))
        assert list(structure(root)) == list(structure(parsed(render(harmless))))
        check_for_everybody(root)
        words = [*root.itertext(), *(value for each in root.iter() for value in each.attrib.values())]
        assert all(character in "\n\t" or character.isprintable() for word in words for character in word)
        assert max(map(len, words)) < 12_000  # the style sheet


def _history(told: Record) -> str:
    return page.render_history([told, told])


def test_the_finalizer_is_what_keeps_them_text() -> None:
    shown = templates._text("\x1b[31mred\u202e<b>\x00")
    assert shown == "red<b>"
    long = templates._text("z" * 5000)
    assert isinstance(long, str)
    assert len(long) < 2100


def test_without_jinja2_the_extra_is_named_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    remedy = re.escape('run `pip install "pytest-modelopt[report]"`')
    with pytest.raises(templates.MissingExtra, match=remedy):
        page.render(record())
    options = Options(tmp_path / "budgets.yaml", False, None, False, None, None, html=tmp_path / "page.html")
    with pytest.raises(pytest.UsageError, match=f"--modelopt-html: .*{remedy}"):
        Outputs(options, None).prepare()
