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
struct Layer<'a> {
    label: &'a str,
    /// `bin` stands for the programs.
    modules: Vec<&'a str>,
    may_import: &'a str,
}

fn layers(map: &str) -> Vec<Layer<'_>> {
    let rows = map.lines().filter_map(|line| line.strip_prefix("//! | "));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    cells
        .filter(|cells| cells.len() > 2 && cells[1].contains('`'))
        .map(|cells| Layer {
            label: cells[0],
            modules: match cells[1].contains("`bin/") {
                true => vec!["bin"],
                false => linked(cells[1]),
            },
            may_import: cells[2],
        })
        .collect()
}

/// The names in [`…`].
fn linked(cell: &str) -> Vec<&str> {
    let names = cell.split("[`").skip(1);
    names.filter_map(|name| name.split('`').next()).collect()
}

/// What a layer may import, as its row words it: "all below", "each other", "a role", "the core",
/// or modules by name.
fn allowed<'a>(layers: &[Layer<'a>], index: usize) -> BTreeSet<&'a str> {
    let text = layers[index].may_import;
    let mut names = linked(text);
    for (other, layer) in layers.iter().enumerate() {
        let meant = other > index && text.contains("all below")
            || other == index && text.contains("each other")
            || layer.label == "roles" && text.contains("a role")
            || layer.label == "pure core" && text.contains("the core");
        if meant {
            names.extend(&layer.modules);
        }
    }
    names.into_iter().collect()
}

fn import_complaints(map: &str, files: &[(String, String)]) -> Vec<String> {
    let layers = layers(map);
    let layer_of = |name: &str| {
        layers
            .iter()
            .position(|layer| layer.modules.contains(&name))
    };
    let mut complaints = Vec::new();
    for module in map.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let module = module.trim_end_matches(';');
        if layer_of(module).is_none() {
            complaints.push(format!(
                "src/lib.rs: give the module {module} a row of the table"
            ));
        }
    }
    for (path, source) in files {
        let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
        let parts: Vec<&str> = inside.split('/').filter(|part| *part != "mod").collect();
        let (module, depth) = (parts[0], parts.len());
        let index = match layer_of(module) {
            Some(index) if parts.last() != Some(&"tests") => index,
            _ => continue,
        };
        let bare = code::without_tests(&code::bare(source));
        let allowed = allowed(&layers, index);
        let mut named = match module {
            "bin" => code::named(&bare, "statsd"),
            _ => code::named(&bare, "crate"),
        };
        named.extend(code::named_from_below(&bare, depth));
        // What is no module is a macro, or an item of the crate's root.
        named.retain(|(_, name)| layer_of(name).is_some() && name != module);
        for (line, name) in named {
            if !allowed.contains(name.as_str()) {
                complaints.push(format!(
                    "{path}:{line}: {module} must not import {name} (table in src/lib.rs): hand \
                     what it needs down as an argument, or move it to a layer that may"
                ));
            } else if module == "backend" && name == "store" {
                complaints.push(format!(
                    "{path}:{line}: a backend sees a Snapshot, never the Store: take it from there"
                ));
            }
        }
        if layers[index].label == "pure core" {
            for (word, at) in NOT_PURE
                .iter()
                .filter_map(|word| Some((word, bare.find(word)?)))
            {
                let line = code::line(&bare, at);
                complaints.push(format!(
                    "{path}:{line}: {word} in the pure core: leave it to the caller"
                ));
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
               //! | programs | `bin/statsd.rs` | [`log`] and a role |\n\
               //! | roles | [`statsd`], [`proxy`]; never each other | all below |\n\
               //! | outputs | [`backend`] | all below |\n\
               //! | plumbing | [`net`], [`log`] | [`sys`], the core and each other |\n\
               //! | system | [`sys`] | the standard library |\n\
               //! | pure core | [`store`], [`timer`] | each other |\n\
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
