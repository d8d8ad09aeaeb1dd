# statsd. `make run` tries it, `make test` tests it, `make install` installs it.
PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo
CONFIG  ?=
export CARGO_TARGET_DIR ?= $(CURDIR)/target
BIN     := $(CARGO_TARGET_DIR)/release

.PHONY: build run test check system-test bench soak install uninstall deb rpm package-check clean

build:
	$(CARGO) build --release --locked

run: build
	$(BIN)/statsd $(CONFIG)

test:
	$(CARGO) test --locked

# BENCH takes options and cases: make bench BENCH='--quick udp30'
bench: build
	$(CARGO) bench --locked --bench bench -- --daemon '$(BIN)/statsd {config}' \
	    --proxy '$(BIN)/statsd-proxy {config}' $(BENCH)

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --document-private-items

system-test: build
	tests/system/run.sh $(BIN)/statsd

clean:
	$(CARGO) clean
