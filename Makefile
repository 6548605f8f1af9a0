# Towline. Every target first sees to its own set-up; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup build demo test unit e2e bench ebpf ebpf-check lint fmt clean

OUT      := $(CURDIR)/out
TARGET   ?= $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),$(CURDIR)/target)
KUBECTL  := $(CURDIR)/.tools/bin/kubectl
PLUGINS  := loopback host-local static ptp bridge towline macvlan flannel ipvlan vlan dummy host-device bandwidth firewall tap tuning sbr portmap vrf
MUSL     := x86_64-unknown-linux-musl
DAEMONS  := -p towline-agent -p towline-cli -p towline-control-plane -p towline-lab

export TOWLINE_OUT := $(OUT)
export TOWLINE_KUBECTL := $(KUBECTL)
export PATH := $(CURDIR)/.tools/bin:$(PATH)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## install whatever is missing (silent when nothing is)
	@./setup.sh

build: setup ## build everything into out/
	cargo build --locked --release $(DAEMONS)
	./plugins/build.sh $(MUSL) $(OUT)/cni/bin $(PLUGINS)
	@mkdir -p $(OUT)/bin
	@for b in towlined towline control-plane lab node-agent; do \
		ln -f $(TARGET)/release/$$b $(OUT)/bin/$$b 2>/dev/null || install -m 0755 $(TARGET)/release/$$b $(OUT)/bin/$$b; \
	done

demo: build ## the main job: a three-node cluster, workloads, the connectivity matrix
	$(OUT)/bin/lab demo --nodes 3

test: unit e2e ## all tests

unit: setup ## unit, property, kernel and control-plane tests
	cargo test --locked --workspace --exclude towline-e2e

e2e: build ## end-to-end tests on the lab
	cargo test --locked -p towline-e2e -- --test-threads=1

bench: build ## ratios against peers, written to docs/benchmarks.md
	cargo run --locked --release --quiet -p towline-bench -- datapath --write docs/benchmarks.md
	cargo run --locked --release --quiet -p towline-bench -- cni --write docs/benchmarks.md
	cargo run --locked --release --quiet -p towline-bench -- leases --write docs/benchmarks.md
	cargo run --locked --release --quiet -p towline-bench -- overlay --write docs/benchmarks.md

ebpf: setup ## rebuild the committed eBPF object
	./ebpf/build.sh

ebpf-check: setup ## rebuild the eBPF object and compare it with the committed one
	./ebpf/build.sh --check

lint: setup ebpf-check ## fmt, clippy, rustdoc, tidy, the eBPF object's hash
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
	cargo run --locked --quiet -p xtask -- tidy

fmt: ## format the code
	cargo fmt --all

clean: ## remove what was built
	rm -rf $(OUT)
	cargo clean
