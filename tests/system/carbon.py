"""A real carbon-cache, Debian's, and what it wrote to its whisper files.

Retention is one second a point, so each flush leaves a point of its own.
"""

import hashlib
import os
import socket
import time

import whisper  # python3-whisper, comes with graphite-carbon

from check import Process, wait_for_ready, write

LINE_PORT, PICKLE_PORT, QUERY_PORT = 2003, 2004, 7002
CONF = f"""
[cache]
DATABASE = whisper
STORAGE_DIR = %(dir)s
LOCAL_DATA_DIR = %(dir)s/whisper
CONF_DIR = %(dir)s
LOG_DIR = %(dir)s
PID_DIR = %(dir)s
ENABLE_LOGROTATION = False
USER =
MAX_CACHE_SIZE = inf
MAX_UPDATES_PER_SECOND = inf
MAX_CREATES_PER_MINUTE = inf
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = {LINE_PORT}
PICKLE_RECEIVER_INTERFACE = 127.0.0.1
PICKLE_RECEIVER_PORT = {PICKLE_PORT}
CACHE_QUERY_INTERFACE = 127.0.0.1
CACHE_QUERY_PORT = {QUERY_PORT}
WHISPER_AUTOFLUSH = True
WHISPER_SPARSE_CREATE = True
CARBON_METRIC_INTERVAL = 0
ENABLE_TAGS = False
TAG_HASH_FILENAMES = True
"""
SCHEMAS = """
[all]
pattern = .*
retentions = 1s:1h
"""
AGGREGATION = """
[all]
pattern = .*
xFilesFactor = 0
aggregationMethod = last
"""


class Carbon(Process):
    """carbon-cache with everything it keeps below `directory`."""

    def __init__(self, directory):
        self.directory = directory
        os.makedirs(os.path.join(directory, "whisper"))
        conf = write(os.path.join(directory, "carbon.conf"), CONF % {"dir": directory})
        write(os.path.join(directory, "storage-schemas.conf"), SCHEMAS)
        write(os.path.join(directory, "storage-aggregation.conf"), AGGREGATION)
        self.began = int(time.time())
        super().__init__(
            ["/usr/bin/carbon-cache", f"--config={conf}", "--nodaemon", "start"],
            os.path.join(directory, "carbon.log"),
            cwd=directory,
        )
        wait_for_ready(self, lambda: listens(LINE_PORT) and listens(PICKLE_PORT))

    def path(self, name):
        """Where carbon 1.1 keeps a series: tagged ones below the hash of the name with its tags sorted."""
        metric, *tags = name.split(";")
        if tags:
            key = hashlib.sha256(";".join([metric, *sorted(tags)]).encode()).hexdigest()
            parts = ["_tagged", key[:3], key[3:6], key]
        else:
            parts = metric.split(".")
        return os.path.join(self.directory, "whisper", *parts) + ".wsp"

    def points(self, name):
        """The values of a series in order of time, one a flush; None while there is no such series."""
        path = self.path(name)
        if not os.path.exists(path):
            return None
        _, values = whisper.fetch(path, self.began - 1, int(time.time()) + 2)
        return [value for value in values if value is not None]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
