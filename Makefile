# Two commands matter: `make demo` and `make test`. .venv grows with what is asked of it: `make demo` installs little and no torch, `make
# images` what images need, `make test` everything. It is made anew when pyproject.toml or constraints.txt changed. Needs only make and
# Python >= 3.11.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
CORE := $(VENV)/.core
GUIDED := $(VENV)/.guided
IMAGES := $(VENV)/.images
ALL := $(VENV)/.all

.PHONY: help demo guided images figures docs test test-slow lint format bench clean

help:
	@echo "make demo       main job: theory against simulation, then real data (results/gaussian_mixture)"
	@echo "make guided     guided diffusion in the plane and beyond (results/guided_diffusion)"
	@echo "make images     the same guidance on images, end to end (results/digits-smoke); ARGS='--preset cpu' for real numbers"
	@echo "make figures    every figure, table and the report, from committed results (figures/report.html)"
	@echo "make docs       tutorial and reference (docs/_build/html)"
	@echo "make test       all tests but the slow ones     make test-slow   the slow ones"
	@echo "make lint       ruff and mypy                   make format      let ruff rewrite"
	@echo "make bench      speed, as ratios measured in one run"
	@echo "make clean      remove .venv and caches, keep results"
	@echo "Options for the main job: make demo ARGS='--quick --seed 1'"

$(CORE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "Python %d.%d is too old: install Python >= 3.11 and run make PYTHON=python3.11" % v[:2])'
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) -e ".[commands]"
	@touch $@

# Before torch is installed for the first time: pip's usual choice on Linux is the CUDA build.
define about_torch
	@$(PY) -c 'import torch' 2>/dev/null || command -v nvidia-smi >/dev/null || [ "$$(uname -s)" != Linux ] || echo "no GPU found, and pip's torch for Linux is the CUDA build, gigabytes: for the CPU build stop here (Ctrl-C), choose CPU on pytorch.org/get-started/locally, run that pip command by $(PY) -m, then make again"
endef

$(GUIDED): $(CORE)
	$(about_torch)
	$(PIP) -e ".[guided]"
	@touch $@

$(IMAGES): $(CORE)
	$(about_torch)
	$(PIP) -e ".[images]"
	@touch $@

$(ALL): $(CORE)
	$(about_torch)
	$(PIP) -e ".[images,docs,dev]"
	@touch $@ $(GUIDED) $(IMAGES)

demo: $(CORE)
	$(PY) simulations/gaussian_mixture.py $(ARGS)

images: $(IMAGES)
	$(PY) image_experiments/run_cifar.py $(ARGS)

guided: $(GUIDED)
	$(PY) simulations/guided_diffusion.py $(ARGS)

figures: $(CORE)
	$(PY) figures/regenerate.py $(ARGS)

docs: $(ALL)
	$(PY) docs/write_commands.py
	$(PY) docs/write_notebooks.py
	$(PY) -m sphinx -E -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Two processes with a core each: more threads than cores make small matrices slow.
test: $(ALL)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

test-slow: $(ALL)
	$(PY) -m pytest -q -m slow $(ARGS)

lint: $(ALL)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --platform darwin --cache-dir .mypy_cache/darwin

format: $(ALL)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(ALL)
	$(PY) benchmarks/bench_theory.py $(ARGS)
	$(PY) benchmarks/bench_guidance.py
	$(PY) benchmarks/bench_images.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
