# mod_drover: build, run, test, install. `make` alone lists the targets.
#
# Only `deps`, and `run` and `test` which begin with it, install anything. The other targets name
# what is missing.
SHELL   := /bin/sh
CARGO   ?= cargo
PREFIX  ?= /usr/local
DESTDIR ?=
PORT    ?= 8000
SECONDS ?= 20
APP     ?= examples/hello.wsgi
# The staged installation and the virtual environments: ./target, or a directory that the workers'
# user can read when this tree is private.
SHARED  := $(shell sh scripts/shared-dir.sh)
STAGE   := $(SHARED)/stage
TARGET  := $(or $(CARGO_TARGET_DIR),target)
export DROVER_SHARED := $(SHARED)

.DEFAULT_GOAL := help
SOAK := $(or $(MINUTES),10)
.PHONY: help deps build check unit test soak fuzz asan valgrind nightly bench run stage install uninstall clean

help: ## This list.
	@echo "mod_drover: Python web applications in supervised daemon groups, as an Apache httpd module"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "  Variables: MPM=event T=name QUICK=1 (test), MINUTES=10 (soak), SECONDS=20 (fuzz), PORT=8000 APP=file.wsgi (run), PREFIX=/usr/local DESTDIR= (install)"

deps: ## Install the packages and virtual environments that the other targets need. FOR=build: only those for building.
	@sh scripts/deps.sh install "$(or $(FOR),all)"

build: ## Build the module, droverd, the worker's extension and drover, for release.
	@sh scripts/deps.sh missing build
	$(CARGO) build --release --workspace

check: ## What needs no running product: format, lints, documentation, spelling, shell scripts, man pages, dependencies.
	@sh scripts/deps.sh missing check
	@sh scripts/check.sh

unit: ## The tests that need no httpd.
	@sh scripts/deps.sh missing build
	$(CARGO) test --workspace --lib --bins

test: ## Every test, with a real httpd under each MPM. MPM=event and T=name choose; QUICK=1: event only, without the slow ones.
	@sh scripts/deps.sh install test
	@$(MAKE) --no-print-directory stage
	@DROVER_PREFIX=$(STAGE) sh scripts/test.sh "$(MPM)" "$(T)" "$(QUICK)"

soak: ## Random graceful, kills, broken deploys and load together, for MINUTES=10. MPM=event chooses.
	@sh scripts/deps.sh missing test
	@$(MAKE) --no-print-directory stage
	@DROVER_PREFIX=$(STAGE) DROVER_SOAK_MINUTES=$(SOAK) RUST_TEST_THREADS=1 sh scripts/test.sh "$(or $(MPM),event)" soak::

fuzz: ## Every parser of outside bytes under libFuzzer and the address sanitizer, SECONDS (20) each.
	@sh scripts/deps.sh missing fuzz
	@sh scripts/fuzz.sh "$(SECONDS)"

asan: ## The unit tests (wire, sys, droverd, the module's pure parts) under the address sanitizer.
	@sh scripts/deps.sh missing build
	@sh scripts/asan.sh

valgrind: ## The module in httpd under valgrind, with a fixed series of requests: no invalid access, nothing definitely lost.
	@sh scripts/deps.sh missing valgrind
	@$(MAKE) --no-print-directory stage
	@sh scripts/valgrind.sh $(STAGE)

nightly: ## What takes too long for each change: fuzzing, sanitizers, miri, minimal versions, licences and advisories.
	@sh scripts/nightly.sh

bench: ## Compare with the peers, in one interleaved run. Needs `make deps FOR=bench`.
	@sh scripts/deps.sh missing bench
	@$(MAKE) --no-print-directory stage
	@DROVER_PREFIX=$(STAGE) sh bench/run

run: ## Build, and serve examples/hello.wsgi on http://127.0.0.1:8000/ until Ctrl-C.
	@sh scripts/deps.sh install build
	@$(MAKE) --no-print-directory stage
	@exec sh scripts/run.sh $(STAGE) $(APP) $(PORT)

stage: build ## Install below ./target/stage, for tests and `make run`.
	@sh scripts/install.sh "$(TARGET)/release" "$(STAGE)" ""

# Copies only, so that `sudo make install` needs no Rust for root; builds if nothing was built.
install: ## Install what `make build` made below PREFIX. With /usr or /usr/local on Debian, `a2enmod drover` works then.
	@[ -f "$(TARGET)/release/droverd" ] || $(MAKE) --no-print-directory build
	@sh scripts/install.sh "$(TARGET)/release" "$(PREFIX)" "$(DESTDIR)"

uninstall: ## Remove what `make install` wrote.
	@sh scripts/uninstall.sh "$(PREFIX)" "$(DESTDIR)"

clean: ## Remove everything that was built.
	$(CARGO) clean
	rm -rf "$(SHARED)/stage" "$(SHARED)/theirs" "$(SHARED)/venvs"
