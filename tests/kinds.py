"""Rooms of tests by kind. The tests of all other rooms are unit tests, unless their file says another kind."""

WHOLE_RUNS = {"plugin", "cli", "baseline", "github"}
"""Rooms whose tests run pytest, a command or a workflow's script."""
REAL_MODELS = {"measuring", "optimizing"}
"""Rooms whose tests run models of torch and the other runtimes, some in workers."""
