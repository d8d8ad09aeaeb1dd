#!/bin/bash
# From the original's package to ours: a stand-in with its name, version, conffiles and leavings.
# shellcheck source=packaging/smoke/lib.sh
. "$(dirname "$0")/lib.sh"

if [ "${1:-}" != apart ]; then
	layer sysv bookworm sysvinit-core systemd-standalone-sysusers || exit 1
	for kind in unedited edited code; do
		apart "$0" apart $kind || exit 1
	done
	exit
fi
kind=$2

fresh_root sysv
furnish
policy 0
cp "$DEB" "$ROOT/tmp/statsd.deb"

original=$SCRATCH/original
mkdir -p "$original"/{DEBIAN,etc/statsd,etc/init,usr/share/statsd,usr/share/doc/statsd}
cat >"$original/DEBIAN/control" <<'END'
Package: statsd
Version: 0.10.2-1
Architecture: all
Maintainer: A stand-in <nobody@statsd.invalid>
Description: stand-in for the original's package
END
printf '%s\n' /etc/statsd/localConfig.js /etc/statsd/proxyConfig.js /etc/init/statsd.conf \
	/etc/init/statsd-proxy.conf >"$original/DEBIAN/conffiles"
cat >"$original/DEBIAN/postinst" <<'END'
#!/bin/sh
set -e
useradd -r -M -d /nonexistent -s /bin/false -U _statsd
dpkg-statoverride --add _statsd _statsd 0755 /var/run/statsd
mkdir -p /usr/share/statsd/node_modules/hashring
END
chmod 755 "$original/DEBIAN/postinst"
printf '{\n  graphiteHost: "localhost"\n, graphitePort: 2003\n, port: 8125\n}\n' >"$original/etc/statsd/localConfig.js"
printf '{ nodes: [] }\n' >"$original/etc/statsd/proxyConfig.js"
touch "$original"/etc/init/{statsd,statsd-proxy}.conf "$original/usr/share/statsd/stats.js"
dpkg-deb --root-owner-group -b "$original" "$ROOT/tmp/original.deb" >/dev/null

echo "# over the original's package, config $kind"
check "its package installs" in_root dpkg -i /tmp/original.deb
uid=$(in_root id -u _statsd)
config=$ROOT/etc/statsd/localConfig.js
case $kind in
edited) sed -i 's/, port: 8125/, port: 8225\n, mgmt_port: 8226/' "$config" ;;
code) sed -i "s/^}/, graphite: { globalSuffix: require('os').hostname().split('.')[0] }\n}/" "$config" ;;
esac
cp "$config" "$SCRATCH/before.js"

output=$(in_root dpkg --force-confdef --force-confold -i /tmp/statsd.deb 2>&1)
same "ours installs over it" 0 $?
same "and is configured" "install ok installed" "$(in_root dpkg-query -W -f '${Status}' statsd)"
case $kind in
unedited)
	check "the config is the new one" cmp "$TOP/packaging/localConfig.js" "$config"
	check "the daemon runs on it" in_root statsd-check
	;;
edited)
	check "the config is the administrator's" cmp "$SCRATCH/before.js" "$config"
	check "the daemon runs on it" in_root statsd-check -P 8226
	send 'upgrade.count:2|c' 8225
	counted() { console counters 8226 | grep -Eq '"upgrade.count": 2\b'; }
	check "and counts" until_true 5 counted
	;;
code)
	check "the config is the administrator's" cmp "$SCRATCH/before.js" "$config"
	check "the reason why it does not start is on the terminal" \
		grep -Eq 'localConfig.js.*(require|5)' <<<"$output"
	check "with a word on what that means" grep -q 'was not started' <<<"$output"
	same "it does not run" 3 "$(in_root /etc/init.d/statsd status >/dev/null; echo $?)"
	cp "$TOP/packaging/localConfig.js" "$config"
	check "it starts once the config is mended" in_root /etc/init.d/statsd start
	;;
esac
same "the user is the one that was there" "$uid" "$(in_root id -u _statsd)"
same "the upstart jobs are gone" "" "$(ls "$ROOT/etc/init/" 2>/dev/null)"
same "the override for /var/run/statsd is gone" "" "$(in_root dpkg-statoverride --list '*statsd*')"
check "the scripts and modules are gone" test ! -e "$ROOT/usr/share/statsd"
in_root /etc/init.d/statsd stop >/dev/null
true
