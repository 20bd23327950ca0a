# The commands of a day; CI runs the same ones. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)

# What `make run` and `make down` agree on: all state below the default
# directories, all programs from .cache.
RUN_FLAGS := --runtime=embedded --static-pod-path=manifests/static \
	--runtime-bin-dir=.cache/bin --cni-bin-dir=.cache/cni --image-dir=.cache/images

# Integration tests that also run where systemd is init. In the virtual machine,
# which is emulated, a pod takes seconds to start: of test/node it runs what
# depends on the init and the cgroups' version, the container runs all of it.
# What needs a registry (tag registry) runs on this machine alone.
MACHINE_PACKAGES := pkg/qos test/node test/systemd
VM_PACKAGES := pkg/qos test/node='^Test(FirstPod|TwoPodsAreApart|AgentRestartsKeepContainers|InitAndSidecarOrder|.*Namespaces?|SecurityContext)$$' test/systemd
INTEGRATION_PACKAGES := ./pkg/... ./test/node/... ./test/readme/... ./test/dist/...

.PHONY: help build tools image demo-image dist run down test test-unit test-integration test-container test-vm test-dist test-e2e e2e lint bench bench-peers clean conformance

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/nodeagent, one static binary
	@CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/nodeagent ./cmd/nodeagent

tools: ## containerd, runc and the CNI plugins, into .cache
	@hack/build-tools.sh

image: ## bin/nodeagent-image.tar, the agent's OCI image for amd64 and arm64
	@hack/image.sh $(VERSION)

demo-image: ## the demo image, made here from Debian's busybox
	@hack/install.sh busybox-static
	@go run ./hack/mkimage -o .cache/images/busybox.tar

dist: ## what users install, into dist: archives, Debian packages, checksums
	@VERSION='$(VERSION)' hack/dist.sh dist amd64 arm64

run: tools build demo-image ## as root: the demo pods, in a live table
	@hack/install.sh iptables
	@exec bin/nodeagent run $(RUN_FLAGS) --show

down: build ## as root: remove every trace of `make run`
	@exec bin/nodeagent down $(RUN_FLAGS)

test: ## everything, as CI does
	@hack/test.sh

bin/testreport: $(wildcard hack/testreport/*.go)
	@go build -buildvcs=false -o $@ ./hack/testreport

test-unit: bin/testreport ## unit tests, with the race detector
	@[ "$$(id -u)" -ne 0 ] || hack/install.sh dbus-daemon # else its tests are skipped
	@bin/testreport run unit -- go test -race -json ./...

test-integration: bin/testreport tools build demo-image ## real containerd, cgroups and CNI on this machine
	@hack/install.sh dbus-daemon iptables nftables iproute2 util-linux docker-registry
	@bin/testreport run integration -- go test -json -tags integration,registry -count=1 -p 1 -timeout 20m $(INTEGRATION_PACKAGES)

test-container: bin/testreport tools build demo-image ## the same in a container whose init is systemd, on this kernel's cgroups
	@bin/testreport run container -- hack/machine-tests.sh test/systemd-container/run.sh $(MACHINE_PACKAGES)

test-dist: bin/testreport tools build demo-image ## the Debian package and the archive, in a container of their own whose init is systemd
	@bin/testreport run dist -- hack/machine-tests.sh test/systemd-container/run.sh test/dist

test-vm: bin/testreport tools build demo-image ## the same in a virtual machine with systemd and unified cgroups
	@bin/testreport run vm -- hack/machine-tests.sh test/vm/run.sh $(VM_PACKAGES)

e2e: bin/testreport tools build demo-image ## the agent as a node of a real control plane on this machine, through kubectl
	@hack/install.sh iptables iproute2 util-linux
	@hack/build-peers.sh kubectl etcd kube-apiserver kube-controller-manager kube-scheduler
	@bin/testreport run e2e -- hack/e2e.sh $(E2E_FLAGS)

test-e2e: e2e # as a part of `make test`

lint: ## formatting, vet, the linters of .golangci.yml, a tidy go.mod
	@hack/lint.sh

bench: tools build ## figures into docs/bench; BENCH_FLAGS=-short for a quick look
	@hack/install.sh busybox-static iptables iproute2
	@go build -trimpath -buildvcs=false -o bin/bench ./test/bench
	@bin/bench $(BENCH_FLAGS)

conformance: tools build ## Kubernetes' own node tests against the agent; LABELS, FOCUS and CONFORMANCE_PROCS choose
	@test/conformance/run.sh $(if $(LABELS),'$(LABELS)','NodeConformance && !Slow && !Serial') '$(FOCUS)'

bench-peers: ## a kubelet, for `make bench` to measure beside the agent
	@hack/build-peers.sh kubelet

clean: ## forget what was built here
	@rm -rf bin .cache
