#!/bin/bash
# The rpm in a root with rpm in it, without Debian's helpers for daemons: install, the init script,
# upgrade, erase. The root has an older glibc than the one the rpm was built with.
# shellcheck source=packaging/smoke/lib.sh
. "$(dirname "$0")/lib.sh"

if [ "${1:-}" != apart ]; then
	layer rpm bullseye rpm || layer rpm bookworm rpm || exit 1
	apart "$0" apart
	exit
fi

fresh_root rpm
furnish
rm -rf "$ROOT/lib/lsb" "$ROOT/sbin/start-stop-daemon" "$ROOT/usr/sbin/invoke-rc.d"

echo "# rpm, on glibc $(in_root ldd --version | sed -n '1s/.* //p')"
# Debian has no rpm database of what is installed, so what is required is looked at here.
same "it requires nothing but a shell, useradd and glibc 2.17" "" "$(rpm -qp --requires "$RPM" | sort -u | grep -v \
	-e '^/bin/\(ba\)\?sh$' -e '^shadow-utils$' -e '^config(' -e '^rpmlib(' -e '^rtld(GNU_HASH)$' \
	-e '^libgcc_s.so.1()\|^libgcc_s.so.1(GCC_[34]' -e '^lib\(dl.so.2\|pthread.so.0\)()' \
	-e '^libc.so.6()' -e '^libc.so.6(GLIBC_2\.\([0-9]\|1[0-7]\)\(\.[0-9]\)*)')"

# The same files as a later version, with another shipped config.
tree=$SCRATCH/tree
mkdir -p "$tree" "$SCRATCH/newer"
(cd "$tree" && rpm2cpio "$RPM" | cpio -id --quiet)
gunzip "$tree"/usr/share/man/man?/*
rm -r "$tree/usr/share/licenses" "$tree/usr/share/doc"
echo "// of version 99" >>"$tree/etc/statsd/localConfig.js"
sed -e 's/^Version:.*/Version: 99.0.0/' -e 's/^%setup.*/%setup -q -c -T/' \
	-e "s,^make build,cp $TOP/LICENSE $TOP/README.md .," -e "s,^make install.*,cp -a $tree/. \$RPM_BUILD_ROOT," "$TOP/target/rpm/SPECS/statsd.spec" \
	>"$SCRATCH/newer/statsd.spec"
check "a later version builds from the spec" rpmbuild -bb --nodeps --define "_topdir $SCRATCH/newer" \
	--define "glibc_floor 2.17" \
	"$SCRATCH/newer/statsd.spec"
cp "$SCRATCH"/newer/RPMS/*/*.rpm "$ROOT/tmp/newer.rpm"
cp "$RPM" "$ROOT/tmp/statsd.rpm"

# Directories that belong to other packages on a system of rpms.
mkdir -p "$ROOT"/usr/lib/{sysctl.d,sysusers.d,systemd/system} "$ROOT"/usr/share/licenses "$ROOT"/etc/{init.d,sysconfig}
in_root rpm --initdb
files >"$SCRATCH/before"
check "the package installs" in_root rpm -i --nodeps /tmp/statsd.rpm
same "the user is made" "/nonexistent:/sbin/nologin" "$(in_root getent passwd _statsd | cut -d: -f6,7)"
same "nothing is started" 3 "$(code init status)"
check "rpm finds the files as packaged" in_root rpm -V --nodeps statsd
same "start gives 0" 0 "$(code init start)"
check "the daemon runs" running "$(pid)"
same "as _statsd" "$(in_root id -u _statsd)" "$(awk '/^Uid:/ { print $2 }' "/proc/$(pid)/status")"
check "statsd-check says that all is well" in_root statsd-check
send 'rpm.count:4|c'
check "a packet is counted" until_true 5 counted rpm.count 4
same "start when running gives 0" 0 "$(code init start)"
same "status gives 0" 0 "$(code init status)"
same "reload gives 0" 0 "$(code init reload)"
same "restart gives 0" 0 "$(code init restart)"
check "the daemon runs" running "$(pid)"
echo 'OPTIONS="--no-such-option"' >"$ROOT/etc/sysconfig/statsd"
refuse "/etc/sysconfig/statsd reaches the daemon" 'no-such-option' in_root timeout 10 /etc/init.d/statsd restart
echo 'OPTIONS=""' >"$ROOT/etc/sysconfig/statsd"
same "start gives 0" 0 "$(code init start)"

echo "# upgrade and erase"
echo "// the administrator's own line" >>"$ROOT/etc/statsd/localConfig.js"
cp "$ROOT/etc/statsd/localConfig.js" "$SCRATCH/edited.js"
was=$(pid)
check "the package upgrades" in_root rpm -U --nodeps /tmp/newer.rpm
check "the edited config is kept" cmp "$SCRATCH/edited.js" "$ROOT/etc/statsd/localConfig.js"
check "the new one is .rpmnew" grep -q 'of version 99' "$ROOT/etc/statsd/localConfig.js.rpmnew"
check "the daemon has been restarted" running "$(pid)"
check "as another process" test "$was" != "$(pid)"
was=$(pid)
rm "$ROOT/etc/statsd/localConfig.js.rpmnew"
check "the package is erased" in_root rpm -e --nodeps statsd
check "the daemon is gone" test ! -d "/proc/$was"
check "the edited config is .rpmsave" cmp "$SCRATCH/edited.js" "$ROOT/etc/statsd/localConfig.js.rpmsave"
rm -r "$ROOT/etc/statsd" "$ROOT/etc/sysconfig/"statsd*.rpmsave
files >"$SCRATCH/after"
same "nothing else is left but the user" "" "$(diff "$SCRATCH/before" "$SCRATCH/after" | grep -v -e '^[0-9]' -e '/etc/[a-z]*-$')"
check "who is there" in_root id _statsd
true
