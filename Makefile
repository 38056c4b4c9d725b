# `make` lists the targets.
.DEFAULT_GOAL := help
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c

# The race detector needs a C compiler; without one the tests run without it.
RACE := $(shell command -v gcc >/dev/null 2>&1 && echo -race)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
V := github.com/gitseal/gitseal/internal/version
COMMIT := $(shell git rev-parse HEAD 2>/dev/null)
DATE := $(shell git log -1 --format=%cI 2>/dev/null)
LDFLAGS := -s -w -X $(V).number=$(VERSION) -X $(V).commit=$(COMMIT) -X $(V).date=$(DATE)

.PHONY: help build image sbom generate demo test check prepare bench chart soak fuzz clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-10s %s\n", $$1, $$2}'

build: ## build bin/seal and bin/agent
	@echo "building bin/seal and bin/agent (some minutes the first time)"
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/seal ./cmd/agent

IMAGE ?= ghcr.io/gitseal/agent
ARCH ?= $(shell go env GOARCH)
# The first that works; docker does when its daemon runs. The image's date is that of
# the commit, so that the same commit makes the same image.
BUILDER ?= $(shell for b in docker podman buildah; do if $$b info >/dev/null 2>&1; then echo $$b; break; fi; done)
EPOCH := $(or $(shell git log -1 --format=%ct 2>/dev/null),0)

image: ## build the agent's image for ARCH, with docker, podman or buildah, and its SBOM
	@test -n "$(BUILDER)" || { echo "no docker, podman or buildah that works; or name one: make image BUILDER=..."; exit 1; }
	CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) go build -trimpath -ldflags '$(LDFLAGS)' -o bin/linux-$(ARCH)/agent ./cmd/agent
	$(call sbom,bin/linux-$(ARCH)/agent)
	SOURCE_DATE_EPOCH=$(EPOCH) $(BUILDER) build --platform linux/$(ARCH) $(if $(filter docker,$(notdir $(firstword $(BUILDER)))),,--timestamp $(EPOCH)) \
		--build-arg TARGETARCH=$(ARCH) --build-arg VERSION='$(VERSION)' --build-arg REVISION='$(COMMIT)' --build-arg CREATED='$(DATE)' \
		--tag '$(IMAGE):$(VERSION)' .

sbom: build ## list what bin/seal and bin/agent are made of, as CycloneDX JSON next to them
	$(call sbom,bin/seal)
	$(call sbom,bin/agent)

# From what Go has recorded in the binary $(1); the same binary gives the same list.
sbom = cd deploy/sbom && CGO_ENABLED=0 GOFLAGS="$${GOFLAGS:-} -trimpath" go tool cyclonedx-gomod bin -json -std -noserial -notimestamp -output-version 1.6 \
	-version '$(VERSION)' -output ../../$(1).cdx.json ../../$(1)

GENERATED = api/v1alpha1/zz_generated.* deploy/base/crds/* deploy/chart/crds/* deploy/install.yaml docs/api.md

generate: ## make the schema, the reference and the copying code of api/, and deploy/install.yaml, anew
	go tool controller-gen object paths=./api/...
	go tool controller-gen crd paths=./api/... output:crd:dir=deploy/base/crds
	go run github.com/elastic/crd-ref-docs@v0.3.0 --log-level=ERROR --source-path=api --config=api/reference.yaml --renderer=markdown --output-path=docs/api.md
	go run ./deploy/gen

demo: build ## run the main job on a real control plane, or on the cluster of KUBECONFIG
	go run ./test/demo -bin bin

prepare: ## build and cache the control plane and the oracles that the tests use
	go run ./test/harness/prepare

test: prepare ## run all tests
	cd test/controlplane && go test $(RACE) ./...
	cd bench/chart && go test $(RACE) ./...
	go test $(RACE) -timeout 30m ./...

check: ## formatting, vet, staticcheck, tidy go.mod
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt these:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	cd test/controlplane && go vet ./...
	cd bench/yardstick && go vet ./...
	cd bench/chart && go vet ./...
	go tool staticcheck ./...
	@before=$$(cat $(GENERATED) | cksum); $(MAKE) -s generate; \
	test "$$before" = "$$(cat $(GENERATED) | cksum)" || { echo "make generate changed something: commit it"; exit 1; }
	go mod tidy -diff
	cd test/controlplane && go mod tidy -diff
	cd test/oracles && go mod tidy -diff
	cd test/oracles/helm && go mod tidy -diff
	cd bench/yardstick && go mod tidy -diff
	cd bench/chart && go mod tidy -diff
	cd deploy/sbom && go mod tidy -diff

OBJECTS ?= 1000

bench: build prepare ## measure trees of OBJECTS (such as 1000,5000), and draw the chart; tables go to docs/performance.md by hand
	go run ./bench -objects $(OBJECTS) -json docs/growth.json
	$(MAKE) chart

chart: ## draw docs/growth.svg from docs/growth.json
	cd bench/chart && go run . ../../docs/growth.json ../../docs/growth.svg

soak: prepare ## the random tests, many times over
	GITSEAL_SOAK=$${GITSEAL_SOAK:-300} go test $(RACE) -timeout 120m -run Soak ./...

FUZZTIME ?= 30s

# Every target that `go test -list` names, one at a time; a crash does not stop the
# others. Minimising is bounded, or it takes all of the time.
fuzz: ## run each fuzz target for FUZZTIME
	@count=0; failed=; \
	for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		targets=$$(go test -list '^Fuzz' $$dir); \
		for target in $$(grep '^Fuzz' <<<"$$targets"); do \
			echo "$$dir $$target"; \
			go test $$dir -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x || failed="$$failed $$dir/$$target"; \
			count=$$((count+1)); \
		done; \
	done; \
	test $$count -gt 0 || { echo "no fuzz target found"; exit 1; }; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }; \
	echo "$$count targets"

clean: ## remove what was built here (the cache of the control plane stays)
	rm -rf bin dist
