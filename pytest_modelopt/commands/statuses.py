"""What a command ends with."""

from __future__ import annotations

PASSED, RED, WRONG_INPUT = 0, 1, 2
