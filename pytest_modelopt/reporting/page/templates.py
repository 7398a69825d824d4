"""Templates of the page: whatever a record holds is one line of text in them, and nothing else.

Each value passes `_text` before Jinja2 escapes it, so no template can forget it. The style sheet and the script are the
only ones that a browser may use: their sums stand in the page's Content-Security-Policy, and nothing may be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelopt.reporting.plain_text import plain_line

if TYPE_CHECKING:
    import jinja2

_FOLDER = Path(__file__).parent
_PATH = re.compile(r"[MLhvz0-9. -]*")
_LONGEST = 2000
"""Characters of a text that the page shows: a record may hold one of megabytes."""


class MissingExtra(ValueError):
    """What is not installed, and how to install it."""


def require_jinja2() -> None:
    """Raises MissingExtra where the page cannot be made."""
    try:
        import jinja2  # noqa: F401
    except ImportError:
        told = 'the HTML page is made with Jinja2, which is missing: run `pip install "pytest-modelopt[report]"`'
        raise MissingExtra(told) from None


def filled(template: str, **values: Any) -> str:
    """The template with these values, and the style sheet and the script of the page."""
    require_jinja2()
    style, script = (_read(name) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src {_sum(style)}; script-src {_sum(script)}; base-uri 'none'; form-action 'none'"
    )
    made = _environment()
    return made.get_template(template).render(
        **values, policy=policy, style=_markup(style), script=_markup(script), shown=_text
    )


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        finalize=_text,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["pixel"] = lambda value: f"{value:.1f}"
    made.filters["drawn"] = _drawn
    return made


def _text(value: object) -> object:
    """Text made plain and of bounded length; what is markup already (ours, by macros) stays."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    text = plain_line(value[: 4 * _LONGEST])
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… (the record has all of it)"


def _drawn(path: str) -> object:
    """A path of a chart, however long: letters of SVG's language and numbers, and nothing else."""
    if not _PATH.fullmatch(path):
        raise ValueError(f"this is no path: {path[:100]!r}")
    return _markup(path)


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _markup(text: str) -> object:
    from markupsafe import Markup

    return Markup(text)  # a file of this package


def _sum(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
