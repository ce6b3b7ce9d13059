# The kernels without Python: the C driver under an emulator and under sanitizers. Included by the main Makefile.
# Not part of `make test`: they need more than a C compiler (Debian packages are named where one is missing).

ARM64_CC ?= aarch64-linux-gnu-gcc
ARM64_RUN ?= qemu-aarch64 -L /usr/aarch64-linux-gnu
SANITIZE_ROUNDS ?= 60
CHECK_ROUNDS ?= 100
RUNNER_ROUNDS ?= 3

CHECK := build/check
CHECK_SOURCES := $(wildcard csrc/*.c csrc/*.h csrc/*.inc csrc/*/* csrc/*.def) scripts/build_kernels.py
BUILD_CHECK = $(BIN)/python scripts/build_kernels.py --program csrc/tests/check.c --output
BUILD_RUNNER = $(BIN)/python scripts/build_kernels.py --program csrc/tests/check_runner.c --output
BUILD_FUZZ = $(BIN)/python scripts/build_kernels.py --program csrc/tests/fuzz.c --output
FUZZ_SECONDS ?= 20
# -w: under sanitizers gcc warns of what cannot happen; the ordinary builds of gcc and clang show the real warnings.
# -Wno-pass-failed below: unrolling is only a wish.
SANITIZE := -g1 -O1 -w -fno-omit-frame-pointer -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all
# gcc 13 puts the copies of stack frames that find uses after a return on 32 bytes, where vectors of 64 are stored to
# (its bug 110027): programs crash that are right.
SANITIZED := ASAN_OPTIONS=detect_stack_use_after_return=0
SANITIZE_THREADS := -g1 -O1 -w -fsanitize=thread
# An arm64 processor without the dot product instructions, for the runner's plain NEON bodies.
ARM64_PLAIN ?= -cpu cortex-a53

# $(call need,program,Debian packages)
need = @command -v $(1) >/dev/null || { echo "$@ needs $(1); on Debian: apt-get install $(2)" >&2; exit 1; }

$(CHECK)/golden.flat: tests/golden/blocks.npz scripts/make_flat_golden.py | $(STAMP)
	@$(BIN)/python scripts/make_flat_golden.py $@

$(CHECK)/native: $(CHECK_SOURCES) | $(STAMP)
	@$(BUILD_CHECK) $@

$(CHECK)/native-runner: $(CHECK_SOURCES) | $(STAMP)
	@$(BUILD_RUNNER) $@

test-driver: $(CHECK)/native $(CHECK)/native-runner $(CHECK)/golden.flat  ## the kernels without Python, on this machine
	@$(CHECK)/native $(CHECK)/golden.flat $(CHECK_ROUNDS)
	@$(CHECK)/native-runner $(RUNNER_ROUNDS)

test-arm64: $(CHECK)/native $(CHECK)/golden.flat  ## the kernels on arm64, under qemu-user
	$(call need,$(firstword $(ARM64_CC)),gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
	$(call need,$(firstword $(ARM64_RUN)),qemu-user)
	@CC="$(ARM64_CC)" $(BUILD_CHECK) $(CHECK)/arm64
	@$(CHECK)/native $(CHECK)/golden.flat $(CHECK_ROUNDS) > $(CHECK)/native.txt || { cat $(CHECK)/native.txt; exit 1; }
	@$(ARM64_RUN) $(CHECK)/arm64 $(CHECK)/golden.flat $(CHECK_ROUNDS) > $(CHECK)/arm64.txt || { cat $(CHECK)/arm64.txt; exit 1; }
	@cat $(CHECK)/arm64.txt
	@grep -q ' neon' $(CHECK)/arm64.txt || { echo "the program was not built for arm64" >&2; exit 1; }
	@test "$$(grep digest $(CHECK)/native.txt)" = "$$(grep digest $(CHECK)/arm64.txt)" \
	  || { echo "this machine and arm64 differ:"; grep digest $(CHECK)/native.txt $(CHECK)/arm64.txt; exit 1; } >&2
	@echo "arm64: the golden bytes, and the same bytes as this machine on random input"
	@CC="$(ARM64_CC)" $(BUILD_RUNNER) $(CHECK)/arm64-runner
	@$(ARM64_RUN) $(CHECK)/arm64-runner $(RUNNER_ROUNDS)
	@$(ARM64_RUN) $(ARM64_PLAIN) $(CHECK)/arm64-runner $(RUNNER_ROUNDS)
	@echo "arm64: the runner within its tolerances, with and without dot product instructions"

test-sanitize: $(CHECK)/golden.flat  ## the kernels under ASan, UBSan, TSan with gcc; a clang build where clang is installed
	$(call need,gcc,gcc libc6-dev)
	@CC=gcc CFLAGS="$(SANITIZE)" $(BUILD_CHECK) $(CHECK)/sanitized
	@$(SANITIZED) $(CHECK)/sanitized $(CHECK)/golden.flat $(SANITIZE_ROUNDS)
	@CC=gcc CFLAGS="$(SANITIZE)" $(BUILD_RUNNER) $(CHECK)/sanitized-runner
	@$(SANITIZED) $(CHECK)/sanitized-runner $(RUNNER_ROUNDS)
	@CC=gcc CFLAGS="$(SANITIZE) -DQC_FUZZ_MAIN" $(BUILD_FUZZ) $(CHECK)/sanitized-fuzz
	@$(SANITIZED) $(CHECK)/sanitized-fuzz $(FUZZ_SECONDS) $(FUZZ_SEED)
	@$(if $(wildcard tests/fuzz/kernels/*),$(SANITIZED) $(CHECK)/sanitized-fuzz $(wildcard tests/fuzz/kernels/*))
	@echo "gcc: no complaint of AddressSanitizer, UndefinedBehaviorSanitizer"
	@CC=gcc CFLAGS="$(SANITIZE_THREADS)" $(BUILD_RUNNER) $(CHECK)/threads-runner
	@$(CHECK)/threads-runner 1
	@echo "gcc: no complaint of ThreadSanitizer"
	@if command -v clang >/dev/null; then $(MAKE) --no-print-directory test-clang; \
	  else echo "clang: skipped, it is not installed; on Debian: apt-get install clang"; fi

test-clang: $(CHECK)/golden.flat  ## the kernels built by clang: the same bytes, no warning
	$(call need,clang,clang)
	@CC=clang CFLAGS="-O1 -Werror -Wno-pass-failed" $(BUILD_CHECK) $(CHECK)/clang
	@$(CHECK)/clang $(CHECK)/golden.flat $(SANITIZE_ROUNDS)
	@CC=clang CFLAGS="-O1 -Werror -Wno-pass-failed" $(BUILD_RUNNER) $(CHECK)/clang-runner
	@$(CHECK)/clang-runner $(RUNNER_ROUNDS)
	@echo "clang: the same bytes, no complaint of -Wall -Wextra"

FUZZ_MINUTES ?= 10
FUZZ_SEED ?= $(shell date +%s)
# Seven tenths of the time for files, three for the kernels: libFuzzer where clang brings it, else the driver's own
# inputs under gcc's sanitizers.
fuzz: $(STAMP)  ## mutants of files against commands and runner, arbitrary bytes against the C entry points
	@$(BIN)/python scripts/fuzz.py --minutes $$((7 * $(FUZZ_MINUTES)))e-1 --seed $(FUZZ_SEED)
	@mkdir -p build/fuzz/kernels
	@if command -v clang >/dev/null && CC=clang CFLAGS="-O1 -g1 -w -fsanitize=fuzzer,address,undefined" \
	    $(BIN)/python scripts/build_kernels.py --program csrc/tests/fuzz.c --output $(CHECK)/fuzz 2>/dev/null; then \
	  $(CHECK)/fuzz -max_total_time=$$((18 * $(FUZZ_MINUTES))) -artifact_prefix=build/fuzz/kernels/ -print_final_stats=1 \
	    build/fuzz/kernels; \
	else \
	  CC=gcc CFLAGS="$(SANITIZE) -DQC_FUZZ_MAIN" $(BIN)/python scripts/build_kernels.py --program csrc/tests/fuzz.c \
	    --output $(CHECK)/fuzz && $(SANITIZED) $(CHECK)/fuzz $$((18 * $(FUZZ_MINUTES))) $(FUZZ_SEED) \
	    build/fuzz/kernels/crash; \
	fi

.PHONY: test-driver test-clang fuzz
