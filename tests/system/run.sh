#!/usr/bin/env bash
# The system test: the release binary against real parts (carbon, rsyslog, start-stop-daemon, client libraries).
#
# Usage, as root on Debian: tests/system/run.sh PATH-TO-STATSD [PART ...]
#
# Installs what is missing (Debian's packages; the client libraries go below the target directory and stay for the
# next run), then starts run.py in namespaces of its own: a network that has loopback alone, so that no port clashes
# and nothing leaves the machine; mounts, so that /dev can be a private one; process ids, so that nothing outlives the
# run, however it ends.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
statsd=$(realpath -e "${1:?usage: run.sh PATH-TO-STATSD [PART ...]}")
shift
[ "$(id -u)" = 0 ] || { echo "system-test: must run as root" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/statsd-system.XXXXXX")
chmod 755 "$work" # a daemon that has changed its user reads its config here
policy=/usr/sbin/policy-rc.d
restore_policy() {
    [ -e "$work/policy" ] || return 0
    rm -f $policy
    [ ! -e "$work/policy/policy-rc.d" ] || mv "$work/policy/policy-rc.d" $policy
    rmdir "$work/policy"
}
run=
end_run() { # KILL, as unshare heeds nothing else; the namespaces' first process goes with it, and so do all others
    [ -z "$run" ] || { kill -KILL "$run" && wait "$run"; } 2>/dev/null || true
}
trap 'end_run; restore_policy; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- Debian packages, none of whose services may start -----------------------------------------------------------
missing=()
for package in python3 python3-venv graphite-carbon rsyslog util-linux; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' $package 2>/dev/null)" = installed ] || missing+=("$package")
done
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)

services() { pidof -x carbon-cache rsyslogd | tr ' ' '\n' | sort; }
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing ${missing[*]}"
    services >"$work/before" || true
    mkdir "$work/policy"
    [ ! -e $policy ] || mv $policy "$work/policy/"
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    export DEBIAN_FRONTEND=noninteractive
    apt() { apt-get -qq -o DPkg::Lock::Timeout=120 "$@" >>"$work/apt.log" 2>&1 </dev/null; }
    apt update || true # what matters is whether the packages can be had
    if ! apt install -y --no-install-recommends "${missing[@]}"; then
        cat "$work/apt.log" >&2
        exit 1
    fi
    restore_policy
    services >"$work/after" || true
    comm -13 "$work/before" "$work/after" | xargs --no-run-if-empty kill # ours alone: not there before the install
fi

# --- Client libraries ---------------------------------------------------------------------------------------------
clients=${CARGO_TARGET_DIR:-$work}/system-test
mkdir -p "$clients"
if ! cmp -s "$here/clients/requirements.txt" "$clients/venv/installed" ||
    ! "$clients/venv/bin/python" -c 'import datadog, statsd' 2>/dev/null; then
    echo "installing $(tr '\n' ' ' <"$here/clients/requirements.txt")"
    rm -rf "$clients/venv"
    /usr/bin/python3 -m venv "$clients/venv"
    "$clients/venv/bin/pip" install -q --disable-pip-version-check -r "$here/clients/requirements.txt"
    cp "$here/clients/requirements.txt" "$clients/venv/installed"
fi
if ! cmp -s "$here/clients/package.json" "$clients/npm/package.json" || [ ! -d "$clients/npm/node_modules" ]; then
    echo "installing hot-shots"
    mkdir -p "$clients/npm"
    cp "$here/clients/package.json" "$clients/npm/"
    (cd "$clients/npm" && npm install --silent --omit=optional --ignore-scripts --no-audit --no-fund)
fi

# --- The run. A shell stays as the first process of the new namespace, where it reaps what daemons leave behind. ----
unshare --net --mount --pid --fork --kill-child --mount-proc \
    /bin/sh -c '/usr/bin/python3 -B "$@"; exit $?' sh "$here/run.py" \
    --statsd "$statsd" --work "$work" --clients "$clients" "$@" &
run=$!
status=0
wait $run || status=$? # in the background, so that a signal to this script ends it at once
run=
exit $status
