# SPDX-License-Identifier: Apache-2.0

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

# Everything is built without cgo: the binaries are static and run on any Linux.
export CGO_ENABLED := 0

VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GOARCH    := $(shell go env GOARCH)
LDFLAGS   := -s -w -X github.com/sealerio/sealer/internal/version.version=$(VERSION)
GOBUILD   := go build -trimpath -ldflags '$(LDFLAGS)'
# End-to-end tests on hosts with the doubles of k3s and k0s: they mostly wait, and so run beside those of Kubernetes itself.
DOUBLES   := ^(TestApply|TestContainerd|TestDistributions|TestDocker|TestExternalEndpoint|TestFaults|TestOpenRC|TestPeers|TestRegistries|TestK3sByHand|TestK0sByHand)$$
CRANE     := github.com/google/go-containerregistry/cmd/crane
GOTESTSUM := go tool -modfile=tools/go.mod gotestsum --no-color
E2E       = $(GOTESTSUM) --format standard-verbose --jsonfile bin/$@.json -- -tags e2e -count=1 -p 1 -timeout 75m
TOOLBOX   := build/toolbox/files/toolbox-linux-$(GOARCH).tar.zst

.PHONY: help build frontend-image test e2e e2e-kubernetes e2e-doubles e2e-upgrade bench bench-ready lint verify demo clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: $(TOOLBOX) ## Build bin/sealer, its sealer-node and sealer-charts, and bin/sealer-frontend
	$(GOBUILD) -o bin/ ./cmd/sealer ./cmd/sealer-node ./cmd/sealer-charts ./cmd/sealer-frontend

frontend-image: build ## Make bin/sealer-frontend.tar, the image behind `\# syntax=`
	bin/sealer builder frontend -t sealer-frontend:$(VERSION) --output bin/sealer-frontend.tar

$(TOOLBOX): hack/toolbox.sh cmd/sealer-fetch/*.go go.mod
	hack/apt.sh hack/apt.txt
	hack/toolbox.sh $(GOARCH)

test: $(TOOLBOX) ## Install what the tests need (Debian packages, Go modules) and run them
	hack/apt.sh hack/apt.txt test/apt.txt
	go vet ./...
	go build -modfile=tools/go.mod -o bin/ $(CRANE)
	PATH=$(CURDIR)/bin:$$PATH $(GOTESTSUM) --format pkgname --format-hide-empty-pkg -- ./...
	cd test/components && go test ./internal/...
	cd test/registries && go test -count=1 ./...

e2e: build ## Run the end-to-end tests: real hosts, real registry, real Kubernetes
	hack/apt.sh hack/apt.txt test/apt.txt test/hosts/apt.txt test/components/apt.txt
	cd test/components/programs && go test -count=1 ./doubles/...
	rm -f bin/e2e-*.json
	+$(MAKE) --no-print-directory -j 2 e2e-kubernetes e2e-doubles || { $(GOTESTSUM) --raw-command -- cat bin/e2e-*.json; exit 1; }

e2e-kubernetes:
	$(E2E) -skip '^TestUpgrade$$|$(DOUBLES)' ./test/...

e2e-doubles:
	SEALER_LAB=$${SEALER_LAB:-lab}-d $(E2E) -run '$(DOUBLES)' ./test/e2e 2>&1 | sed -u 's/^/doubles: /'

e2e-upgrade: build ## Upgrade a real cluster between two minors (compiles a second Kubernetes)
	hack/apt.sh hack/apt.txt test/apt.txt test/hosts/apt.txt test/components/apt.txt
	$(E2E) -run '^TestUpgrade$$' ./test/e2e

demo: build ## Build, push, pull and run a real cluster of two hosts on this machine
	hack/apt.sh hack/apt.txt test/apt.txt test/hosts/apt.txt test/components/apt.txt
	go run ./test/demo

bench: build ## Measure, beside floors and peers in the same run (ONLY=pack,ship for a part)
	hack/apt.sh hack/apt.txt test/apt.txt test/bench/apt.txt
	go build -modfile=tools/go.mod -o bin/ $(CRANE)
	go run ./test/bench -crane bin/crane -only '$(ONLY)'
	go test -run '^$$' -bench . -benchmem ./...

bench-ready: build ## Measure the time to Ready, beside a script of ssh and kubeadm on the same hosts (PAIRS=3)
	hack/apt.sh hack/apt.txt test/apt.txt test/hosts/apt.txt test/components/apt.txt
	go run ./test/ready -pairs $(or $(PAIRS),3)

lint: ## Run golangci-lint
	go tool -modfile=tools/go.mod golangci-lint run ./...
	cd test/components && go tool -modfile=../../tools/go.mod golangci-lint run ./...

verify: lint ## Everything that can be said about the sources without running them
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	go vet -tags e2e ./test/...
	for module in $$(git ls-files go.mod "*/go.mod" | xargs -n 1 dirname); do (cd $$module && go mod tidy -diff) || exit 1; done
	go test -count=1 ./internal/layering
	shellcheck -x -P SCRIPTDIR:rootfs-templates/shared/scripts $$(git ls-files '*.sh')

clean: ## Remove what was built
	rm -rf bin build/toolbox/files/*.zst
