#!/bin/bash
# The same bytes from another place, what the programs need and how they are hardened, piuparts.
# shellcheck source=packaging/smoke/lib.sh
. "$(dirname "$0")/lib.sh"

echo "# rebuilt elsewhere"
elsewhere=$(mktemp -d "$WORK/elsewhere.XXXXXX")
(cd "$TOP" && tar -c --exclude ./target --exclude ./.git --exclude ./debian .) | tar -x -C "$elsewhere"
for kind in deb rpm; do
	check "$kind builds without network" unshare --net make -C "$elsewhere" $kind
done
for package in "$DEB" "$RPM"; do
	same "${package##*/} has the same bytes" "$(sha256sum <"$package")" \
		"$(sha256sum <"$elsewhere/target/package/${package##*/}")"
done

echo "# the programs"
mkdir -p "$elsewhere/deb" "$elsewhere/rpm"
dpkg-deb -x "$DEB" "$elsewhere/deb"
(cd "$elsewhere/rpm" && rpm2cpio "$RPM" | cpio -id --quiet)
newest() { objdump -T "$1"/usr/sbin/statsd{,-proxy} | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1; }
same "the rpm's need glibc 2.17" GLIBC_2.17 "$(newest "$elsewhere/rpm")"
ok "the deb's need $(newest "$elsewhere/deb"), and so its $(dpkg-deb -f "$DEB" Depends | grep -o 'libc6[^,]*')"
for dir in deb rpm; do
	for program in statsd statsd-proxy; do
		# Rust checks bounds itself: it has no stack protector, fortified functions or CET of its own.
		check "hardening-check: $dir, $program (PIE, read-only relocations, immediate binding)" \
			hardening-check --nostackprotector --nofortify --nocfprotection \
			"$elsewhere/$dir/usr/sbin/$program"
	done
done

echo "# piuparts"
# A root that has what the package depends on: the leavings of systemd are not ours.
layer sysv bookworm sysvinit-core systemd-standalone-sysusers || exit 1
fresh_root sysv
rmem_max=$(cat /proc/sys/net/core/rmem_max)
check "piuparts: install, remove, purge, again" piuparts --existing-chroot="$ROOT" \
	--distribution=bookworm --mirror="$(mirror) main" --no-adequate "$DEB"
same "installed in a chroot it leaves this machine's rmem_max alone" "$rmem_max" "$(cat /proc/sys/net/core/rmem_max)"
rm -rf "$elsewhere"
true
