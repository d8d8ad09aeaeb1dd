"""Graphite, the real one: what was sent by UDP is in carbon's whisper files, to the last digit.

Both protocols times both namespaces run at once, each daemon with names of its own, against one carbon.
"""

import contextlib
import itertools
import math
import os

from carbon import LINE_PORT, PICKLE_PORT, Carbon
from check import wait_until
from daemon import Daemon

INTERVAL = 2  # seconds: two flushes never share one of carbon's one-second points

# One datagram is never split over two flushes, so a round is one point of each series.
ROUNDS = [
    [
        "{p}.c:3|c",
        "{p}.c:4|c\n{p}.c:1|c|@0.1",
        "{p}.t:" + ":".join(f"{value}|ms" for value in range(100, 0, -10)),
        "{p}.sampled:5|ms|@0.25",
        "{p}.g:42|g\n{p}.g:+8|g\n{p}.g:-1.5|g",
        "{p}.s:ann|s\n{p}.s:bob|s\n{p}.s:ann|s",
        "{p}.name with/odd$:1|c",
        "{p}.tag.c:5|c|#env:prod,dc:eu",
        "{p}.tag.t;env=prod:320|ms",
        "{p}.tag.g;env=prod;dc=eu:-0.25|g",
        "{p}.tag.g;env=prod;dc=eu:-0.25|g",
        "{p}.tag.s:x|s|#env:prod",
    ],
    ["{p}.c:6|c", "{p}.t:7.5|ms", "{p}.g:+1|g", "{p}.s:carl|s", "{p}.tag.c:1|c|#env:prod,dc:eu"],
]
LINES = ["\n".join(lines).count("\n") + 1 for lines in ROUNDS]
VALUES = range(10, 101, 10)

# Series, as the new namespace calls it -> its points: without zeros (an interval without a value); for a gauge,
# that repeats itself at every flush, the values it took.
EXPECTED = {
    "counters.{p}.c.count": [17, 6],
    "counters.{p}.c.rate": [17 / INTERVAL, 6 / INTERVAL],
    "counters.{p}.name_with-odd.count": [1],
    "counters.{p}.tag.c.count;env=prod;dc=eu": [5, 1],
    "counters.{p}.tag.c.rate;env=prod;dc=eu": [5 / INTERVAL, 1 / INTERVAL],
    "timers.{p}.t.count": [10, 1],
    "timers.{p}.t.count_ps": [10 / INTERVAL, 1 / INTERVAL],
    "timers.{p}.t.lower": [10, 7.5],
    "timers.{p}.t.upper": [100, 7.5],
    "timers.{p}.t.sum": [550, 7.5],
    "timers.{p}.t.sum_squares": [sum(value * value for value in VALUES), 7.5 * 7.5],
    "timers.{p}.t.mean": [55, 7.5],
    "timers.{p}.t.median": [55, 7.5],
    "timers.{p}.t.std": [math.sqrt(825)],
    "timers.{p}.t.upper_90": [90, 7.5],
    "timers.{p}.t.mean_90": [50, 7.5],
    "timers.{p}.t.count_90": [9, 1],
    "timers.{p}.t.lower_top10": [100, 7.5],
    "timers.{p}.t.upper_99_5": [100, 7.5],
    "timers.{p}.sampled.count": [4],
    "timers.{p}.tag.t.upper;env=prod": [320],
    "gauges.{p}.g": [48.5, 49.5],
    "gauges.{p}.tag.g;env=prod;dc=eu": [-0.5],
    "sets.{p}.s.count": [2, 1],
    "sets.{p}.tag.s.count;env=prod": [1],
    "counters.own.{p}.packets_received.count": [1, 1],
    "counters.own.{p}.metrics_received.count": LINES,
    "counters.own.{p}.bad_lines_seen.count": [],
}
THRESHOLDS = [90, 99.5, -10]


class Run:
    """One daemon sending to carbon."""

    def __init__(self, program, directory, protocol, namespace):
        self.name = f"{protocol}, {namespace} namespace"
        self.prefix = f"{protocol}_{namespace}"
        self.legacy = namespace == "legacy"
        self.daemon = Daemon(
            program,
            directory,
            {
                "flushInterval": INTERVAL * 1000,
                "percentThreshold": THRESHOLDS,
                "prefixStats": f"own.{self.prefix}",
                "graphiteHost": "127.0.0.1",
                "graphitePort": LINE_PORT,
                "graphitePicklePort": PICKLE_PORT,
                "graphiteProtocol": protocol,
                "graphite": {"legacyNamespace": self.legacy, "globalPrefix": "top"},
            },
            name=self.prefix,
        )

    def send(self, lines):
        self.daemon.udp(*(line.format(p=self.prefix) for line in lines))

    def series(self, name):
        """Where this run's namespace puts a series of `EXPECTED`."""
        name = name.format(p=self.prefix)
        if not self.legacy:
            return f"top.{name}"
        kind, _, rest = name.partition(".")
        if kind != "counters":
            return f"stats.{name}"
        metric, semicolon, tags = rest.partition(";")
        metric, _, field = metric.rpartition(".")
        return {"count": "stats_counts.", "rate": "stats."}[field] + metric + semicolon + tags

    def values(self, carbon, name):
        """The points to compare with `EXPECTED`; None where carbon has no such series."""
        points = carbon.points(self.series(name))
        if points is None:
            return None
        points = [point for point in points if point != 0]
        if name.startswith("gauges."):
            points = [point for i, point in enumerate(points) if i == 0 or point != points[i - 1]]
        return points


def part(checks, options):
    directory = os.path.join(options.work, "carbon")
    with contextlib.ExitStack() as stack:
        carbon = stack.enter_context(Carbon(directory))
        runs = []
        for protocol, namespace in itertools.product(["text", "pickle"], ["legacy", "new"]):
            runs.append(Run(options.statsd, directory, protocol, namespace))
            stack.enter_context(runs[-1].daemon).wait_ready()
        for i, lines in enumerate(ROUNDS):
            for run in runs:
                run.send(lines)
            for run in runs:
                wait_until(
                    f"round {i + 1}, {run.name}, in carbon",
                    lambda: len(run.values(carbon, "sets.{p}.s.count") or []) > i,
                )
        for run in runs:
            for name, expected in EXPECTED.items():
                checks.eventually(
                    f"carbon, {run.name}: {run.series(name)}", lambda: run.values(carbon, name), expected
                )
        for run in runs:
            run.send(["{p}.last:7|g"])
            checks.ends_well(f"carbon, {run.name}", run.daemon)
            checks.eventually(
                f"carbon, {run.name}: the last interval", lambda: run.values(carbon, "gauges.{p}.last"), [7]
            )
