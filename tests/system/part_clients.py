"""Client libraries as people use them: the values that left the program come out at Graphite.

All of them send to one daemon by UDP, TCP and a unix socket; its only flush is the one at SIGTERM, so every series
has one value.
"""

import os
import re
import subprocess

from check import PATIENCE, wait_until
from daemon import UDP_AND_TCP, Daemon
from graphite import FakeGraphite

SQUARES = sum(value * value for value in range(100))


def statsd_package(way):
    name = f"pystatsd.{way}"
    return {
        f"counters.{name}.count.count": 4,
        f"counters.{name}.sampled.count": 30,
        f"counters.{name}.piped.count": 100,
        f"counters.{name}.done.count": 1,
        f"gauges.{name}.gauge": 12.5,
        f"gauges.{name}.negative": -7,
        f"timers.{name}.time.count": 2,
        f"timers.{name}.time.sum": 1820,
        f"timers.{name}.time.upper": 1500,
        f"timers.{name}.sampled_time.count": 2,
        f"timers.{name}.sampled_time.mean": 20,
        f"timers.{name}.block.count": 1,
        f"timers.{name}.piped_time.sum": 4950,
        f"timers.{name}.piped_time.sum_squares": SQUARES,
        f"timers.{name}.piped_time.upper_90": 89,
        f"sets.{name}.users.count": 2,
    }


def datadog_package():
    plain = "datadog.plain"
    return {
        f"counters.{plain}.count.count;env=test": 5,
        f"counters.{plain}.count.count;region=eu;env=test": 10,
        f"counters.{plain}.sampled.count;env=test": 30,
        f"gauges.{plain}.gauge;env=test": 12.5,
        f"gauges.{plain}.gauge_at;env=test": 3,
        f"timers.{plain}.time.mean;env=test": 320,
        f"timers.{plain}.histogram.sum;env=test": 6.5,
        f"timers.{plain}.histogram.median;env=test": 2,
        f"timers.{plain}.distribution.count;region=eu;env=test": 3,
        f"timers.{plain}.distribution.upper;region=eu;env=test": 3.5,
        f"timers.{plain}.block.count;env=test": 1,
        f"sets.{plain}.users.count;env=test": 2,
        "counters.datadog.buffered.count.count": 1000,
        "timers.datadog.buffered.histogram.count": 1000,
        "timers.datadog.buffered.histogram.sum": 499500,
        "timers.datadog.buffered.histogram.upper": 999,
        "counters.datadog.aggregated.count.count": 50,
        "gauges.datadog.aggregated.gauge": 49,
        "timers.datadog.aggregated.distribution.count": 50,
        "timers.datadog.aggregated.distribution.sum": 1225,
    }


def hot_shots(way):
    name = f"hotshots.{way}"
    return {
        f"counters.{name}.count.count;env=test": 5,
        f"counters.{name}.count.count;env=test;region=eu": 10,
        f"counters.{name}.many.a.count;env=test": 7,
        f"counters.{name}.many.b.count;env=test": 7,
        f"counters.{name}.sampled.count;env=test": 30,
        f"counters.{name}.loop.count;env=test": 200,
        f"gauges.{name}.gauge;env=test": 9.5,
        f"timers.{name}.time.count;env=test": 2,
        f"timers.{name}.time.sum;env=test": 400.5,
        f"timers.{name}.histogram.mean;env=test": 6.5 / 3,
        f"timers.{name}.distribution.upper;env=test;region=eu": 3.5,
        f"sets.{name}.users.count;env=test": 2,
    }


HOT_SHOTS_WAYS = ["udp", "udp_buffered", "tcp", "tcp_buffered"]
EXPECTED = {
    "statsd for Python, UDP": statsd_package("udp"),
    "statsd for Python, TCP": statsd_package("tcp"),
    "statsd for Python, unix socket": statsd_package("unix"),
    "datadog for Python, UDP": datadog_package(),
    **{f"hot-shots for Node.js, {way}": hot_shots(way) for way in HOT_SHOTS_WAYS},
}
DONE = [
    *(f"pystatsd.{way}.done" for way in ("udp", "tcp", "unix")),
    "datadog.plain.done",
    *(f"hotshots.{way}.done" for way in HOT_SHOTS_WAYS),
]
EVENTS_AND_CHECKS = 2 + 2 * len(HOT_SHOTS_WAYS)


def part(checks, options):
    directory = os.path.join(options.work, "clients")
    os.makedirs(directory)
    scripts = os.path.join(os.path.dirname(os.path.abspath(__file__)), "clients")
    socket = os.path.join(directory, "statsd.sock")
    python = os.path.join(options.clients, "venv", "bin", "python")
    modules = os.path.join(options.clients, "npm", "node_modules")
    programs = [
        [python, "-B", os.path.join(scripts, "with_statsd.py")],
        [python, "-B", os.path.join(scripts, "with_datadog.py")],
        ["node", os.path.join(scripts, "with_hotshots.js")],
    ]
    with FakeGraphite() as graphite:
        config = {
            "servers": [*UDP_AND_TCP, {"server": "./servers/tcp", "socket": socket, "socket_mod": "0600"}],
            "flushInterval": 600_000,
            "graphiteHost": "127.0.0.1",
            "graphitePort": graphite.port,
            "graphite": {"legacyNamespace": False},
        }
        with Daemon(options.statsd, directory, config) as daemon:
            daemon.wait_ready()
            checks.equal("clients: mode of the unix socket", oct(os.stat(socket).st_mode & 0o7777), "0o600")
            for program in programs:
                done = subprocess.run(
                    [*program, str(daemon.ports["udp"]), str(daemon.ports["tcp"]), socket],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=4 * PATIENCE,
                    env={**os.environ, "NODE_PATH": modules},
                )
                said = (done.stdout + done.stderr).decode()
                checks.report(done.returncode == 0, f"clients: {os.path.basename(program[-1])} runs", said)
            for name in DONE:
                wait_until(f"the counter {name}", lambda: name in daemon.admin("counters"))
            if not checks.ends_well("clients", daemon):
                return
    series = graphite.series()

    for client, expected in EXPECTED.items():
        for name, value in expected.items():
            checks.equal(f"{client}: {name}", series.get(f"stats.{name}"), [value])

    # Events and service checks are no metrics: each is a bad line, and none leaves a series behind.
    bad = sum(series["stats.counters.statsd.bad_lines_seen.count"])
    checks.holds(f"clients: {EVENTS_AND_CHECKS} events and checks are bad lines", bad >= EVENTS_AND_CHECKS, bad)
    top = {re.match(r"stats\.(?:counters\.|timers\.|gauges\.|sets\.)?([^.;]*)", name)[1] for name in series}
    checks.equal("clients: no other series came to be", top, {"pystatsd", "datadog", "hotshots", "statsd"})
