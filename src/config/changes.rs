//! Which changed keys a reload cannot apply: sockets and what is set up around them at start.
//! Everything else changes live. The names go into the log.

use super::types::{Common, Config, MgmtConfig, ProxyConfig, ServerConfig};

/// The keys that differ and need a restart of the aggregator.
#[must_use]
pub fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut names = servers(&old.servers, &new.servers, "address");
    names.extend(mgmt(&old.mgmt, &new.mgmt));
    names.extend(common(&old.common, &new.common));
    names
}

/// The keys that differ and need a restart of the proxy; its nodes change live.
#[must_use]
pub fn proxy_needs_restart(old: &ProxyConfig, new: &ProxyConfig) -> Vec<&'static str> {
    let mut names = servers(&old.servers, &new.servers, "host");
    names.extend(mgmt(&old.mgmt, &new.mgmt));
    names.extend(common(&old.common, &new.common));
    names.extend((old.fork_count != new.fork_count).then_some("forkCount"));
    names
}

/// Of a single server the keys, of several the list.
fn servers(old: &[ServerConfig], new: &[ServerConfig], address: &'static str) -> Vec<&'static str> {
    let ([old], [new]) = (old, new) else {
        let differ = old != new;
        return differ.then_some("servers").into_iter().collect();
    };
    let keys = [
        (old.kind != new.kind, "server"),
        (old.address != new.address, address),
        (old.ipv6 != new.ipv6, "address_ipv6"),
        (old.port != new.port, "port"),
        (old.socket != new.socket, "socket"),
        (old.socket_mode != new.socket_mode, "socket_mod"),
        (old.receive_buffer != new.receive_buffer, "receiveBuffer"),
    ];
    changed(&keys)
}

fn mgmt(old: &MgmtConfig, new: &MgmtConfig) -> Vec<&'static str> {
    changed(&[
        (old.address != new.address, "mgmt_address"),
        (old.port != new.port, "mgmt_port"),
    ])
}

fn common(old: &Common, new: &Common) -> Vec<&'static str> {
    changed(&[
        (old.log != new.log, "log"),
        (old.title != new.title, "title"),
    ])
}

fn changed(keys: &[(bool, &'static str)]) -> Vec<&'static str> {
    keys.iter()
        .filter(|(differ, _)| *differ)
        .map(|(_, name)| *name)
        .collect()
}
