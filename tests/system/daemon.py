"""Our daemon as a child in the foreground, and the two ways to talk to it: lines in, the admin console.

The ports are those of the ready line; the configs here ask for port 0.
"""

import json
import os
import re
import socket

from check import Process, read, wait_for_ready, write

READY = "server is up"
BASE = {
    "servers": [{"server": "udp", "address": "127.0.0.1", "port": 0}],
    "mgmt_address": "127.0.0.1",
    "mgmt_port": 0,
    "backends": ["graphite"],
}
UDP_AND_TCP = [
    {"server": kind, "address": "127.0.0.1", "port": 0} for kind in ("./servers/udp", "./servers/tcp")
]


class Daemon(Process):
    """`Daemon(program, directory, {"flushInterval": 1000})`; the directory gets a config and a log named `name`."""

    def __init__(self, program, directory, config, name="statsd"):
        self.config = write(os.path.join(directory, f"{name}.json"), json.dumps({**BASE, **config}))
        super().__init__([program, self.config], os.path.join(directory, f"{name}.log"), cwd=directory)

    def wait_ready(self, where=None):
        """Waits for the ready line, in `where` if not on stdout, and learns the ports from it."""
        line = wait_for_ready(self, lambda: re.search(f".*{READY}.*", read(where or self.log)))[0]
        self.ports = {kind: int(port) for kind, port in re.findall(r"(\w+) \S+:(\d+)", line.partition(READY)[2])}
        return self

    def udp(self, *lines):
        """One datagram."""
        send_udp(self.ports["udp"], "\n".join(lines))

    def admin(self, command):
        return ask_admin(self.ports["admin"], command)


def send_udp(port, text):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(text.encode(), ("127.0.0.1", port))


def ask_admin(port, command):
    """The reply to one command, as `echo COMMAND | nc -N` would show it."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as console:
        console.sendall(f"{command}\n".encode())
        console.shutdown(socket.SHUT_WR)
        reply = b""
        while chunk := console.recv(65536):
            reply += chunk
    return reply.decode()
