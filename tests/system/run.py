"""Runs the parts of the system test; run.sh calls this within namespaces of its own, see there.

The last line is `N passed, N failed`; the exit code is 1 if any check failed.
"""

import argparse
import fcntl
import signal
import socket
import struct
import sys

import part_carbon
import part_clients
import part_footprint
import part_init_script
import part_proxy
import part_syslog
from check import Checks

PARTS = {
    "carbon": part_carbon.part,
    "clients": part_clients.part,
    "init-script": part_init_script.part,
    "footprint": part_footprint.part,
    "proxy": part_proxy.part,
    "syslog": part_syslog.part,  # last: from then on /dev is a private one
}


def loopback_up():
    """`ip link set lo up`, without needing iproute2."""
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, siocgifflags, request))[1]
        fcntl.ioctl(any_socket, siocsifflags, struct.pack("16sH14x", b"lo", flags | iff_up))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--statsd", required=True, help="the program under test")
    parser.add_argument("--work", required=True, help="an empty directory, removed by the caller")
    parser.add_argument("--clients", required=True, help="where the client libraries are")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    loopback_up()
    checks = Checks()
    for name, part in PARTS.items():
        if name in options.parts or not options.parts:
            with checks.part(name):
                part(checks, options)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed or not checks.passed else 0


sys.exit(main())
