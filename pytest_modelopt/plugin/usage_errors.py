"""Usage errors of pytest that say where they are explained."""

from __future__ import annotations

import pytest

from pytest_modelopt.reporting.addresses import UsageCode, with_address


def usage_error(text: str, code: UsageCode) -> pytest.UsageError:
    """The error to raise: pytest prints its text, and ends with status 4."""
    return pytest.UsageError(with_address(text, code))
