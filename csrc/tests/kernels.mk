# The kernels without Python: the C driver under an emulator and under sanitizers. Included by the main Makefile.
# Not part of `make test`: they need more than a C compiler (Debian packages are named where one is missing).

ARM64_CC ?= aarch64-linux-gnu-gcc
ARM64_RUN ?= qemu-aarch64 -L /usr/aarch64-linux-gnu
SANITIZE_ROUNDS ?= 60
CHECK_ROUNDS ?= 100

CHECK := build/check
CHECK_SOURCES := $(wildcard csrc/*.c csrc/*.h csrc/kernels/*.inc csrc/tests/*.c) scripts/build_kernels.py
BUILD_CHECK = $(BIN)/python scripts/build_kernels.py --program csrc/tests/check.c --output
# -w: under sanitizers gcc warns of what cannot happen; the ordinary builds of gcc and clang show the real warnings.
# -Wno-pass-failed below: unrolling is only a wish.
SANITIZE := -g1 -O1 -w -fno-omit-frame-pointer -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all

# $(call need,program,Debian packages)
need = @command -v $(1) >/dev/null || { echo "$@ needs $(1); on Debian: apt-get install $(2)" >&2; exit 1; }

$(CHECK)/golden.flat: tests/golden/blocks.npz scripts/make_flat_golden.py | $(STAMP)
	@$(BIN)/python scripts/make_flat_golden.py $@

$(CHECK)/native: $(CHECK_SOURCES) | $(STAMP)
	@$(BUILD_CHECK) $@

test-driver: $(CHECK)/native $(CHECK)/golden.flat  ## the kernels without Python, on this machine
	@$(CHECK)/native $(CHECK)/golden.flat $(CHECK_ROUNDS)

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

test-sanitize: $(CHECK)/golden.flat  ## the kernels under ASan and UBSan with gcc, and a clang build
	$(call need,gcc,gcc libc6-dev)
	@CC=gcc CFLAGS="$(SANITIZE)" $(BUILD_CHECK) $(CHECK)/sanitized
	@$(CHECK)/sanitized $(CHECK)/golden.flat $(SANITIZE_ROUNDS)
	@echo "gcc: no complaint of AddressSanitizer, UndefinedBehaviorSanitizer"
	$(call need,clang,clang)
	@CC=clang CFLAGS="-O1 -Werror -Wno-pass-failed" $(BUILD_CHECK) $(CHECK)/clang
	@$(CHECK)/clang $(CHECK)/golden.flat $(SANITIZE_ROUNDS)
	@echo "clang: the same bytes, no complaint of -Wall -Wextra"

.PHONY: test-driver
