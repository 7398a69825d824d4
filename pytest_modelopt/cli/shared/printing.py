"""The one way of commands to standard output and error: whatever a text holds, it is text there."""

from __future__ import annotations

import sys
from typing import TextIO


def tell(text: str, stream: TextIO | None = None) -> None:
    """Write `text` and a newline to `stream` (standard output), flushed: each line without controls and commands.

    Only a line feed ends a line. What the encoding of the stream does not know stands there as a question mark.
    """
    from pytest_modelopt.reporting.plain_text import printed

    stream = sys.stdout if stream is None else stream
    plain = "\n".join(printed(line) for line in text.split("\n"))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(plain.encode(encoding, "replace").decode(encoding), file=stream, flush=True)
