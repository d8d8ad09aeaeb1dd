#!/bin/bash
# The package in booted containers: with sysvinit as pid 1, and with systemd.
# shellcheck source=packaging/smoke/lib.sh
. "$(dirname "$0")/lib.sh"

# boot: starts ROOT's init and waits for it; then `inside COMMAND...` runs in the container.
boot() {
	systemd-nspawn -q -D "$ROOT" --boot --private-network --register=no --keep-unit \
		--hostname=smoke >"$SCRATCH/console" 2>&1 </dev/null &
	NSPAWN=$!
	trap 'halt; drop_root' EXIT
	until_true 20 leader && LEADER=$(leader) && return
	fail "the container boots" "$(cat "$SCRATCH/console")"
	exit
}
# The child of systemd-nspawn that is pid 1 in a pid space of its own.
leader() {
	local child
	for child in $(pgrep -P "$NSPAWN"); do
		if grep -q '^NSpid:.*[[:space:]]1$' "/proc/$child/status" &&
			[ "$(cat "/proc/$child/comm")" != systemd-nspawn ]; then
			echo "$child"
			return
		fi
	done
	return 1
}
inside() { nsenter -t "$LEADER" -m -u -i -n -p -r -w -- "$@"; }
halt() {
	[ -n "${NSPAWN:-}" ] || return
	kill -KILL "$LEADER" "$NSPAWN" 2>/dev/null
	wait 2>/dev/null
	NSPAWN=
}
console() {
	inside timeout 5 bash -c \
		'exec 3<>/dev/tcp/127.0.0.1/8126; printf "%s\nquit\n" "$1" >&3; cat <&3' console "$1" 2>/dev/null
}
send() { inside bash -c 'echo "$1" >/dev/udp/127.0.0.1/8125' send "$1"; }
configured() { console config | grep -q -- "$1"; }

echo "# sysvinit"
layer sysv bookworm sysvinit-core systemd-standalone-sysusers || exit 1
fresh_root sysv
cp "$DEB" "$ROOT/root/statsd.deb"
policy 101
check "the package installs before the boot" chroot "$ROOT" dpkg -i /root/statsd.deb
rm "$ROOT/usr/sbin/policy-rc.d"
boot
daemon_pid() { inside cat /run/statsd/statsd.pid; }
same "pid 1 is sysvinit" init "$(inside cat /proc/1/comm)"
check "the daemon starts at the boot" until_true 30 inside /etc/init.d/statsd status
check "the proxy does not" bash -c "! test -e $ROOT/run/statsd-proxy"
check "statsd-check says that all is well" until_true 5 inside statsd-check
send 'boot.count:5|c'
check "a packet is counted" until_true 5 counted boot.count 5
pid=$(daemon_pid)
check "service statsd restart works" inside service statsd restart
check "with another process" test "$pid" != "$(daemon_pid)"
check "the package is purged" inside dpkg -P statsd
same "the daemon is gone" "" "$(inside pgrep -x statsd)"
same "and so are the rc links" "" "$(inside find /etc -name '[SK]??statsd*')"
halt
drop_root

echo "# systemd"
layer systemd bookworm systemd-sysv dbus rpm || exit 1
fresh_root systemd
cp "$DEB" "$ROOT/root/statsd.deb"
cp "$RPM" "$ROOT/root/statsd.rpm"
newer_deb 98.0.0 "$ROOT/root/98.deb"
newer_deb 99.0.0 "$ROOT/root/99.deb"
boot
sc() { inside systemctl -q "$@"; }
show() { sc show -P "$1" "${2:-statsd}"; }
state() { echo "$(inside systemctl is-enabled "$1" 2>&1) $(inside systemctl is-active "$1" 2>&1)"; }
is() { [ "$(state "$1")" = "$2" ]; }
exposure() { inside systemd-analyze security --no-pager "$1" | awk '/Overall exposure/ { print $(NF - 2) }'; }
up() { sc is-active statsd; }
drop_in() {
	inside mkdir -p /etc/systemd/system/statsd.service.d
	inside tee /etc/systemd/system/statsd.service.d/smoke.conf >/dev/null
	sc daemon-reload
}
no_drop_in() {
	inside rm -r /etc/systemd/system/statsd.service.d
	sc daemon-reload
}

until_true 30 bash -c "nsenter -t $LEADER -m -n -p -r systemctl is-system-running | grep -q -e running -e degraded"
same "pid 1 is systemd" systemd "$(inside cat /proc/1/comm)"
check "the package installs" inside dpkg -i /root/statsd.deb
same "the daemon is enabled and runs" "enabled active" "$(state statsd)"
same "the proxy is neither" "disabled inactive" "$(state statsd-proxy)"
same "nor is the socket" "disabled inactive" "$(state statsd.socket)"
same "it runs as _statsd" _statsd "$(inside ps -o user= -p "$(show MainPID)")"
for unit in statsd statsd-proxy; do
	figure=$(exposure $unit.service)
	check "exposure of $unit.service: $figure, at most 1.2" awk "BEGIN { exit !($figure > 0 && $figure <= 1.2) }"
done
send 'unit.count:7|c'
check "a packet is counted" until_true 5 counted unit.count 7
check "/etc/init.d/statsd hands over to systemctl" inside /etc/init.d/statsd restart
check "and the daemon runs" until_true 5 up

echo "# systemd: ready, reload, failure"
drop_in <<-'END'
	[Service]
	ExecStart=
	ExecStart=/bin/sh -c 'sleep 2; exec /usr/sbin/statsd /etc/statsd/localConfig.js'
END
sc stop statsd
sc start --no-block statsd
check "not active before the daemon is ready" until_true 2 is statsd "enabled activating"
check "active once it is" until_true 10 is statsd "enabled active"
check "and then it answers" inside statsd-check
no_drop_in
sc restart statsd
pid=$(show MainPID)
inside sed -i 's/flushInterval: 10000/flushInterval: 1000/' /etc/statsd/localConfig.js
check "reload succeeds" sc reload statsd
check "and takes the new config" until_true 5 configured 'flushInterval: 1000'
same "in the same process" "$pid" "$(show MainPID)"
check "and is active again" until_true 5 is statsd "enabled active"
inside cp /etc/statsd/localConfig.js /root/good.js
echo '{ port: 8125 BROKEN' | inside tee /etc/statsd/localConfig.js >/dev/null
refuse "reload with a bad config fails" failed inside systemctl reload statsd
same "and the daemon runs on" "enabled active $pid" "$(state statsd) $(show MainPID)"
sc stop statsd
refuse "start with a bad config fails" failed inside timeout 10 systemctl start statsd
same "with exit code 2, not tried again" "2 0" "$(show ExecMainStatus) $(show NRestarts)"
inside cp /root/good.js /etc/statsd/localConfig.js
check "start succeeds once it is mended" sc start statsd
pid=$(show MainPID)
inside kill -KILL "$pid"
restarted() { up && [ "$(show MainPID)" != "$1" ] && [ "$(show MainPID)" != 0 ]; }
check "killed, it is started again" until_true 10 restarted "$pid"
drop_in <<-'END'
	[Service]
	WatchdogSec=2
END
sc restart statsd
pid=$(show MainPID)
sleep 5
same "the daemon feeds the watchdog" "$pid" "$(show MainPID)"
inside kill -STOP "$pid"
check "stuck, it is started again" until_true 20 restarted "$pid"
check "by the watchdog" until_true 5 inside sh -c 'journalctl -u statsd | grep -qi "watchdog timeout"'
no_drop_in
sc restart statsd

echo "# systemd: the journal"
inside journalctl -q --sync
cursor=$(inside journalctl -n 0 --show-cursor | sed -n 's/^-- cursor: //p')
sc restart statsd
send 'no line at all'
lines() {
	inside journalctl --sync
	inside journalctl -o cat --after-cursor "$cursor" "${@:2}" | grep -c -- "$1"
}
one_line() { [ "$(lines "$1")" = 1 ]; }
check "one journal line for 'server is up'" until_true 5 one_line 'server is up'
check "one journal line for a bad line" until_true 5 one_line 'Bad line'
same "under the daemon's own tag" 1 "$(lines 'server is up' -t statsd)"

echo "# systemd: socket activation"
# A Graphite that keeps what it is sent.
inside perl -MIO::Socket::INET -MIO::Handle -e '
	open my $out, ">", "/root/graphite"; $out->autoflush;
	my $in = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 2003, Listen => 50, ReuseAddr => 1) or die;
	while (my $client = $in->accept) { print $out $_ while <$client> }' &
disown
check "a Graphite listens" until_true 5 inside bash -c 'exec 3<>/dev/tcp/127.0.0.1/2003'
check "the socket unit starts" bash -c "nsenter -t $LEADER -m -n -p -r systemctl stop statsd && nsenter -t $LEADER -m -n -p -r systemctl enable --now statsd.socket"
same "without the daemon" inactive "$(inside systemctl is-active statsd)"
send 'wake.up:1|c'
check "a datagram starts the daemon" until_true 10 up
total=20000
inside perl -MIO::Socket::INET -e '
	my $s = IO::Socket::INET->new(Proto => "udp", PeerAddr => "127.0.0.1:8125") or die;
	for (1 .. $ARGV[0]) { $s->send("sock.count:1|c") or die; select undef, undef, undef, 0.01 unless $_ % 40 }' $total &
sender=$!
restarts=0
while kill -0 $sender 2>/dev/null; do
	sc reset-failed statsd
	sc restart statsd && restarts=$((restarts + 1))
	sleep 0.5
done
arrived() {
	inside awk '$1 ~ /^(stats_counts\.sock\.count|stats\.counters\.sock\.count\.count)$/ { sum += $2 } END { print sum + 0 }' /root/graphite
}
all_arrived() { [ "$(arrived)" -ge "$total" ]; }
until_true 10 all_arrived
same "$total datagrams sent during $restarts restarts are all counted" $total "$(arrived)"
check "there were restarts meanwhile" test $restarts -ge 3
check "one from before the first restart too" inside grep -q wake /root/graphite
check "the socket unit stops" sc disable --now statsd.socket
check "the daemon starts without it" sc restart statsd

echo "# systemd: upgrades"
pid=$(show MainPID)
upgrade() { inside dpkg --force-confold -i "/root/$1.deb"; }
check "the package upgrades" upgrade 98
check "the daemon has been restarted" restarted "$pid"
sc disable --now statsd 2>/dev/null
check "it upgrades while disabled" upgrade 99
same "and stays disabled and stopped" "disabled inactive" "$(state statsd)"
sc mask statsd 2>/dev/null
check "it upgrades while masked" upgrade 98
same "and stays masked and stopped" "masked inactive" "$(state statsd)"
sc unmask statsd 2>/dev/null
sc enable --now statsd 2>/dev/null
check "the proxy can be enabled" sc enable --now statsd-proxy
same "and runs" "enabled active" "$(state statsd-proxy)"
pid=$(show MainPID statsd-proxy)
check "it upgrades while the proxy runs" upgrade 99
check "and the proxy has been restarted" test "$pid" != "$(show MainPID statsd-proxy)" -a "$(show MainPID statsd-proxy)" != 0
check "the package is purged" inside dpkg -P statsd
same "both are gone" "" "$(inside pgrep -x 'statsd(-proxy)?')"
same "and so are the links" "" "$(inside find /etc/systemd /var/lib/systemd -name '*statsd*')"

echo "# systemd: the rpm"
in_place() { inside rpm "$1" --nodeps "${@:2}"; }
check "the rpm installs" in_place -i /root/statsd.rpm
same "nothing is started, and only the daemon is enabled" "inactive disabled inactive disabled inactive" \
	"$(inside systemctl is-active statsd) $(state statsd-proxy) $(state statsd.socket)"
check "the daemon starts" sc start statsd
check "and answers" inside statsd-check
pid=$(show MainPID)
check "the rpm is installed again, as in an upgrade" in_place -U --force /root/statsd.rpm
check "the daemon has been restarted" restarted "$pid"
check "the rpm is erased" in_place -e statsd
same "the daemon is gone" "" "$(inside pgrep -x statsd)"
halt
true
