"""The base that the options name: a git revision that is checked out, or a saved record."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_modelopt.optimizing.registry import added_by_conftest
from pytest_modelopt.plugin.collecting.budgets_path import elsewhere
from pytest_modelopt.plugin.session import Session
from pytest_modelopt.plugin.usage_errors import usage_error
from pytest_modelopt.reporting.plain_text import no_command, plain_line
from pytest_modelopt.results.json import RecordError

BASE = "modelopt_base"
"""In what a pytest-xdist worker is told."""


def take_base(config: pytest.Config, session: Session) -> None:
    """Check out the revision to compare with, or read the saved record. A pytest-xdist worker is told where it is."""
    options = session.options
    told: dict[str, Any] = getattr(config, "workerinput", {})
    if options.baseline is not None:
        from pytest_modelopt.baseline.saved_record import read_saved

        try:
            session.saved = read_saved(options.baseline, str(options.baseline), session.budgets)
        except OSError as error:
            raise usage_error(
                f"--modelopt-baseline: {options.baseline}: {error.strerror or error}", "usage-record"
            ) from None
        except RecordError as error:
            raise usage_error(f"--modelopt-baseline: {no_command(plain_line(str(error)))}", "usage-record") from None
    elif options.against is not None:
        from pytest_modelopt.baseline.base_tree import TreeError
        from pytest_modelopt.baseline.revision import from_data, open_base

        if BASE in told:
            session.revision = from_data(told[BASE], options.budgets, session.budgets)
            return
        try:
            session.revision = open_base(
                options.against,
                options.budgets,
                session.budgets,
                added_by_conftest(),
                options.step_limit_s,
                config.rootpath,
                is_configured=not options.budgets_on_command_line,
            )
        except TreeError as error:
            way = "" if options.budgets.is_file() else elsewhere(options.budgets, config.rootpath)
            raise usage_error(f"--modelopt-against {options.against}: {error}{way}", "usage-base") from None
    elif options.no_loosening:
        raise usage_error(
            "--modelopt-no-loosening has nothing to compare with: name the base by --modelopt-against REV or "
            "--modelopt-baseline FILE",
            "usage-option",
        )
