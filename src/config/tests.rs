//! Whole files through the pure loaders: what must load, what it comes to, and what must not.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use super::load::{proxy_from_text, statsd_from_text};
use super::*;

fn environment() -> Environment {
    Environment {
        hostname: "web7.example.org".to_owned(),
        fqdn: "web7.example.org".to_owned(),
        variable: |name| (name == "DC").then(|| "fra1".to_owned()),
    }
}

fn statsd(text: &str) -> Result<Loaded<Config>, ConfigError> {
    statsd_from_text(text, "s.js", &environment())
}

fn proxy(text: &str) -> Result<Loaded<ProxyConfig>, ConfigError> {
    proxy_from_text(text, "p.js", &environment())
}

fn config(text: &str) -> Config {
    statsd(text).unwrap().config
}

const NODE: &str = "{host: '127.0.0.1', port: 8127, adminport: 8128}";

fn proxy_config(more: &str) -> ProxyConfig {
    proxy(&format!("{{nodes: [{NODE}], {more}}}"))
        .unwrap()
        .config
}

#[test]
fn a_file_in_the_style_of_the_original_example() {
    let text = "/*\nRequired:\n  graphiteHost: 'where'\n*/\n{\n  graphitePort: 2013\n\
                , graphiteHost: \"graphite.example.com\"\n, port: 8135\n\
                , backends: [ \"./backends/graphite\" ]\n}\n";
    let Loaded { config, warnings } = statsd(text).unwrap();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(config.backends, [BackendKind::Graphite]);
    assert_eq!(
        config.graphite.host.as_deref(),
        Some("graphite.example.com")
    );
    assert_eq!(config.graphite.port, 2013);
    assert_eq!(config.servers.len(), 1);
    assert_eq!(config.servers[0].port, 8135);
    let first: Vec<_> = config.common.listing[..4]
        .iter()
        .map(|(key, _)| key.as_str())
        .collect();
    assert_eq!(
        first,
        ["graphitePort", "graphiteHost", "port", "backends > 0"]
    );
}

#[test]
fn a_proxy_file_in_the_style_of_the_original_example() {
    let text = "/* nodes: list */\n{\nnodes: [\n{host: '127.0.0.1', port: 8127, adminport: 8128},\n\
                {host: '127.0.0.1', port: 8129, adminport: 8130},\n],\nserver: './servers/udp',\n\
                host:  '0.0.0.0',\nport: 8125,\nudp_version:'udp4',\nmgmt_port: 8126,\n\
                forkCount: 0,\ncheckInterval: 1000,\ncacheSize: 10000\n}\n";
    let Loaded { config, warnings } = proxy(text).unwrap();
    assert_eq!(warnings, ["p.js: udp_version: unknown key"]);
    assert_eq!(config.nodes.len(), 2);
    assert_eq!(config.nodes[1].admin_port, 8130);
    assert_eq!(config.servers[0].address.as_deref(), Some("0.0.0.0"));
    assert_eq!(config.check_interval, Duration::from_secs(1));
}

#[test]
fn the_defaults_of_an_empty_file() {
    let Loaded { config, warnings } = statsd("{}").unwrap();
    let missing = "s.js: graphiteHost: is missing; flushes are computed and dropped";
    assert_eq!(warnings, [missing]);
    let listing = config.common.listing.clone();
    let expected = Config {
        backends: vec![BackendKind::Graphite],
        servers: vec![ServerConfig {
            kind: ServerKind::Udp,
            address: None,
            ipv6: false,
            port: 8125,
            socket: None,
            socket_mode: None,
            receive_buffer: 8 << 20,
        }],
        mgmt: MgmtConfig {
            address: None,
            port: 8126,
            allow: vec![],
        },
        common: Common {
            debug: false,
            title: Title::CommandLine,
            log: LogConfig {
                syslog: false,
                application: "statsd".to_owned(),
                level: Severity::Info,
            },
            automatic_config_reload: true,
            listing,
        },
        dump_messages: false,
        flush_interval: Duration::from_secs(10),
        flush_align: false,
        percent_threshold: vec![90.0],
        flush_counts: true,
        key_flush: None,
        delete_counters: false,
        delete_timers: false,
        delete_sets: false,
        delete_gauges: false,
        gauges_max_ttl: 1,
        prefix_stats: "statsd".to_owned(),
        key_name_sanitize: true,
        calculated_timer_metrics: vec![],
        histogram: vec![],
        console_prettyprint: false,
        graphite: GraphiteConfig {
            host: None,
            port: 2003,
            pickle: false,
            spool_bytes: 64 << 20,
            timeout: Duration::from_secs(10),
            legacy_namespace: true,
            global_prefix: "stats".to_owned(),
            prefix_counter: "counters".to_owned(),
            prefix_timer: "timers".to_owned(),
            prefix_gauge: "gauges".to_owned(),
            prefix_set: "sets".to_owned(),
            global_suffix: None,
        },
        repeater: vec![],
        repeater_protocol: RepeaterProtocol::Udp4,
        repeater_buffer_bytes: 1 << 20,
        shutdown_timeout: Duration::from_secs(5),
        state_file: None,
        state_max_age: Duration::from_secs(3600),
        limits: Limits::default(),
    };
    assert_eq!(config, expected);
}

#[test]
fn the_defaults_of_the_proxy() {
    let config = proxy_config("");
    let limits = config.limits.clone();
    assert_eq!(config.check_interval, Duration::from_secs(10));
    assert_eq!(config.cache_size, 10_000);
    assert_eq!(config.fork_count, ForkCount::Number(0));
    assert_eq!(config.max_datagram, 1432);
    assert_eq!(config.node_queue_bytes, 1 << 20);
    assert_eq!(config.prefix_stats, "statsd");
    assert_eq!(config.stats_interval, None);
    assert_eq!(config.shutdown_timeout, Duration::from_secs(5));
    assert_eq!(limits, Limits::default());
}

#[test]
fn without_a_file() {
    let Loaded { config, warnings } = load_statsd(None, |path| File::open(path)).unwrap();
    assert_eq!(config.backends, [BackendKind::Console]);
    assert_eq!(config.servers[0].port, 8125);
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn every_key_arrives() {
    let config = config(
        "{
        backends: ['repeater', './backends/console'], dumpMessages: true, flushInterval: 1500,
        flushAlign: true, percentThreshold: [99.9, -5, 99.9, 0], flush_counts: false,
        keyFlush: {interval: 100, percent: 12.5, log: '/var/log/keys'}, deleteIdleStats: true,
        deleteSets: false, gaugesMaxTTL: 6, prefixStats: 'x.${env:DC}', keyNameSanitize: false,
        calculatedTimerMetrics: ['count', 'upper_percent'], console: {prettyprint: true},
        histogram: [{metric: 'a', bins: [0.5, 10, 'inf']}, {metric: '', bins: []}],
        graphiteHost: 'g', graphitePort: 1, graphitePicklePort: 2, graphiteProtocol: 'pickle',
        graphiteTimeout: 3, graphiteSpoolBytes: 4096,
        graphite: {legacyNamespace: false, globalPrefix: '', prefixCounter: 'c', prefixTimer: 't',
            prefixGauge: 'g', prefixSet: 's', globalSuffix: '${hostname}'},
        repeater: [{host: 'r', port: 8125}], repeaterProtocol: 'tcp', repeaterBufferBytes: 5000,
        shutdownTimeout: 0, stateFile: '/var/lib/statsd/state', stateMaxAge: 7,
        servers: [
            {server: 'tcp', socket: '/run/s', socket_mod: '0777'},
            {server: './servers/udp', address: '::1', address_ipv6: true, port: 0,
                receiveBuffer: 65536},
        ],
        receiveBuffer: 4096, mgmt_address: '127.0.0.1', mgmt_port: 0,
        mgmt_allow: ['10.0.0.0/8', '::1'], debug: true, title: false,
        log: {backend: 'syslog', application: 'metrics', level: 'LOG_NOTICE'},
        automaticConfigReload: false, maxNames: 1, maxTimerValues: 2, maxSetMembers: 3,
        maxLineBytes: 64, maxTcpClients: 4, maxMgmtClients: 5, tcpIdleTimeout: 0,
        mgmtIdleTimeout: 6, mgmtBufferBytes: 4096 }",
    );
    let listing = config.common.listing.clone();
    let expected = Config {
        backends: vec![BackendKind::Repeater, BackendKind::Console],
        servers: vec![
            ServerConfig {
                kind: ServerKind::Tcp,
                address: None,
                ipv6: false,
                port: 8125,
                socket: Some(PathBuf::from("/run/s")),
                socket_mode: Some(0o777),
                receive_buffer: 4096,
            },
            ServerConfig {
                kind: ServerKind::Udp,
                address: Some("::1".to_owned()),
                ipv6: true,
                port: 0,
                socket: None,
                socket_mode: None,
                receive_buffer: 65536,
            },
        ],
        mgmt: MgmtConfig {
            address: Some("127.0.0.1".to_owned()),
            port: 0,
            allow: vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
        },
        common: Common {
            debug: true,
            title: Title::Leave,
            log: LogConfig {
                syslog: true,
                application: "metrics".to_owned(),
                level: Severity::Notice,
            },
            automatic_config_reload: false,
            listing,
        },
        dump_messages: true,
        flush_interval: Duration::from_millis(1500),
        flush_align: true,
        percent_threshold: vec![99.9, -5.0, 0.0],
        flush_counts: false,
        key_flush: Some(KeyFlush {
            interval: Duration::from_millis(100),
            percent: 12.5,
            log: Some(PathBuf::from("/var/log/keys")),
        }),
        delete_counters: true,
        delete_timers: true,
        delete_sets: false,
        delete_gauges: true,
        gauges_max_ttl: 6,
        prefix_stats: "x.fra1".to_owned(),
        key_name_sanitize: false,
        calculated_timer_metrics: vec!["count".to_owned(), "upper_percent".to_owned()],
        histogram: vec![
            Histogram {
                metric: "a".to_owned(),
                bins: vec![0.5, 10.0, f64::INFINITY],
            },
            Histogram {
                metric: String::new(),
                bins: vec![],
            },
        ],
        console_prettyprint: true,
        graphite: GraphiteConfig {
            host: Some("g".to_owned()),
            port: 2,
            pickle: true,
            spool_bytes: 4096,
            timeout: Duration::from_millis(3),
            legacy_namespace: false,
            global_prefix: String::new(),
            prefix_counter: "c".to_owned(),
            prefix_timer: "t".to_owned(),
            prefix_gauge: "g".to_owned(),
            prefix_set: "s".to_owned(),
            global_suffix: Some("web7".to_owned()),
        },
        repeater: vec![Target {
            host: "r".to_owned(),
            port: 8125,
        }],
        repeater_protocol: RepeaterProtocol::Tcp,
        repeater_buffer_bytes: 5000,
        shutdown_timeout: Duration::ZERO,
        state_file: Some(PathBuf::from("/var/lib/statsd/state")),
        state_max_age: Duration::from_millis(7),
        limits: Limits {
            max_names: 1,
            max_timer_values: 2,
            max_set_members: 3,
            max_tcp_clients: 4,
            max_mgmt_clients: 5,
            tcp_idle_timeout: Duration::ZERO,
            mgmt_idle_timeout: Duration::from_millis(6),
            max_line_bytes: 64,
            mgmt_buffer_bytes: 4096,
        },
    };
    assert_eq!(config, expected);
}

#[test]
fn every_key_of_the_proxy_arrives() {
    let config = proxy_config(
        "checkInterval: 5, cacheSize: 6, forkCount: 'auto', maxDatagram: 512, port: 9,
        nodeQueueBytes: 4096, prefixStats: 'p', proxyStats: 1000, shutdownTimeout: 1, host: '::1',
        server: 'tcp', maxLineBytes: 100, mgmt_port: 7, title: 'proxy'",
    );
    assert_eq!(config.check_interval, Duration::from_millis(5));
    assert_eq!(config.cache_size, 6);
    assert_eq!(config.fork_count, ForkCount::Auto);
    assert_eq!(config.max_datagram, 512);
    assert_eq!(config.node_queue_bytes, 4096);
    assert_eq!(config.prefix_stats, "p");
    assert_eq!(config.stats_interval, Some(Duration::from_secs(1)));
    assert_eq!(config.shutdown_timeout, Duration::from_millis(1));
    assert_eq!(config.servers[0].kind, ServerKind::Tcp);
    assert_eq!(config.servers[0].address.as_deref(), Some("::1"));
    assert_eq!(config.servers[0].port, 9);
    assert_eq!(config.limits.max_line_bytes, 100);
    assert_eq!(config.mgmt.port, 7);
    assert_eq!(config.common.title, Title::Text("proxy".to_owned()));
}

#[test]
fn what_the_original_takes_for_not_given() {
    for (text, expected) in [
        ("{percentThreshold: 0}", vec![90.0]),
        ("{percentThreshold: null}", vec![90.0]),
        ("{percentThreshold: false}", vec![90.0]),
        ("{percentThreshold: ''}", vec![90.0]),
        ("{percentThreshold: -10}", vec![-10.0]),
        ("{percentThreshold: []}", vec![]),
        ("{percentThreshold: [50, 50.0, -50]}", vec![50.0, -50.0]),
    ] {
        assert_eq!(config(text).percent_threshold, expected, "{text}");
    }
    for (ttl, expected) in [
        ("1", 1),
        ("2", 2),
        ("2.5", 1),
        ("-3", 1),
        ("'4'", 1),
        ("null", 1),
    ] {
        let config = config(&format!("{{gaugesMaxTTL: {ttl}}}"));
        assert_eq!(config.gauges_max_ttl, expected, "{ttl}");
        let line = ("gaugesMaxTTL".to_owned(), expected.to_string());
        assert!(config.common.listing.contains(&line), "{ttl}");
    }
    let config = config(
        "{graphiteHost: '', address: '', mgmt_address: '', title: '', port: null, stateFile: '',
        keyFlush: {interval: 1, percent: 0, log: ''}, graphite: {globalSuffix: ''}}",
    );
    assert_eq!(config.graphite.host, None);
    assert_eq!(config.servers[0].address, None);
    assert_eq!(config.servers[0].port, 8125);
    assert_eq!(config.mgmt.address, None);
    assert_eq!(config.common.title, Title::Leave);
    assert_eq!(config.state_file, None);
    let key_flush = config.key_flush.unwrap();
    assert_eq!((key_flush.percent, key_flush.log), (100.0, None));
    assert_eq!(config.graphite.global_suffix.as_deref(), Some(""));
    let proxy = proxy_config("cacheSize: 0, checkInterval: 0");
    assert_eq!(proxy.cache_size, 10_000);
    assert_eq!(proxy.check_interval, Duration::from_secs(10));
}

#[test]
fn idle_policy() {
    for (text, expected) in [
        ("{}", [false; 4]),
        ("{deleteIdleStats: true}", [true; 4]),
        (
            "{deleteIdleStats: true, deleteGauges: false}",
            [true, true, true, false],
        ),
        (
            "{deleteIdleStats: false, deleteCounters: true}",
            [true, false, false, false],
        ),
        ("{deleteTimers: true}", [false, true, false, false]),
    ] {
        let c = config(text);
        let found = [
            c.delete_counters,
            c.delete_timers,
            c.delete_sets,
            c.delete_gauges,
        ];
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn doubts_about_the_aggregator() {
    const HOST: &str = "graphiteHost: 'g'";
    for (text, expected) in [
        (
            "healthStatus: 'down'",
            "healthStatus: no effect; health is up at start, as in the original",
        ),
        ("servers: [{}], port: 1", "port: no effect beside servers"),
        (
            "servers: [{server: 'tcp', receiveBuffer: 4096}]",
            "servers[0].receiveBuffer: no effect on tcp",
        ),
        (
            "servers: [{server: 'tcp', socket_mod: 1}]",
            "servers[0].socket_mod: no effect without socket",
        ),
        (
            "server: 'tcp', socket: '/s', socket_mod: 777",
            "socket_mod: the number 777 is octal 1411; write \"0777\" if that is meant",
        ),
        (
            "backends: []",
            "backends: is empty; flushes are computed and dropped",
        ),
        (
            "backends: ['console', './backends/console']",
            "backends: names a backend twice; it runs once",
        ),
        (
            "backends: ['repeater']",
            "repeater: is missing; the repeater backend has nowhere to send to",
        ),
        (
            "histogram: [{metric: '', bins: [2, 1]}]",
            "histogram[0].bins: do not rise; some will stay empty",
        ),
        (
            "histogram: [{metric: '', bins: ['inf', 1]}]",
            "histogram[0].bins: do not rise; some will stay empty",
        ),
        ("host: 'x'", "host: no effect; it is a key of statsd-proxy"),
        ("influxdb: {host: 'x'}", "influxdb: unknown key"),
    ] {
        let Loaded { warnings, .. } = statsd(&format!("{{{HOST}, {text}}}")).unwrap();
        assert_eq!(warnings, [format!("s.js: {expected}")], "{text}");
    }
    let quiet = "{graphiteHost: 'g', server: 'tcp', socket: '/s', socket_mod: 438}";
    assert_eq!(statsd(quiet).unwrap().warnings, [""; 0]);
    let config = config("{backends: ['console', './backends/console']}");
    assert_eq!(config.backends, [BackendKind::Console]);
}

#[test]
fn doubts_about_the_proxy() {
    for (text, expected) in [
        ("host: 'a', address: 'b'", "host: no effect beside address"),
        ("servers: [{}], host: 'a'", "host: no effect beside servers"),
        (
            "deleteGauges: true",
            "deleteGauges: no effect; it is a key of statsd",
        ),
    ] {
        let Loaded { warnings, .. } = proxy(&format!("{{nodes: [{NODE}], {text}}}")).unwrap();
        assert_eq!(warnings, [format!("p.js: {expected}")], "{text}");
    }
    let Loaded { config, warnings } = proxy(&format!("{{nodes: [{NODE}, {NODE}]}}")).unwrap();
    let twice = "p.js: nodes: has the same host and port twice; the first entry counts";
    assert_eq!(warnings, [twice]);
    assert_eq!(config.nodes.len(), 1);
    assert_eq!(
        proxy_config("host: 'a', address: 'b'").servers[0]
            .address
            .as_deref(),
        Some("b")
    );
}

#[test]
fn errors_name_file_and_key() {
    for (text, expected) in [
        (
            "{port: '8125'}",
            "s.js: port: must be a whole number from 0 to 65535, not \"8125\"",
        ),
        (
            "{servers: [{}, {socket: '/s'}]}",
            "s.js: servers[1].socket: only with server \"./servers/tcp\"",
        ),
        (
            "{socket: '/s'}",
            "s.js: socket: only with server \"./servers/tcp\"",
        ),
        (
            "{socket_mod: '7'}",
            "s.js: socket_mod: only with server \"./servers/tcp\"",
        ),
        (
            "{graphite: {globalSuffix: '${env:NOPE}'}}",
            "s.js: graphite.globalSuffix: the environment variable NOPE is not set",
        ),
        (
            "{prefixStats: '${host}'}",
            "s.js: prefixStats: ${host} is unknown; there are ${hostname}, ${fqdn} and ${env:NAME}",
        ),
        (
            "{\n port 1}",
            "s.js:2:7: expected a colon between key and value",
        ),
        (
            "{graphite: {globalSuffix: require('os').hostname().split('.')[0]}}",
            "s.js:1:27: `require('os').hostname().split('.')[0]` is code; this file is read, not \
             run: write a string with ${hostname} (the part before the first dot) or ${fqdn} in \
             it, as in \"${hostname}\"",
        ),
    ] {
        assert_eq!(statsd(text).unwrap_err().to_string(), expected, "{text}");
    }
    let all = statsd("{port: -1, mgmt_port: 70000, socket: '/s', title: '${x}'}").unwrap_err();
    assert_eq!(all.errors.len(), 4);
    assert_eq!(all.to_string().lines().count(), 4);
    let missing = proxy("{}").unwrap_err().to_string();
    assert_eq!(
        missing,
        "p.js: nodes: is missing; must be a list with at least one element"
    );
}

#[test]
fn files() {
    let path = std::env::temp_dir().join(format!("statsd-config-{}.js", std::process::id()));
    let name = path.display().to_string();
    let load = || load_statsd(Some(&path), |path| File::open(path));
    let missing = load().unwrap_err().to_string();
    assert!(
        missing.starts_with(&format!("{name}: cannot read: No such file")),
        "{missing}"
    );
    std::fs::write(&path, "{ graphiteHost: 'g', port: 7 }").unwrap();
    let loaded = load();
    std::fs::write(&path, b"{\n a: '\xff' }").unwrap();
    let bytes = load();
    std::fs::write(&path, format!("{{ nodes: [{NODE}] }}")).unwrap();
    let nodes = load_proxy(&path, |path| File::open(path));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(loaded.unwrap().config.servers[0].port, 7);
    assert_eq!(
        bytes.unwrap_err().to_string(),
        format!("{name}:2:6: must be UTF-8 text")
    );
    assert_eq!(nodes.unwrap().config.nodes[0].port, 8127);
}

#[test]
fn what_needs_a_restart() {
    for (before, after, expected) in [
        ("", "", ""),
        ("port: 1", "port: 2", "port"),
        ("", "servers: [{port: 2}]", "port"),
        ("", "servers: [{}, {port: 2}]", "servers"),
        ("", "server: 'tcp', address: '::1', address_ipv6: true", "server address address_ipv6"),
        ("server: 'tcp'", "server: 'tcp', socket: '/s', socket_mod: '7'", "socket socket_mod"),
        ("", "receiveBuffer: 65536", "receiveBuffer"),
        ("", "mgmt_address: '::1', mgmt_port: 2, mgmt_allow: ['::1']", "mgmt_address mgmt_port"),
        ("", "log: {backend: 'syslog'}, title: 'x'", "log title"),
        (
            "",
            "flushInterval: 1, percentThreshold: [], prefixStats: 'x', stateFile: '/x', debug: true,
            backends: ['console'], graphiteHost: 'g', maxNames: 1, deleteIdleStats: true",
            "",
        ),
    ] {
        let [old, new] = [before, after].map(|text| config(&format!("{{{text}}}")));
        assert_eq!(needs_restart(&old, &new).join(" "), expected, "{before} -> {after}");
    }
    for (after, expected) in [
        (
            "host: 'a', mgmt_port: 1, forkCount: 2",
            "host mgmt_port forkCount",
        ),
        (
            "cacheSize: 7, checkInterval: 7, maxDatagram: 100, nodeQueueBytes: 5000",
            "",
        ),
        ("nodes: [{host: 'b', port: 1, adminport: 2}]", ""),
    ] {
        let new = proxy_config(after);
        assert_eq!(
            proxy_needs_restart(&proxy_config(""), &new).join(" "),
            expected,
            "{after}"
        );
    }
}
