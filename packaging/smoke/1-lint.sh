#!/bin/bash
# What the checkers say, of the packages and of what goes into them.
# shellcheck source=packaging/smoke/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$TOP" || exit 1

# silent DESCRIPTION COMMAND...: ok if it succeeds and says nothing.
silent() {
	local description=$1 output
	shift
	if output=$("$@" 2>&1) && [ -z "$output" ]; then ok "$description"; else fail "$description" "$output"; fi
}

echo "# the packages"
output=$(lintian -EvIL +pedantic --allow-root --tag-display-limit 0 "${DEB%/*}/statsd.changes" 2>&1)
same "lintian finds nothing" "" "$(grep -E '^[A-MO-Z]: ' <<<"$output")"
overrides=$(grep -hvc '^\(#\|$\)' packaging/debian/*lintian-overrides 2>/dev/null)
check "with ${overrides:=0} overrides, two at most" test "$overrides" -le 2
output=$(rpmlint -c packaging/rpm/rpmlint.toml "${RPM%/*}"/*.rpm 2>&1)
same "rpmlint finds no error" "" "$(grep -e ': E: ' <<<"$output"; grep -q ' 0 errors' <<<"$output" || tail -n 1 <<<"$output")"
dpkg-deb -e "$DEB" "$WORK/control"
for call in 'systemd-sysusers ' 'update-rc.d statsd defaults ' 'update-rc.d statsd-proxy defaults-disabled' \
	'invoke-rc.d .*statsd ' 'deb-systemd-helper enable .statsd.service' 'deb-systemd-invoke .*statsd.service'; do
	check "postinst calls $call" grep -q "$call" "$WORK/control/postinst"
done

echo "# shell"
dpkg-deb -x "$DEB" "$WORK/tree"
scripts=("$WORK"/tree/etc/init.d/* "$WORK"/control/p{re,ost}{inst,rm})
for scriptlet in PREIN POSTIN PREUN POSTUN; do
	{ echo '#!/bin/sh'; rpm -qp --qf "%{$scriptlet}\n" "$RPM"; } >"$WORK/$scriptlet.sh"
	scripts+=("$WORK/$scriptlet.sh")
done
# 2086: $1 as rpm's authors write it. 1091: files of the system.
silent "shellcheck: init scripts and maintainer scripts" shellcheck -x -e SC1091,SC2086 "${scripts[@]}"
silent "checkbashisms: the same" checkbashisms "${scripts[@]}"
# 2016: programs for other interpreters, in single quotes.
silent "shellcheck: the programs and these tests" shellcheck -x -e SC2016 packaging/{build-deb,build-rpm,statsd-check} \
	packaging/rpm/link-args packaging/smoke/{run,*.sh}

echo "# man pages"
for page in man/*; do
	silent "mandoc: $page" mandoc -T lint -W warning "$page"
	silent "man: $page" sh -c "man --warnings -l $page >/dev/null"
	silent "groff: $page" sh -c "groff -ww -mandoc -Tutf8 $page >/dev/null"
done

echo "# systemd and config files"
layer systemd bookworm systemd-sysv dbus rpm || exit 1
fresh_root systemd
policy 101
cp "$DEB" "$ROOT/root/statsd.deb"
chroot "$ROOT" dpkg -i /root/statsd.deb >/dev/null 2>&1
mount -t proc proc "$ROOT/proc"
for unit in statsd.service statsd.socket statsd-proxy.service; do
	silent "systemd-analyze verify: $unit" chroot "$ROOT" systemd-analyze verify --man=no "/lib/systemd/system/$unit"
done
same "systemd-sysusers has nothing to say once the user is there" "" \
	"$(chroot "$ROOT" systemd-sysusers statsd.conf 2>&1)"
check "and the user is there" chroot "$ROOT" id _statsd
same "no tmpfiles.d is needed: unit and init script make /run/statsd" "" "$(dpkg -c "$DEB" | grep tmpfiles)"
silent "systemd-sysctl's file: one key" sh -c "! grep -v -e '^#' -e '^net.core.rmem_max = 8388608$' '$ROOT/usr/lib/sysctl.d/10-statsd.conf'"
check "the daemon takes localConfig.js as shipped" chroot "$ROOT" statsd -t /etc/statsd/localConfig.js
check "the proxy takes proxyConfig.js as shipped" chroot "$ROOT" statsd-proxy -t /etc/statsd/proxyConfig.js
umount "$ROOT/proc"
true
