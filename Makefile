# Certferry: build, try, prove. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
TOOLS := $(CURDIR)/.cache/bin
FUZZTIME ?= 10s
export GOFLAGS := -buildvcs=false -trimpath

GOLANGCI_LINT_VERSION := v2.15.0
GOTESTSUM_VERSION := v1.13.0
GOVULNCHECK_VERSION := v1.9.0

.PHONY: help
help: ## Show this help
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: build
build: console ## Build bin/certferry-hub, bin/certferry-agent, bin/certferry and the console
	@mkdir -p bin
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/certferry-hub ./cmd/certferry ./examples/tlssite
	CGO_ENABLED=0 $(GO) build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/certferry-agent

.PHONY: console
console: ## Build the console into console/dist; without Node the hub says how to get it
	@scripts/console

.PHONY: demo
demo: build ## Run the main job before your eyes: make demo [ONCE=1] [ISSUER=acmesh ACME_SH=/path/to/acme.sh]
	@scripts/demo

.PHONY: test
test: ## Install what the tests need (as root on Debian) and run them all with the race detector
	@scripts/test

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## Run the linters
	$(TOOLS)/golangci-lint run ./...
	$(TOOLS)/golangci-lint run --build-tags failpoints ./internal/... ./agent/... ./hub/... ./gitstore/...
	shellcheck -S warning scripts/* .ci/run

.PHONY: verify
verify: $(TOOLS)/golangci-lint $(TOOLS)/govulncheck ## Lint, formatting, generated files, coverage, vulnerabilities, API document, docs
	@scripts/verify

.PHONY: bench
bench: ## Measure against git, go-git and others, side by side: a BENCH line for each comparison
	$(GO) run ./internal/bench $(BENCHFLAGS)
	$(GO) test -run '^$$' -bench Scan ./hub/internal/monitor # 100,000 certificates: the query for what is due beside a walk over all

.PHONY: microbench
microbench: ## Run Go's own benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./gitstore/... ./hub/... ./agent/...

.PHONY: fault
fault: ## Break things at full counts: kill -9, power cuts, full disks, damage: a FAULT line for each
	@scripts/fault

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (default 10s)
	@scripts/fuzz $(FUZZTIME)

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin .cache coverage console/node_modules
	find console/dist -mindepth 1 ! -name .keep -delete

$(TOOLS)/golangci-lint:
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)

$(TOOLS)/govulncheck:
	GOBIN=$(TOOLS) $(GO) install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)

$(TOOLS)/gotestsum:
	GOBIN=$(TOOLS) $(GO) install gotest.tools/gotestsum@$(GOTESTSUM_VERSION)

.PHONY: .cache-gotestsum
.cache-gotestsum: $(TOOLS)/gotestsum
