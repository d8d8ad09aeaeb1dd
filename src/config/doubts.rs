//! The rules on how keys depend on each other: what is an error or a doubt although each value by
//! itself is allowed.
//!
//! They look at files with errors too, so that one run names everything.

use std::collections::HashSet;

use super::fields::Fields;
use super::keys::Used;
use super::value::Value;

/// Adds to `errors` and `warnings`; each line begins with a key's path.
pub fn look(
    fields: &Fields<'_>,
    program: Used,
    errors: &mut Vec<String>,
    warnings: &mut Vec<String>,
) {
    let entries = fields.objects("servers");
    if entries.is_empty() {
        server("", fields, errors, warnings);
    } else {
        for name in [
            "server",
            "address",
            "host",
            "address_ipv6",
            "port",
            "socket",
            "socket_mod",
        ] {
            if fields.given(name).is_some() && !(name == "host" && program == Used::Statsd) {
                warnings.push(format!("{name}: no effect beside servers"));
            }
        }
    }
    for (index, entry) in entries.iter().enumerate() {
        server(&format!("servers[{index}]."), entry, errors, warnings);
        if entry.given("receiveBuffer").is_some() && entry.choice("server") == "tcp" {
            warnings.push(format!("servers[{index}].receiveBuffer: no effect on tcp"));
        }
    }
    if fields.given("healthStatus").is_some() {
        warnings.push("healthStatus: no effect; health is up at start, as in the original".into());
    }
    match program {
        Used::Proxy => proxy(fields, warnings),
        _ => statsd(fields, warnings),
    }
}

/// One server; `path` ends in a dot, or is empty.
fn server(path: &str, entry: &Fields<'_>, errors: &mut Vec<String>, warnings: &mut Vec<String>) {
    let tcp = entry.choice("server") == "tcp";
    let socket = entry.some_text("socket").is_some();
    if socket && !tcp {
        errors.push(format!("{path}socket: only with server \"./servers/tcp\""));
    }
    match entry.given("socket_mod") {
        Some(_) if !tcp => {
            errors.push(format!(
                "{path}socket_mod: only with server \"./servers/tcp\""
            ));
        }
        Some(_) if !socket => warnings.push(format!("{path}socket_mod: no effect without socket")),
        Some(Value::Number(mode)) if looks_octal(*mode) => warnings.push(format!(
            "{path}socket_mod: the number {mode} is octal {:o}; write \"0{mode}\" if that is meant",
            *mode as u32
        )),
        _ => {}
    }
}

/// Three or four digits that read as permissions: most likely octal was meant.
fn looks_octal(mode: f64) -> bool {
    let digits = mode.to_string();
    matches!(digits.len(), 3 | 4) && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit))
}

fn statsd(fields: &Fields<'_>, warnings: &mut Vec<String>) {
    let backends = fields.choices("backends");
    if backends.is_empty() {
        warnings.push("backends: is empty; flushes are computed and dropped".into());
    }
    if has_repeats(&backends) {
        warnings.push("backends: names a backend twice; it runs once".into());
    }
    let uses = |name: &str| backends.iter().any(|backend| backend == name);
    if uses("graphite") && fields.some_text("graphiteHost").is_none() {
        warnings.push("graphiteHost: is missing; flushes are computed and dropped".into());
    }
    if uses("repeater") && fields.list("repeater").is_empty() {
        warnings.push("repeater: is missing; the repeater backend has nowhere to send to".into());
    }
    for (index, entry) in fields.objects("histogram").iter().enumerate() {
        let bins = entry.list("bins").iter().map(|bin| match bin {
            Value::Number(limit) => *limit,
            _ => f64::INFINITY,
        });
        if !bins.is_sorted_by(|lower, upper| lower < upper) {
            warnings.push(format!(
                "histogram[{index}].bins: do not rise; some will stay empty"
            ));
        }
    }
}

fn proxy(fields: &Fields<'_>, warnings: &mut Vec<String>) {
    let servers = fields.given("servers").is_some();
    let address = fields.some_text("address").is_some();
    if fields.given("host").is_some() && address && !servers {
        warnings.push("host: no effect beside address".into());
    }
    let nodes = fields.objects("nodes");
    let names: Vec<_> = nodes
        .iter()
        .map(|node| format!("{}:{}", node.text("host"), node.port("port")))
        .collect();
    if has_repeats(&names) {
        warnings.push("nodes: has the same host and port twice; the first entry counts".into());
    }
}

fn has_repeats(texts: &[String]) -> bool {
    let distinct: HashSet<_> = texts.iter().collect();
    distinct.len() < texts.len()
}
