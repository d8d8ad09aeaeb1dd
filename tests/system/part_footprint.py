"""What the daemon costs: size of the program, resident memory when idle, threads."""

import os
import statistics
import struct

from check import status_of, wait_until
from daemon import UDP_AND_TCP, Daemon

MAX_PROGRAM = 2_000_000  # bytes
MAX_RESIDENT = 3 * 1024  # KiB
PACKETS = 2000
STARTS = 9


def has_symbols(path):
    """Whether the ELF file (64 bits, little-endian) has a symbol table, which `strip` removes."""
    with open(path, "rb") as file:
        header = file.read(64)
        offset = struct.unpack_from("<Q", header, 40)[0]
        size, count = struct.unpack_from("<HH", header, 58)
        file.seek(offset)
        sections = file.read(size * count)
    return 2 in (struct.unpack_from("<I", sections, i * size + 4)[0] for i in range(count))


def part(checks, options):
    size = os.path.getsize(options.statsd)
    checks.report(size < MAX_PROGRAM, f"footprint: program of {size} bytes", f"more than {MAX_PROGRAM}")
    checks.report(not has_symbols(options.statsd), "footprint: stripped", "it has a symbol table")

    directory = os.path.join(options.work, "footprint")
    os.makedirs(directory)
    idle, used = zip(*(one_start(checks, options.statsd, directory) for _ in range(STARTS)))
    resident(checks, "when idle", idle)
    resident(checks, f"after {PACKETS} small packets", used)


def one_start(checks, program, directory):
    """KiB resident once up, and after some packets."""
    with Daemon(program, directory, {"servers": UDP_AND_TCP, "flushInterval": 1000}) as daemon:
        daemon.wait_ready()
        idle = status_of(daemon.pid)
        for i in range(PACKETS):
            daemon.udp(f"small.counter{i % 10}:1|c")
        # Datagrams keep their order; this one is repeated in case the flood before it filled the socket.
        wait_until(
            "the last name on the console",
            lambda: daemon.udp("small.last:1|c") or "small.last" in daemon.admin("counters"),
        )
        used = status_of(daemon.pid)
        checks.equal("footprint: threads", (idle["Threads"], used["Threads"]), ("1", "1"))
        checks.ends_well("footprint", daemon)
        return [int(fields["VmRSS"].split()[0]) for fields in (idle, used)]


def resident(checks, when, kib):
    """By the median: how much of libc the kernel maps around a fault varies by 300 KiB with libc's random address."""
    median = statistics.median(kib)
    why = f"more than {MAX_RESIDENT}"
    checks.report(median <= MAX_RESIDENT, f"footprint: {median} KiB resident {when} ({min(kib)} to {max(kib)})", why)
