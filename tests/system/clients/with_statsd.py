"""Sends with the `statsd` package. Arguments: UDP port, TCP port, socket. Last of all, by each way, `done`."""

import random
import sys
from datetime import timedelta

from statsd import StatsClient, TCPStatsClient, UnixSocketStatsClient

random.random = lambda: 0.0  # a sampled value is always sent, so that the sums are known

udp, tcp, socket = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for client in (
    StatsClient("127.0.0.1", udp, prefix="pystatsd.udp"),
    TCPStatsClient("127.0.0.1", tcp, prefix="pystatsd.tcp", timeout=5),
    UnixSocketStatsClient(socket, prefix="pystatsd.unix", timeout=5),
):
    client.incr("count")
    client.incr("count", 5)
    client.decr("count", 2)
    client.incr("sampled", 3, rate=0.1)
    client.gauge("gauge", 10)
    client.gauge("gauge", 5.5, delta=True)
    client.gauge("gauge", -3, delta=True)
    client.gauge("negative", -7)
    client.timing("time", 320)
    client.timing("time", timedelta(seconds=1.5))
    client.timing("sampled_time", 20, rate=0.5)
    with client.timer("block"):
        pass
    for user in ("ann", "bob", "ann"):
        client.set("users", user)
    with client.pipeline() as pipe:  # by UDP more than one datagram of 512 bytes
        for i in range(100):
            pipe.incr("piped")
            pipe.timing("piped_time", i)
    client.incr("done")
    client.close()
