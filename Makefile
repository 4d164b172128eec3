# make install: .venv and the package; make sweep: the quickstart study; make test, test-slow, test-oldest, test-python, check; make docs: the site; make dist: a release.
# Once installed, nothing here needs the network.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SWEEP ?= experiments/quickstart_sweep.yaml
JOBS ?= 2

# Where this is set, as in many images of containers, each process would compile anew all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install sweep test test-slow test-oldest test-python check style types docs pictures dist chaos bench bench-images bench-platform gpu format clean chaos-search

install: $(STAMP)

# Without --no-compile pip compiles 25,000 modules for minutes, of which few are ever imported; Python compiles those.
$(STAMP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "ddarts needs Python 3.10 or newer: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "setuptools>=77"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-build-isolation -e ".[test,check,docs]"
	@touch $@

sweep: $(STAMP)
	$(BIN)/ddarts sweep $(SWEEP) --new

# A worker that crashes ends the run: restarted, it would leave the others waiting for tests that are done. Ray gives the
# processes of trials the lowest priority, for which tests would wait.
test: $(STAMP)
	RAY_worker_niceness=0 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(TESTS)

# What make test leaves out: whole clusters, Slurm where it is installed, more kills. After changes in tuning/.
test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --max-worker-restart 0 -m slow $(TESTS)

# The first steps, a kill and a resume under the oldest versions that setup.cfg admits; then the resume under today's.
OLDEST := .venv-oldest
test-oldest: $(STAMP) $(OLDEST)/.installed
	folder=$$(mktemp -d) && export OMP_NUM_THREADS=1 \
		&& $(OLDEST)/bin/python -m tests.oldest begin $$folder && cp -r $$folder $$folder-today \
		&& $(OLDEST)/bin/python -m tests.oldest end $$folder \
		&& $(BIN)/python -m tests.oldest end $$folder-today --any && rm -r $$folder $$folder-today

$(OLDEST)/.installed: setup.cfg constraints-oldest.txt
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check "setuptools>=68"
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-build-isolation -c constraints-oldest.txt -e .
	@touch $@

# The same steps under another Python, which need not be that of .venv: make test-python PYTHON=python3.13
PYTHON_NAME = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
test-python: OTHER = .venv-python$(PYTHON_NAME)
test-python:
	$(PYTHON) -m venv --clear $(OTHER)
	$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check "setuptools>=77"
	$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-build-isolation -e ".[test]"
	folder=$$(mktemp -d) && export OMP_NUM_THREADS=1 \
		&& $(OTHER)/bin/python -m tests.oldest begin $$folder --any && $(OTHER)/bin/python -m tests.oldest end $$folder --any \
		&& rm -r $$folder
	OMP_NUM_THREADS=1 $(OTHER)/bin/python -m pytest $(or $(TESTS),$(QUICK))

# Tests of a minute or two that touch every floor.
QUICK := tests/core/test_config.py tests/core/test_losses.py tests/core/test_genotype_text.py tests/test_settings.py \
	tests/tuning/test_space.py tests/analysis/test_tables.py

# Kill -9 a sweep's driver, trials, a node and its MLflow server KILLS times, count what is lost: make chaos KILLS=30
SEED ?= 0
chaos: KILLS ?= 10
chaos: $(STAMP)
	$(BIN)/python -m tests.tuning.chaos --kills $(KILLS) --seed $(SEED)

# Its parts are independent: make -j2 check
check: style types docs dist

style: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# The documentation as pages in site/, from README.md, docs/ and the code; mkdocs-material speaks of a successor otherwise.
# Pages open from the folder; their search needs a server: .venv/bin/mkdocs serve
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# README's pictures of a report and of MLflow, of the study that make sweep leaves; it needs chromium
pictures: $(STAMP)
	$(BIN)/python -m tests.pictures runs/quickstart_sweep docs

# The packages of a release, from what a clone would have; their description must be one that an index shows.
dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist . >/dev/null
	$(BIN)/twine check --strict dist/*

bench: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.bench $(BENCH)

# The tests and measurements that need a GPU, in about eight minutes: docs/performance-gpu.md. make gpu DEVICE=cpu ROWS=smallest
DEVICE ?= cuda
gpu: $(STAMP)
	$(BIN)/python -m tests.benchmarks.gpu --device $(DEVICE) $(if $(ROWS),--rows $(ROWS))

# What images of one's own cost: the scan, cold and cached, and images per second
bench-images: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.images $(BENCH)

# What Ray, Optuna and MLflow cost, per epoch and per trial: writes docs/platform_cost.md
bench-platform: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.platform $(BENCH)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Kill searches and trainings with SIGKILL, resume them, and compare every byte: make chaos-search KILLS=200
chaos-search: KILLS ?= 100
chaos-search: $(STAMP)
	$(BIN)/python -m tests.chaos --kind search --kills $(KILLS)
	$(BIN)/python -m tests.chaos --kind retrain --kills $(KILLS)

clean:
	rm -rf $(VENV) $(OLDEST) .venv-python* build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
