//! Keeps the tree as `src/lib.rs`, the README and the man pages say it is: layers, `unsafe`, Rust
//! version, options and keys in the pages, file heads and lengths, top level.
//!
//! Every check is a function from texts to complaints, each of which says what to do; behind the
//! test that applies it to the tree stands one that shows on small bad examples that it complains.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/manifest.rs"]
mod manifest;
#[path = "tidy/pages.rs"]
mod pages;

use std::fs;
use std::path::Path;

/// Longer files wait for somebody to split them.
const LINES: usize = 600;

/// Files of `src` that may be longer, and why.
const LONGER: &[(&str, &str)] = &[(
    "src/sys.rs",
    "one place for every system call, so that `unsafe` is read in one sitting",
)];

fn read(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

fn must_read(path: &str) -> String {
    read(path).unwrap_or_else(|| panic!("{path} is missing: write it"))
}

/// Every Rust file below a directory, by path.
fn rust_files(directory: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&directory);
        for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
            let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                open.push(path);
            } else if path.ends_with(".rs") {
                found.push((path.clone(), must_read(&path)));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no Rust files below {directory}");
    found
}

#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn unsafe_complaints(path: &str, source: &str) -> Vec<String> {
    let bare = code::bare(source);
    if path.starts_with("tests/bench/") {
        return Vec::new();
    }
    if path == "src/sys.rs" {
        let lines = code::without_safety(source, &bare).into_iter();
        let ask = |line| format!("{path}:{line}: say in a `// SAFETY:` comment why it is sound");
        return lines.map(ask).collect();
    }
    let ask =
        |line| format!("{path}:{line}: `unsafe` belongs in src/sys.rs behind a safe function");
    code::unsafes(&bare).into_iter().map(ask).collect()
}

#[test]
fn unsafe_in_one_file_and_explained() {
    let files = rust_files("src").into_iter().chain(rust_files("tests"));
    none(
        files
            .flat_map(|(path, source)| unsafe_complaints(&path, &source))
            .collect(),
    );
}

#[test]
fn unsafe_elsewhere_or_unexplained_is_found() {
    for (path, source, complaints) in [
        ("src/net/udp.rs", "fn f() { unsafe { g() } }", 1),
        ("src/net/udp.rs", "#![allow(unsafe_code)]", 1),
        ("tests/process.rs", "// SAFETY: none\nunsafe { g() }", 1),
        (
            "src/net/udp.rs",
            "// unsafe\nlet a = \"unsafe\"; /* unsafe */ r#\"unsafe \" \"#; b'\"'",
            0,
        ),
        ("tests/bench/os.rs", "unsafe { g() }", 0),
        (
            "src/sys.rs",
            "#![allow(unsafe_code)]\n// SAFETY: fine\nunsafe { g() }",
            0,
        ),
        (
            "src/sys.rs",
            "// SAFETY: fine\n// indeed\n#[cfg(x)]\nlet a =\n    unsafe { g() };",
            0,
        ),
        ("src/sys.rs", "let a = 1;\nunsafe { g() }", 1),
        ("src/sys.rs", "// fine\nunsafe { g() }", 1),
        (
            "src/sys.rs",
            "// SAFETY: fine\nunsafe { g() };\nunsafe { g() };",
            1,
        ),
        (
            "src/sys.rs",
            "// SAFETY: fine\nlet a = 1;\nlet b = unsafe { g() };",
            1,
        ),
    ] {
        assert_eq!(
            unsafe_complaints(path, source).len(),
            complaints,
            "{path}: {source}"
        );
    }
}

#[test]
fn no_let_chains() {
    let mut complaints = Vec::new();
    for (path, source) in rust_files("src").into_iter().chain(rust_files("tests")) {
        for line in code::let_chains(&code::bare(&source)) {
            complaints.push(format!(
                "{path}:{line}: a let chain needs Rust 1.88: nest the conditions, or match on a tuple"
            ));
        }
    }
    none(complaints);
}

#[test]
fn let_chains_are_found() {
    for chain in [
        "if let Some(a) = b && c { }",
        "if a && let Some(b) = c { }",
        "if a\n    && let Some(b) = c\n{ }",
        "while let Some(a) = b.next()\n && a > 1 { }",
        "} else if let Foo { a, .. } = f(b, |c| { c }) && d { }",
        "if let 0..=9 = a && b { }",
        "let a: &'static str = b; if let '\"' = a && b { }",
    ] {
        assert_eq!(code::let_chains(&code::bare(chain)).len(), 1, "{chain}");
    }
    for fine in [
        "if let Some(a) = f(b && c) { d && e }",
        "let a = b && c;",
        "if a && b { let c = d; }",
        "while let Some(a) = b { if c && d { } }",
        "// if let a = b && c {\n\"if let a = b && c {\"",
        "let Some(a) = b else { return c && d };",
    ] {
        assert!(code::let_chains(&code::bare(fine)).is_empty(), "{fine}");
    }
}

fn file_complaints(path: &str, source: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !source.starts_with("//! ") {
        complaints.push(format!(
            "{path}: open with `//!`: its job, what it may import, its units"
        ));
    }
    let lines = source.lines().count();
    let reason = LONGER.iter().any(|(longer, _)| *longer == path);
    if lines > LINES && !reason {
        complaints.push(format!(
            "{path}: {lines} lines, more than {LINES}: split it by jobs, or give a reason in \
             LONGER of tests/tidy.rs"
        ));
    }
    if lines <= LINES && reason {
        complaints.push(format!(
            "{path}: no longer over {LINES} lines: take it off LONGER"
        ));
    }
    complaints
}

#[test]
fn files_open_with_their_job_and_end_in_time() {
    let files = rust_files("src");
    none(
        files
            .iter()
            .flat_map(|(path, source)| file_complaints(path, source))
            .collect(),
    );
    for (path, reason) in LONGER {
        assert!(
            !reason.is_empty() && read(path).is_some(),
            "{path}: take it off LONGER"
        );
    }
}

#[test]
fn other_files_are_found() {
    let lines = |count: usize| format!("//! Job.\n{}", "\n".repeat(count - 1));
    assert!(file_complaints("src/a.rs", &lines(LINES)).is_empty());
    assert_eq!(file_complaints("src/a.rs", &lines(LINES + 1)).len(), 1);
    assert!(file_complaints("src/sys.rs", &lines(LINES + 1)).is_empty());
    assert_eq!(file_complaints("src/sys.rs", &lines(LINES)).len(), 1);
    assert_eq!(
        file_complaints("src/a.rs", "#![allow(x)]\n//! Job.\n").len(),
        1
    );
}
