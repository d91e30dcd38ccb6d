# The menu of mica; CMake does the work. `make help` lists the targets.
BUILD ?= build
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
CMAKE_FLAGS ?=
MAKEFLAGS += --no-print-directory
# Everything about the build that another folder must not share goes through this one recipe.
GENERATOR = $(if $(wildcard $(1)/CMakeCache.txt),,$(if $(shell command -v ninja),-G Ninja))
configure = cmake -S . -B $(1) $(call GENERATOR,$(1)) $(CMAKE_FLAGS) $(2) >$(1).log 2>&1 || { cat $(1).log; exit 1; }; rm -f $(1).log
CTEST = ctest --output-on-failure -j $(JOBS) $(CTEST_FLAGS)
SANITIZED = -DMICA_TESTS=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo

all: ## build build/mica, libmica.a and libmica.so
	@scripts/setup.sh build
	@$(call configure,$(BUILD))
	@cmake --build $(BUILD) -j $(JOBS) --target mica mica_static mica_shared

install: ## install command, libraries, headers, mica.pc, CMake package and man page under PREFIX=/usr/local
	@$(MAKE) all
	@cmake --install $(BUILD) --prefix $(PREFIX)

demo: ## fetch a small real model (once) and let it answer a question
	@scripts/setup.sh build demo
	@$(MAKE) all
	@BUILD=$(BUILD) scripts/demo.sh

tutorial: ## fine-tune the demo's model in some minutes, as docs/tutorial-finetune.md tells
	@scripts/setup.sh build demo report
	@$(MAKE) all
	@BUILD=$(BUILD) scripts/tutorial.sh

test: ## build and run the tests
	@scripts/setup.sh build test
	@$(call configure,$(BUILD),-DMICA_TESTS=ON)
	@cmake --build $(BUILD) -j $(JOBS)
	@cd $(BUILD) && $(CTEST) -LE slow

test-full: ## all of CI: slow tests too, GCC and clang with warnings as errors, sanitizers
	@CI=true .ci/run
	@cd $(BUILD) && $(CTEST) -L slow

bench: ## time the kernels of this CPU, and a 1B model of random weights
	@$(MAKE) all
	@cmake --build $(BUILD) -j $(JOBS) --target mica_benches
	@BUILD=$(BUILD) scripts/bench.sh

bench-peers: ## time mica beside other programs that PEERS=peers.json names (see bench/README.md)
	@test -n "$(PEERS)" || { echo "usage: make bench-peers PEERS=peers.json [PEERS_FLAGS='--only decode']; see bench/README.md"; exit 2; }
	@$(MAKE) all
	@cmake --build $(BUILD) -j $(JOBS) --target mica measure bench_limits
	@python3 bench/peers.py run "$(PEERS)" $(PEERS_FLAGS)

bench-train: ## time training beside PyTorch + peft, which TRAIN=train.json names (see bench/README.md)
	@test -n "$(TRAIN)" || { echo "usage: make bench-train TRAIN=train.json [TRAIN_FLAGS='--runs 3']; see bench/README.md"; exit 2; }
	@$(MAKE) all
	@cmake --build $(BUILD) -j $(JOBS) --target mica measure bench_limits
	@python3 bench/train_peers.py run "$(TRAIN)" $(TRAIN_FLAGS)

asan: ## run the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@scripts/setup.sh build test
	@$(call configure,build-asan,$(SANITIZED) -DMICA_SANITIZE=address$(comma)undefined)
	@cmake --build build-asan -j $(JOBS)
	@cd build-asan && $(CTEST) -LE 'slow|no_sanitizer'

tsan: ## run the threaded tests under ThreadSanitizer
	@scripts/setup.sh build test
	@$(call configure,build-tsan,$(SANITIZED) -DMICA_SANITIZE=thread)
	@cmake --build build-tsan -j $(JOBS) --target threaded_tests
	@cd build-tsan && $(CTEST) -L threads

neon: ## cross-compile for 64-bit ARM and run what kernels can break under an emulator
	@scripts/setup.sh build neon
	@$(call configure,build-neon,-DMICA_TESTS=ON -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake)
	@cmake --build build-neon -j $(JOBS) --target mica mica_shared kernel_tests mica_benches
	@cd build-neon && $(CTEST) -L kernels

FUZZ_SECONDS ?= 60
fuzz: ## run every libFuzzer harness for FUZZ_SECONDS=60 (clang)
	@scripts/setup.sh build full
	@CC=clang; export CC; $(call configure,build-fuzz,-DMICA_TESTS=OFF -DMICA_FUZZ=ON -DMICA_SANITIZE=address$(comma)undefined -DCMAKE_BUILD_TYPE=RelWithDebInfo)
	@cmake --build build-fuzz -j $(JOBS)
	@scripts/fuzz.sh build-fuzz $(FUZZ_SECONDS)

format: ## format the sources in place (clang-format)
	@git ls-files '*.c' '*.h' | xargs clang-format -i

lint: ## static analysis (clang-tidy and cppcheck, whichever is installed)
	@$(call configure,$(BUILD))
	@BUILD=$(BUILD) scripts/lint.sh

clean: ## remove the build folders
	@rm -rf $(BUILD) build-asan build-tsan build-neon build-fuzz build-clang

help: ## this list
	@echo "make TARGET:"
	@sed -n 's/^\([a-z-]*\):.* ## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r t d; do printf '  %-12s %s\n' "$$t" "$$d"; done

comma := ,
.PHONY: all install demo tutorial test test-full bench bench-peers bench-train asan tsan neon fuzz format lint clean help
