// statsd's configuration; see statsd.conf(5) for every key.
// After a change: `statsd -t /etc/statsd/localConfig.js`, then `service statsd reload`.
{
  // Where the flushed series go, every flushInterval milliseconds.
  backends: ["./backends/graphite"],
  graphiteHost: "localhost",
  graphitePort: 2003,
  flushInterval: 10000,

  // Metrics come in by UDP on every address.
  port: 8125,

  // The admin console, for this machine alone: `nc 127.0.0.1 8126`, then `help`.
  mgmt_address: "127.0.0.1",
  mgmt_port: 8126,

  // Facility LOCAL0, tag "statsd".
  log: { backend: "syslog" },
}
