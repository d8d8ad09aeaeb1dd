"""Two proxies, three daemons, one carbon: counts add up exactly while a daemon is stopped and started.

What was sent to the daemon between its end and the proxies noticing is lost, but counted: `refused`.
Each daemon writes below a prefix of its own, as two of them may count the same name at the same time.
"""

import contextlib
import os
import re
import threading
import time

from carbon import LINE_PORT, Carbon
from check import wait_until
from daemon import Daemon, ask_admin, send_udp

INTERVAL = 3  # seconds: flushes of one daemon, also the last one before its end, are in different seconds
PORTS = [8201, 8202, 8203]  # and 100 more for the admin ports; the network is our own
NAMES = 60
LINES = 10  # in a datagram
PAUSE = 0.002  # seconds between datagrams


def start_daemon(options, directory, number, life):
    config = {
        "servers": [{"server": "udp", "address": "127.0.0.1", "port": PORTS[number]}],
        "mgmt_port": PORTS[number] + 100,
        "flushInterval": INTERVAL * 1000,
        "deleteCounters": True,
        "graphiteHost": "127.0.0.1",
        "graphitePort": LINE_PORT,
        "graphite": {"legacyNamespace": False, "globalPrefix": f"node{number}"},
    }
    return Daemon(options.statsd, directory, config, name=f"node{number}-{life}")


def start_proxy(options, directory, name):
    config = {
        "nodes": [{"host": "127.0.0.1", "port": port, "adminport": port + 100} for port in PORTS],
        "checkInterval": 500,
    }
    program = os.path.join(os.path.dirname(options.statsd), "statsd-proxy")
    return Daemon(program, directory, config, name=name)


class Sender(threading.Thread):
    """Counts up 60 names by way of both proxies in turn, until it is told to stop."""

    def __init__(self, ports):
        super().__init__()
        self.ports = ports
        self.sent = 0
        self.stopping = threading.Event()

    def run(self):
        number = 0
        while not self.stopping.is_set():
            names = (f"cluster.svc{(number * LINES + i) % NAMES}.hits" for i in range(LINES))
            send_udp(self.ports[number % 2], "\n".join(f"{name}:1|c" for name in names))
            number += 1
            self.sent += LINES
            time.sleep(PAUSE)

    def stop(self):
        self.stopping.set()
        self.join()


def status(proxy):
    """The figures of `status`, those of nodes by `NUMBER.NAME`, and the live nodes."""
    text = proxy.admin("status")
    figures = {key: int(value) for key, value in re.findall(r"^(\w+): (\d+)$", text, re.MULTILINE)}
    for port, rest in re.findall(r"^node 127.0.0.1:(\d+): (.*)$", text, re.MULTILINE):
        for key, value in re.findall(r"(\w+) (\d+)(?:,|$)", rest):
            figures[f"{PORTS.index(int(port))}.{key}"] = int(value)
    live = re.search(r"^nodes: (.*)$", text, re.MULTILINE).group(1).split()
    return figures, len(live)


def counted(carbon):
    """What carbon has of the names, from all daemons."""
    total = 0
    for number in range(len(PORTS)):
        for name in range(NAMES):
            points = carbon.points(f"node{number}.counters.cluster.svc{name}.hits.count")
            total += sum(points or [])
    return total


def between_flushes(port):
    """Waits until the last flush is over a second ago, and the next one not due yet."""

    def age():
        found = re.search(r"graphite.last_flush: (\d+)", ask_admin(port, "stats"))
        return found and int(found.group(1)) == 2

    wait_until("a moment between two flushes", age)


def part(checks, options):
    directory = os.path.join(options.work, "proxy")
    os.makedirs(directory)
    with contextlib.ExitStack() as stack:
        carbon = stack.enter_context(Carbon(os.path.join(directory, "carbon")))
        daemons = [start_daemon(options, directory, number, 0) for number in range(len(PORTS))]
        for daemon in daemons:
            stack.enter_context(daemon).wait_ready()
        proxies = [start_proxy(options, directory, f"proxy{number}") for number in range(2)]
        for proxy in proxies:
            stack.enter_context(proxy).wait_ready()
        sender = Sender([proxy.ports["udp"] for proxy in proxies])
        sender.start()
        stack.callback(sender.stop)

        wait_until("lines at every node", lambda: all(status(proxies[0])[0][f"{n}.lines"] > 100 for n in range(3)))
        between_flushes(PORTS[1] + 100)
        checks.ends_well("proxy: a daemon in the midst of traffic", daemons[1])
        for proxy in proxies:
            wait_until("the proxies to notice", lambda: status(proxy)[1] == 2)
        sent = sender.sent
        wait_until("traffic without it", lambda: sender.sent > sent + 2000)
        daemons[1] = stack.enter_context(start_daemon(options, directory, 1, 1)).wait_ready()
        for proxy in proxies:
            wait_until("the proxies to take it back", lambda: status(proxy)[1] == 3)
        sent = sender.sent
        wait_until("traffic with all of them", lambda: sender.sent > sent + 2000)
        sender.stop()

        wait_until(
            "the proxies to have received all",
            lambda: sum(status(proxy)[0]["lines"] for proxy in proxies) == sender.sent,
        )
        figures = [status(proxy)[0] for proxy in proxies]
        refused = sum(f[f"{n}.refused"] for f in figures for n in range(3))
        for what in ("lost", "udp_drops"):
            checks.equal(f"proxy: {what}", sum(f[what] for f in figures), 0)
        checks.equal("proxy: drops", sum(f[f"{n}.drops"] for f in figures for n in range(3)), 0)
        checks.equal("proxy: refused by daemons that never stopped", sum(f["0.refused"] + f["2.refused"] for f in figures), 0)
        for number, proxy in enumerate(proxies):
            checks.ends_well(f"proxy: proxy {number}", proxy)
        for number, daemon in enumerate(daemons):
            between_flushes(PORTS[number] + 100)
            checks.ends_well(f"proxy: daemon {number}", daemon)
        checks.eventually(
            f"proxy: of {sender.sent} lines carbon has all but the {refused} that came back",
            lambda: counted(carbon) + refused,
            sender.sent,
        )
