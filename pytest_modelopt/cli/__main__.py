"""`python -m pytest_modelopt.cli`, as `pytest-modelopt`."""

import sys

from pytest_modelopt.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
