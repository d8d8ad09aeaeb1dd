//! Imports point down: the table of layers in `src/lib.rs`, held against what every file of `src`
//! names.

use std::collections::BTreeSet;

use crate::{code, must_read, none, rust_files};

/// What the core must not touch: sockets, files, clocks, logs, the process.
const NOT_PURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "Instant",
    "SystemTime",
    "println!",
    "eprintln!",
    "libc::",
    "socket2",
    "syslog",
];

/// A row of the table in `src/lib.rs`.
#[derive(Debug)]
struct Layer {
    modules: Vec<String>,
    may_import: String,
}

fn layers(map: &str) -> Vec<Layer> {
    let rows = map.lines().filter_map(|line| line.strip_prefix("//! | "));
    rows.filter_map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let names = cells[1].split("[`").skip(1);
        let modules = names.filter_map(|name| Some(name.split_once('`')?.0.to_owned()));
        Some(Layer {
            modules: modules.collect(),
            may_import: cells.get(2)?.to_string(),
        })
    })
    .filter(|layer| !layer.modules.is_empty())
    .collect()
}

/// What each layer may import, as its row words it: "all below", "each other", "the core", or
/// modules by name.
fn allowed(layers: &[Layer], index: usize) -> BTreeSet<&str> {
    let text = &layers[index].may_import;
    let mut rows = Vec::new();
    if text.contains("all below") {
        rows.extend(&layers[index + 1..]);
    }
    if text.contains("each other") {
        rows.push(&layers[index]);
    }
    if text.contains("the core") {
        rows.extend(layers.last());
    }
    let by_row = rows.iter().flat_map(|layer| &layer.modules);
    let all = layers.iter().flat_map(|layer| &layer.modules);
    by_row
        .chain(all.filter(|name| text.contains(&format!("[`{name}`]"))))
        .map(String::as_str)
        .collect()
}

fn import_complaints(map: &str, files: &[(String, String)]) -> Vec<String> {
    let layers = layers(map);
    let mut complaints = Vec::new();
    for module in map.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let module = module.trim_end_matches(';');
        let rows = layers
            .iter()
            .filter(|layer| layer.modules.iter().any(|name| name == module));
        if rows.count() != 1 {
            complaints.push(format!(
                "src/lib.rs: give the module {module} one row of the table"
            ));
        }
    }
    for (path, source) in files {
        let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
        let parts: Vec<&str> = inside.split('/').filter(|part| *part != "mod").collect();
        let (module, depth) = (parts[0], parts.len());
        if module == "lib" || parts.last() == Some(&"tests") {
            continue;
        }
        let bare = code::without_tests(&code::bare(source));
        if module == "bin" {
            let roles = layers
                .first()
                .map(|layer| layer.modules.clone())
                .unwrap_or_default();
            for (line, name) in code::named(&bare, "statsd") {
                if !roles.contains(&name) {
                    complaints.push(format!(
                        "{path}:{line}: a program imports a role's `run` only, not {name}: move \
                         the work into the role"
                    ));
                }
            }
            continue;
        }
        let Some(index) = layers
            .iter()
            .position(|layer| layer.modules.iter().any(|m| m == module))
        else {
            continue;
        };
        let allowed = allowed(&layers, index);
        let named = code::named(&bare, "crate");
        for (line, name) in named
            .into_iter()
            .chain(code::named_from_below(&bare, depth))
        {
            // What is no module is a macro, or an item of the crate's root.
            let known = layers.iter().any(|layer| layer.modules.contains(&name));
            if known && name != module && !allowed.contains(name.as_str()) {
                complaints.push(format!(
                    "{path}:{line}: {module} must not import {name} (table in src/lib.rs): hand \
                     what it needs down as an argument, or move it to a layer that may"
                ));
            }
            if module == "backend" && name == "store" {
                complaints.push(format!(
                    "{path}:{line}: a backend sees a Snapshot, never the Store: take it from there"
                ));
            }
        }
        if index + 1 == layers.len() {
            for word in NOT_PURE {
                if let Some(at) = bare.find(word) {
                    complaints.push(format!(
                        "{path}:{}: {word} in the pure core: leave it to the caller",
                        code::line(&bare, at)
                    ));
                }
            }
        }
    }
    complaints
}

#[test]
fn imports_point_down() {
    let map = must_read("src/lib.rs");
    assert!(
        layers(&map).len() >= 5,
        "src/lib.rs has lost its table of layers"
    );
    none(import_complaints(&map, &rust_files("src")));
}

#[test]
fn imports_that_do_not_are_found() {
    let map = "//! | layer | modules | may import |\n//! |---|---|---|\n\
               //! | roles | [`statsd`], [`proxy`]; never each other | all below |\n\
               //! | outputs | [`backend`] | all below |\n\
               //! | plumbing | [`net`], [`log`] | [`sys`], the core and each other |\n\
               //! | system | [`sys`] | the standard library |\n\
               //! | core | [`store`], [`timer`] | each other |\n\
               pub mod statsd;\npub mod proxy;\npub mod backend;\npub mod net;\npub mod log;\n\
               pub mod sys;\npub mod store;\npub mod timer;\n";
    let complain =
        |path: &str, source: &str| import_complaints(map, &[(path.to_owned(), source.to_owned())]);
    for (path, source) in [
        ("src/statsd/mod.rs", "use crate::proxy::x;"),
        ("src/proxy/mod.rs", "fn f() { crate::statsd::x() }"),
        ("src/backend/a.rs", "use crate::store::Store;"),
        ("src/net/mod.rs", "use crate::{log, backend::Backend};"),
        ("src/net/mod.rs", "use crate::{log::{a, b}, statsd};"),
        ("src/net/udp.rs", "use super::super::backend;"),
        ("src/log.rs", "use super::proxy;"),
        ("src/sys.rs", "use crate::store;"),
        ("src/store/table.rs", "use crate::sys;"),
        ("src/timer.rs", "use std::time::Instant;"),
        ("src/bin/statsd.rs", "fn main() { statsd::net::run() }"),
        (
            "src/timer.rs",
            "#[cfg(test)]\nmod tests { use crate::net; }\nuse crate::log;",
        ),
    ] {
        assert_eq!(complain(path, source).len(), 1, "{path}: {source}");
    }
    for (path, source) in [
        (
            "src/statsd/mod.rs",
            "use crate::{backend, net, sys, store, statsd::flush};",
        ),
        (
            "src/net/mod.rs",
            "use crate::{log, timer}; // not crate::backend",
        ),
        ("src/net/udp.rs", "use super::backend;"),
        (
            "src/store/table.rs",
            "use crate::timer; const A: &str = \"crate::net\";",
        ),
        (
            "src/store/mod.rs",
            "#[cfg(test)]\nmod tests { use crate::net; }",
        ),
        ("src/store/tests.rs", "use crate::net;"),
        ("src/bin/statsd.rs", "fn main() { statsd::statsd::run() }"),
    ] {
        none(complain(path, source));
    }
    let unlisted = import_complaints(&format!("{map}pub mod ring;\n"), &[]);
    assert_eq!(unlisted.len(), 1, "{unlisted:?}");
}
