"""`python -m pytest_modelopt.cli`, as `pytest-modelopt`."""

import sys

from pytest_modelopt.cli.main import main

sys.exit(main())
