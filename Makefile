# Two commands on a fresh machine: `make gate` and `make test`. Both make their own environment in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The rivals are pytest plugins that load by themselves: they stay out of the environment that tests and gates.
BENCH_VENV := .venv-bench
BENCH := $(BENCH_VENV)/bin/python -m

.PHONY: env bench-env test slow unit coverage hooks browser mlflow gate lint docs bench release-check schema clean

env: $(VENV)/.installed
bench-env: $(BENCH_VENV)/.installed

$(VENV)/.installed: EXTRA := dev
$(BENCH_VENV)/.installed: EXTRA := bench
# ExecuTorch alone runs programs. What it asks for (pandas, coremltools, two plugins of pytest that load by themselves, half
# a second of each start) is for its exporter, which tests/optimizing/make_pte_files.py uses in an environment of its own:
# so `pip check` names these here, as missing.
$(VENV)/.installed: ALONE := executorch
# The stamp is written last, so that an interrupted installation is done again.
%/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $*
	$*/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRA)]'
	$(if $(ALONE),$*/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps $(ALONE))
	touch $@

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Three at once, also on two cores: much of it waits for workers. Two where there is little memory: each takes up to
# 1.5 GiB for the runtimes of all recipes. A file stays together, since its tests share what they make. A process that
# dies ends the run: with another one in its place, pytest-xdist would wait for ever. On a machine that is too slow it
# ends as by Ctrl-C, with the failures and the closing line, before a job ends it without a word.
TEST_PROCESSES ?= $(shell awk '/MemAvailable/ {few = $$2 < 6 * 1024 ^ 2} END {print few ? 2 : 3}' /proc/meminfo 2>/dev/null || echo 3)
TEST_LIMIT ?= 19m
LIMITED := $(if $(shell command -v timeout 2>/dev/null),timeout --foreground --signal=INT --kill-after=60)
# Our modules are compiled once, and not by each of the hundreds of processes that tests start: an editable installation
# leaves that out, and where PYTHONDONTWRITEBYTECODE is set, as in many images, nobody else does it.
test: lint
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m compileall -q pytest_modelopt
	-PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --modelopt --modelopt-time-limit '1 ms' -q budgets.yaml::spoken-digits::int8-dynamic > /dev/null
	$(if $(LIMITED),$(LIMITED) $(TEST_LIMIT)) $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --max-worker-restart 0 -m 'not slow' tests

# What takes half a minute or more each: selftests, a compiler, faults of all kinds, whole searches. .github/workflows/levels.yml
# runs them with the others.
slow: env
	$(BIN)/python -m pytest -n 2 --dist load -m slow tests

# While one works on a room that runs no model: about a minute on two cores.
unit: env
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m unit tests

# Which lines the unit tests run, in workers of pytest-xdist and in other processes, too.
coverage: env
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m unit tests
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# All that .pre-commit-config.yaml asks of a commit, on all files.
hooks: env
	$(BIN)/pre-commit run --all-files

# The HTML page in Debian's chromium, which `apt-get install chromium` brings; `make test` skips these where it is missing.
browser: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,browser]'
	$(BIN)/python -m pytest -m browser tests/browser

# Runs on a real server of MLflow, whose 50 packages stay out of the environment that tests and gates.
mlflow: env
	test -d .venv-mlflow || $(PYTHON) -m venv .venv-mlflow
	$(BIN)/python -c 'import site; print(*site.getsitepackages(), sep="\n")' > $$(.venv-mlflow/bin/python -c 'import site; print(site.getsitepackages()[0])')/ours.pth
	.venv-mlflow/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[mlflow]' mlflow
	.venv-mlflow/bin/python -m pytest -m mlflow tests/reporting/test_mlflow.py

# The project's own pull-request check, and what a user sees: the budgets of example_project. The tests of
# example_project that need no gate run there, too.
gate: env
	$(BIN)/python -m pytest --modelopt --modelopt-report modelopt-report example_project/tests budgets.yaml

# All benchmarks, about two hours; benchmarks/README.md says what each one shows and how the full runs are made.
# hostile takes an hour, startup, gate_cost and candidate_cost about a minute each, memory_spread, warmth and unchanged five, scale twenty; programs takes two hours for each
# condition, false_alarms, misses and time_to_verdict are slow, too: their results go to bench-results/, and an interrupted `make bench` goes on from there.
ROUNDS ?= 20
bench: env bench-env
	$(BIN)/python -m benchmarks.hostile
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.gate_cost
	$(BIN)/python -m benchmarks.candidate_cost
	$(BIN)/python -m benchmarks.memory_spread
	$(BIN)/python -m benchmarks.books
	$(BIN)/python -m benchmarks.call_cost
	$(BIN)/python -m benchmarks.warmth
	$(BIN)/python -m benchmarks.unchanged
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.faults
	for condition in idle processor cache bandwidth; do $(BIN)/python -m benchmarks.programs --turns --condition $$condition || exit; done
	for condition in idle processor; do for benchmark in false_alarms misses time_to_verdict; do \
		$(BENCH) benchmarks.$$benchmark --condition $$condition --rounds $(ROUNDS) || exit; \
	done; done

# All of a release but the upload: half an hour, most of it the tests of the sdist.
release-check:
	.ci/release-check

# The documentation site in site/. tests/test_site.py builds it, too: a warning is an error.
docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

schema: env
	$(BIN)/python -m pytest_modelopt.config.schema

clean:
	rm -rf $(VENV) $(BENCH_VENV) .venv-mlflow .pytest_cache .mypy_cache .ruff_cache modelopt-report site
