#!/bin/bash
# The package in a root, pid space and network of its own, without a service manager: installing,
# the init scripts' contract step by step, upgrade, removal, purge.
# shellcheck source=packaging/smoke/lib.sh
. "$(dirname "$0")/lib.sh"

if [ "${1:-}" != apart ]; then
	layer sysv bookworm sysvinit-core systemd-standalone-sysusers || exit 1
	apart "$0" apart
	exit
fi

fresh_root sysv
furnish
policy 0
cp "$DEB" "$ROOT/tmp/statsd.deb"
newer_deb 99.0.0 "$ROOT/tmp/newer.deb"

reloaded() { console config | grep -q 7000; }

files >"$SCRATCH/before"

echo "# install"
check "the package installs" in_root dpkg -i /tmp/statsd.deb
check "the daemon runs once it is installed" running "$(pid)"
check "it is in a session of its own" test "$(ps -o sid= -p "$(pid)")" != "$(ps -o sid= -p $$)"
same "without a terminal" "?" "$(ps -o tty= -p "$(pid)" | tr -d ' ')"
uid=$(in_root id -u _statsd)
same "it runs as _statsd, with no way back" "$uid $uid $uid $uid" \
	"$(awk '/^Uid:/ { print $2, $3, $4, $5 }' "/proc/$(pid)/status")"
same "it holds no capability" 0000000000000000 "$(awk '/^CapEff:/ { print $2 }' "/proc/$(pid)/status")"
same "the user has no shell and no home" "/nonexistent:/usr/sbin/nologin" \
	"$(in_root getent passwd _statsd | cut -d: -f6,7)"
same "/run/statsd is the user's" "_statsd 755" "$(in_root stat -c '%U %a' /run/statsd)"
send 'smoke.count:3|c'
check "a packet is counted" until_true 5 counted smoke.count 3
check "statsd-check says that all is well" in_root statsd-check
check "the rc links are there" test -e "$ROOT"/etc/rc2.d/S??statsd -a -e "$ROOT"/etc/rc0.d/K??statsd
check "the proxy is neither started nor enabled" \
	bash -c "! ls $ROOT/etc/rc2.d/S??statsd-proxy 2>/dev/null && ! ls $ROOT/run/statsd-proxy 2>/dev/null"

echo "# statsd-check"
verdict() { in_root statsd-check "$@" >/dev/null; echo $?; }
same "a figure within its ranges gives 0" 0 "$(verdict -m messages.bad_lines_seen -w 0 -c 0:9)"
send 'no line'
seen() { console stats | grep -q '^messages.bad_lines_seen: 1$'; }
check "(a bad line is counted)" until_true 5 seen
same "outside the range of -w: 1" 1 "$(verdict -m messages.bad_lines_seen -w 0 -c 5)"
same "outside that of -c: 2, whatever -w says" 2 "$(verdict -m messages.bad_lines_seen -w 5 -c 0)"
same "inside an inverted range: 2" 2 "$(verdict -m messages.bad_lines_seen -c @1:3)"
same "below a lower end: 1" 1 "$(verdict --metric=messages.bad_lines_seen --warning=2:)"
same "no such figure: 3" 3 "$(verdict -m messages.bad -w 1)"
same "no range: 3" 3 "$(verdict -m messages.bad_lines_seen -w many)"
same "nobody there: 2" 2 "$(verdict -P 1)"
in_root bash -c 'exec 3<>/dev/tcp/127.0.0.1/8126; printf "health down\nquit\n" >&3; cat <&3' >/dev/null
same "health is down: 2" 2 "$(verdict)"
same "and 1 for Keepalived" 1 "$(verdict -k)"
in_root bash -c 'exec 3<>/dev/tcp/127.0.0.1/8126; printf "health up\nquit\n" >&3; cat <&3' >/dev/null
same "health is up: 0" 0 "$(verdict -k)"

echo "# the init script"
was=$(pid)
same "start when running gives 0" 0 "$(code init start)"
same "and leaves the daemon alone" "$was" "$(pid)"
same "status when running gives 0" 0 "$(code init status)"
same "so it does for a user who is not root" 0 \
	"$(code in_root setpriv --reuid 65534 --regid 65534 --clear-groups /etc/init.d/statsd status)"
same "stop gives 0" 0 "$(code init stop)"
check "and the daemon is gone" gone "$was"
check "and so is the pidfile" test ! -e "$ROOT/run/statsd/statsd.pid"
same "status when stopped gives 3" 3 "$(code init status)"
same "stop when stopped gives 0" 0 "$(code init stop)"
same "reload when stopped gives 7" 7 "$(code init reload)"
same "try-restart when stopped gives 0" 0 "$(code init try-restart)"
same "and starts nothing" 3 "$(code init status)"
same "restart when stopped gives 0" 0 "$(code init restart)"
check "and starts it" running "$(pid)"
was=$(pid)
same "restart gives 0" 0 "$(code init restart)"
check "with another process" running "$(pid)"
check "and without the one before" gone "$was"
was=$(pid)
sed -i 's/flushInterval: 10000/flushInterval: 7000/' "$ROOT/etc/statsd/localConfig.js"
same "reload gives 0" 0 "$(code init reload)"
check "and takes the new config" until_true 5 reloaded
same "force-reload gives 0" 0 "$(code init force-reload)"
same "both keep the process" "$was" "$(pid)"
same "an unknown action gives 2" 2 "$(code init dance)"

echo "# stale pidfiles"
kill -KILL "$was"
until_true 5 gone "$was"
same "status of a dead daemon with a pidfile gives 1" 1 "$(code init status)"
same "start over a stale pidfile gives 0" 0 "$(code init start)"
check "and starts it" running "$(pid)"
kill -KILL "$(pid)"
sleep 1000 &
stranger=$!
echo $stranger >"$ROOT/run/statsd/statsd.pid"
same "a pidfile with a stranger's pid is stale" 1 "$(code init status)"
same "stop then gives 0" 0 "$(code init stop)"
check "and leaves the stranger alone" kill -0 $stranger
echo $stranger >"$ROOT/run/statsd/statsd.pid"
same "start then gives 0" 0 "$(code init start)"
check "and starts it" running "$(pid)"
check "and leaves the stranger alone" kill $stranger
init stop >/dev/null
echo "no number" >"$ROOT/run/statsd/statsd.pid"
same "start over a pidfile without a number gives 0" 0 "$(code init start)"
check "and starts it" running "$(pid)"

echo "# what goes wrong at a start"
was=$(pid)
cp "$ROOT/etc/statsd/localConfig.js" "$SCRATCH/good.js"
echo '{ port: 8125 BROKEN' >"$ROOT/etc/statsd/localConfig.js"
refuse "reload with a bad config fails with the reason" 'localConfig.js' in_root timeout 5 /etc/init.d/statsd reload
refuse "restart with a bad config fails with the reason" 'localConfig.js' in_root timeout 5 /etc/init.d/statsd restart
check "and the daemon still runs after both" running "$was"
init stop >/dev/null
refuse "start with a bad config fails at once with the reason" 'localConfig.js' in_root timeout 5 /etc/init.d/statsd start
cp "$SCRATCH/good.js" "$ROOT/etc/statsd/localConfig.js"
perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Proto => "udp", LocalAddr => "0.0.0.0", LocalPort => 8125) or die; sleep 60' &
squatter=$!
until_true 5 grep -q ':1FBD ' /proc/net/udp
refuse "start on a taken port fails at once with the reason" '8125' in_root timeout 5 /etc/init.d/statsd start
same "and leaves nothing running" 3 "$(code init status)"
kill $squatter
wait $squatter 2>/dev/null
rm "$ROOT/etc/default/statsd" && rm -rf "$ROOT/run/statsd"
same "start without /etc/default/statsd and /run/statsd gives 0" 0 "$(code init start)"
check "and starts it" running "$(pid)"
echo 'OPTIONS="--no-such-option"' >"$ROOT/etc/default/statsd"
init stop >/dev/null
refuse "OPTIONS reaches the daemon" 'no-such-option' in_root timeout 5 /etc/init.d/statsd start
echo 'OPTIONS="-v"' >"$ROOT/etc/default/statsd"
same "and starts it where it is right" 0 "$(code init start)"

echo "# the proxy"
proxy() { in_root /etc/init.d/statsd-proxy "$@"; }
same "status before any start gives 3" 3 "$(code proxy status)"
same "start gives 0" 0 "$(code proxy start)"
check "and starts it" running "$(cat "$ROOT/run/statsd-proxy/statsd-proxy.pid")" /usr/sbin/statsd-proxy
check "statsd-check says that all is well" in_root statsd-check -P 8128
same "reload gives 0" 0 "$(code proxy reload)"
was=$(cat "$ROOT/run/statsd-proxy/statsd-proxy.pid")

echo "# upgrade"
daemon=$(pid)
echo "// the administrator's own line" >>"$ROOT/etc/statsd/localConfig.js"
cp "$ROOT/etc/statsd/localConfig.js" "$SCRATCH/edited.js"
check "the package upgrades" in_root dpkg --force-confdef --force-confold -i /tmp/newer.deb
check "the edited config is kept" cmp "$SCRATCH/edited.js" "$ROOT/etc/statsd/localConfig.js"
check "the new one lies beside it" grep -q 'of version 99' "$ROOT/etc/statsd/localConfig.js.dpkg-dist"
check "the daemon has been restarted" running "$(pid)"
check "as another process" gone "$daemon"
check "the proxy that ran has been restarted" running "$(cat "$ROOT/run/statsd-proxy/statsd-proxy.pid")" /usr/sbin/statsd-proxy
check "as another process" gone "$was"

echo "# removal and purge"
daemon=$(pid)
was=$(cat "$ROOT/run/statsd-proxy/statsd-proxy.pid")
check "the package is removed" in_root dpkg -r statsd
check "the daemon is gone" gone "$daemon"
check "the proxy is gone" gone "$was"
check "the config is still there" cmp "$SCRATCH/edited.js" "$ROOT/etc/statsd/localConfig.js"
same "the script that stays behind does no harm" 0 "$(code in_root sh /etc/init.d/statsd stop)"
check "the package is purged" in_root dpkg -P statsd
files >"$SCRATCH/after"
same "nothing is left" "" "$(diff "$SCRATCH/before" "$SCRATCH/after" | grep -v -e '^[0-9]' -e '/etc/[a-z]*-$')"
same "nothing is left in /run and /var/log" "" "$(ls -d "$ROOT"/run/statsd* "$ROOT"/var/log/statsd* 2>/dev/null)"
check "but the user" in_root id _statsd

echo "# make install, without a package"
dpkg-deb -x "$DEB" "$SCRATCH/tree"
make_here() { make -C "$TOP" "$1" DESTDIR="$ROOT" BIN="$SCRATCH/tree/usr/sbin"; }
check "make install" make_here install
check "systemd-sysusers finds the user's file" bash -c "chroot $ROOT systemd-sysusers --cat-config | grep -q _statsd"
same "start gives 0" 0 "$(code init start)"
check "the daemon runs" running "$(pid)" /usr/local/sbin/statsd
echo "// the administrator's own line" >>"$ROOT/etc/statsd/localConfig.js"
check "make install again keeps the config" make_here install
check "as it is" grep -q 'own line' "$ROOT/etc/statsd/localConfig.js"
same "stop gives 0" 0 "$(code init stop)"
check "make uninstall" make_here uninstall
same "leaves config files alone" "/etc/default/statsd
/etc/default/statsd-proxy
/etc/statsd
/etc/statsd/localConfig.js
/etc/statsd/proxyConfig.js" "$(cd "$ROOT" && find etc usr \( -name '*statsd*' -o -path '*/etc/statsd/*' -o -path 'etc/statsd/*' \) | sed 's,^,/,' | sort)"
true
