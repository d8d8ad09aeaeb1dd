//! Reads a config file: text, checks, and then the typed config.
//!
//! The rules here are those that the table of keys cannot say: how keys depend on each other. The
//! functions on text are pure; [`load_statsd`] and [`load_proxy`] read the file and the machine.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::{Findings, check, mode};
use super::expand::{Environment, expand};
use super::fields::Fields;
use super::keys::{KEYS, LEVELS, Used};
use super::listing::listing;
use super::types::*;
use super::value::Value;
use super::{doubts, syntax};

/// What runs without a config file: the console shows something without a Graphite.
const BUILT_IN: &str = "{ backends: [\"./backends/console\"] }";

/// A config, and what is doubtful about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded<T> {
    /// Typed, with defaults filled in.
    pub config: T,
    /// One line each, with the file's name.
    pub warnings: Vec<String>,
}

/// Why a config cannot be used: every error that was found, a line each, with the file's name and
/// the key, or the line and column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Never empty.
    pub errors: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.errors.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Opens a config file.
pub type Open = fn(&Path) -> io::Result<File>;

/// Reads the aggregator's config; without a path, built-in defaults with the console backend.
///
/// # Errors
/// The file cannot be read, or something in it cannot be used.
pub fn load_statsd(path: Option<&Path>, open: Open) -> Result<Loaded<Config>, ConfigError> {
    let environment = Environment::of_this_machine();
    match path {
        Some(path) => statsd_from_text(&read(path, open)?, &name(path), &environment),
        None => statsd_from_text(BUILT_IN, "built-in config", &environment),
    }
}

/// Reads the proxy's config.
///
/// # Errors
/// The file cannot be read, or something in it cannot be used.
pub fn load_proxy(path: &Path, open: Open) -> Result<Loaded<ProxyConfig>, ConfigError> {
    let environment = Environment::of_this_machine();
    proxy_from_text(&read(path, open)?, &name(path), &environment)
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

fn read(path: &Path, open: Open) -> Result<String, ConfigError> {
    let fail = |reason: String| ConfigError {
        errors: vec![format!("{}{reason}", name(path))],
    };
    let mut bytes = Vec::new();
    open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|error| fail(format!(": cannot read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes().get(..valid).unwrap_or(&[]));
        let place = syntax::at(&text, valid, "");
        fail(format!(
            ":{}:{}: must be UTF-8 text",
            place.line, place.column
        ))
    })
}

/// The aggregator's config from the text of `file`.
///
/// # Errors
/// As [`load_statsd`], but for reading.
pub fn statsd_from_text(
    text: &str,
    file: &str,
    environment: &Environment,
) -> Result<Loaded<Config>, ConfigError> {
    load(text, file, environment, Used::Statsd, statsd)
}

/// The proxy's config from the text of `file`.
///
/// # Errors
/// As [`load_proxy`], but for reading.
pub fn proxy_from_text(
    text: &str,
    file: &str,
    environment: &Environment,
) -> Result<Loaded<ProxyConfig>, ConfigError> {
    load(text, file, environment, Used::Proxy, proxy)
}

fn load<T>(
    text: &str,
    file: &str,
    environment: &Environment,
    program: Used,
    typed: fn(&Fields<'_>, Common) -> T,
) -> Result<Loaded<T>, ConfigError> {
    let members = syntax::parse(text).map_err(|error| ConfigError {
        errors: vec![format!(
            "{file}:{}:{}: {}",
            error.line, error.column, error.message
        )],
    })?;
    let mut root = Value::Object(members);
    let mut unexpanded = Vec::new();
    expand(&mut root, "", environment, &mut unexpanded);
    let members = match root {
        Value::Object(members) => members,
        _ => Vec::new(),
    };
    let fields = Fields::new(&members, KEYS);
    let Findings {
        mut errors,
        mut warnings,
    } = check(&members, program);
    errors.extend(
        unexpanded
            .iter()
            .map(|(path, reason)| format!("{path}: {reason}")),
    );
    doubts::look(&fields, program, &mut errors, &mut warnings);
    let with_file = |lines: Vec<String>| -> Vec<String> {
        lines.iter().map(|line| format!("{file}: {line}")).collect()
    };
    if !errors.is_empty() {
        return Err(ConfigError {
            errors: with_file(errors),
        });
    }
    let mut shown = members.clone();
    for (key, value) in &mut shown {
        // The original puts the value in force there.
        if key == "gaugesMaxTTL" {
            *value = Value::Number(gauges_max_ttl(&fields).into());
        }
    }
    let common = common(&fields, listing(&shown, program));
    Ok(Loaded {
        config: typed(&fields, common),
        warnings: with_file(warnings),
    })
}

fn statsd(fields: &Fields<'_>, common: Common) -> Config {
    let idle = fields.flag("deleteIdleStats");
    let delete = |name: &str| match fields.given(name) {
        Some(_) => fields.flag(name),
        None => idle,
    };
    Config {
        backends: backends(fields),
        servers: servers(fields),
        mgmt: mgmt(fields),
        common,
        dump_messages: fields.flag("dumpMessages"),
        flush_interval: fields.millis("flushInterval"),
        flush_align: fields.flag("flushAlign"),
        percent_threshold: percent_threshold(fields),
        flush_counts: fields.flag("flush_counts"),
        key_flush: key_flush(&fields.object("keyFlush")),
        delete_counters: delete("deleteCounters"),
        delete_timers: delete("deleteTimers"),
        delete_sets: delete("deleteSets"),
        delete_gauges: delete("deleteGauges"),
        gauges_max_ttl: gauges_max_ttl(fields),
        prefix_stats: fields.text("prefixStats"),
        key_name_sanitize: fields.flag("keyNameSanitize"),
        calculated_timer_metrics: fields.texts("calculatedTimerMetrics"),
        histogram: fields.objects("histogram").iter().map(histogram).collect(),
        console_prettyprint: fields.object("console").flag("prettyprint"),
        graphite: graphite(fields),
        repeater: fields.objects("repeater").iter().map(target).collect(),
        repeater_protocol: match fields.choice("repeaterProtocol").as_str() {
            "tcp" => RepeaterProtocol::Tcp,
            "udp6" => RepeaterProtocol::Udp6,
            _ => RepeaterProtocol::Udp4,
        },
        repeater_buffer_bytes: fields.size("repeaterBufferBytes"),
        shutdown_timeout: fields.millis("shutdownTimeout"),
        state_file: fields.some_text("stateFile").map(PathBuf::from),
        state_max_age: fields.millis("stateMaxAge"),
        limits: limits(fields, true),
    }
}

fn proxy(fields: &Fields<'_>, common: Common) -> ProxyConfig {
    let mut nodes: Vec<NodeConfig> = Vec::new();
    for node in fields.objects("nodes").iter().map(node) {
        if !nodes
            .iter()
            .any(|known| (&known.host, known.port) == (&node.host, node.port))
        {
            nodes.push(node);
        }
    }
    ProxyConfig {
        nodes,
        servers: servers(fields),
        mgmt: mgmt(fields),
        common,
        check_interval: Duration::from_millis(fields.number_above_zero("checkInterval") as u64),
        cache_size: fields.number_above_zero("cacheSize") as usize,
        fork_count: match fields.given("forkCount") {
            Some(Value::String(_)) => ForkCount::Auto,
            _ => ForkCount::Number(fields.size("forkCount")),
        },
        max_datagram: fields.size("maxDatagram"),
        node_queue_bytes: fields.size("nodeQueueBytes"),
        prefix_stats: fields.text("prefixStats"),
        stats_interval: Some(fields.millis("proxyStats")).filter(|every| !every.is_zero()),
        shutdown_timeout: fields.millis("shutdownTimeout"),
        limits: limits(fields, false),
    }
}

fn common(fields: &Fields<'_>, listing: Vec<(String, String)>) -> Common {
    let log = fields.object("log");
    let level = log.choice("level");
    Common {
        debug: fields.flag("debug"),
        title: match fields.given("title") {
            None => Title::CommandLine,
            Some(Value::String(text)) if !text.is_empty() => Title::Text(text.clone()),
            Some(_) => Title::Leave,
        },
        log: LogConfig {
            syslog: log.choice("backend") == "syslog",
            application: log
                .some_text("application")
                .unwrap_or_else(|| "statsd".to_owned()),
            level: match LEVELS.iter().position(|name| *name == level) {
                Some(0) => Severity::Emerg,
                Some(1) => Severity::Alert,
                Some(2) => Severity::Crit,
                Some(3) => Severity::Err,
                Some(4) => Severity::Warning,
                Some(5) => Severity::Notice,
                Some(7) => Severity::Debug,
                _ => Severity::Info,
            },
        },
        automatic_config_reload: fields.flag("automaticConfigReload"),
        listing,
    }
}

/// The entries of `servers`, or the top of the file as the only one.
fn servers(fields: &Fields<'_>) -> Vec<ServerConfig> {
    let entries = fields.objects("servers");
    if entries.is_empty() {
        let mut server = server(fields, fields);
        // The proxy of the original reads `address`, its documentation says `host`.
        server.address = server.address.or_else(|| fields.some_text("host"));
        return vec![server];
    }
    entries.iter().map(|entry| server(entry, fields)).collect()
}

fn server(entry: &Fields<'_>, top: &Fields<'_>) -> ServerConfig {
    let own = entry
        .given("receiveBuffer")
        .map(|_| entry.size("receiveBuffer"));
    ServerConfig {
        kind: match entry.choice("server").as_str() {
            "tcp" => ServerKind::Tcp,
            _ => ServerKind::Udp,
        },
        address: entry.some_text("address"),
        ipv6: entry.flag("address_ipv6"),
        port: entry.port("port"),
        socket: entry.some_text("socket").map(PathBuf::from),
        socket_mode: entry.given("socket_mod").and_then(mode),
        receive_buffer: own.unwrap_or_else(|| top.size("receiveBuffer")),
    }
}

fn mgmt(fields: &Fields<'_>) -> MgmtConfig {
    let allow = fields.texts("mgmt_allow");
    MgmtConfig {
        address: fields.some_text("mgmt_address"),
        port: fields.port("mgmt_port"),
        allow: allow.iter().filter_map(|text| text.parse().ok()).collect(),
    }
}

fn backends(fields: &Fields<'_>) -> Vec<BackendKind> {
    let mut kinds = Vec::new();
    for name in fields.choices("backends") {
        let kind = match name.as_str() {
            "console" => BackendKind::Console,
            "repeater" => BackendKind::Repeater,
            _ => BackendKind::Graphite,
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// Falsy is the default, as in the original; repeats would send the same names twice.
fn percent_threshold(fields: &Fields<'_>) -> Vec<f64> {
    let mut thresholds = Vec::new();
    match fields.given("percentThreshold") {
        Some(Value::Array(values)) => {
            for value in values {
                if let Value::Number(number) = value {
                    if !thresholds.contains(number) {
                        thresholds.push(*number);
                    }
                }
            }
        }
        _ => thresholds.push(fields.number_above_zero("percentThreshold")),
    }
    thresholds
}

fn gauges_max_ttl(fields: &Fields<'_>) -> u32 {
    match fields.given("gaugesMaxTTL") {
        Some(Value::Number(ttl)) if ttl.fract() == 0.0 && *ttl > 1.0 => *ttl as u32,
        _ => 1,
    }
}

fn key_flush(fields: &Fields<'_>) -> Option<KeyFlush> {
    let interval = fields.millis("interval");
    (!interval.is_zero()).then(|| KeyFlush {
        interval,
        percent: fields.number_above_zero("percent"),
        log: fields.some_text("log").map(PathBuf::from),
    })
}

fn histogram(entry: &Fields<'_>) -> Histogram {
    let bins = entry.list("bins").iter().map(|bin| match bin {
        Value::Number(limit) => *limit,
        _ => f64::INFINITY,
    });
    Histogram {
        metric: entry.text("metric"),
        bins: bins.collect(),
    }
}

fn graphite(fields: &Fields<'_>) -> GraphiteConfig {
    let names = fields.object("graphite");
    let pickle = fields.choice("graphiteProtocol") == "pickle";
    GraphiteConfig {
        host: fields.some_text("graphiteHost"),
        port: fields.port(if pickle {
            "graphitePicklePort"
        } else {
            "graphitePort"
        }),
        pickle,
        spool_bytes: fields.size("graphiteSpoolBytes"),
        timeout: fields.millis("graphiteTimeout"),
        legacy_namespace: names.flag("legacyNamespace"),
        global_prefix: names.text("globalPrefix"),
        prefix_counter: names.text("prefixCounter"),
        prefix_timer: names.text("prefixTimer"),
        prefix_gauge: names.text("prefixGauge"),
        prefix_set: names.text("prefixSet"),
        global_suffix: names
            .given("globalSuffix")
            .map(|_| names.text("globalSuffix")),
    }
}

fn target(entry: &Fields<'_>) -> Target {
    Target {
        host: entry.text("host"),
        port: entry.port("port"),
    }
}

fn node(entry: &Fields<'_>) -> NodeConfig {
    NodeConfig {
        host: entry.text("host"),
        port: entry.port("port"),
        admin_port: entry.port("adminport"),
    }
}

/// The proxy keeps no metrics, so it has no bounds on them.
fn limits(fields: &Fields<'_>, aggregates: bool) -> Limits {
    let mut limits = Limits {
        max_tcp_clients: fields.size("maxTcpClients"),
        max_mgmt_clients: fields.size("maxMgmtClients"),
        tcp_idle_timeout: fields.millis("tcpIdleTimeout"),
        mgmt_idle_timeout: fields.millis("mgmtIdleTimeout"),
        max_line_bytes: fields.size("maxLineBytes"),
        mgmt_buffer_bytes: fields.size("mgmtBufferBytes"),
        ..Limits::default()
    };
    if aggregates {
        limits.max_names = fields.size("maxNames");
        limits.max_timer_values = fields.size("maxTimerValues");
        limits.max_set_members = fields.size("maxSetMembers");
    }
    limits
}
