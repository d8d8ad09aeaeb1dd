# statsd. `make run` tries it, `make test` tests it, `make install` installs it.
PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo
CONFIG  ?=
export CARGO_TARGET_DIR ?= $(CURDIR)/target
BIN     := $(CARGO_TARGET_DIR)/release

.PHONY: build run test check system-test bench soak install uninstall deb rpm package-check package-check-boot clean

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
	$(CARGO) bench --locked --bench spread

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(CARGO) doc --locked --no-deps --document-private-items

system-test: build
	tests/system/run.sh $(BIN)/statsd

# Hostile input from new seeds, for SOAK_SECONDS each: the core, and a daemon.
soak:
	SOAK_SECONDS=$${SOAK_SECONDS:-60} $(CARGO) test --locked --test fuzz -- --ignored --nocapture --test-threads=1

# -- Installing, and the packages -------------------------------------------------------------
# Both packages call `install`; by hand: make && make install && systemd-sysusers (see README).
VERSION    := $(shell sed -n "s/^version = \"\(.*\)\"/\1/p" Cargo.toml)
SBINDIR    ?= $(PREFIX)/sbin
MANDIR     ?= $(PREFIX)/share/man
SYSCONFDIR ?= /etc
DEFAULTDIR ?= $(SYSCONFDIR)/default
UNITDIR    ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
SYSCTLDIR  ?= $(PREFIX)/lib/sysctl.d

RENDER := sed -e 's|@SBINDIR@|$(SBINDIR)|g' -e 's|@SYSCONFDIR@|$(SYSCONFDIR)|g' \
    -e '/@HARDENING@/{' -e 'r packaging/systemd/hardening.conf' -e 'd' -e '}'
RENDER_STATSD := -e 's|@NAME@|statsd|g' -e 's|@CONFIG@|localConfig.js|g' \
    -e 's|@SUMMARY@|StatsD metrics daemon|' -e 's|@WHAT@|metrics daemon|g' -e 's|@CHKCONFIG@|2345|' \
    -e 's|@DESCRIPTION@|Adds up metrics that come in by UDP and TCP and sends them to Graphite.|'
RENDER_PROXY := -e 's|@NAME@|statsd-proxy|g' -e 's|@CONFIG@|proxyConfig.js|g' \
    -e 's|@SUMMARY@|StatsD cluster proxy|' -e 's|@WHAT@|metrics proxy|g' -e 's|@CHKCONFIG@|-|' \
    -e 's|@DESCRIPTION@|Sends each metric on to the StatsD daemon that owns its name.|'

install:
	install -d $(addprefix $(DESTDIR),$(SBINDIR) $(MANDIR)/man5 $(MANDIR)/man8 $(SYSCONFDIR)/statsd \
	    $(SYSCONFDIR)/init.d $(DEFAULTDIR) $(UNITDIR) $(SYSUSERSDIR) $(SYSCTLDIR))
	install -m 755 $(BIN)/statsd $(BIN)/statsd-proxy $(DESTDIR)$(SBINDIR)
	sed "s|@VERSION@|$(VERSION)|" packaging/statsd-check > $(DESTDIR)$(SBINDIR)/statsd-check
	chmod 755 $(DESTDIR)$(SBINDIR)/statsd-check
	install -m 644 man/*.5 $(DESTDIR)$(MANDIR)/man5
	install -m 644 man/*.8 $(DESTDIR)$(MANDIR)/man8
	install -m 644 packaging/sysusers.d/*.conf $(DESTDIR)$(SYSUSERSDIR)
	install -m 644 packaging/sysctl.d/*.conf $(DESTDIR)$(SYSCTLDIR)
	for unit in statsd.service statsd.socket statsd-proxy.service; do \
	    $(RENDER) packaging/systemd/$$unit > $(DESTDIR)$(UNITDIR)/$$unit && \
	    chmod 644 $(DESTDIR)$(UNITDIR)/$$unit || exit 1; done
	$(RENDER) $(RENDER_STATSD) packaging/init/statsd.in > $(DESTDIR)$(SYSCONFDIR)/init.d/statsd
	$(RENDER) $(RENDER_PROXY) packaging/init/statsd.in > $(DESTDIR)$(SYSCONFDIR)/init.d/statsd-proxy
	chmod 755 $(DESTDIR)$(SYSCONFDIR)/init.d/statsd $(DESTDIR)$(SYSCONFDIR)/init.d/statsd-proxy
	for file in localConfig.js proxyConfig.js; do `# what an administrator wrote stays` \
	    [ -e $(DESTDIR)$(SYSCONFDIR)/statsd/$$file ] || \
	    install -m 644 packaging/$$file $(DESTDIR)$(SYSCONFDIR)/statsd || exit 1; done
	for file in statsd statsd-proxy; do \
	    [ -e $(DESTDIR)$(DEFAULTDIR)/$$file ] || \
	    install -m 644 packaging/default/$$file $(DESTDIR)$(DEFAULTDIR) || exit 1; done

# Leaves the config files and the user.
uninstall:
	cd $(DESTDIR)/ && rm -f $(addprefix .$(SBINDIR)/,statsd statsd-proxy statsd-check) \
	    $(addprefix .$(MANDIR)/,$(foreach page,$(notdir $(wildcard man/*.5 man/*.8)),man$(subst .,,$(suffix $(page)))/$(page))) \
	    $(addprefix .$(UNITDIR)/,statsd.service statsd.socket statsd-proxy.service) \
	    .$(SYSUSERSDIR)/statsd.conf .$(SYSCTLDIR)/10-statsd.conf \
	    $(addprefix .$(SYSCONFDIR)/init.d/,statsd statsd-proxy)

# In target/package. Without network once `cargo fetch` has run; the same bytes each time.
deb:
	packaging/build-deb
rpm:
	packaging/build-rpm

# As root on Debian 12: every promise about the packages, tried out. package-check-boot is the part
# of it that boots containers.
package-check:
	packaging/smoke/run
package-check-boot:
	packaging/smoke/run 3-boot.sh

clean:
	$(CARGO) clean
