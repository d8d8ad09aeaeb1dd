//! The configuration as the rest of the program sees it: typed, checked, with defaults filled in.
//!
//! Field docs name the key of the file and only what its entry in [`super::keys`] does not say.
//! Times are [`Duration`]s here, milliseconds in the file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::network::Network;

/// Everything the aggregator reads from its config file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where flushes go: `backends`.
    pub backends: Vec<BackendKind>,
    /// What to listen on: `servers`, or one made from the top-level keys.
    pub servers: Vec<ServerConfig>,
    /// The admin console.
    pub mgmt: MgmtConfig,
    /// Keys shared by both programs.
    pub common: Common,
    /// `dumpMessages`: log each line.
    pub dump_messages: bool,
    /// `flushInterval`.
    pub flush_interval: Duration,
    /// `flushAlign`: flushes fall on multiples of the interval of the wall clock.
    pub flush_align: bool,
    /// `percentThreshold`, in the order given, without repeats.
    pub percent_threshold: Vec<f64>,
    /// `flush_counts`.
    pub flush_counts: bool,
    /// `keyFlush`, when its interval is above zero.
    pub key_flush: Option<KeyFlush>,
    /// Idle policy, `deleteIdleStats` already resolved into the four.
    pub delete_counters: bool,
    /// See `delete_counters`.
    pub delete_timers: bool,
    /// See `delete_counters`.
    pub delete_sets: bool,
    /// See `delete_counters`.
    pub delete_gauges: bool,
    /// `gaugesMaxTTL`: intervals; anything but an integer above 1 means 1.
    pub gauges_max_ttl: u32,
    /// `prefixStats`.
    pub prefix_stats: String,
    /// `keyNameSanitize`.
    pub key_name_sanitize: bool,
    /// `calculatedTimerMetrics`; empty means all.
    pub calculated_timer_metrics: Vec<String>,
    /// `histogram`: first match on substring wins.
    pub histogram: Vec<Histogram>,
    /// `console.prettyprint`.
    pub console_prettyprint: bool,
    /// `graphite…` keys.
    pub graphite: GraphiteConfig,
    /// `repeater`.
    pub repeater: Vec<Target>,
    /// `repeaterProtocol`.
    pub repeater_protocol: RepeaterProtocol,
    /// `repeaterBufferBytes`: waiting for one tcp target at most.
    pub repeater_buffer_bytes: usize,
    /// `shutdownTimeout`: the last flush must be delivered within it.
    pub shutdown_timeout: Duration,
    /// `stateFile`, off by default.
    pub state_file: Option<PathBuf>,
    /// `stateMaxAge`: an older state file is not read.
    pub state_max_age: Duration,
    /// The bounds on what input can make us keep.
    pub limits: Limits,
}

/// Keys that both programs have.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    /// `debug`.
    pub debug: bool,
    /// `title`.
    pub title: Title,
    /// `log`.
    pub log: LogConfig,
    /// `automaticConfigReload`.
    pub automatic_config_reload: bool,
    /// The file as read, in its order, for the `config` command: `(key, value as text)` with
    /// `key > sub` for members, followed by the known scalar keys that the file leaves out.
    pub listing: Vec<(String, String)>,
}

/// Everything the proxy reads from its config file.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyConfig {
    /// `nodes`.
    pub nodes: Vec<NodeConfig>,
    /// What to listen on.
    pub servers: Vec<ServerConfig>,
    /// The admin console.
    pub mgmt: MgmtConfig,
    /// Keys shared by both programs.
    pub common: Common,
    /// `checkInterval`.
    pub check_interval: Duration,
    /// `cacheSize`: names whose node is remembered.
    pub cache_size: usize,
    /// `forkCount`: processes; 0 and 1 mean no fork.
    pub fork_count: ForkCount,
    /// `maxDatagram`: bytes.
    pub max_datagram: usize,
    /// `nodeQueueBytes`: waiting for one node at most.
    pub node_queue_bytes: usize,
    /// `prefixStats`, for the own counters.
    pub prefix_stats: String,
    /// `proxyStats`: own counters through the ring every so often; `None` is off.
    pub stats_interval: Option<Duration>,
    /// `shutdownTimeout`.
    pub shutdown_timeout: Duration,
    /// The bounds on what input can make us keep (those on connections and lines).
    pub limits: Limits,
}

/// A node of the proxy's ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// As written; `host:port` is the node's name on the ring.
    pub host: String,
    /// UDP port for lines.
    pub port: u16,
    /// TCP port of its admin console.
    pub admin_port: u16,
}

/// `forkCount`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkCount {
    /// One for each processor.
    Auto,
    /// So many.
    Number(usize),
}

/// A name in `backends`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// `graphite`.
    Graphite,
    /// `console`.
    Console,
    /// `repeater`.
    Repeater,
}

/// One entry of `servers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// udp or tcp.
    pub kind: ServerKind,
    /// `address`, as written; `None` is every address.
    pub address: Option<String>,
    /// `address_ipv6`: without an `address`, listen on `::` (and so on IPv4 too).
    pub ipv6: bool,
    /// `port`; 0 takes a free one.
    pub port: u16,
    /// `socket`: tcp only, a unix stream socket instead of a port.
    pub socket: Option<PathBuf>,
    /// `socket_mod`: permission bits of the socket file.
    pub socket_mode: Option<u32>,
    /// `receiveBuffer`: bytes asked for, UDP only.
    pub receive_buffer: usize,
}

/// `server`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// Datagrams.
    Udp,
    /// Streams of lines.
    Tcp,
}

/// The admin console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MgmtConfig {
    /// `mgmt_address`; `None` is every address.
    pub address: Option<String>,
    /// `mgmt_port`; 0 takes a free one.
    pub port: u16,
    /// `mgmt_allow`: networks that may change things, beside loopback.
    pub allow: Vec<Network>,
}

/// `title`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Title {
    /// Not set: the program's name and its arguments, as the original.
    CommandLine,
    /// `false`: leave it alone.
    Leave,
    /// This text.
    Text(String),
}

/// `log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `backend: "syslog"`; otherwise stdout.
    pub syslog: bool,
    /// `application`: the tag.
    pub application: String,
    /// `level`: of lines that have none of their own (`LOG_INFO`).
    pub level: Severity,
}

/// Severity of a log line, as syslog names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Severity {
    Emerg,
    Alert,
    Crit,
    Err,
    Warning,
    Notice,
    Info,
    Debug,
}

/// `keyFlush`.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyFlush {
    /// Every so often.
    pub interval: Duration,
    /// Of the names, the most frequent first.
    pub percent: f64,
    /// The file to append to; stdout without one.
    pub log: Option<PathBuf>,
}

/// One entry of `histogram`.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Substring of the timer's name.
    pub metric: String,
    /// Upper limits, not included; infinity is `inf`.
    pub bins: Vec<f64>,
}

/// `graphiteHost`, `graphitePort`, …, and `graphite`.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphiteConfig {
    /// `graphiteHost`; without one flushes are computed and dropped.
    pub host: Option<String>,
    /// `graphitePort`, or `graphitePicklePort` with pickle.
    pub port: u16,
    /// `graphiteProtocol: "pickle"`.
    pub pickle: bool,
    /// `graphiteSpoolBytes`: undelivered flushes kept at most.
    pub spool_bytes: usize,
    /// `graphiteTimeout`: connect and write at most.
    pub timeout: Duration,
    /// `graphite.legacyNamespace`.
    pub legacy_namespace: bool,
    /// `graphite.globalPrefix`.
    pub global_prefix: String,
    /// `graphite.prefixCounter`.
    pub prefix_counter: String,
    /// `graphite.prefixTimer`.
    pub prefix_timer: String,
    /// `graphite.prefixGauge`.
    pub prefix_gauge: String,
    /// `graphite.prefixSet`.
    pub prefix_set: String,
    /// `graphite.globalSuffix`; `Some("")` still adds a dot, as the original does.
    pub global_suffix: Option<String>,
}

/// A host and port to send to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// `repeaterProtocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RepeaterProtocol {
    Udp4,
    Udp6,
    Tcp,
}

/// The bounds on what input can make the program keep. Each is a key of the same name in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `maxNames`: distinct names, all types together.
    pub max_names: usize,
    /// `maxTimerValues`: timer values in one interval.
    pub max_timer_values: usize,
    /// `maxSetMembers`: set members in one interval.
    pub max_set_members: usize,
    /// `maxTcpClients`: data connections.
    pub max_tcp_clients: usize,
    /// `maxMgmtClients`: console connections.
    pub max_mgmt_clients: usize,
    /// `tcpIdleTimeout`: a silent data connection is closed after it; zero is never.
    pub tcp_idle_timeout: Duration,
    /// `mgmtIdleTimeout`: a silent console connection is closed after it; zero is never.
    pub mgmt_idle_timeout: Duration,
    /// `maxLineBytes`: a longer line is a bad line.
    pub max_line_bytes: usize,
    /// `mgmtBufferBytes`: waiting for a console client that does not read.
    pub mgmt_buffer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_names: 2_000_000,
            max_timer_values: 20_000_000,
            max_set_members: 1_000_000,
            max_tcp_clients: 1000,
            max_mgmt_clients: 50,
            tcp_idle_timeout: Duration::from_secs(3600),
            mgmt_idle_timeout: Duration::from_secs(600),
            max_line_bytes: 8192,
            mgmt_buffer_bytes: 1 << 20,
        }
    }
}

impl Config {
    /// Takes relative paths as seen from `directory`: a daemon changes its own.
    pub fn relative_to(&mut self, directory: &Path) {
        relative_to(directory, &mut self.state_file);
        if let Some(key_flush) = &mut self.key_flush {
            relative_to(directory, &mut key_flush.log);
        }
        servers_relative_to(directory, &mut self.servers);
    }
}

impl ProxyConfig {
    /// Takes relative paths as seen from `directory`: a daemon changes its own.
    pub fn relative_to(&mut self, directory: &Path) {
        servers_relative_to(directory, &mut self.servers);
    }
}

fn servers_relative_to(directory: &Path, servers: &mut [ServerConfig]) {
    for server in servers {
        relative_to(directory, &mut server.socket);
    }
}

fn relative_to(directory: &Path, path: &mut Option<PathBuf>) {
    if let Some(path) = path {
        *path = directory.join(&*path);
    }
}
