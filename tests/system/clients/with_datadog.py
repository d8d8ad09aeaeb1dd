"""Sends with the `datadog` package. Argument: UDP port (it has no TCP). Last of all `done`."""

import sys

from datadog.dogstatsd import DogStatsd
from datadog.dogstatsd import base

base.random = lambda: 0.0  # a sampled value is always sent, so that the sums are known

client = DogStatsd(
    host="127.0.0.1",
    port=int(sys.argv[1]),
    namespace="datadog.plain",
    constant_tags=["env:test"],
    container_id="ci-0123456789abcdef",  # `|c:…` and `|card:…` at the end of each line
    cardinality="low",
)
client.increment("count")
client.increment("count", 5)
client.decrement("count", 2)
client.increment("count", 10, tags=["region:eu"])
client.increment("sampled", 3, sample_rate=0.1)
client.gauge("gauge", 12.5)
client.gauge_with_timestamp("gauge_at", 3, 1700000000)  # `|T…`
client.timing("time", 320)
for value in (1, 2, 3.5):
    client.histogram("histogram", value)
    client.distribution("distribution", value, tags=["region:eu"])
with client.timed("block"):
    pass
for user in ("ann", "bob", "ann"):
    client.set("users", user)
client.event("deploy", "all well", tags=["region:eu"])
client.service_check("database", 0, message="it is fine")
client.increment("count")

buffered = DogStatsd(host="127.0.0.1", port=int(sys.argv[1]), namespace="datadog.buffered", disable_buffering=False)
for i in range(1000):
    buffered.increment("count")
    buffered.histogram("histogram", i)
buffered.flush()

aggregated = DogStatsd(
    host="127.0.0.1",
    port=int(sys.argv[1]),
    namespace="datadog.aggregated",
    disable_aggregation=False,
    max_metric_samples_per_context=100,
)
for i in range(50):
    aggregated.increment("count")
    aggregated.gauge("gauge", i)
    aggregated.distribution("distribution", i)
aggregated.flush_aggregated_metrics()
aggregated.flush()
aggregated.flush_buffered_metrics()

client.increment("done")
