# make demo and make test need a fresh Debian 12 (or 13) with Go, make and gcc,
# and the right to install packages; they need nothing else.

GUEST   := internal/selftest/assets/selftest.img.zst
BINARY  := bin/hurd-qemu-action
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GOFLAGS_BUILD := -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
FUZZTIME ?= 20s

export CGO_ENABLED ?= 1

.PHONY: all build demo test unit lint fuzz bench bench-warm bench-workspace faults soak generate guest packages tools clean

all: build

## packages: install the Debian packages that are missing
packages:
	@testdata/packages

## guest: build the selftest guest that is embedded into the binary
guest: packages
	@testdata/selftest/build --cache build/debs --out $(GUEST)

## build: the binary, with the selftest guest in it
build: guest
	CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o $(BINARY) .

## demo: boot the selftest guest and run a script in it
demo: build
	$(BINARY) run --image selftest --workspace build --run "$$(cat testdata/demo.sh)"

## test: unit tests, golden files, scripts, and end-to-end tests on the selftest guest
# The packages that boot guests come last, and those with tests of time limits by
# themselves. A guest takes one processor: two halves of the end-to-end tests fit
# on two. Under the race detector they take twice their time, which is why only
# those that have much going on at once run with it as well.
HALF  := ^TestE2E(WithoutCapabilities|WarmDamaged|UserData.*|Debug.*|Action|Shell|Timeouts|Killed|Interrupted|StalledReader|Provisioning|Export|FromServer|Mach.*|Benchmark|Debian.*|OnDemand)$$
RACED := ^TestE2E(Shell|Interrupted|Debug|QMP|SerialPort|Shard|Warm)$$
test: guest
	E2E_REQUIRED=1 go test -race -timeout 15m $$(go list ./... | grep -vE '/(lifecycle|e2e|acttest)$$')
	E2E_REQUIRED=1 go test -timeout 5m -run PeakMemory ./internal/snapshot ./internal/image # the race detector takes several times the memory
	go test -tags bench -timeout 5m -run TestBenchParts ./internal/e2e
	E2E_REQUIRED=1 go test -race -timeout 10m ./internal/lifecycle
	export E2E_REQUIRED=1; go test -timeout 20m -run '$(HALF)' ./internal/e2e & half=$$!; \
	go test -timeout 20m -skip '$(HALF)' ./internal/e2e; rest=$$?; wait $$half && exit $$rest
	E2E_REQUIRED=1 go test -race -timeout 10m -run '$(RACED)' ./internal/e2e
	E2E_REQUIRED=1 go test -timeout 15m ./internal/acttest

## unit: the tests that boot no guest
unit:
	go test -race -short ./...

## lint: everything that can be said without running the program
lint: tools
	test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	go vet ./...
	for tags in bench,faults,soak benchworkspace; do go vet -tags $$tags ./internal/e2e || exit; done
	build/tools/golangci-lint run ./...
	build/tools/actionlint
	shellcheck $$(git ls-files -z ':!*.go' | xargs -0 grep -lE '^#!(/usr)?/bin/(env )?(ba|da)?sh' --) $$(git ls-files 'internal/**/*.sh')

tools: packages
	@testdata/tools build/tools

## generate: action.yml and the README's tables, from internal/config
generate:
	go generate ./...

## fuzz: each fuzzer for FUZZTIME
fuzz:
	@testdata/fuzz $(FUZZTIME)

## bench: what the parts take; -benchtime and the rest through BENCHFLAGS
bench: guest
	go test -run '^$$' -bench . $(BENCHFLAGS) ./...

## bench-warm: what a saved machine is worth, beside bare QEMU and a shell recipe: tables and plots in build/bench
# BENCH_ROUNDS=1 is quick; the cold boots of 15 rounds take a quarter of an hour.
bench-warm: build
	E2E_REQUIRED=1 BENCH_PROGRAM=$(CURDIR)/$(BINARY) go test -tags bench -run TestBench -v -timeout 120m ./internal/e2e

## bench-workspace: 50 MB and 2,000 files into a guest and back, beside tar over OpenSSH
bench-workspace: guest
	E2E_REQUIRED=1 go test -tags benchworkspace -run TestBenchWorkspace -v -count=1 -timeout 30m ./internal/e2e

## faults: kill and interrupt runs at random moments
faults: guest
	E2E_REQUIRED=1 go test -tags faults -run TestFault -v -timeout 60m ./internal/e2e

## soak: one run after the other
soak: guest
	E2E_REQUIRED=1 go test -tags soak -run TestSoak -v -timeout 120m ./internal/e2e

clean:
	rm -rf bin build
