// statsd-proxy's configuration; see statsd-proxy(8). The proxy is not started before
// somebody enables it: give it its nodes first.
// After a change: `statsd-proxy -t /etc/statsd/proxyConfig.js`, then `service statsd-proxy reload`.
{
  // The daemons that share the names among them.
  nodes: [
    { host: "127.0.0.1", port: 8125, adminport: 8126 },
  ],

  // Metrics come in by UDP on every address.
  host: "0.0.0.0",
  port: 8127,

  // The admin console, for this machine alone.
  mgmt_address: "127.0.0.1",
  mgmt_port: 8128,

  // A node whose admin port does not answer leaves the ring until it does again.
  checkInterval: 1000,
  cacheSize: 10000,

  // Facility LOCAL0, tag "statsd-proxy".
  log: { backend: "syslog", application: "statsd-proxy" },
}
