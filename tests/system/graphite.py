"""A stand-in for Graphite's line receiver: keeps what it is sent, in order."""

import collections
import socketserver
import threading


class FakeGraphite:
    """Listens on `port` while in its `with` block."""

    def __init__(self):
        received = self.received = []

        class Lines(socketserver.StreamRequestHandler):
            def handle(self):
                for line in self.rfile:
                    received.append(line.decode())

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Lines)
        self.server.daemon_threads = False  # leaving waits for what is still under way
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def series(self):
        """Name to values, each in order of arrival."""
        found = collections.defaultdict(list)
        for line in list(self.received):
            name, value, _ = line.split(" ")
            found[name].append(float(value))
        return found
