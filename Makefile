# make run    start the exporter on this machine (ARGS="--grid.region=FR" adds flags)
# make demo   a month of an invented 16-GPU cluster in a real Prometheus, and what runs now (ARGS="--days=7 --port=9091")
# make test   everything that proves it: installs what it needs, then runs the tests
# make soak   the slow proofs: faults for ten minutes, and others of their kind
# make bench  measured figures; make lint: style and types; make docs: generated pages, boards, NOTICE; make picture: the README's
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
# Which torch the tests train with. It is not locked by hash: a release has other files and other requirements for each
# kind of board, and the index decides which; PyPI's brings 18 packages of CUDA, gigabytes that no test needs.
TORCH  ?= 2.13.0
BIN    := $(VENV)/bin
# Modules are compiled when they are first imported, whatever the caller's environment says: doing it for all that is
# installed takes longer than the download, and doing it anew in each of a thousand processes takes longer still.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile

.PHONY: run demo test soak bench lint docs chart picture deps clean

run: $(VENV)/run.stamp
	$(BIN)/carbon-exporter $(ARGS)

demo: $(VENV)/run.stamp
	$(BIN)/python -m deploy.demo $(ARGS)

# Most tests wait for real time to pass: four workers, a file each at a time, take a quarter as long as one. Real programs,
# sockets and browsers are late now and then where four share two CPUs: what fails is tried once more, and counted as
# "rerun" in the closing line.
test: deps $(VENV)/test.stamp
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --reruns 1 $(ARGS)

soak: deps $(VENV)/test.stamp $(VENV)/soak.stamp
	$(BIN)/python -m pytest -m soak --timeout=1800 $(ARGS)

bench: $(VENV)/test.stamp
	$(BIN)/python -m benchmarks $(ARGS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/test.stamp
	$(BIN)/carbon-exporter metrics --format=markdown > docs/metrics.md
	PYTHONPATH=tests $(BIN)/python -m support.settings_page > docs/settings.md
	PYTHONPATH=tests $(BIN)/python -m support.notice > NOTICE
	$(BIN)/python grafana/build.py

# The Helm chart's made files: copies of rules and boards, its schema's settings, README and golden files.
chart: $(VENV)/test.stamp
	PYTHONPATH=tests $(BIN)/python -m support.chart_files

# The pictures of the page: this machine at work.
picture: $(VENV)/test.stamp
	$(BIN)/python tests/support/picture.py docs/page.png docs/page-dark.png

# Debian packages that only the tests need; says what it installs, and what is missing where it may not.
deps:
	@./.ci/deps

$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV) || { echo "make: $(PYTHON) cannot make a venv; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/run.stamp: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/test.stamp: pyproject.toml requirements/test.txt | $(VENV)/bin/python
	$(INSTALL) --require-hashes --requirement requirements/test.txt
	$(INSTALL) --editable ".[train]" "torch==$(TORCH)"
	@touch $@ $(VENV)/run.stamp

$(VENV)/soak.stamp: $(VENV)/test.stamp
	$(INSTALL) --editable ".[train,frameworks]" "torch==$(TORCH)"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache
