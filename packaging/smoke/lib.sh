# shellcheck shell=bash
# Shared by the smoke tests: saying ok and FAIL, waiting, and roots to try things out in.
# A test file is run by `run` with TOP (the tree), WORK (scratch space) and DEB, RPM set.

set -uo pipefail
: "${TOP:?}" "${WORK:?}"
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

ok() { echo "ok   $1"; }
fail() {
	echo "FAIL $1"
	[ -z "${2:-}" ] || printf '%s\n' "$2" | tail -n 15 | sed 's/^/     | /'
}

# check DESCRIPTION COMMAND...: ok if it succeeds; its output is shown only when it does not.
check() {
	local description=$1 output
	shift
	if output=$("$@" 2>&1); then ok "$description"; else fail "$description" "$* -> $?: $output"; fi
}

# refuse DESCRIPTION PATTERN COMMAND...: ok if it fails with words like PATTERN.
refuse() {
	local description=$1 pattern=$2 output code
	shift 2
	output=$("$@" 2>&1)
	code=$?
	if [ $code -ne 0 ] && [ $code -ne 124 ] && grep -Eq -- "$pattern" <<<"$output"; then
		ok "$description"
	else
		fail "$description" "$* -> $code: $output"
	fi
}

# same DESCRIPTION EXPECTED ACTUAL
same() {
	if [ "$2" = "$3" ]; then ok "$1"; else fail "$1" "expected: $2
but got:  $3"; fi
}

# until_true SECONDS COMMAND...: tries until it succeeds.
until_true() {
	local deadline=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $deadline ] || return 1
		sleep 0.1
	done
}

# The mirror that this machine's apt uses.
mirror() {
	apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
		awk '$2 == "bookworm" { print $1; exit }'
}

# base SUITE: a minimal Debian, once.
base() {
	local dir=$WORK/$1
	[ -e "$dir.done" ] && return
	rm -rf "$dir"
	debootstrap --variant=minbase --include=iproute2,procps,init-system-helpers,sysvinit-utils \
		"$1" "$dir" "$(mirror)" >"$dir.log" 2>&1 || { tail "$dir.log"; return 1; }
	printf '127.0.0.1 localhost\n::1 localhost\n' >"$dir/etc/hosts"
	touch "$dir.done"
}

# layer NAME SUITE PACKAGE...: a base with more packages on top, once for each list of them.
layer() {
	local dir=$WORK/$1 suite=$2 code
	shift 2
	base "$suite" || return 1
	[ "$(cat "$dir.done" 2>/dev/null)" = "$suite $*" ] && return
	rm -rf "$dir" "$dir.work"
	mkdir -p "$dir" "$dir.work" "$dir.root"
	mount -t overlay overlay "$dir.root" \
		-o "lowerdir=$WORK/$suite,upperdir=$dir,workdir=$dir.work" || return 1
	# Installing within the root starts nothing there.
	printf '#!/bin/sh\nexit 101\n' >"$dir.root/usr/sbin/policy-rc.d"
	chmod 755 "$dir.root/usr/sbin/policy-rc.d"
	cp /etc/resolv.conf "$dir.root/etc/resolv.conf"
	chroot "$dir.root" sh -c \
		"apt-get update -q && apt-get install -qy --no-install-recommends $* && apt-get clean" \
		>"$dir.log" 2>&1
	code=$?
	rm "$dir.root/usr/sbin/policy-rc.d"
	umount "$dir.root"
	[ $code -eq 0 ] || { tail "$dir.log"; return 1; }
	echo "$suite $*" >"$dir.done"
}

# fresh_root LAYER: mounts a throw-away root over a layer and sets ROOT.
fresh_root() {
	local lower
	lower=$WORK/$1:$WORK/$(cut -d' ' -f1 "$WORK/$1.done")
	SCRATCH=$(mktemp -d "$WORK/scratch.XXXXXX")
	mkdir "$SCRATCH/upper" "$SCRATCH/work" "$SCRATCH/root"
	ROOT=$SCRATCH/root
	mount -t overlay overlay "$ROOT" \
		-o "lowerdir=$lower,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work" || return 1
	: >"$ROOT/etc/resolv.conf"
	trap drop_root EXIT
}

drop_root() {
	cd / || return
	umount -R -l "$ROOT" 2>/dev/null
	rm -rf "$SCRATCH"
}

# apart FILE ARGUMENT...: runs a test file again in mount, pid and network namespaces of its own.
apart() {
	unshare --mount --pid --net --uts --ipc --fork --kill-child "$BASH" "$@"
}

# Within these namespaces: what a root needs to be lived in. `in_root COMMAND...` works there.
furnish() {
	mount -t proc proc /proc
	mount -t proc proc "$ROOT/proc"
	mount -t tmpfs tmpfs "$ROOT/run"
	mount --bind /dev "$ROOT/dev"
	ip link set lo up
}
# policy CODE: what policy-rc.d in ROOT says to each start: 0 go ahead, 101 don't.
policy() {
	printf '#!/bin/sh\nexit %s\n' "$1" >"$ROOT/usr/sbin/policy-rc.d"
	chmod 755 "$ROOT/usr/sbin/policy-rc.d"
}
in_root() { chroot "$ROOT" "$@"; }

# console COMMAND [PORT]: the admin console's answer.
console() {
	timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/$1; printf "%s\nquit\n" "$2" >&3; cat <&3' \
		console "${2:-8126}" "$1" 2>/dev/null
}
send() { printf '%s\n' "$1" >"/dev/udp/127.0.0.1/${2:-8125}"; }

# Of the daemon in ROOT, started by its init script:
init() { in_root /etc/init.d/statsd "$@"; }
pid() { cat "$ROOT/run/statsd/statsd.pid"; }
running() { [ "$(readlink "/proc/$1/exe")" = "$ROOT${2:-/usr/sbin/statsd}" ]; } # pid, program
gone() { ! [ -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"; }
counted() { console counters | grep -Eq "\"$1\": $2\b"; }
# code COMMAND...: prints its exit code.
code() { "$@" >/dev/null 2>&1; echo $?; }

# files: what is in ROOT, but for what package managers write.
files() {
	(cd "$ROOT" && find . -xdev \( -path ./proc -o -path ./dev -o -path ./tmp -o -path ./run -o -path ./var/cache \
		-o -path './var/lib/dpkg' -o -path './var/lib/rpm' -o -path './var/log/*' \) -prune -o -print | sort)
}

# newer_deb VERSION FILE: the package again under a later version, with another shipped config.
newer_deb() {
	local dir
	dir=$(mktemp -d "$WORK/deb.XXXXXX")
	dpkg-deb -R "$DEB" "$dir"
	sed -i "s/^Version: .*/Version: $1/" "$dir/DEBIAN/control"
	echo "// of version $1" >>"$dir/etc/statsd/localConfig.js"
	dpkg-deb --root-owner-group -b "$dir" "$2" >/dev/null
	rm -rf "$dir"
}
