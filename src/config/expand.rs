//! What a string of the config file may take from the machine it runs on: `${hostname}`,
//! `${fqdn}`, `${env:NAME}`. This stands in for the code that files of the original held there.
//!
//! [`Environment`] brings the machine in, so that everything else is a plain function of text.

use std::fs;

use super::value::Value;

/// Where `${…}` gets its text from.
pub struct Environment {
    /// The machine's name as it is set, with or without a domain.
    pub hostname: String,
    /// Its full name.
    pub fqdn: String,
    /// Looks up an environment variable.
    pub variable: fn(&str) -> Option<String>,
}

impl Environment {
    /// This machine. No network is asked: like `hostname -f` on most machines, the full name is
    /// the first one on the machine's line in `/etc/hosts`, else the name as set.
    #[must_use]
    pub fn of_this_machine() -> Environment {
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let hostname = hostname.trim().to_owned();
        let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
        Environment {
            fqdn: full_name(&hostname, &hosts),
            hostname,
            variable: |name| std::env::var(name).ok(),
        }
    }
}

/// The full name of `hostname` as `hosts`, the text of `/etc/hosts`, has it.
fn full_name(hostname: &str, hosts: &str) -> String {
    if hostname.contains('.') {
        return hostname.to_owned();
    }
    let lines = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""));
    for line in lines {
        let names: Vec<&str> = line.split_whitespace().skip(1).collect();
        if let Some(first) = names.first() {
            if first.contains('.') && names.contains(&hostname) {
                return (*first).to_owned();
            }
        }
    }
    hostname.to_owned()
}

/// Expands every string in `value`, which is at `path`; what cannot be expanded is added to
/// `errors` as `(path, reason)` and stays as it was.
pub fn expand(
    value: &mut Value,
    path: &str,
    environment: &Environment,
    errors: &mut Vec<(String, String)>,
) {
    match value {
        Value::String(text) => match expanded(text, environment) {
            Ok(new) => *text = new,
            Err(reason) => errors.push((path.to_owned(), reason)),
        },
        Value::Array(values) => {
            for (index, value) in values.iter_mut().enumerate() {
                expand(value, &format!("{path}[{index}]"), environment, errors);
            }
        }
        Value::Object(members) => {
            for (key, value) in members {
                let path = super::check::join(path, key);
                expand(value, &path, environment, errors);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `text` with its `${…}` filled in.
fn expanded(text: &str, environment: &Environment) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, from) = rest.split_at(start);
        result.push_str(before);
        let Some(end) = from.find('}') else {
            return Err("\"${\" without a \"}\"".to_owned());
        };
        let (name, after) = (&from[2..end], &from[end + 1..]);
        match (name, name.strip_prefix("env:")) {
            ("hostname", _) => {
                let first = environment.hostname.split('.').next().unwrap_or("");
                result.push_str(first);
            }
            ("fqdn", _) => result.push_str(&environment.fqdn),
            (_, Some(variable)) => match (environment.variable)(variable) {
                Some(value) => result.push_str(&value),
                None => return Err(format!("the environment variable {variable} is not set")),
            },
            _ => {
                return Err(format!(
                    "${{{name}}} is unknown; there are ${{hostname}}, ${{fqdn}} and ${{env:NAME}}"
                ));
            }
        }
        rest = after;
    }
    result.push_str(rest);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        Environment {
            hostname: "web7.example.org".to_owned(),
            fqdn: "web7.example.org".to_owned(),
            variable: |name| match name {
                "DC" => Some("fra1".to_owned()),
                "EMPTY" => Some(String::new()),
                _ => None,
            },
        }
    }

    #[test]
    fn strings() {
        for (text, expected) in [
            ("", Ok("")),
            ("plain $ {x} }", Ok("plain $ {x} }")),
            ("${hostname}", Ok("web7")),
            ("a.${hostname}.b.${hostname}", Ok("a.web7.b.web7")),
            ("${fqdn}", Ok("web7.example.org")),
            ("${env:DC}.${hostname}", Ok("fra1.web7")),
            ("[${env:EMPTY}]", Ok("[]")),
            (
                "${env:NOPE}",
                Err("the environment variable NOPE is not set"),
            ),
            ("x${hostname", Err("\"${\" without a \"}\"")),
            (
                "${HOSTNAME}",
                Err("${HOSTNAME} is unknown; there are ${hostname}, ${fqdn} and ${env:NAME}"),
            ),
            (
                "${}",
                Err("${} is unknown; there are ${hostname}, ${fqdn} and ${env:NAME}"),
            ),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(expanded(text, &environment()), expected, "{text}");
        }
    }

    #[test]
    fn an_error_names_its_place() {
        let mut value = Value::Object(vec![(
            "servers".to_owned(),
            Value::Array(vec![Value::Object(vec![(
                "address".to_owned(),
                Value::String("${x}".to_owned()),
            )])]),
        )]);
        let mut errors = Vec::new();
        expand(&mut value, "", &environment(), &mut errors);
        let paths: Vec<_> = errors.into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["servers[0].address"]);
    }

    #[test]
    fn full_names() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 web7.example.org web7 # web7.wrong\n";
        for (hostname, expected) in [
            ("web7", "web7.example.org"),
            ("web7.other.org", "web7.other.org"),
            ("db1", "db1"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(full_name(hostname, hosts), expected);
        }
    }
}
