"""Modules that inner runs find imported: pytester forgets whatever a run imports, and the next run does it all again.

That is most of what such a run takes: our own package with its assertions rewritten, pydantic's schemas, hypothesis for
the summary of its plugin, and `multiprocessing.forkserver`, without which each run starts a fork server of its own that
imports torch. What the plugin imports when it is off is tested in processes of their own.
"""

from __future__ import annotations

import importlib
import multiprocessing.forkserver
import multiprocessing.popen_forkserver
import multiprocessing.resource_tracker  # noqa: F401
import pkgutil

import hypothesis.internal.observability  # noqa: F401
import pydantic  # noqa: F401
import torch  # noqa: F401 -- compiled modules cannot be imported twice

import pytest_modelopt

for _module in pkgutil.walk_packages(pytest_modelopt.__path__, "pytest_modelopt."):
    # Those of the workers stay there, but for the entry point, which cannot be pickled by two names.
    if not _module.name.startswith("pytest_modelopt.measuring.worker.metrics") and not _module.name.endswith("_module"):
        importlib.import_module(_module.name)
