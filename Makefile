# mod_drover: build, run, test, install. `make` alone says what there is.
SHELL   := /bin/sh
CARGO   ?= cargo
PREFIX  ?= /usr/local
DESTDIR ?=
PORT    ?= 8000
SECONDS ?= 20
APP     ?= examples/hello.wsgi
# The staged installation and the virtualenvs: ./target, or a place that the workers' user can read when this tree is private.
SHARED  := $(shell sh scripts/shared-dir.sh)
STAGE   := $(SHARED)/stage
TARGET  := $(or $(CARGO_TARGET_DIR),target)
export DROVER_SHARED := $(SHARED)

.DEFAULT_GOAL := help
SOAK := $(or $(MINUTES),10)
.PHONY: help build check unit test soak fuzz asan valgrind bench run stage install uninstall clean provision

help: ## This list.
	@echo "mod_drover: Python web applications in supervised daemon groups, as an Apache httpd module"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "  Variables: MPM=event T=name (test), MINUTES=10 (soak), SECONDS=20 (fuzz), PORT=8000 APP=file.wsgi (run), PREFIX=/usr/local DESTDIR= (install)"

build: ## Build the module, droverd, the worker's extension and drover, for release.
	@sh scripts/provision.sh build
	$(CARGO) build --release --workspace

check: ## Format, lints, documentation, the list of files with unsafe, generated files, heads of files.
	@sh scripts/provision.sh build
	@sh scripts/check.sh

unit: ## The tests that need no httpd.
	@sh scripts/provision.sh build
	$(CARGO) test --workspace --lib --bins

test: ## Every test, with a real httpd under each MPM. MPM=event and T=name choose.
	@sh scripts/provision.sh tests
	@$(MAKE) --no-print-directory stage
	@DROVER_PREFIX=$(STAGE) sh scripts/test.sh "$(MPM)" "$(T)"

soak: ## Random graceful, kills, broken deploys and load together, for MINUTES=10. MPM=event chooses.
	@sh scripts/provision.sh tests
	@$(MAKE) --no-print-directory stage
	@DROVER_PREFIX=$(STAGE) DROVER_SOAK_MINUTES=$(SOAK) RUST_TEST_THREADS=1 sh scripts/test.sh "$(or $(MPM),event)" soak::

fuzz: ## Every parser of outside bytes under libFuzzer and the address sanitizer, SECONDS (20) each.
	@sh scripts/provision.sh fuzz
	@sh scripts/fuzz.sh "$(SECONDS)"

asan: ## The unit tests (wire, sys, droverd, the module's pure parts) under the address sanitizer.
	@sh scripts/provision.sh build
	@sh scripts/asan.sh

valgrind: ## The module in httpd under valgrind, with a fixed series of requests: no invalid access, nothing definitely lost.
	@sh scripts/provision.sh valgrind
	@$(MAKE) --no-print-directory stage
	@sh scripts/valgrind.sh $(STAGE)

bench: ## Compare with the peers, in one interleaved run.
	@sh scripts/provision.sh tests
	@$(MAKE) --no-print-directory stage
	@DROVER_PREFIX=$(STAGE) sh bench/run

run: ## Build, and serve examples/hello.wsgi on http://127.0.0.1:8000/ until Ctrl-C.
	@sh scripts/provision.sh build
	@$(MAKE) --no-print-directory stage
	@exec sh scripts/run.sh $(STAGE) $(APP) $(PORT)

stage: build ## Install below ./target/stage, for tests and `make run`.
	@sh scripts/install.sh "$(TARGET)/release" "$(STAGE)" ""

# Only copies, so that `sudo make install` needs no Rust of root's own; builds if nothing has been built.
install: ## Install what `make build` made below PREFIX; with /usr or /usr/local on Debian also what `a2enmod drover` needs.
	@[ -f "$(TARGET)/release/droverd" ] || $(MAKE) --no-print-directory build
	@sh scripts/install.sh "$(TARGET)/release" "$(PREFIX)" "$(DESTDIR)"

uninstall: ## Remove what `make install` wrote.
	@sh scripts/uninstall.sh "$(PREFIX)" "$(DESTDIR)"

provision: ## Install the packages and virtualenvs that building and testing need.
	@sh scripts/provision.sh tests

clean: ## Remove everything that was built.
	$(CARGO) clean
	rm -rf "$(SHARED)/stage" "$(SHARED)/theirs" "$(SHARED)/venvs"
