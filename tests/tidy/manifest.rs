//! What `Cargo.toml` states holds elsewhere too: the version, the Rust version, the reasons for
//! dependencies; and the top level holds nothing that it should not.

use std::collections::BTreeSet;
use std::process::Command;
use std::{env, fs};

use statsd::config::syntax;
use statsd::config::value::Value;

use crate::{must_read, none, read};

/// Nothing else may lie there.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "Makefile",
    "README.md",
    "LICENSE",
    ".gitignore",
    ".ci",
    "src",
    "tests",
    "man",
    "packaging",
];

/// Locked crates that state no Rust version, and whose code was looked through for what 1.85 does
/// not know.
const LOOKED_THROUGH: &[&str] = &["num_threads 0.1.8", "syslog 7.0.0"];

/// The value of `key = "…"` at the start of a line.
pub fn manifest_value<'a>(manifest: &'a str, key: &str) -> Option<&'a str> {
    manifest.lines().find_map(|line| {
        let value = line.strip_prefix(key)?.trim_start().strip_prefix('=')?;
        value.trim().strip_prefix('"')?.strip_suffix('"')
    })
}

/// The names under `[dependencies]`.
pub fn dependencies(manifest: &str) -> Vec<&str> {
    let section = manifest.split_once("\n[dependencies]\n");
    let lines = section.map_or("", |(_, section)| section).lines();
    lines
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim())
        .collect()
}

/// The crates in the first column of the table under a heading with "Dependencies".
pub fn dependency_table(readme: &str) -> Vec<&str> {
    let heading = |line: &&str| line.starts_with('#') && line.contains("Dependencies");
    let mut lines = readme.lines().skip_while(|line| !heading(line));
    lines.next();
    lines
        .take_while(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix('|')?.split('|').next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

/// Where a text states another version than `version`.
pub fn versions(version: &str, texts: &[(&str, Option<String>)]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in texts {
        let Some(text) = text else { continue };
        let stated = match path.rsplit('/').next().unwrap_or("") {
            "changelog" => text.split(['(', ')']).nth(1),
            spec if spec.ends_with(".spec") => {
                let line = text.lines().find(|line| line.starts_with("Version:"));
                line.map(|line| line.trim_start_matches("Version:").trim())
            }
            "Cargo.lock" => text
                .split_once("name = \"statsd\"\n")
                .and_then(|(_, own)| manifest_value(own, "version")),
            // A man page may name its program and version, or leave that to the system.
            _ => match text.lines().find(|line| line.starts_with(".Os")) {
                Some(".Os") => Some(version),
                line => line.and_then(|line| line.split(' ').next_back()),
            },
        };
        let filled_in = stated.is_some_and(|stated| stated.starts_with('@'));
        if stated != Some(version) && !filled_in {
            let stated = stated.unwrap_or("none");
            complaints.push(format!(
                "{path} states version {stated}, Cargo.toml {version}: make them agree"
            ));
        }
    }
    complaints
}

/// `packages` are name, version and stated Rust version.
fn rust_version_complaints(
    ours: &str,
    packages: &[(String, String, Option<String>)],
) -> Vec<String> {
    let number = |version: &str| -> Vec<u32> {
        let mut parts: Vec<u32> = version
            .split('.')
            .filter_map(|part| part.parse().ok())
            .collect();
        parts.resize(3, 0);
        parts
    };
    let mut complaints = Vec::new();
    for (name, version, stated) in packages {
        let package = format!("{name} {version}");
        match stated {
            Some(stated) if number(stated) > number(ours) => complaints.push(format!(
                "{package} needs Rust {stated}, we state {ours}: `cargo update {name} --precise` an \
                 older one"
            )),
            None if !LOOKED_THROUGH.contains(&package.as_str()) => complaints.push(format!(
                "{package} states no Rust version: look for let chains and newer library calls in \
                 it, then add it to LOOKED_THROUGH in tests/tidy.rs"
            )),
            _ => {}
        }
    }
    complaints
}

/// What cargo says of the packages that a build for Linux takes.
fn packages() -> Vec<(String, String, Option<String>)> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| env!("CARGO").to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--offline", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {errors}");
    let metadata = syntax::parse(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let get = |members: &[(String, Value)], key: &str| {
        let member = members.iter().find(|(name, _)| name == key);
        member.map(|(_, value)| value.clone())
    };
    let Some(Value::Array(packages)) = get(&metadata, "packages") else {
        panic!("cargo metadata without packages");
    };
    let text = |package: &Value, key: &str| match package {
        Value::Object(members) => match get(members, key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        },
        _ => None,
    };
    let package = |package: &Value| {
        let name = text(package, "name").unwrap();
        (
            name,
            text(package, "version").unwrap(),
            text(package, "rust_version"),
        )
    };
    packages.iter().map(package).collect()
}

#[test]
fn locked_crates_know_our_rust() {
    let manifest = must_read("Cargo.toml");
    let ours = manifest_value(&manifest, "rust-version").unwrap();
    let packages = packages();
    assert!(packages.len() > dependencies(&manifest).len());
    none(rust_version_complaints(ours, &packages));
}

#[test]
fn newer_crates_are_found() {
    let package = |name: &str, rust: Option<&str>| {
        (name.to_owned(), "1.3.7".to_owned(), rust.map(str::to_owned))
    };
    for (rust, complaints) in [
        (Some("1.85"), 0),
        (Some("1.85.0"), 0),
        (Some("1.9"), 0),
        (Some("1.85.1"), 1),
        (Some("1.88"), 1),
        (Some("2.0"), 1),
        (None, 1),
    ] {
        let found = rust_version_complaints("1.85", &[package("json5", rust)]);
        assert_eq!(found.len(), complaints, "{rust:?}");
    }
}

#[test]
fn versions_agree() {
    let manifest = must_read("Cargo.toml");
    let version = manifest_value(&manifest, "version").unwrap();
    let texts = [
        "Cargo.lock",
        "packaging/debian/changelog",
        "packaging/rpm/statsd.spec",
        "man/statsd.8",
        "man/statsd-proxy.8",
        "man/statsd.conf.5",
    ];
    none(versions(version, &texts.map(|path| (path, read(path)))));
}

#[test]
fn other_versions_are_found() {
    for (path, text, complaints) in [
        ("Cargo.lock", "name = \"statsd\"\nversion = \"1.0.0\"\n", 0),
        ("Cargo.lock", "name = \"statsd\"\nversion = \"1.0.1\"\n", 1),
        (
            "packaging/debian/changelog",
            "statsd (1.0.0) unstable; urgency=medium\n",
            0,
        ),
        (
            "packaging/debian/changelog",
            "statsd (0.9.0) unstable; urgency=medium\n",
            1,
        ),
        (
            "packaging/rpm/statsd.spec",
            "Name: statsd\nVersion:        1.0.0\n",
            0,
        ),
        ("packaging/rpm/statsd.spec", "Version: @VERSION@\n", 0),
        ("packaging/rpm/statsd.spec", "Version: 2\n", 1),
        ("packaging/rpm/statsd.spec", "Name: statsd\n", 1),
        ("man/statsd.8", ".Dd November 22, 2026\n.Os\n", 0),
        ("man/statsd.8", ".Os statsd 1.0.0\n", 0),
        ("man/statsd.8", ".Os statsd 0.9\n", 1),
    ] {
        let found = versions("1.0.0", &[(path, Some(text.to_owned()))]);
        assert_eq!(found.len(), complaints, "{path}: {text}");
    }
}

fn dependency_complaints(manifest: &str, readme: &str) -> Vec<String> {
    let crates = dependencies(manifest);
    let rows = dependency_table(readme);
    let missing = crates.iter().filter(|name| !rows.contains(name));
    let unknown = rows.iter().filter(|name| !crates.contains(name));
    missing
        .map(|name| {
            format!("README.md: give {name} a row in the table of dependencies, with its reason")
        })
        .chain(unknown.map(|name| {
            format!("README.md: {name} is no dependency any more: take its row out of the table")
        }))
        .collect()
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = must_read("Cargo.toml");
    assert!(!dependencies(&manifest).is_empty());
    none(dependency_complaints(&manifest, &must_read("README.md")));
}

#[test]
fn dependencies_without_reason_are_found() {
    let manifest = "[package]\nname = \"x\"\n\n[dependencies]\nlibc = \"0.2\"\nmd-5 = { version = \
                    \"1\" }\n\n[lints]\na = 1\n";
    let readme = |rows: &str| {
        format!(
            "# x\n`md-5`\n### Dependencies\n\n| crate | for |\n|---|---|\n{rows}\n## y\n| `a` |"
        )
    };
    for (rows, complaints) in [
        ("| `libc` | poll, `x` |\n| `md-5` | |", 0),
        ("| `libc`, `md-5` | poll |", 0),
        ("| `libc` | `md-5` |", 1),
        ("| `libc` | |\n| `md-5` | |\n| `json5` | |", 1),
        ("", 2),
    ] {
        let found = dependency_complaints(manifest, &readme(rows));
        assert_eq!(found.len(), complaints, "{rows}: {found:?}");
    }
}

fn top_level_complaints(names: &BTreeSet<String>) -> Vec<String> {
    let names = names
        .iter()
        .filter(|name| !TOP_LEVEL.contains(&name.as_str()));
    let ask = |name| format!("{name} at the top level: move it below src, tests, man or packaging");
    names.map(ask).collect()
}

/// What git keeps; without git, all that lies there but what git would not keep.
fn top_level() -> BTreeSet<String> {
    let root = env!("CARGO_MANIFEST_DIR");
    let listed = Command::new("git").args(["-C", root, "ls-files"]).output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let listed = listed.unwrap_or_default();
    let names = listed.lines().filter_map(|path| path.split('/').next());
    let mut names: BTreeSet<String> = names.map(str::to_owned).collect();
    if !names.contains("Cargo.toml") {
        let entries = fs::read_dir(root).unwrap().map(Result::unwrap);
        names = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        // The link `debian` is there while the package is built.
        names.retain(|name| ![".git", "target", "debian"].contains(&name.as_str()));
    }
    names
}

#[test]
fn the_top_level_holds_what_it_should() {
    let names = top_level();
    assert!(
        names.contains("src") && names.contains("Cargo.toml"),
        "{names:?}"
    );
    none(top_level_complaints(&names));
}

#[test]
fn other_top_levels_are_found() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    none(top_level_complaints(&names(TOP_LEVEL)));
    assert_eq!(
        top_level_complaints(&names(&["src", "docs", "clippy.toml"])).len(),
        2
    );
}
