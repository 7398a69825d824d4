"""OpenMetrics, for Prometheus and GitLab: the text of `metrics.txt`."""

from __future__ import annotations

from pytest_modelopt.reporting.files.metrics import render

__all__ = ["render"]
