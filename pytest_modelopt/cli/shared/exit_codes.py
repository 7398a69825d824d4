"""What a command ends with."""

from __future__ import annotations

PASSED, RED, WRONG_INPUT = 0, 1, 2
INTERRUPTED = 130
"""As shells say that Ctrl-C ended something; SIGTERM ends a command in the same way."""
