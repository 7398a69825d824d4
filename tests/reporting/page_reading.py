"""A page as a strict reader of HTML5 sees it, and what it must be for everybody who reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from xml.etree.ElementTree import Element

import html5lib

from pytest_modelopt.reporting.addresses import TROUBLESHOOTING

FREE = ("aria-label", "data-value", "content")
"""Attributes that hold words or figures of the record."""


def parsed(page: str) -> Element:
    """The document. Raises html5lib's ParseError for whatever the standard calls an error."""
    found: Any = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    root: Element = found
    return root


def tag(element: Element) -> str:
    """Without the namespace, which elements of SVG have."""
    return element.tag.rpartition("}")[2]


def named(root: Element, name: str) -> list[Element]:
    return [each for each in root.iter() if isinstance(each.tag, str) and tag(each) == name]


def text_of(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def structure(root: Element) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Every element in order with its attributes, but for the values of those that hold words of the record."""
    for each in root.iter():
        assert isinstance(each.tag, str), "a comment"
        yield tag(each), tuple(sorted((name, "" if name in FREE else value) for name, value in each.attrib.items()))


def check_for_everybody(root: Element) -> None:
    """What a screen reader, a keyboard and a browser without a network need."""
    ids = [each.get("id") for each in root.iter() if each.get("id") is not None]
    assert len(ids) == len(set(ids))
    for each in root.iter():
        name = tag(each)
        for attribute, value in each.attrib.items():
            assert not attribute.startswith("on"), "a handler"
            assert attribute not in ("src", "style", "srcset", "action", "xlink:href"), attribute
            if attribute == "href" and value.startswith(f"{TROUBLESHOOTING}#"):
                assert name == "a", "nobody is taken there unasked"
            elif attribute in ("href", "aria-labelledby"):
                assert value.removeprefix("#") in ids, value
        assert name not in ("iframe", "object", "embed", "img", "link", "base", "form", "foreignObject"), name
        if name == "svg":
            assert each.get("role") == "img"
            assert each.get("aria-label")
        if name == "th":
            assert each.get("scope") in ("col", "row")
        if name == "table":
            assert text_of(each[0]), "a table without a caption"
            assert tag(each[0]) == "caption"
            assert len({len(row) for row in named(each, "tr")}) == 1
        if name == "input":
            assert each in {inner for label in named(root, "label") for inner in label.iter()}
        if "scroll" in each.get("class", "").split():
            assert (each.get("role"), each.get("tabindex")) == ("region", "0")
            assert each.get("aria-label")
    levels = [int(tag(each)[1]) for each in root.iter() if re.fullmatch("h[1-6]", tag(each))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert [tag(each) for each in root.iter() if tag(each) in ("main", "header")] == ["header", "main"]
    assert len(named(root, "script")) == len(named(root, "style")) == 1
    assert root.get("lang") == "en"
