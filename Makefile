# ExecRay. `make help` lists what there is; V=1 shows the commands.
Q := $(if $(V),,@)
ARCH := $(shell uname -m)
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
CLANG ?= clang-14
STRIP ?= llvm-strip-14
OBJECTS := tracerd/objects/$(ARCH)
OUT := bpf/.output
FAMILIES := proc sys uring submit scan counter gate
BUILT := $(FAMILIES:%=$(OUT)/%.bpf.o)
BPF_HEADERS := $(wildcard bpf/include/execray/*.h bpf/include/execray/calls/*.h)
# clang calls BPF_PROG's hidden `ctx` an unused parameter
BPF_FLAGS := -O2 -g -target bpf -D__TARGET_ARCH_x86 -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter \
	-fdebug-prefix-map=$(CURDIR)=. -Ibpf/include -Ivmlinux/$(ARCH)
PREFIX ?= /usr/local
RUN_PACKAGES := python3-venv tcpdump libelf1
VM_PACKAGES := qemu-system-x86 mmdebstrap e2fsprogs
DEV_PACKAGES := python3-dev clang-14 clang-format-14 llvm-14 libbpf-dev bpftool gcc libc6-dev systemd man-db zsh fish xfsprogs $(VM_PACKAGES)
CODE := execray tracerd policyd enforcer deploy tests bpf examples

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: ## this list
	$(Q)awk -F ':.*## ' '/^[a-z][a-z -]*:.*## / { printf "  %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## three daemons, one policy, one attack, caught and killed; POLICY=FILE runs it with another policy
	$(Q)$(PY) -m deploy.foreground.demo $(if $(POLICY),--policy $(POLICY))

demo-inline: build ## a reverse shell, killed by the kernel before its first byte leaves; and by the enforcer, for comparison
	$(Q)$(PY) -m deploy.foreground.demo_inline

run: build ## the daemons in the foreground with the shipped policies, audit mode; Ctrl-C ends it
	$(Q)$(PY) -m deploy.foreground.run

# Three parts. BEFORE opens files and starts programs by the thousand, all of which tests of the kernel would see, as
# making the disk of the system tests does. Then the tests of the kernel, one after another, while other processors have the rest
# (tests/conftest.py). Those marked `alone` have the machine to themselves.
BEFORE = tests/unit tests/fuzz
test: dev ## every test, the kernel ones included: as root; ARGS="tests/kernel -k fork" picks some
	$(Q)export EXECRAY_REQUIRE_KERNEL=1; $(if $(ARGS),$(PY) -m pytest -q $(ARGS),\
		$(PY) -m tests.system.machine & disk=$$!; \
		$(PY) -m pytest -q -n auto --dist worksteal -m "not alone" $(BEFORE); first=$$?; \
		wait $$disk && export EXECRAY_DISK=made; \
		$(PY) -m pytest -q -n auto --dist loadgroup -m "not alone" $(addprefix --ignore=,$(BEFORE)); second=$$?; \
		$(PY) -m pytest -q -m alone && exit $$((first + second)))

test-unit: dev ## no root, no kernel
	$(Q)$(PY) -m pytest -q tests/unit tests/component $(ARGS)

test-kernel: dev ## load, attach, trigger, expect
	$(Q)EXECRAY_REQUIRE_KERNEL=1 $(PY) -m pytest -q tests/kernel $(ARGS)

test-system: dev ## the three units under a real systemd, in a virtual machine
	$(Q)EXECRAY_REQUIRE_KERNEL=1 $(PY) -m pytest -q tests/system $(ARGS)

test-vm: dev ## the kernel tests and a kill on Debian's other kernels, in virtual machines; ARGS="6.1 5.10" picks some
	$(Q)$(PY) -m tests.vm $(ARGS)

install: ## the program, units, configuration, man page and completions; PREFIX=/usr/local, DESTDIR= to stage, PYTHON=, COMPILED=no
	$(if $(DESTDIR),,$(call packages,$(RUN_PACKAGES)))
	$(Q)$(PYTHON) -B -m deploy.install install --prefix '$(PREFIX)' $(if $(DESTDIR),--destdir '$(DESTDIR)') \
		$(if $(COMPILED),--compiled '$(COMPILED)')

uninstall: ## the reverse; PURGE=1 removes configuration, state and accounts too
	$(Q)$(PYTHON) -B -m deploy.install uninstall --prefix '$(PREFIX)' $(if $(DESTDIR),--destdir '$(DESTDIR)') $(if $(PURGE),--purge)

evasion: dev ## tricks that hide a theft, a dropped program, an attach or a way to root: which are detected, as root; ARGS=--json
	$(Q)$(PY) -m tests.evasion $(ARGS)

fuzz: dev ## the compiler and the protocols on long random input
	$(Q)$(PY) -m pytest -q tests/fuzz $(ARGS)

properties: dev ## the engine against a plain matcher, and behind the gate, 100,000 random cases; ARGS="--cases 5000 --seed 1"
	$(Q)$(PY) -m tests.properties $(ARGS)

compiled: dev ## .execray/compiled: the tree with engine and decoder as machine code; ARGS="tests/unit/policyd/engine" runs tests there
	$(Q)$(PY) -m deploy.compiled .execray/compiled
	$(if $(ARGS),$(Q)cd .execray/compiled && $(abspath $(PY)) -m pytest -q $(ARGS))

BENCH_TREE = $(CURDIR)$(if $(filter yes,$(COMPILED)),/.execray/compiled)
bench: build ## throughput, kill latency, overhead: a table and bench.json; BENCH_PY=/usr/bin/python3: with another, COMPILED=yes
	$(if $(filter yes,$(COMPILED)),$(Q)$(MAKE) -s compiled ARGS=)
	$(Q)cd $(BENCH_TREE) && PYTHONPATH=$(BENCH_TREE)$(if $(BENCH_PY),:$(abspath $(wildcard $(VENV)/lib/python3*/site-packages)) \
		$(BENCH_PY), $(abspath $(PY))) -m tests.bench --json $(CURDIR)/bench.json $(ARGS)

check: lint types bpf abi-check docs-check ## everything that CI checks beside the tests

lint: dev ## ruff, clang-format
	$(Q)$(VENV)/bin/ruff check $(CODE) && $(VENV)/bin/ruff format --check -q $(CODE)
	$(Q)clang-format-14 --dry-run -Werror bpf/*.c $(BPF_HEADERS) tests/evasion/tricks/*.[ch]

types: dev ## mypy --strict
	$(Q)$(VENV)/bin/mypy

build: $(VENV)/.run ## venv and Debian packages that running needs

dev: $(VENV)/.dev ## the same, and what building and testing need

# Debian packages are asked for only where they are missing, so that a second run touches no network.
define packages
	$(Q)missing=""; for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing$$missing"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
endef

$(VENV)/.run: pyproject.toml
	$(call packages,$(RUN_PACKAGES))
	$(Q)[ -x $(PY) ] || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	$(Q)$(PY) -m pip install -q --disable-pip-version-check -e '.[tracerd,policyd]'
	$(Q)touch $@

$(VENV)/.dev: $(VENV)/.run
	$(call packages,$(DEV_PACKAGES))
	$(Q)$(PY) -m pip install -q --disable-pip-version-check -e '.[tracerd,policyd,dev]'
	$(Q)touch $@

ebpf: bpf
bpf: $(BUILT) ## build the objects and compare them with the shipped ones
	$(Q)for f in $(FAMILIES); do cmp $(OUT)/$$f.bpf.o $(OBJECTS)/$$f.bpf.o || \
		{ echo "$(OBJECTS)/$$f.bpf.o is not what its source builds: make bpf-update (with clang 14)"; exit 1; }; done

bpf-update: $(BUILT) ## ship the objects just built
	$(Q)mkdir -p $(OBJECTS) && cp $(BUILT) $(OBJECTS)/

$(OUT)/%.bpf.o: bpf/%.bpf.c $(BPF_HEADERS) vmlinux/$(ARCH)/vmlinux.h | $(VENV)/.dev
	$(Q)mkdir -p $(OUT)
	$(Q)$(CLANG) $(BPF_FLAGS) -c $< -o $@ && $(STRIP) -g $@

$(OUT)/layout.py: bpf/abi.c bpf/gen_layout.py $(BPF_HEADERS) | $(VENV)/.dev
	$(Q)mkdir -p $(OUT)
	$(Q)$(CLANG) -O2 -g -target bpf -Ibpf/include -Ivmlinux/$(ARCH) -c $< -o $(OUT)/abi.o
	$(Q)PATH=$$PATH:/usr/sbin $(PY) bpf/gen_layout.py $(OUT)/abi.o bpf/include/execray/event.h bpf/include/execray/gate_plan.h \
		bpf/include/execray/inline_plan.h > $@
	$(Q)$(VENV)/bin/ruff check -q --fix $@ && $(VENV)/bin/ruff format -q $@

abi: $(OUT)/layout.py ## rewrite execray/schema/layout.py from the BTF of event.h
	$(Q)cp $< execray/schema/layout.py

abi-check: $(OUT)/layout.py ## the same as a comparison
	$(Q)cmp $< execray/schema/layout.py || { echo "execray/schema/layout.py is stale: make abi"; exit 1; }

vmlinux: ## regenerate vmlinux.h from the running kernel's BTF
	$(Q)/usr/sbin/bpftool btf dump file /sys/kernel/btf/vmlinux format c > vmlinux/$(ARCH)/vmlinux.h

golden: dev ## rewrite golden files, to be read in review
	$(Q)EXECRAY_GOLDEN=1 $(PY) -m pytest -q -k golden

docs: dev ## regenerate the reference pages
	$(Q)$(PY) -m execray.schema.reference > docs/reference/events.md
	$(Q)$(PY) -m policyd.compiler.reference > docs/reference/diagnostics.md
	$(Q)$(PY) -m execray.logreference > docs/reference/logs.md

docs-check: dev ## the same as a comparison
	$(Q)$(PY) -m execray.schema.reference | cmp - docs/reference/events.md
	$(Q)$(PY) -m policyd.compiler.reference | cmp - docs/reference/diagnostics.md
	$(Q)$(PY) -m execray.logreference | cmp - docs/reference/logs.md

clean: ## remove what was built, the venv included
	$(Q)rm -rf $(OUT) $(VENV) .execray bench.json *.egg-info

.PHONY: help demo demo-inline run test test-unit test-kernel test-system test-vm install uninstall evasion fuzz properties compiled bench check lint types build dev ebpf bpf bpf-update abi \
	abi-check vmlinux golden docs docs-check clean
