# make demo and make test set up everything they need from a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint types clean

demo: $(STAMP)
	$(BIN)/python -m benchmarks.demo

# glibc gives large blocks back to the system at once, and takes them page by page, unless told not to: a fifth of the time.
test: $(STAMP)
	OMP_NUM_THREADS=1 MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000 \
		GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
		$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	PYTHON=$(CURDIR)/$(BIN)/python .ci/types

clean:
	rm -rf $(VENV) build dist out *.egg-info

# torch first: a package that asks for any torch would otherwise bring the newest one.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[export,train,quantize,rtx,kernels,video,report,dev]'
	touch $(STAMP)
