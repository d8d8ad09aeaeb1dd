//! Every option and every key is in the man pages, where it belongs, and nothing else.

use statsd::{cli, config::keys};

use crate::{must_read, none};

/// The items of an mdoc page, each behind the items it stands in: `graphite`, `globalPrefix`.
pub fn items(page: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    let mut open: Vec<Option<&str>> = Vec::new();
    for line in page.lines() {
        if line.starts_with(".Bl") {
            open.push(None);
        } else if line.starts_with(".El") {
            open.pop();
        } else if let Some(item) = line.strip_prefix(".It ") {
            if let Some(last) = open.last_mut() {
                *last = Some(item);
            }
            found.push(open.iter().flatten().copied().collect());
        }
    }
    found
}

/// The options that a page lacks, and those that it has too many.
pub fn option_complaints(path: &str, page: &str, options: &[(&str, &str, &str)]) -> Vec<String> {
    let expected: Vec<String> = options
        .iter()
        .map(|(short, long, argument)| match *argument {
            "" => format!("Fl {short} , Fl -{long}"),
            argument => format!("Fl {short} Ar {argument} , Fl -{long} Ar {argument}"),
        })
        .collect();
    let items = items(page);
    let stated: Vec<&str> = items
        .iter()
        .filter_map(|item| item.last().copied())
        .filter(|item| item.starts_with("Fl "))
        .collect();
    let missing = expected
        .iter()
        .filter(|item| !stated.contains(&item.as_str()));
    let unknown = stated
        .iter()
        .filter(|item| !expected.iter().any(|known| known == *item));
    missing
        .map(|item| format!("{path} lacks `.It {item}` of src/cli.rs: describe the option"))
        .chain(unknown.map(|item| {
            format!(
                "{path} has `.It {item}`, which src/cli.rs does not: take it out, or correct it"
            )
        }))
        .collect()
}

/// The keys that a page lacks, and those that it has too many. A key is `name`, or `object.name`.
pub fn key_complaints(path: &str, page: &str, keys: &[String]) -> Vec<String> {
    let mut stated = Vec::new();
    for item in items(page) {
        let names: Vec<&str> = item
            .iter()
            .filter_map(|item| item.strip_prefix("Ic "))
            .collect();
        if names.len() == item.len() && !names.is_empty() {
            stated.push(names.join("."));
        }
    }
    let missing = keys.iter().filter(|key| !stated.contains(key));
    let unknown = stated.iter().filter(|key| !keys.contains(key));
    missing
        .map(|key| {
            let name = key.rsplit('.').next().unwrap_or(key);
            format!(
                "{path} lacks `.It Ic {name}` for the key {key} of src/config/keys.rs: describe it"
            )
        })
        .chain(unknown.map(|key| {
            format!("{path} has the key {key}, which src/config/keys.rs does not: take it out")
        }))
        .collect()
}

#[test]
fn every_option_is_in_the_pages() {
    let options: Vec<_> = cli::OPTIONS
        .iter()
        .map(|o| (o.short, o.long, o.argument))
        .collect();
    let of = |path| option_complaints(path, &must_read(path), &options);
    none(
        ["man/statsd.8", "man/statsd-proxy.8"]
            .into_iter()
            .flat_map(of)
            .collect(),
    );
}

#[test]
fn every_key_is_in_the_page() {
    let mut names = Vec::new();
    for (table, keys) in keys::tables() {
        for key in keys {
            names.push(match table {
                "" => key.name.to_owned(),
                table => format!("{table}.{}", key.name),
            });
        }
    }
    assert!(names.len() > 60, "the tables of keys are all there");
    none(key_complaints(
        "man/statsd.conf.5",
        &must_read("man/statsd.conf.5"),
        &names,
    ));
}

#[test]
fn gaps_in_the_pages_are_found() {
    let page = ".Bl -tag -width Ds\n.It Fl t , Fl -test-config\nSay.\n\
                .It Fl p Ar FILE , Fl -pidfile Ar FILE\n.El\n";
    let both = [("t", "test-config", ""), ("p", "pidfile", "FILE")];
    let found = |page: &str, options: &[_]| option_complaints("man", page, options).len();
    assert_eq!(found(page, &both), 0);
    assert_eq!(found(page, &both[..1]), 1);
    assert_eq!(found("", &both), 2);
    assert_eq!(found(page, &[both[0], ("p", "pid", "FILE")]), 2);
    assert_eq!(found(page, &[both[0], ("p", "pidfile", "")]), 2);

    let page = ".Bl\n.It Ic port\n.It Ic log\nAn object:\n.Bl\n.It Ic level\n.El\n.It Ic debug\n\
                .El\n.Bl\n.It Li x\n.El\n";
    let all = ["port", "log", "log.level", "debug"].map(str::to_owned);
    let found = |page: &str, keys: &[String]| key_complaints("man", page, keys).len();
    assert_eq!(found(page, &all), 0);
    assert_eq!(found(page, &all[..3]), 1);
    assert_eq!(found("", &all), 4);
    assert_eq!(found(&page.replace("Ic level", "Ic levels"), &all), 2);
    // In its own list, not just anywhere.
    assert_eq!(
        found(
            &page.replace(".It Ic level\n.El", ".El\n.It Ic level"),
            &all
        ),
        2
    );
}
