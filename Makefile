# ExecRay. `make help` lists what there is; V=1 shows the commands.
Q := $(if $(V),,@)
ARCH := $(shell uname -m)
VENV ?= .venv
PY := $(VENV)/bin/python
CLANG ?= clang
BPF_OUT := bpf/.output
OBJECTS := tracerd/objects/$(ARCH)
FAMILIES := proc sys scan counter
BPF_FLAGS := -O2 -g -target bpf -D__TARGET_ARCH_x86 -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter \
	-fdebug-prefix-map=$(CURDIR)=. -Ibpf/include -Ivmlinux/$(ARCH)
BPF_SOURCES := $(wildcard bpf/*.bpf.c bpf/include/execray/*.h)

.DEFAULT_GOAL := help
.PHONY: help
help: ## this list
	$(Q)awk -F ':.*## ' '/^[a-z][a-z -]*:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BPF_OUT)/%.bpf.o: bpf/%.bpf.c $(BPF_SOURCES)
	$(Q)mkdir -p $(BPF_OUT)
	$(Q)$(CLANG) $(BPF_FLAGS) -c $< -o $@
	$(Q)llvm-strip -g $@
