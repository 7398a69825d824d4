"""torchmetrics, imported once in the fork server where cases score by it, and not by the worker of each variant.

A project's own package of that name is left to the workers, and so is one that cannot be imported: they say why.
"""

import contextlib
import warnings
from importlib.util import find_spec

from pytest_modelopt.measuring.installation import is_installed

with contextlib.suppress(Exception), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    found = find_spec("torchmetrics")
    if found is not None and found.origin is not None and is_installed(found.origin):
        import torchmetrics  # noqa: F401
