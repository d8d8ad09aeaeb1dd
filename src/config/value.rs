//! A value of the config file, as JavaScript would hold it: members keep their order, and of a
//! repeated key the last value wins in the place of the first.
//!
//! Made by [`super::syntax`].

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any number; JSON5 has `NaN` and `Infinity` too.
    Number(f64),
    /// A string.
    String(String),
    /// A list.
    Array(Vec<Value>),
    /// Members in the order of the file.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// As `String(value)` in JavaScript, but for objects, which become compact JSON.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Value::Null => "null".to_owned(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => ryu_js::Buffer::new().format(*number).to_owned(),
            Value::String(text) => text.clone(),
            Value::Array(values) => values
                .iter()
                .map(|value| match value {
                    Value::Null => String::new(),
                    value => value.to_text(),
                })
                .collect::<Vec<_>>()
                .join(","),
            Value::Object(_) => self.to_json(),
        }
    }

    /// Compact JSON. Numbers that JSON cannot write become `null`, as in JavaScript.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Value::Number(number) if !number.is_finite() => "null".to_owned(),
            Value::Null | Value::Bool(_) | Value::Number(_) => self.to_text(),
            Value::String(text) => quoted(text),
            Value::Array(values) => {
                let values: Vec<_> = values.iter().map(Value::to_json).collect();
                format!("[{}]", values.join(","))
            }
            Value::Object(members) => {
                let members: Vec<_> = members
                    .iter()
                    .map(|(key, value)| format!("{}:{}", quoted(key), value.to_json()))
                    .collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            c if c < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::syntax::parse;

    #[test]
    fn text_and_json() {
        for (source, text, json) in [
            ("null", "null", "null"),
            ("true", "true", "true"),
            ("0.1", "0.1", "0.1"),
            ("1e21", "1e+21", "1e+21"),
            ("8125", "8125", "8125"),
            ("-0x10", "-16", "-16"),
            ("Infinity", "Infinity", "null"),
            ("'a\"b'", "a\"b", r#""a\"b""#),
            ("'a\\n\\u0001'", "a\n\u{1}", r#""a\n\u0001""#),
            ("[1,[2,null,'x'],]", "1,2,,x", r#"[1,[2,null,"x"]]"#),
            (
                "{b:1,a:{c:[]}}",
                r#"{"b":1,"a":{"c":[]}}"#,
                r#"{"b":1,"a":{"c":[]}}"#,
            ),
            ("[{a:1},{}]", r#"{"a":1},{}"#, r#"[{"a":1},{}]"#),
            ("{a:1,b:2,a:3}", r#"{"a":3,"b":2}"#, r#"{"a":3,"b":2}"#),
        ] {
            let (_, value) = parse(&format!("{{x: {source}}}")).unwrap().remove(0);
            assert_eq!(value.to_text(), text, "{source}");
            assert_eq!(value.to_json(), json, "{source}");
        }
    }
}
